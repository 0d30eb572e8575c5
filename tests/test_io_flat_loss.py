"""A loss that stays at that of guessing is noticed, once, after a thousand steps."""

import math

import pytest

from alexnet_io.run.flat_loss import watched

CHANCE = math.log(10)


def follow(losses: list[float], classes: int = 10, first: int = 1) -> list[tuple[int, str]]:
    """(step, warning) for each warning."""
    since, said = None, []
    for step, loss in enumerate(losses, start=first):
        since, warning = watched(since, step, loss, classes)
        if warning:
            said.append((step, warning))
    return said


def test_a_thousand_steps_after_the_first_flat_one_it_is_said_once():
    said = follow([3.0] * 5 + [CHANCE] * 3000)
    assert [step for step, _ in said] == [1006]
    assert "for 1000 steps the loss has not left 2.303" in said[0][1]
    assert "--weight-init caffe" in said[0][1]
    assert follow([CHANCE] * 1000) == []
    assert [step for step, _ in follow([CHANCE] * 1001)] == [1001]
    assert [step for step, _ in follow([CHANCE] * 1001, first=0)] == [1000]


def test_leaving_once_starts_the_count_anew():
    said = follow([CHANCE] * 900 + [2.0] + [CHANCE] * 2500)
    assert [step for step, _ in said] == [1902]


@pytest.mark.parametrize(("away", "flat"), [(0.009, True), (-0.009, True), (0.011, False), (-0.011, False)])
def test_near_is_within_a_hundredth_on_both_sides(away, flat):
    assert bool(follow([CHANCE + away] * 1500)) == flat


def test_a_hundredth_away_is_still_near():
    """With one class, where guessing costs nothing, the difference isn't rounded."""
    assert bool(follow([0.01] * 1500, classes=1))


def test_guessing_among_other_numbers_of_classes():
    assert "6.908" in follow([math.log(1000)] * 1001, classes=1000)[0][1]
    assert follow([CHANCE] * 1500, classes=1000) == []


def test_what_is_watched_survives_a_stop():
    """`since` is all that has to be kept, and starts as the step itself."""
    assert watched(None, 7, CHANCE, 10) == (7, None)
    assert watched(3, 7, CHANCE, 10) == (3, None)
    assert watched(3, 7, 1.0, 10) == (None, None)
    since, warning = watched(3, 1003, CHANCE, 10)
    assert since == 3
    assert warning is not None
    assert watched(3, 1004, CHANCE, 10) == (3, None)
