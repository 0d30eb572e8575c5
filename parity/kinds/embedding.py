"""Embeddings: rows of a table, picked by whole numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kernels import wrong_weight
from parity.kinds.kind import Kind, Shapes, Weight
from parity.kinds.layer import Layer, Mistake, Recorded, WrongGradient, afterwards


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedding(Layer):
    """Rows of `weight`, those that x numbers.

    Attributes:
        padding: number of the row that gets no gradient; None if all do.
    """

    padding: int | None = None

    @property
    def may_be_left_out(self) -> bool:
        """Numbers of rows are no values."""
        return False

    def forward(self) -> NDArray:
        """(..., width) for x of (...)."""
        return self.weights["weight"][self.x.astype(np.int64)]

    def weight_gradient(self, g: NDArray, name: str) -> NDArray | None:
        """To each row the sum of what came to it."""
        if name != "weight":
            return None
        found = np.zeros(self.weights["weight"].shape)
        np.add.at(found, self.x.astype(np.int64), g)
        if self.padding is not None:
            found[self.padding] = 0
        return found

    def weight_gradient_mistakes(self, g: NDArray, name: str) -> Iterator[WrongGradient]:
        """Of the padding's row."""
        if self.padding is not None and (found := replace(self, padding=None).weight_gradient(g, name)) is not None:
            text = f"row {self.padding}, the padding's, gets a gradient"
            yield WrongGradient("gradient_padding", text, found)

    def own_mistakes(self) -> Iterator[Mistake]:
        """Other rows, another scale."""
        width = self.weights["weight"].shape[-1]
        for more in (1, -1):
            text = f"rows are numbered from {'one' if more > 0 else 'minus one'}: each is the {_WHICH[more]} one"
            yield wrong_weight("row_shifted", text, lambda w, n=more: np.roll(w, -n, 0))
        text = f"rows are multiplied by the root of their width, {math.sqrt(width):.6g}"
        yield afterwards("scaled", text, lambda y: y * math.sqrt(width))
        yield afterwards("scaled", text.replace("multiplied", "divided"), lambda y: y / math.sqrt(width))
        yield wrong_weight("kernel_transposed", "the square table is transposed", lambda w: w.T)
        text = "the table is reshaped where it should be transposed"
        yield wrong_weight("kernel_reshaped", text, lambda w: w.T.reshape(w.shape))
        yield wrong_weight("rows_reversed", "the rows come in reverse order", lambda w: w[::-1])
        yield wrong_weight("columns_reversed", "the columns come in reverse order", lambda w: w[:, ::-1])
        if self.padding is not None:

            def zeroed(w: NDArray) -> NDArray:
                changed = w.copy()
                changed[self.padding] = 0
                return changed

            yield wrong_weight("padding_row", "the padding's row is zero", zeroed)


_WHICH = {1: "next", -1: "previous"}


def _layer(recorded: Recorded) -> Layer | None:
    table, padding = recorded.weights.get("weight"), recorded.settings.get("padding_idx")
    if table is None or recorded.settings.get("max_norm") is not None or recorded.settings.get("scale_grad_by_freq"):
        return None
    return Embedding(x=recorded.x, weights={"weight": table}, padding=padding)


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return "embedding" in shapes


KIND = Kind(
    name="embedding",
    torch_classes=("sparse.Embedding",),
    weights=(Weight("weight", "embedding"),),
    in_flax=_in_flax,
    layer=_layer,
)
