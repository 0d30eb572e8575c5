"""What convolutions, unshared convolutions and dense layers share: a kernel, a bias, and how they go wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kind import Difference, Shape
from parity.kinds.layer import Layer, Mistake, Recorded


@dataclass(frozen=True, kw_only=True, eq=False)
class Multiplied(Layer):
    """A layer that multiplies its input with `weight` and adds `bias`, if it has one."""

    @property
    def weight(self) -> NDArray:
        """The kernel in PyTorch's layout."""
        return self.weights["weight"]

    @property
    def bias(self) -> NDArray | None:
        """The bias, or None."""
        return self.weights.get("bias")

    def bias_mistakes(self) -> Iterator[Mistake]:
        """Ways to add a bias wrongly."""
        if self.bias is None:
            return
        yield Mistake("bias_missing", "the bias is not added", lambda p: p.without("bias"))
        yield _scaled_bias("bias_sign", "the bias is subtracted", -1)
        yield _scaled_bias("bias_twice", "the bias is added twice", 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputsFirst(Multiplied):
    """One whose kernel's first axis are the outputs, as the second one of the result.

    Attributes:
        groups: into which inputs and outputs are split.
    """

    groups: int = 1

    def offset(self) -> NDArray | None:
        """The bias, once an output."""
        return None if self.bias is None else self.bias.reshape(-1, *[1] * (self.x.ndim - 2))

    def few_outputs(self, outputs: int) -> tuple[Self, NDArray] | None:
        """Some eight outputs, as many of each group; none where something happens to the result afterwards."""
        if self.weight.shape[0] != outputs or self.after:
            return None
        size = outputs // self.groups
        few = np.unique(np.linspace(0, size - 1, max(8 // self.groups, 1)).astype(int))
        rows = (np.arange(self.groups)[:, None] * size + few).ravel()
        return self.reordered(rows), rows

    def reordered(self, order: NDArray) -> Self:
        """The layer with its outputs in another order, or some of them only: kernel and bias."""
        return replace(self, weights={name: array[order] for name, array in self.weights.items()})


def kernel_and_bias(recorded: Recorded) -> dict[str, NDArray] | None:
    """A layer's `weight` and `bias`, as far as it has one; None without a kernel."""
    found = {name: recorded.weights[name] for name in ("weight", "bias") if name in recorded.weights}
    return found if "weight" in found else None


def reordered_outputs(key: str, text: str, order: NDArray) -> Mistake:
    """The mistake of outputs in another order, in kernel and bias."""
    return Mistake(key, text, lambda p: p.reordered(order) if isinstance(p, OutputsFirst) else None)


def _scaled_bias(key: str, text: str, factor: int) -> Mistake:
    def apply(p: Layer) -> Layer | None:
        # Another mistake may have left the bias out before.
        return p.with_weights(bias=factor * p.weights["bias"]) if "bias" in p.weights else None

    return Mistake(key, text, apply)


def wrong_weight(key: str, text: str, change: Callable[[NDArray], NDArray | None]) -> Mistake:
    """The mistake of another kernel of the same shape; none where `change` gives another shape, or nothing."""

    def apply(p: Layer) -> Layer | None:
        if "weight" not in p.weights:
            return None
        changed = change(p.weights["weight"])
        same = changed is not None and changed.shape == p.weights["weight"].shape
        return p.with_weights(weight=changed) if changed is not None and same else None

    return Mistake(key, text, apply)


def window_mistakes(count: int) -> Iterator[Mistake]:
    """Ways to turn the window of a kernel with so many directions, its last axes."""
    directions = {1: ("time",), 2: ("height", "width"), 3: ("depth", "height", "width")}[count]
    for one, other in itertools.combinations(range(count), 2):
        text = f"{directions[one]} and {directions[other]} of the kernel are exchanged"
        key = "kernel_hw_exchanged" if count == 2 else "kernel_axes_exchanged"
        yield wrong_weight(key, text, lambda w, i=one - count, j=other - count: w.swapaxes(i, j))
    text = "the kernel is flipped (convolution for cross-correlation)"
    yield wrong_weight("kernel_flipped", text, lambda w: np.flip(w, tuple(range(-count, 0))))
    if count == 1:
        return
    ways = {"depth": "from front to back", "height": "from top to bottom", "width": "from left to right"}
    for axis, name in enumerate(directions):
        text = f"the kernel is flipped {ways[name]}"
        yield wrong_weight(f"kernel_flipped_{name[0]}", text, lambda w, i=axis - count: np.flip(w, i))


def kernel_differences(flax: Shape, torch: Shape, inputs: str = "inputs", grouped: bool = False) -> list[Difference]:
    """What two shapes of a kernel in Flax's layout, ... H W I O, say about their layers.

    Args:
        flax: shape that Flax's layer wants; likewise torch, that PyTorch's has.
        torch: see `flax`.
        inputs: what is summed, in words.
        grouped: whether the number of groups may differ.
    """
    if len(flax) != len(torch):
        return [Difference("kernel_shape", f"the kernel has shape {flax} in Flax, {torch} in PyTorch")]
    found = []
    window = slice(-4, -2)
    if flax[window] != torch[window]:
        text = f"the window is {by(flax[window])} in Flax, {by(torch[window])} in PyTorch"
        found.append(Difference("kernel_size", text))
    ours, theirs = flax[-2], torch[-2]
    if ours != theirs:
        text = f"each output sees {ours} {inputs} in Flax, {theirs} in PyTorch"
        if grouped and max(ours, theirs) % min(ours, theirs) == 0:
            found.append(Difference("groups", f"{text}: the numbers of groups differ"))
        else:
            found.append(Difference("inputs", text))
    if flax[-1] != torch[-1]:
        found.append(Difference("features", f"there are {flax[-1]} features in Flax, {torch[-1]} in PyTorch"))
    return found


def by(sizes: Shape) -> str:
    """Sizes as people write them: 3x5."""
    return "x".join(map(str, sizes))
