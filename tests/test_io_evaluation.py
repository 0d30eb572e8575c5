"""Evaluation counts against figures worked out by hand and against plain loops in exact arithmetic."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_io.errors import UserError
from alexnet_io.run.evaluation import Evaluation

NAMES = ["cat", "dog", "emu"]


def counted(logits, labels, weights=None, names=NAMES) -> Evaluation:
    evaluation = Evaluation(names)
    evaluation.add(logits, labels, weights)
    return evaluation


def test_figures_worked_out_by_hand():
    logits = np.log([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.25, 0.5, 0.25], [0.2, 0.3, 0.5]])
    report = counted(logits, [0, 1, 1, 0]).report()
    assert (report.examples, report.top1, report.top5) == (4, 0.5, 1.0)
    assert report.loss == pytest.approx(-math.log(0.7 * 0.3 * 0.5 * 0.2) / 4, rel=1e-14)
    assert report.confusion.tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 0]]
    assert report.to_json() == {
        "examples": 4,
        "top1": 0.5,
        "top5": 1.0,
        "loss": report.loss,
        "per_class": {
            "cat": {"correct": 1, "total": 2, "accuracy": 0.5},
            "dog": {"correct": 1, "total": 2, "accuracy": 0.5},
            "emu": {"correct": 0, "total": 0, "accuracy": None},
        },
    }
    assert json.loads(json.dumps(report.to_json(), allow_nan=False)) == report.to_json()


def test_top5_counts_the_sixth_as_wrong():
    logits = np.arange(7.0)[None].repeat(7, axis=0)
    report = counted(logits, range(7), names=list("abcdefg")).report()
    assert (report.top1, report.top5) == (1 / 7, 5 / 7)


def test_among_equal_logits_the_lower_class_comes_first():
    """As argmax and lax.top_k do; otherwise a network that says nothing would be right about everything."""
    report = counted(np.zeros((7, 7)), range(7), names=list("abcdefg")).report()
    assert (report.top1, report.top5) == (1 / 7, 5 / 7)
    assert report.loss == pytest.approx(math.log(7), rel=1e-15)


def test_padding_rows_leave_no_trace():
    logits = np.array([[1.0, 0, 0], [np.nan, np.inf, 0], [0, 2.0, 0], [0, 0, 9]])
    padded = counted(logits, [0, 99, 1, -1], [1, 0, 1, 0]).report()
    assert padded == counted(logits[[0, 2]], [0, 1]).report()
    assert padded.examples == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), st.integers(0, 2)), min_size=1, max_size=12
    ),
    st.integers(1, 5),
    st.integers(1, 3),
    st.randoms(),
)
def test_neither_batches_nor_processes_nor_order_change_a_digit(examples, batch, processes, random):
    whole = counted(*zip(*examples, strict=True))
    shuffled = random.sample(examples, len(examples))
    parts = [Evaluation(NAMES) for _ in range(processes)]
    batches = [shuffled[start : start + batch] for start in range(0, len(shuffled), batch)]
    for index, rows in enumerate(batches):
        missing = batch - len(rows)
        logits = [row[0] for row in rows] + [[0.0] * 3] * missing
        labels = [row[1] for row in rows] + [0] * missing
        parts[index % processes].add(logits, labels, [1] * len(rows) + [0] * missing)
    total = Evaluation(NAMES)
    for part in parts:
        total.merge(Evaluation.from_arrays(NAMES, part.to_arrays()))
    assert total.report() == whole.report()  # to the last digit of the loss
    assert total.report().confusion.tolist() == whole.report().confusion.tolist()


def test_the_sum_of_losses_is_exact():
    """1e16 + 1 + ... + 1 - a plain float sum loses every one of the ones."""
    losses = [1e16, *[1.0] * 1000, 1e-3]
    evaluation = Evaluation(NAMES)
    for loss in losses:
        evaluation.add_results([0], [True], [loss], [0])
    exact = sum(map(Fraction, losses)) / len(losses)
    assert evaluation.report().loss == float(exact)


def test_logits_and_judged_results_count_alike(rng):
    logits, labels = rng.normal(size=(50, 9)), rng.integers(0, 9, 50)
    weights = rng.integers(0, 2, 50)
    order = np.argsort(-logits, axis=1)
    losses = np.array([math.log(math.fsum(map(math.exp, row))) - row[label] for row, label in zip(logits, labels)])  # noqa: B905
    judged = Evaluation(list("abcdefghi"))
    judged.add_results(order[:, 0], (order[:, :5] == labels[:, None]).any(axis=1), losses, labels, weights)
    one, other = judged.report(), counted(logits, labels, weights, list("abcdefghi")).report()
    assert (one.examples, one.top1, one.top5, one.per_class) == (
        other.examples,
        other.top1,
        other.top5,
        other.per_class,
    )
    assert one.loss == pytest.approx(other.loss, rel=1e-13)


def test_huge_logits_give_a_finite_loss():
    report = counted(np.array([[1e300, -1e300, 0.0], [5e4, 6e4, 7e4]], np.float64), [0, 1]).report()
    assert report.loss == 1e4 / 2


def test_a_diverged_network_is_refused_or_shows():
    with pytest.raises(UserError, match="outputs for 1 of 2 examples are NaN"):
        counted([[0, np.nan, 1], [0, 1, 2]], [0, 1])
    evaluation = Evaluation(NAMES)
    evaluation.add_results([0, 1], [True, True], [math.inf, 1.0], [0, 1])
    assert Evaluation.from_arrays(NAMES, evaluation.to_arrays()).report().loss == math.inf


def test_what_cannot_be_counted_is_refused():
    for logits, labels, weights, message in (
        ([[0, 1]], [0], None, r"not \(N, 3\)"),
        ([[0, 1, 2]], [3], None, r"label 3 is outside 0\.\.2"),
        ([[0, 1, 2]], [-1], None, r"label -1 is outside"),
        ([[0, 1, 2]], [0, 1], None, "don't fit"),
        ([[0, 1, 2]], [0.5], None, "not integers"),
        ([[0, 1, 2]], [0], [0.5], "weights must be"),
    ):
        with pytest.raises(ValueError, match=message):
            counted(logits, labels, weights)
    with pytest.raises(UserError, match=r"twice: .*'cat'"):
        Evaluation(["cat", "cat"])
    with pytest.raises(UserError, match="no example was evaluated"):
        counted([[0, 1, 2]], [0], [0]).report()
    with pytest.raises(ValueError, match="different classes"):
        Evaluation(NAMES).merge(Evaluation(["a"]))


def test_the_table_names_every_class():
    text = counted(np.eye(3)[[0, 1, 1, 0]], [0, 1, 0, 0]).report().to_text().splitlines()
    assert text[0].split() == ["examples", "4"]
    assert text[1].split() == ["top-1", "75.00%"]
    assert text[2].split() == ["top-3", "100.00%"]
    assert [line.split() for line in text[5:]] == [
        ["cat", "66.67%", "2", "of", "3"],
        ["dog", "100.00%", "1", "of", "1"],
        ["emu", "-", "0", "of", "0"],
    ]
    assert len({line.rindex("of") for line in text[5:]}) == 1  # columns stand in line
