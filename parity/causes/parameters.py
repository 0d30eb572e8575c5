"""Naming the bug: a cause is named only after a counterfactual has shown it.

Given one diverging layer (same input, two outputs), every mistake of `parity.causes.hypotheses` is made on purpose, in
NumPy, to what one side should compute. If the other side's output comes out, that side has the mistake: without it
the residual falls at least 1000 times, and below the bound. Otherwise nothing is named.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.bounds.magnitudes import UNIT_ROUNDOFF
from parity.causes import hypotheses
from parity.causes.hypotheses import Mistake, Parts

FALL = 1000.0

# Combinations of two mistakes that are tried at most, per layer: more than any layer known here has. A number of tries
# and not of seconds, so that a slow machine names the same causes.
PAIR_TRIES = 2000


def explains(before: float, after: float, tolerance: float, fall: float = FALL) -> bool:
    """Whether undoing a mistake takes a difference away: below what is allowed, and by so much that it was the mistake.

    Args:
        before: the difference with the mistake, infinite where shapes differ or something isn't finite.
        after: what is left without it.
        tolerance: largest difference that counts as none; none explains anything if it isn't finite.
        fall: by which factor it must fall at least.
    """
    return math.isfinite(tolerance) and within(after, tolerance) and after * fall <= before


@dataclass(frozen=True)
class Cause:
    """A mistake that explains a divergence.

    Attributes:
        key: short name, see `parity.causes.hypotheses`.
        side: `jax`, `torch`, or `between` where only the difference is known.
        text: what is wrong, in words.
        before: residual with the mistake; not a number where shapes alone decide. Likewise after, without it.
        after: see `before`.
    """

    key: str
    side: str
    text: str
    before: float = float("nan")
    after: float = float("nan")

    def __str__(self) -> str:
        who = {"jax": "JAX: ", "torch": "PyTorch: "}.get(self.side, "")
        if math.isnan(self.after):
            return f"{who}{self.text}"
        return f"{who}{self.text} (undone, the difference falls from {self.before:.1e} to {self.after:.1e})"


@dataclass
class Case:
    """One diverging layer call, everything in float64 and in PyTorch's layout.

    Attributes:
        class_name: of the PyTorch layer.
        settings: its recorded attributes.
        x: the input that both sides got.
        torch_weights: by PyTorch name; likewise flax_weights, converted.
        torch_y: PyTorch's output; likewise flax_y, whose shape may differ.
        allowed: the bound, of the shape of `torch_y`; None if only equality is allowed.
        dtype: of the lane.
        map_shape: (C, H, W) of the map that was flattened into the rows of x.
        mask: of dropout, True where kept.
    """

    class_name: str
    settings: dict[str, Any]
    x: NDArray
    torch_weights: dict[str, NDArray]
    flax_weights: dict[str, NDArray]
    torch_y: NDArray
    flax_y: NDArray
    allowed: NDArray | None = None
    dtype: str = "float64"
    map_shape: tuple[int, ...] | None = None
    mask: NDArray | None = None
    before: float = field(init=False)
    tolerance: float = field(init=False)

    def __post_init__(self) -> None:
        same = self.torch_y.shape == self.flax_y.shape
        self.before = farthest(self.torch_y, self.flax_y) if same else float("inf")
        # The prediction is a third implementation with roundings of its own: 16 u covers elementary functions.
        scale = float(np.max(np.abs(self.torch_y), initial=0.0))
        own = 0.0 if self.allowed is None else float(np.max(self.allowed, initial=0.0))
        self.tolerance = own + 16 * UNIT_ROUNDOFF[self.dtype] * scale

    def explains(self, prediction: NDArray, observed: NDArray) -> float | None:
        """The residual that is left if the prediction explains what one side computed; None if it doesn't."""
        after = farthest(prediction, observed)
        return after if explains(self.before, after, self.tolerance) else None


def explain(case: Case) -> list[Cause]:
    """Causes of a divergence, most of the time one; none where no mistake that we know explains it."""
    found = _weights(case)
    parts = hypotheses.parts_of(case.class_name, case.settings, case.x, case.torch_weights)
    if parts is None:
        return found or _outputs(case)
    parts |= {"map_shape": case.map_shape} | ({"mask": case.mask} if case.mask is not None else {})
    ours = parts | {name: case.flax_weights.get(name, parts.get(name)) for name in ("weight", "bias")}
    if not found or case.explains(hypotheses.compute(ours), case.flax_y) is None:
        # Not the weights, or not only: one of the two sides computes something else than its parts say.
        found += _computation(case, parts, ours)
    return found or _outputs(case)


def _computation(case: Case, theirs: Parts, ours: Parts) -> list[Cause]:
    torch_fits = _fits(case, theirs, case.torch_y)
    found = []
    if not _fits(case, ours, case.flax_y):
        found += _search(case, ours, case.flax_y, "jax")
    if not torch_fits:
        found += _search(case, theirs, case.torch_y, "torch")
    return found


def _fits(case: Case, parts: Parts, observed: NDArray) -> bool:
    return within(farthest(hypotheses.compute(parts), observed), case.tolerance)


def _search(case: Case, parts: Parts, observed: NDArray, side: str) -> list[Cause]:
    """Single mistakes first; then two at once, up to a number of tries."""
    tried = list(hypotheses.mistakes(parts))
    for mistake in tried:
        if (after := _try(case, [mistake], parts, observed)) is not None:
            return [Cause(mistake.key, side, mistake.text, case.before, after)]
    for cause in _estimated(case, parts, observed, side):
        return [cause]
    different = (pair for pair in itertools.combinations(tried, 2) if pair[0].key != pair[1].key)
    for first, second in itertools.islice(different, PAIR_TRIES):
        if (after := _try(case, [first, second], parts, observed)) is not None:
            return [Cause(m.key, side, m.text, case.before, after) for m in (first, second)]
    return []


def _try(case: Case, made: list[Mistake], parts: Parts, observed: NDArray) -> float | None:
    changed: Parts | None = parts
    for mistake in made:
        changed = mistake.apply(changed) if changed is not None else None
    if changed is None:
        return None
    try:
        # Most mistakes can be ruled out by a part of the result.
        few, seen = _part(changed, observed)
        if not within(farthest(hypotheses.compute(few), seen), case.tolerance):
            return None
        return case.explains(hypotheses.compute(changed), observed)
    except (ValueError, IndexError):
        return None  # the mistake can't be made on these shapes


def _part(parts: Parts, observed: NDArray) -> tuple[Parts, NDArray]:
    """A layer that gives some of the values only, fast, and those values of what was observed.

    They are those of one image and, where weights are multiplied and nothing happens to the result afterwards, of some
    eight outputs, as many of each group.
    """
    x, mask, weight, bias = parts["x"], parts.get("mask"), parts["weight"], parts["bias"]
    if x.shape[0] == observed.shape[0]:
        parts = parts | {"x": x[:1]} | ({} if mask is None else {"mask": mask[:1]})
        observed = observed[:1]
    if parts["op"] in ("conv", "dense") and weight.shape[0] == observed.shape[1] and not parts.get("after"):
        groups = parts.get("groups", 1)
        size = weight.shape[0] // groups
        few = np.unique(np.linspace(0, size - 1, max(8 // groups, 1)).astype(int))
        rows = (np.arange(groups)[:, None] * size + few).ravel()
        parts = parts | {"weight": weight[rows], "bias": None if bias is None else bias[rows]}
        observed = observed[:, rows]
    return parts, observed


def _estimated(case: Case, parts: Parts, observed: NDArray, side: str) -> Iterator[Cause]:
    """Mistakes with a number or an order that the data tell: a factor, a permutation of channels, a mask."""
    base = hypotheses.compute(parts)
    if base.shape != observed.shape:
        return
    if parts["op"] == "dropout" and parts["mask"] is None:
        mask = (observed != 0) | (parts["x"] == 0)
        if (after := case.explains(hypotheses.compute(parts | {"mask": mask}), observed)) is not None:
            share = 1 - float(np.mean(mask[parts["x"] != 0]))
            yield Cause("dropout_in_evaluation", side, f"{share:.0%} of the values are dropped", case.before, after)
    offset = 0.0
    for name, shift in (("the result is", None), ("the weights are", parts.get("bias"))):
        if shift is not None and base.ndim > 1:
            offset = shift.transpose(2, 0, 1) if shift.ndim == 3 else shift.reshape(-1, *[1] * (base.ndim - 2))
        elif name == "the weights are":
            break
        factor = _factor(base - offset, observed - offset)
        if factor is not None and (after := case.explains((base - offset) * factor + offset, observed)) is not None:
            yield Cause("scaled", side, f"{name} scaled by {factor:.6g}", case.before, after)
    # Channels may have been exchanged before the bias was added, or after.
    for constant in (0.0, offset):
        order = _permutation(base - constant, observed - constant, axis=1, tolerance=case.tolerance)
        if order is None:
            continue
        if (after := case.explains((base - constant)[:, order] + constant, observed)) is not None:
            text = f"output channels are in another order: {_moves(order)}"
            yield Cause("channels_permuted", side, text, case.before, after)
            return


def _weights(case: Case) -> list[Cause]:
    """How Flax's weights differ from PyTorch's, checked against what both sides computed."""
    found = []
    for name, theirs in case.torch_weights.items():
        ours = case.flax_weights.get(name)
        if ours is None:
            found.append(Cause(f"{name}_missing", "jax", f"there is no {name}", case.before, 0.0))
        elif ours.shape != theirs.shape or not np.array_equal(ours, theirs):
            found += _weight(case, name, theirs, ours)
    parts = hypotheses.parts_of(case.class_name, case.settings, case.x, case.flax_weights)
    if not found or parts is None:
        return found
    # The counterfactual: PyTorch's layer with Flax's weights gives what Flax gave.
    after = case.explains(hypotheses.compute(parts), case.flax_y)
    return [Cause(c.key, c.side, c.text, case.before, after if after is not None else c.after) for c in found]


def _weight(case: Case, name: str, theirs: NDArray, ours: NDArray) -> list[Cause]:
    if name == "weight":
        parts = hypotheses.parts_of(case.class_name, case.settings, case.x, case.torch_weights)
        if parts is not None:
            parts |= {"map_shape": case.map_shape}
            for mistake in hypotheses.mistakes(parts):
                changed = mistake.apply(parts)
                if changed is not None and _same(changed["weight"], ours) and not _same(changed["weight"], theirs):
                    return [Cause(mistake.key, "between", f"Flax's kernel is PyTorch's with a twist: {mistake.text}")]
            for text, index in _row_orders(case):
                for order in (index, np.argsort(index)):
                    if _same(theirs[:, order], ours):
                        return [
                            Cause(
                                "fc_order", "between", f"the kernel's rows follow {text} on one side, CHW on the other"
                            )
                        ]
    return [described(name, theirs, ours)]


def _row_orders(case: Case) -> Iterator[tuple[str, NDArray]]:
    if case.map_shape is None:
        return
    for order in itertools.permutations(range(3)):
        index = np.arange(np.prod(case.map_shape)).reshape(case.map_shape).transpose(order).ravel()
        yield "".join("CHW"[axis] for axis in order), index


def described(name: str, theirs: NDArray, ours: NDArray) -> Cause:
    """A difference between two arrays of weights that no known mistake makes, as exactly as it can be said."""
    if ours.shape != theirs.shape:
        return Cause(f"{name}_shape", "between", f"{name} has shape {ours.shape} in Flax, {theirs.shape} in PyTorch")
    if not ours.any():
        return Cause(f"{name}_missing", "jax", f"{name} is zero")
    if not theirs.any():
        return Cause(f"{name}_missing", "torch", f"{name} is zero")
    factor = _factor(theirs, ours)
    if factor is not None and np.allclose(theirs * factor, ours, rtol=1e-6, atol=0):
        return Cause("scaled", "between", f"Flax's {name} is PyTorch's times {factor:.6g}")
    for axis, what in ((0, "output channels"), (1, "input channels")) if theirs.ndim in (1, 2, 4) else ():
        if axis < theirs.ndim and (order := _permutation(theirs, ours, axis, 0.0)) is not None:
            return Cause("channels_permuted", "between", f"{what} of {name} are in another order: {_moves(order)}")
    wrong = np.argwhere(ours != theirs)
    first = tuple(int(i) for i in wrong[0])
    return Cause(
        f"{name}_differs", "between",
        f"{len(wrong)} of {ours.size} values of {name} differ, first at {list(first)}: "
        f"Flax {float(ours[first])!r}, PyTorch {float(theirs[first])!r}",
    )  # fmt: skip


def _outputs(case: Case) -> list[Cause]:
    """Without knowing the layer: how the two outputs are related."""
    theirs, ours = case.torch_y, case.flax_y
    if theirs.shape != ours.shape:
        return []
    candidates: list[tuple[str, str, NDArray]] = []
    if case.x.shape == ours.shape:
        candidates.append(("missing", "JAX passes the input on", case.x))
    if theirs.ndim == 4:
        candidates.append(("map_transposed", "rows and columns are exchanged", theirs.swapaxes(2, 3)))
        candidates.append(("map_flipped", "maps are mirrored", theirs[..., ::-1]))
    candidates.append(("relu_added", "JAX applies a ReLU to the result", np.maximum(theirs, 0)))
    if (after := case.explains(np.maximum(ours, 0), theirs)) is not None:
        return [Cause("relu_missing", "jax", "a ReLU is left out", case.before, after)]
    factor = _factor(theirs, ours)
    if factor is not None:
        candidates.append(("scaled", f"JAX's result is PyTorch's times {factor:.6g}", theirs * factor))
    if theirs.ndim > 1 and (order := _permutation(theirs, ours, 1, case.tolerance)) is not None:
        candidates.append(("channels_permuted", f"channels are in another order: {_moves(order)}", theirs[:, order]))
    for key, text, prediction in candidates:
        if (after := case.explains(prediction, ours)) is not None:
            return [Cause(key, "between", text, case.before, after)]
    return []


def _factor(base: NDArray, observed: NDArray) -> float | None:
    """The factor c that brings c * base nearest to `observed`; None if it is 1, 0 or undefined."""
    norm = float(np.vdot(base, base))
    if norm == 0 or not np.isfinite(norm):
        return None
    factor = float(np.vdot(base, observed)) / norm
    return factor if np.isfinite(factor) and factor != 0 and abs(factor - 1) > 1e-12 else None


def _permutation(base: NDArray, observed: NDArray, axis: int, tolerance: float) -> NDArray | None:
    """The order in which slices of `base` along an axis give `observed`; None if there is none but the identity."""
    if base.shape != observed.shape or base.ndim <= axis:
        return None
    a = np.moveaxis(base, axis, 0).reshape(base.shape[axis], -1)
    b = np.moveaxis(observed, axis, 0).reshape(base.shape[axis], -1)
    moved = [i for i in range(len(a)) if not within(farthest(a[i], b[i]), tolerance)]
    if len(moved) > 1024:
        return None
    order = np.arange(len(a))
    free = set(moved)
    for i in moved:
        match = next((j for j in sorted(free) if within(farthest(a[j], b[i]), tolerance)), None)
        if match is None:
            return None
        order[i] = match
        free.discard(match)
    return order if moved else None


def _moves(order: NDArray) -> str:
    moved = np.flatnonzero(order != np.arange(len(order)))
    shown = ", ".join(f"{int(i)} holds {int(order[i])}" for i in moved[:4])
    return shown + (f" and {len(moved) - 4} more" if len(moved) > 4 else "")


def _same(a: NDArray | None, b: NDArray) -> bool:
    return a is not None and a.shape == b.shape and np.array_equal(a, b)
