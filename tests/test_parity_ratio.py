"""Lane C: no order of summation is an alarm, on any processor; every other precision is."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from parity.bounds.magnitudes import linear_bound
from parity.bounds.ratio import Ratio, error_ratio, limit, spread_of_orders
from parity.reports.rows import Row, compare_arrays

VALUES = 512


def in_sequence(terms: NDArray) -> NDArray:
    return np.add.accumulate(terms.astype(np.float32), axis=-1, dtype=np.float32)[..., -1]


def pairwise(terms: NDArray) -> NDArray:
    sums = terms.astype(np.float32)
    while sums.shape[1] > 1:
        sums = padded(sums, 2)
        sums = sums[:, ::2] + sums[:, 1::2]
    return sums[:, 0]


def padded(terms: NDArray, multiple: int) -> NDArray:
    return np.pad(terms, ((0, 0), (0, -terms.shape[1] % multiple)))


def in_lanes(terms: NDArray, lanes: int) -> NDArray:
    """As many running sums as a vector has lanes, added up at the end."""
    return pairwise(in_sequence(padded(terms, lanes).reshape(len(terms), -1, lanes).swapaxes(1, 2)))


def in_blocks(terms: NDArray, length: int) -> NDArray:
    """Each block in sequence, as matrix products do that keep a block in the cache; then the blocks."""
    return in_sequence(in_sequence(padded(terms, length).reshape(len(terms), -1, length)))


def fused(terms: NDArray, lanes: int) -> NDArray:
    """In lanes, each product added before it is rounded."""
    running = np.zeros((len(terms), lanes), np.float32)
    for place in padded(terms, lanes).reshape(len(terms), -1, lanes).swapaxes(0, 1):
        running = (running + place).astype(np.float32)
    return pairwise(running)


# Of exact products.
ORDERS: dict[str, Callable[[NDArray], NDArray]] = {
    "in sequence": in_sequence,
    "backward": lambda terms: in_sequence(terms[:, ::-1]),
    "pairwise": pairwise,
    "4 lanes (SSE, NEON)": lambda terms: in_lanes(terms, 4),
    "16 lanes (AVX-512)": lambda terms: in_lanes(terms, 16),
    "8 lanes, fused (AVX2)": lambda terms: fused(terms, 8),
    "32 running sums, fused": lambda terms: fused(terms, 32),
    "blocks of 9 (a 3x3 window)": lambda terms: in_blocks(terms, 9),
    "blocks of 64": lambda terms: in_blocks(terms, 64),
}


def factors(rng: np.random.Generator, n: int, values: int, sign: str) -> tuple[NDArray, NDArray]:
    """Inputs after a ReLU, and weights that cancel or don't."""
    x = np.maximum(rng.normal(size=(values, n)), 0).astype(np.float32)
    w = rng.normal(size=(values, n)).astype(np.float32)
    return x, np.abs(w) if sign == "alike" else w


def products(x: NDArray, w: NDArray) -> NDArray:
    """In float64, where they are exact."""
    return x.astype(np.float64) * w


def coarse(x: NDArray, bits: int) -> NDArray:
    """Rounded to so many bits behind the point."""
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.round(fraction * 2.0 ** (bits + 1)), exponent - bits - 1).astype(np.float32)


def bfloat16(x: NDArray) -> NDArray:
    return coarse(x, 7).astype(np.float64)


@pytest.mark.parametrize("sign", ["cancelling", "alike"])
@pytest.mark.parametrize("n", [2, 5, 9, 28, 73, 364, 801, 2305])
def test_no_order_of_summation_is_an_alarm(rng: np.random.Generator, n: int, sign: str) -> None:
    x, w = factors(rng, n, VALUES, sign)
    terms = products(x, w)
    truth = terms.sum(1)
    sums = {name: order(terms) for name, order in ORDERS.items()}
    for one, two in itertools.permutations(sums, 2):
        ratio = error_ratio(sums[one], sums[two], truth, "float32", n)
        assert ratio.ok, f"{one} / {two}: {ratio}"


def test_the_ratio_of_a_small_convolution_is_told_by_its_order_not_by_its_precision(rng: np.random.Generator) -> None:
    # 3x3x8 products and a bias: 0.44 between an AVX2 machine's two libraries, at 0.02 of the bound.
    terms = products(*factors(rng, 73, 1024, "alike"))
    row = Row("m", "second", "second", "forward", "float32")
    bound = linear_bound(73, np.abs(terms).sum(1), "float32")
    compare_arrays(row, fused(terms, 32), in_sequence(terms), bound, terms.sum(1))
    assert row.ratio is not None
    assert row.ratio < 0.5
    assert (row.verdict, row.fraction < 0.1) == ("equal", True)


@pytest.mark.parametrize("sign", ["cancelling", "alike"])
@pytest.mark.parametrize("n", [73, 801])
def test_the_spread_is_that_of_the_best_and_the_worst_order(rng: np.random.Generator, n: int, sign: str) -> None:
    """Measured on sums without multiplications; neither exceeded nor far away."""
    terms = rng.normal(size=(4096, n)).astype(np.float32)
    terms = np.abs(terms) if sign == "alike" else terms
    truth = terms.astype(np.float64).sum(1)
    worst, best = (np.sqrt(np.mean((order(terms) - truth) ** 2)) for order in (in_sequence, pairwise))
    expected = {"cancelling": n / (2 * math.log2(n)), "alike": n / 6}[sign] ** 0.5
    assert worst / best == pytest.approx(expected, rel=0.25)
    assert worst / best < spread_of_orders(n)


def test_spreads() -> None:
    assert (spread_of_orders(0), spread_of_orders(1)) == (1.0, 1.0)
    # One addition, and the rounding of the products where they aren't fused with it: (2 + 2) / 2.
    assert spread_of_orders(2) == pytest.approx(2**0.5)
    assert spread_of_orders(364) == pytest.approx((364 / 6) ** 0.5, rel=0.01)
    assert spread_of_orders(9217) == pytest.approx(39.2, rel=0.01)
    assert limit(9217, "bfloat16", linear=True) == 2
    assert limit(3, "float32", linear=False) == 8  # elementary functions


@pytest.mark.parametrize("order", ["in sequence", "pairwise", "16 lanes (AVX-512)"])
@pytest.mark.parametrize(("name", "bits", "n"), [
    ("TF32", 10, 76), ("TF32", 10, 801), ("TF32", 10, 9217), ("bfloat16", 7, 9217), ("float16", 10, 364),
])  # fmt: skip
def test_factors_of_another_precision_are_an_alarm(
    rng: np.random.Generator, name: str, bits: int, n: int, order: str
) -> None:
    x, w = factors(rng, n, 128, "cancelling")
    fine, rough = ORDERS[order](products(x, w)), ORDERS[order](products(coarse(x, bits), coarse(w, bits)))
    truth = products(x, w).sum(1)
    for ours, theirs, side in ((rough, fine, "JAX"), (fine, rough, "PyTorch")):
        ratio = error_ratio(ours, theirs, truth, "float32", n)
        assert not ratio.ok, name
        assert f"{side}'s errors" in ratio.why


@pytest.mark.parametrize("order", ["in sequence", "8 lanes, fused (AVX2)", "blocks of 64"])
@pytest.mark.parametrize("n", [28, 364])
def test_a_side_that_sums_in_float64_is_an_alarm(rng: np.random.Generator, n: int, order: str) -> None:
    """Kept in float64, or rounded to float32 at the end: both are too good."""
    terms = products(*factors(rng, n, 4096, "cancelling"))
    truth, fine = terms.sum(1), ORDERS[order](terms)
    kept = truth * (1 + 2.0**-53)
    for side, ours, theirs in (("JAX", kept, fine), ("PyTorch", fine, kept)):
        assert f"{side}'s result is kept in more than float32" in error_ratio(ours, theirs, truth, "float32", n).why
        once = ours.astype(np.float32), theirs.astype(np.float32)
        assert f"{side} sums in more than float32" in error_ratio(*once, truth, "float32", n).why


def test_few_values_say_little(rng: np.random.Generator) -> None:
    """The root mean square of few errors is a matter of chance, up to four standard deviations of it."""
    n = 28
    alarms = 0
    for values in (1, 2, 3, 5, 10, 40):
        for _ in range(300):
            terms = products(*factors(rng, n, values, "cancelling"))
            alarms += not error_ratio(in_sequence(terms), pairwise(terms), terms.sum(1), "float32", n).ok
    assert alarms == 0
    x, w = factors(rng, n, 10, "cancelling")
    rough, terms = in_sequence(products(coarse(x, 7), coarse(w, 7))), products(x, w)
    assert not error_ratio(rough, in_sequence(terms), terms.sum(1), "float32", n).ok


def test_what_storing_leaves_says_nothing(rng: np.random.Generator) -> None:
    truth = rng.normal(size=1000)
    stored = truth.astype(np.float32)
    neighbour = np.nextafter(stored, np.float32(np.inf))
    assert error_ratio(neighbour, stored, truth, "float32", 1, linear=False).ok
    assert error_ratio(stored.astype(np.float64), stored, stored.astype(np.float64), "float32", 1) == Ratio(None)
    # Rounded once or twice to bfloat16 is alike, ten times isn't.
    once = bfloat16(truth)
    assert error_ratio(once, bfloat16(once * (1 + 2.0**-9)), truth, "bfloat16", 100).ok
    assert not error_ratio(once, bfloat16(truth * (1 + 2.0**-5)), truth, "bfloat16", 100).ok
