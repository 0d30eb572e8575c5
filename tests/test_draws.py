"""Crops, flips, colour noise, dropout masks and orders of examples: their distributions, and that they are independent.

Each test raises a false alarm for at most one seed in a million (`draw_statistics.FALSE_ALARM`), however many
quantities it looks at; the seeds are fixed.
"""

import numpy as np
import pytest
from draw_samples import PLACES, Draws, Framework, Jax, Torch
from draw_statistics import (
    BINS,
    FALSE_ALARM,
    assert_no_alarm,
    bins,
    chi_square_tail,
    fair,
    independent,
    permutations_fair,
    shifted,
    uniform,
    variance,
)
from tiny import RATES

from alexnet_io.data.batches import epoch_order
from torch_ref.splitmix64 import splitmix64

FRAMEWORKS: dict[str, Framework] = {"jax": Jax(), "torch": Torch()}
SEEDS, STEPS, EXAMPLES = range(4), range(8), 512
MASKED = 64  # examples whose masks are looked at
ALPHA = 0.1  # paper, section 4.1
# Far apart, and equal to each other in their last 8, 16 or 24 bits, or beyond the first 8.
FAR = (0, 1, 2, 255, 256, 257, 65_535, 65_536, 2**24, 2**24 + 1, 2**30, 2**31 - 1)
# One further in seed, step or place, and those for which seed + step, step + place or seed + place is the same.
NEIGHBOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -1, 0), (0, 1, -1), (1, 0, -1))


@pytest.fixture(scope="module", params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    return FRAMEWORKS[request.param]


@pytest.fixture(scope="module")
def draws(framework: Framework) -> Draws:
    return framework.draws(SEEDS, STEPS, EXAMPLES)


@pytest.fixture(scope="module")
def masks(framework: Framework) -> tuple[np.ndarray, np.ndarray]:
    return framework.masks(SEEDS, STEPS, MASKED)


def kinds(draws: Draws) -> dict[str, np.ndarray]:
    """The draws as whole numbers from 0: the noise by quarters of its distribution."""
    quarters = bins(draws.noise, ALPHA) * 4 // BINS
    noise = {f"noise {i}": quarters[..., i] for i in range(3)}
    return {"top": draws.top, "left": draws.left, "flip": draws.flip, **noise}


# Crops, flips and colour noise


def test_every_crop_is_equally_likely(draws):
    assert_no_alarm({"top": uniform(draws.top, PLACES), "left": uniform(draws.left, PLACES)})


def test_flips_are_fair(draws):
    assert_no_alarm({"flips": fair(draws.flip)})


def test_colour_noise_is_normal_with_the_papers_spread(draws):
    p = {f"shape {i}": uniform(bins(draws.noise[..., i], ALPHA), BINS) for i in range(3)}
    assert_no_alarm(p | {f"variance {i}": variance(draws.noise[..., i], ALPHA) for i in range(3)})


def test_the_choices_for_an_example_are_independent(draws):
    of = kinds(draws)
    names = list(of)
    assert_no_alarm({f"{a}, {b}": independent(of[a], of[b]) for i, a in enumerate(names) for b in names[:i]})


def test_seeds_steps_and_examples_are_independent(draws):
    """Each choice of an example of its neighbours' in seed, step and place, and some of them of others."""
    of = kinds(draws)
    pairs = {(name, name) for name in of} | {("top", "left"), ("left", "top"), ("noise 0", "noise 2")}
    assert_no_alarm(
        {
            f"{a}, {b} {shift} further": independent(shifted(of[a], shift)[0], shifted(of[b], shift)[1])
            for shift in NEIGHBOURS
            for a, b in pairs
        }
    )


def test_no_two_examples_get_the_same_draws(framework):
    """However far apart seeds and steps are. Three float32 numbers coincide in one of 10^10 such samples."""
    noise = framework.draws(FAR, FAR, 16).noise
    assert len(np.unique(noise.reshape(-1, 3), axis=0)) == len(FAR) * len(FAR) * 16


def test_draws_follow_the_place_in_the_batch_alone(framework, draws):
    """So however many devices share a batch, and wherever a resumed run goes on, an example gets the same."""
    again = framework.draws([2], [5, 6], 100, first=300)
    for straight, part in zip(draws, again, strict=True):
        np.testing.assert_array_equal(straight[2, 5:7, 300:400], part[0])


# Dropout


def test_as_many_units_are_kept_as_the_rates_say(masks):
    assert_no_alarm({name: fair(mask, 1 - rate) for mask, (name, rate) in zip(masks, RATES.items(), strict=True)})


def test_units_of_a_mask_are_independent(masks):
    """Neighbours along rows, columns and channels, and the first and last of each."""
    p = {}
    for mask, axes in zip(masks, (3, 1), strict=True):
        for axis in range(-axes, 0):
            last = mask.shape[axis] - 1
            ends = [np.take(mask, some, axis) for some in (range(last), range(1, last + 1), [0], [last])]
            p[f"{axes} axes, neighbours along {axis}"] = independent(ends[0], ends[1])
            p[f"{axes} axes, ends along {axis}"] = independent(ends[2], ends[3])
    assert_no_alarm(p)


def test_masks_of_two_layers_are_independent(masks):
    """They have as many units: one mask for both would be the same one."""
    one, two = (mask.reshape(*mask.shape[:3], -1) for mask in masks)
    assert one.shape == two.shape
    assert_no_alarm(
        {
            "unit by unit": independent(one, two),
            "next example": independent(one[:, :, 1:], two[:, :, :-1]),
            "next step": independent(one[:, 1:], two[:, :-1]),
            "next seed": independent(one[1:], two[:-1]),
        }
    )


def test_masks_of_seeds_steps_examples_and_devices_are_independent(masks):
    """Devices hold neighbouring parts of the batch: with two, places 32 apart lie at the same place on theirs."""
    devices = tuple((0, 0, MASKED // count) for count in (2, 4, 8))
    assert_no_alarm(
        {
            f"{name} {shift} further": independent(*shifted(mask, shift))
            for name, mask in zip(RATES, masks, strict=True)
            for shift in NEIGHBOURS + devices
        }
    )


def test_no_two_examples_get_the_same_mask(framework):
    """However far apart seeds and steps are. Two masks of drop2 are the same by chance in one of 10^12 such samples."""
    for mask in framework.masks(FAR, FAR, 8):
        assert len(np.unique(mask.reshape(len(FAR) * len(FAR) * 8, -1), axis=0)) == len(FAR) * len(FAR) * 8


def test_masks_follow_the_place_in_the_batch_alone(framework, masks):
    again = framework.masks([2], [5, 6], 20, first=30)
    for straight, part in zip(masks, again, strict=True):
        np.testing.assert_array_equal(straight[2, 5:7, 30:50], part[0])


def test_masks_and_augmentation_are_independent(draws, masks):
    of = kinds(draws)
    assert_no_alarm(
        {
            f"{layer}, {name}": independent(np.broadcast_to(choice[:, :, :MASKED], first.shape), first)
            for layer, mask in zip(RATES, masks, strict=True)
            for first in [mask.reshape(*mask.shape[:3], -1)[..., 0]]
            for name, choice in of.items()
        }
    )


# The order of examples


EPOCHS = 3000


def orders(count: int, seeds: int = 4) -> np.ndarray:
    """Permutations [seed, epoch, place]."""
    return np.array(
        [[epoch_order(count, seed=seed, epoch=epoch, shuffle=True) for epoch in range(EPOCHS)] for seed in range(seeds)]
    )


def test_every_order_is_equally_likely():
    few = orders(4).reshape(-1, 4)
    lexicographic = np.unique(few @ 4 ** np.arange(4), return_inverse=True)[1]
    assert_no_alarm({"of 4": uniform(lexicographic, 24), "of 12": permutations_fair(orders(12).reshape(-1, 12))})


def test_orders_of_epochs_and_seeds_are_independent():
    which = np.unique(orders(3) @ 4 ** np.arange(3), return_inverse=True)[1].reshape(4, EPOCHS)
    assert_no_alarm({str(shift): independent(*shifted(which, shift)) for shift in ((0, 1), (1, 0), (1, -1), (0, 2))})


def test_no_two_epochs_have_the_same_order():
    """Two of 20 examples' orders are the same by chance in one of 10^14 such samples."""
    seen = {tuple(epoch_order(20, seed=seed, epoch=epoch, shuffle=True)) for seed in FAR for epoch in FAR}
    assert len(seen) == len(FAR) ** 2


def test_order_and_augmentation_are_independent(framework):
    """Of an epoch and of the step of the same number: both count from 0."""
    epochs, places = range(500), 4
    orders = [[epoch_order(places, seed=seed, epoch=epoch, shuffle=True) for epoch in epochs] for seed in SEEDS]
    late = np.argsort(orders) * 2 >= places  # whether an example comes in the second half
    halves = {name: choice * 2 > choice.max() for name, choice in kinds(framework.draws(SEEDS, epochs, places)).items()}
    assert_no_alarm(
        {
            f"example {i}, {name} of place {place}": independent(late[..., i], choice[..., place])
            for i in range(places)
            for place in range(places)
            for name, choice in halves.items()
        }
    )


# The statistics themselves


def test_p_values_are_what_they_say(rng):
    """Textbook figures, and no more alarms over draws without a fault than were asked for."""
    for x, freedom, tail in ((3.841, 1, 0.05), (5.991, 2, 0.05), (27.877, 9, 0.001), (124.342, 100, 0.05)):
        assert chi_square_tail(x, freedom) == pytest.approx(tail, rel=2e-3)
    assert fair(np.arange(10) < 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert variance(np.ones(9), 1.0) == pytest.approx(2 * 0.43727, rel=1e-4)
    found = []
    for _ in range(400):
        a, b = rng.integers(0, 6, (2, 3000))
        order = np.argsort(rng.random((500, 5)), axis=1)
        found.append(
            [
                uniform(a, 6),
                independent(a, b),
                fair(a < 3),
                variance(rng.normal(size=40), 1.0),
                uniform(bins(rng.normal(size=3000), 1.0), BINS),
                permutations_fair(order),
            ]
        )
    shares = (np.array(found) < 0.1).mean(axis=0)
    assert (np.abs(shares - 0.1) < 0.06).all(), shares  # four standard deviations
    assert min(map(min, found)) > FALSE_ALARM
    with pytest.raises(AssertionError, match="b: p = 1e-07 of 2"):
        assert_no_alarm({"a": 0.3, "b": 1e-7})


def test_torchs_splitmix64_is_the_published_generator():
    """https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64, seed 1234567."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [number % 2**64 for number in splitmix64(1234567, 0, 5).tolist()] == published
    assert [number % 2**64 for number in splitmix64(1234567, 3, 2).tolist()] == published[3:]
