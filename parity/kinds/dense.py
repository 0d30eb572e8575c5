"""Dense layers (PyTorch's Linear): kernel (out, in) in PyTorch, (in, out) in Flax.

Behind a flattened map the rows follow C H W in PyTorch, H W C in Flax. Flax's layers of several axes keep them in their
weights: kernel (in, heads, dim) or (heads, dim, out), bias (heads, dim).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kernels import OutputsFirst, kernel_and_bias, kernel_differences, wrong_weight
from parity.kinds.kind import BIAS, Kind, Shape, Shapes, Weight
from parity.kinds.layer import Layer, Mistake, Recorded, Settings, reordered_input
from parity.kinds.layouts import Layout, channels_first, channels_last


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense(OutputsFirst):
    """Rows of x (..., inputs) times weight (outputs, inputs).

    Attributes:
        map_shape: (C, H, W) of the map that was flattened into the rows of x, if one was.
    """

    map_shape: tuple[int, ...] | None = None

    def forward(self) -> NDArray:
        """One product."""
        out = self.x @ self.weight.T
        return out if self.bias is None else out + self.bias

    def input_gradient(self, g: NDArray) -> NDArray:
        """The transposed product."""
        return (g @ self.weight).reshape(self.x.shape)

    def weight_gradient(self, g: NDArray, name: str) -> NDArray | None:
        """Sums over examples, and all else but the last axis."""
        rows = g.reshape(-1, g.shape[-1])
        if name == "bias":
            return rows.sum(0)
        return rows.T @ self.x.reshape(len(rows), -1) if name == "weight" else None

    def offset(self) -> NDArray | None:
        """The bias, along the last axis."""
        return self.bias

    def few_outputs(self, outputs: int) -> tuple[Self, NDArray] | None:
        """Only of rows, whose second axis are the outputs."""
        return super().few_outputs(outputs) if self.x.ndim == 2 else None

    def own_mistakes(self) -> Iterator[Mistake]:
        """The order in which a map is flattened, layouts of the kernel, bias."""
        yield from self._flattening_mistakes()
        yield wrong_weight("kernel_transposed", "the square kernel is not transposed", lambda w: w.T)
        text = "the kernel is reshaped where it should be transposed"
        yield wrong_weight("kernel_reshaped", text, lambda w: w.reshape(w.shape[::-1]).T)
        yield from self.bias_mistakes()
        yield wrong_weight("inputs_reversed", "the inputs come in reverse order", lambda w: w[:, ::-1])
        yield wrong_weight("outputs_reversed", "the outputs come in reverse order", lambda w: w[::-1])

    def _flattening_mistakes(self) -> Iterator[Mistake]:
        for name, index in row_orders(self.map_shape):
            if name == "CHW":
                continue
            key = "fc_order" if name == "HWC" else f"fc_order_{name.lower()}"
            text = f"the map is flattened in {name} order, the weights' rows are in CHW order"
            yield reordered_input(key, text, index)
            text = f"the weights' rows are in {name} order, the map is flattened in CHW order"
            yield reordered_input(key, text, np.argsort(index))


def row_orders(map_shape: tuple[int, ...] | None) -> Iterator[tuple[str, NDArray]]:
    """The orders in which a map (C, H, W) may be flattened: in letters, and where each value stood in C H W."""
    if map_shape is None:
        return
    for order in itertools.permutations(range(3)):
        index = np.arange(np.prod(map_shape)).reshape(map_shape).transpose(order).ravel()
        yield "".join("CHW"[axis] for axis in order), index


def _layer(recorded: Recorded) -> Layer | None:
    weights = kernel_and_bias(recorded)
    if weights is None:
        return None
    return Dense(x=recorded.x, weights=weights, map_shape=recorded.map_shape)


def _to_flax(weight: NDArray, layout: Layout | None) -> NDArray:
    if layout is not None and layout.map_shape is not None:
        channels, *spatial = layout.map_shape
        weight = channels_last(weight.reshape(weight.shape[0], channels, *spatial)).reshape(weight.shape)
    return weight.T


def _to_torch(kernel: NDArray, layout: Layout | None) -> NDArray:
    weight = kernel.T
    if layout is not None and layout.map_shape is not None:
        channels, *spatial = layout.map_shape
        weight = channels_first(weight.reshape(weight.shape[0], *spatial, channels)).reshape(weight.shape)
    return weight


_SEVERAL_AXES = frozenset({"DenseGeneral", "LinearGeneral", "Einsum"})


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return len(shapes.get("kernel", ())) == 2 or (class_name in _SEVERAL_AXES and "kernel" in shapes)


def _terms(settings: Settings) -> int:
    return settings["in_features"]


def _gradient_terms(settings: Settings, result: Shape) -> dict[str, int]:
    rows = math.prod(result) // settings["out_features"]
    return {"input": settings["out_features"], "weight": rows, "bias": rows}


KIND = Kind(
    name="dense",
    torch_classes=("linear.Linear",),
    weights=(Weight("weight", "kernel", to_flax=_to_flax, to_torch=_to_torch), BIAS),
    in_flax=_in_flax,
    inputs_follow_map=True,
    splits_axes=True,
    linear=True,
    terms=_terms,
    gradient_terms=_gradient_terms,
    layer=_layer,
    shape_differences=kernel_differences,
)
