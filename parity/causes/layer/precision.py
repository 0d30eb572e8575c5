"""Naming a precision: one side rounded to a coarser format than the lane's on the way.

In float64 the rounding is made on purpose, to the input, the weights, the constants or the result: where that gives
what one side computed, bit for bit but for float64's own roundings, it is the cause. A whole layer computed in float32
can't be predicted to the bit. There a cause takes two witnesses: operations on fewer bits were seen on that side, and
the difference is no more than their roundings may make.

float32 itself leaves errors of a few thousandths of TF32's behind, so a thousandfold fall can't be asked for there.
Instead what is left must be no more than what the other side errs by in float32 (twice its root mean square), after a
fall of a hundred at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import difference, farthest, within
from parity.bounds.magnitudes import UNIT_ROUNDOFF
from parity.causes.layer.parameters import Case, Cause, explains
from parity.kinds.layer import Layer

FLOAT32_FALL = 100.0


@dataclass(frozen=True)
class Format:
    """A floating-point format.

    Attributes:
        name: for people.
        unit: its unit roundoff.
        rounded: float64 values rounded to it, in float64.
    """

    name: str
    unit: float
    rounded: Callable[[NDArray], NDArray]


def _kept_bits(bits: int, even: bool = False) -> Callable[[NDArray], NDArray]:
    """Round a float32 significand to so many bits behind the point: halves away from zero (TF32), or to even."""
    cut = 23 - bits
    half, mask = np.uint32(1 << (cut - 1)), np.uint32(0xFFFFFFFF ^ ((1 << cut) - 1))

    def rounded(x: NDArray) -> NDArray:
        pattern = np.asarray(x, np.float32).view(np.uint32)
        added = half - np.uint32(1) + (pattern >> np.uint32(cut) & np.uint32(1)) if even else half
        return (pattern + added & mask).view(np.float32).astype(np.float64)

    return rounded


FORMATS: dict[str, Format] = {
    "float32": Format("float32", UNIT_ROUNDOFF["float32"], lambda x: np.asarray(x, np.float32).astype(np.float64)),
    "bfloat16": Format("bfloat16", UNIT_ROUNDOFF["bfloat16"], _kept_bits(7, even=True)),
    "float16": Format(
        "float16", UNIT_ROUNDOFF["float16"], lambda x: np.asarray(x, np.float32).astype(np.float16).astype(np.float64)
    ),
    # Last: numbers of medium size are the same in float16, and only products are made in TF32.
    "tf32": Format("TF32", 2.0**-11, _kept_bits(10)),
}


def coarser(dtype: str) -> dict[str, Format]:
    """The formats with fewer bits than the lane's."""
    return {key: each for key, each in FORMATS.items() if each.unit > UNIT_ROUNDOFF[dtype]}


def explain(case: Case) -> list[Cause]:
    """Causes of a divergence of one layer in float64 or float32, by side; none in other lanes or unknown layers."""
    layer = case.layer(case.torch_weights)
    if layer is None or case.dtype == "bfloat16" or case.torch_y.shape != case.flax_y.shape:
        return []
    if case.dtype == "float64" and (found := _of_weights(case)):
        return found
    exact = layer.compute()
    if exact.shape != case.torch_y.shape:
        return []
    for side, wrong, other in (("jax", case.flax_y, case.torch_y), ("torch", case.torch_y, case.flax_y)):
        found = _float64(case, layer, exact, side, wrong, other) if case.dtype == "float64" else []
        if found := found or _float32(case, layer, exact, side, wrong, other):
            return found
    return []


def _of_weights(case: Case) -> list[Cause]:
    """Flax's weights may be PyTorch's after a conversion through fewer bits, or the other way round."""
    for name, theirs in case.torch_weights.items():
        ours = case.flax_weights.get(name)
        if ours is not None and (found := of_values(theirs, ours, case.dtype, f"{name} is")):
            return found
    return []


def _float64(case: Case, layer: Layer, exact: NDArray, side: str, wrong: NDArray, other: NDArray) -> list[Cause]:
    if not within(farthest(exact, other), case.tolerance):
        return []  # the other one is no witness: it isn't right itself
    for key, form in _likely(exact, wrong):
        for what, predicted in _lowered(layer, form, exact):
            if (after := case.explains(predicted, wrong)) is not None:
                return [Cause(key, side, f"{what} rounded to {form.name}", case.before, after)]
    return []


def _likely(exact: NDArray, wrong: NDArray) -> Iterator[tuple[str, Format]]:
    """The formats whose roundings are of the size of the difference; a rounded constant may do much less."""
    scale, distance = _rms(exact), _rms(wrong - exact)
    for key, form in coarser("float64").items():
        # float16 ends at 65,504: what lies beyond becomes infinite, of no size at all.
        if not np.isfinite(distance) or 1e-4 * form.unit * scale <= distance <= 100 * form.unit * scale:
            yield key, form


def _lowered(layer: Layer, form: Format, exact: NDArray) -> Iterator[tuple[str, NDArray]]:
    """What a layer gives if one of the numbers that it works with is rounded, or several."""

    def compute(*names: str) -> NDArray:
        with np.errstate(over="ignore", invalid="ignore"):
            return layer.mapped(form.rounded, names).compute()

    yield "the input is", compute("x")
    yield "the result is", form.rounded(exact)
    yield "input and result are", form.rounded(compute("x"))
    present = list(layer.weights)
    for name in present:
        yield f"the {name} is", compute(name)
    if len(present) > 1:
        yield f"{' and '.join(present)} are", compute(*present)
    if present:
        yield "input and weights are", compute("x", *present)
    if "weight" in present:
        yield "input and kernel are", compute("x", "weight")
    constants = [name for name in layer.constants if isinstance(getattr(layer, name), float)]
    for name in constants:
        yield f"{name} is", compute(name)
    if len(constants) > 1:
        yield f"{', '.join(constants)} are", compute(*constants)


def _float32(case: Case, layer: Layer, exact: NDArray, side: str, coarse: NDArray, fine: NDArray) -> list[Cause]:
    if case.dtype != "float32":
        return []
    before, usual = _rms(coarse - exact), _rms(fine - exact)
    for key, what, predicted in _lowered_in_float32(layer, exact):
        after = _rms(coarse - predicted)
        if explains(before, after, 2 * usual, FLOAT32_FALL):
            return [Cause(key, side, f"{what} rounded to {FORMATS[key].name}", before, after)]
    return []


def _lowered_in_float32(layer: Layer, exact: NDArray) -> Iterator[tuple[str, str, NDArray]]:
    """Formats, what is rounded to them, and what the layer gives then; TF32's products first."""
    forms = coarser("float32")
    with np.errstate(over="ignore", invalid="ignore"):
        if "weight" in layer.weights:
            for key in reversed(forms):
                both = layer.mapped(forms[key].rounded, ("x", "weight")).compute()
                yield key, "before they are multiplied, inputs and weights are", both
        for key, form in forms.items():
            yield key, "the input is", layer.mapped(form.rounded, ("x",)).compute()
            yield key, "the result is", form.rounded(exact)


def of_values(reference: NDArray, ours: NDArray, dtype: str, what: str = "the values are") -> list[Cause]:
    """Causes of a difference between two arrays that should be the same: one is the other with fewer bits."""
    if reference.shape != ours.shape:
        return []
    theirs, mine = np.asarray(reference, np.float64), np.asarray(ours, np.float64)
    before = farthest(theirs, mine)
    if before == 0:
        return []
    tolerance = 16 * UNIT_ROUNDOFF[dtype] * float(np.max(np.abs(theirs), initial=0.0))
    for side, wrong, other in (("jax", mine, theirs), ("torch", theirs, mine)):
        for key, form in coarser(dtype).items():
            after = farthest(form.rounded(other), wrong)
            if explains(before, after, tolerance):
                return [Cause(key, side, f"{what} rounded to {form.name}", before, after)]
    return []


def of_gradient(layer: Layer, g: NDArray, torch: NDArray, flax: NDArray, tolerance: float) -> list[Cause]:
    """Causes of a difference between two float64 gradients with respect to a layer's input.

    Args:
        layer: with the input that both sides got.
        g: cotangent of its output.
        torch: PyTorch's gradient; likewise flax, all in PyTorch's layout and float64.
        flax: see `torch`.
        tolerance: largest difference that counts as none.
    """
    right = layer.input_gradient(g)
    if right is None or not right.shape == torch.shape == flax.shape:
        return []
    before = farthest(torch, flax)
    for side, wrong, other in (("jax", flax, torch), ("torch", torch, flax)):
        if not within(farthest(right, other), tolerance):
            continue
        for key, form in _likely(right, wrong):
            for what, predicted in _lowered_backward(layer, g, form, right):
                after = farthest(predicted, wrong)
                if explains(before, after, tolerance):
                    return [Cause(key, side, f"backward, {what} rounded to {form.name}", before, after)]
    return []


def _lowered_backward(layer: Layer, g: NDArray, form: Format, right: NDArray) -> Iterator[tuple[str, NDArray]]:
    yield "the gradient is", form.rounded(right)
    trials: list[tuple[str, bool, tuple[str, ...]]] = [
        ("what comes in is", True, ()),
        ("the input is", False, ("x",)),
        ("input and what comes in are", True, ("x",)),
    ]
    if "weight" in layer.weights:
        trials += [("the weight is", False, ("weight",)), ("weight and what comes in are", True, ("weight",))]
    for what, coming, names in trials:
        changed = layer.mapped(form.rounded, names).input_gradient(form.rounded(g) if coming else g)
        if changed is not None:
            yield what, changed
            yield f"{what} and the gradient", form.rounded(changed)


def seen(
    coarse: Iterable[tuple[str, Sequence[Sequence[str]]]],
    reference: NDArray,
    ours: NDArray,
    allowed: NDArray | None,
    dtype: str,
) -> list[Cause]:
    """A cause by two witnesses: coarse operations on one side, and a difference that is no more than they may make.

    Args:
        coarse: by side, (dtype, operation) of the operations on fewer bits than the lane's.
        reference: PyTorch's array; likewise ours, Flax's, in one layout.
        ours: see `reference`.
        allowed: the lane's own bound, None if it allows nothing.
        dtype: of the lane.
    """
    if reference.shape != ours.shape:
        return []
    theirs = np.asarray(reference, np.float64)
    apart = difference(theirs, np.asarray(ours, np.float64))
    for side, found in coarse:
        for name, operation in found:
            form = FORMATS.get(name)
            if form is None:
                continue
            limit = 4 * form.unit * np.abs(theirs)
            if allowed is not None:
                limit = limit + allowed * (form.unit / UNIT_ROUNDOFF[dtype])
            if bool((apart <= limit).all()):
                text = f"computes in {form.name} on the way ({operation}); the difference is no more than its roundings"
                return [Cause(name, side, text)]
    return []


def _rms(x: NDArray) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.sqrt(np.mean(np.square(x))))
