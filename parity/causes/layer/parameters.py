"""Naming the bug: a cause is named only after a counterfactual has shown it.

Given one diverging layer (same input, two outputs), every mistake of its kind (`parity.kinds`) is made on purpose, in
NumPy, to what one side should compute. If the other side's output comes out, that side has the mistake: without it
the residual falls at least 1000 times, and below the bound. Otherwise nothing is named.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.bounds.magnitudes import UNIT_ROUNDOFF
from parity.causes.cause import FALL, Cause, explains
from parity.causes.layer.related import described, moves, permutation, same, scale_factor
from parity.kinds import normalization, registry
from parity.kinds.dense import row_orders
from parity.kinds.layer import Layer, Mistake, Recorded, Settings

__all__ = ["FALL", "PAIR_TRIES", "Case", "Cause", "described", "explain", "explains"]

# Combinations of two mistakes that are tried at most, per layer: more than any layer known here has. A number of tries
# and not of seconds, so that a slow machine names the same causes.
PAIR_TRIES = 2000


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
        more: inputs behind the first.
        elsewhere: the reference's weights of all layers, when asked for: where each is, its name, and its values.
    """

    class_name: str
    settings: Settings
    x: NDArray
    torch_weights: dict[str, NDArray]
    flax_weights: dict[str, NDArray]
    torch_y: NDArray
    flax_y: NDArray
    allowed: NDArray | None = None
    dtype: str = "float64"
    map_shape: tuple[int, ...] | None = None
    mask: NDArray | None = None
    more: tuple[NDArray, ...] = ()
    elsewhere: Callable[[], Iterable[tuple[str, str, NDArray]]] = tuple
    before: float = field(init=False)
    tolerance: float = field(init=False)

    def __post_init__(self) -> None:
        same = self.torch_y.shape == self.flax_y.shape
        self.before = farthest(self.torch_y, self.flax_y) if same else float("inf")
        # The prediction is a third implementation with roundings of its own: 16 u covers elementary functions.
        scale = float(np.max(np.abs(self.torch_y), initial=0.0))
        own = 0.0 if self.allowed is None else float(np.max(self.allowed, initial=0.0))
        self.tolerance = own + 16 * UNIT_ROUNDOFF[self.dtype] * scale

    def layer(self, weights: Mapping[str, NDArray]) -> Layer | None:
        """The layer in NumPy, with these weights by PyTorch's name; None if it isn't written out.

        A class that no kind knows may be someone's own normalisation: then it is found by what it gives.
        """
        recorded = Recorded(self.class_name, self.settings, self.x, weights, self.map_shape, self.mask, self.more)
        found = registry.layer(recorded)
        if found is None and self.torch_weights and not registry.knows(self.class_name):
            found = normalization.guessed(recorded, self.torch_weights, self.torch_y, self.tolerance)
        return found

    def explains(self, prediction: NDArray, observed: NDArray) -> float | None:
        """The residual that is left if the prediction explains what one side computed; None if it doesn't."""
        after = farthest(prediction, observed)
        return after if explains(self.before, after, self.tolerance) else None


def explain(case: Case) -> list[Cause]:
    """Causes of a divergence, most of the time one; none where no mistake that we know explains it."""
    found = _weights(case)
    theirs = case.layer(case.torch_weights)
    if theirs is None:
        return found or _outputs(case)
    ours = theirs.with_weights(**{name: w for name, w in case.flax_weights.items() if name in theirs.weights})
    if not found or case.explains(ours.compute(), case.flax_y) is None:
        # Not the weights, or not only: one of the two sides computes something else than its layer says.
        found += _computation(case, theirs, ours)
    return found or _outputs(case)


def _computation(case: Case, theirs: Layer, ours: Layer) -> list[Cause]:
    torch_fits = _fits(case, theirs, case.torch_y)
    found = []
    if not _fits(case, ours, case.flax_y):
        found += _search(case, ours, case.flax_y, "jax")
    if not torch_fits:
        found += _search(case, theirs, case.torch_y, "torch")
    return found


def _fits(case: Case, layer: Layer, observed: NDArray) -> bool:
    return within(farthest(layer.compute(), observed), case.tolerance)


def _search(case: Case, layer: Layer, observed: NDArray, side: str) -> list[Cause]:
    """Single mistakes first; then two at once, up to a number of tries."""
    tried = list(layer.mistakes())
    for mistake in tried:
        if (after := _try(case, [mistake], layer, observed)) is not None:
            return [Cause(mistake.key, side, mistake.text, case.before, after)]
    for cause in _estimated(case, layer, observed, side):
        return [cause]
    different = (pair for pair in itertools.combinations(tried, 2) if pair[0].key != pair[1].key)
    for first, second in itertools.islice(different, PAIR_TRIES):
        if (after := _try(case, [first, second], layer, observed)) is not None:
            return [Cause(m.key, side, m.text, case.before, after) for m in (first, second)]
    return []


def _try(case: Case, made: list[Mistake], layer: Layer, observed: NDArray) -> float | None:
    changed: Layer | None = layer
    for mistake in made:
        changed = mistake.apply(changed) if changed is not None else None
    if changed is None:
        return None
    try:
        # Most mistakes can be ruled out by a part of the result.
        few, seen = _part(changed, observed)
        if not within(farthest(few.compute(), seen), case.tolerance):
            return None
        return case.explains(changed.compute(), observed)
    except (ValueError, IndexError):
        return None  # the mistake can't be made on these shapes


def _part(layer: Layer, observed: NDArray) -> tuple[Layer, NDArray]:
    """A layer that gives some of the values only, fast, and those values of what was observed.

    They are those of one example and, where a kind can do it for less work, of some of the outputs.
    """
    if layer.x.shape[0] == observed.shape[0] and not layer.mixes_examples:
        layer, observed = layer.first_example(), observed[:1]
    fewer = layer.few_outputs(observed.shape[1]) if observed.ndim > 1 else None
    return (layer, observed) if fewer is None else (fewer[0], observed[:, fewer[1]])


def _estimated(case: Case, layer: Layer, observed: NDArray, side: str) -> Iterator[Cause]:
    """Mistakes with a number or an order that the data tell: a factor, a permutation of channels, a mask."""
    base = layer.compute()
    if base.shape != observed.shape:
        return
    for mistake in layer.measured(observed):
        changed = mistake.apply(layer)
        if changed is not None and (after := case.explains(changed.compute(), observed)) is not None:
            yield Cause(mistake.key, side, mistake.text, case.before, after)
    offset = layer.offset()
    shifts: list[tuple[str, NDArray | float]] = [("the result is", 0.0)]
    shifts += [] if offset is None else [("the weights are", offset)]
    for name, shift in shifts:
        factor = scale_factor(base - shift, observed - shift)
        if factor is not None and (after := case.explains((base - shift) * factor + shift, observed)) is not None:
            yield Cause("scaled", side, f"{name} scaled by {factor:.6g}", case.before, after)
    # Channels may have been exchanged before the bias was added, or after.
    for _, constant in shifts:
        order = permutation(base - constant, observed - constant, axis=1, tolerance=case.tolerance)
        if order is None:
            continue
        if (after := case.explains((base - constant)[:, order] + constant, observed)) is not None:
            text = f"output channels are in another order: {moves(order)}"
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
    layer = case.layer(case.flax_weights) if found else None
    if layer is None:
        return found
    # The counterfactual: PyTorch's layer with Flax's weights gives what Flax gave.
    after = case.explains(layer.compute(), case.flax_y)
    return [Cause(c.key, c.side, c.text, case.before, after if after is not None else c.after) for c in found]


def _weight(case: Case, name: str, theirs: NDArray, ours: NDArray) -> list[Cause]:
    layer = case.layer(case.torch_weights)
    if layer is not None and (layer.mistaken_biases or "bias" not in name):
        for mistake in layer.mistakes():
            changed = mistake.apply(layer)
            twisted = None if changed is None else changed.weights.get(name)
            if same(twisted, ours) and not same(twisted, theirs):
                return [Cause(mistake.key, "between", f"Flax's kernel is PyTorch's with a twist: {mistake.text}")]
        for text, index in row_orders(case.map_shape):
            for order in (index, np.argsort(index)):
                if same(theirs[:, order], ours):
                    text = f"the kernel's rows follow {text} on one side, CHW on the other"
                    return [Cause("fc_order", "between", text)]
    for there, of, array in case.elsewhere():
        if same(array, ours):
            text = f"Flax's {name} is PyTorch's {of} of {there}: weights of the same shape are exchanged"
            return [Cause("weights_exchanged", "between", text)]
    return [described(name, theirs, ours)]


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
    factor = scale_factor(theirs, ours)
    if factor is not None:
        candidates.append(("scaled", f"JAX's result is PyTorch's times {factor:.6g}", theirs * factor))
    if theirs.ndim > 1 and (order := permutation(theirs, ours, 1, case.tolerance)) is not None:
        candidates.append(("channels_permuted", f"channels are in another order: {moves(order)}", theirs[:, order]))
    for key, text, prediction in candidates:
        if (after := case.explains(prediction, ours)) is not None:
            return [Cause(key, "between", text, case.before, after)]
    return []
