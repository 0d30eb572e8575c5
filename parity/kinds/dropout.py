"""Dropout: nothing in evaluation; in training, with the mask that was injected into both sides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kind import Kind
from parity.kinds.layer import Layer, Mistake, Recorded, afterwards, setting


@dataclass(frozen=True, kw_only=True, eq=False)
class Dropout(Layer):
    """Kept values divided by the probability of keeping.

    Attributes:
        rate: probability of dropping a value.
        mask: True where kept; None in evaluation, where nothing happens.
    """

    rate: float
    mask: NDArray | None = None

    constants: ClassVar[tuple[str, ...]] = ("rate",)

    @property
    def may_be_left_out(self) -> bool:
        """That has a name of its own below."""
        return False

    def forward(self) -> NDArray:
        """What is kept."""
        return self._kept(self.x)

    def input_gradient(self, g: NDArray) -> NDArray:
        """The same of the gradient."""
        return self._kept(g)

    def _kept(self, values: NDArray) -> NDArray:
        return values if self.mask is None else np.where(self.mask, values / (1 - self.rate), 0.0)

    def first_example(self) -> Self:
        """The layer on the first example alone."""
        return replace(self, x=self.x[:1], mask=None if self.mask is None else self.mask[:1])

    def own_mistakes(self) -> Iterator[Mistake]:
        """How kept values are scaled, and which are kept."""
        rate = self.rate
        yield afterwards("dropout_unscaled", "kept values are not scaled", lambda y: y * (1 - rate))
        yield afterwards("dropout_scaled_twice", "kept values are scaled twice", lambda y: y / (1 - rate))
        if 0 < rate < 1 and rate != 0.5:
            text = "the rate is taken for the probability of keeping"
            yield afterwards("dropout_rate", text, lambda y: y * (1 - rate) / rate)
        yield setting("dropout_missing", "nothing is dropped", mask=None)
        if self.mask is not None:
            yield Mistake("dropout_mask", "what should be kept is dropped", _inverted)

    def measured(self, observed: NDArray) -> Iterator[Mistake]:
        """Dropout in evaluation: zeros in the result tell which values were dropped."""
        if self.mask is not None:
            return
        mask = (observed != 0) | (self.x == 0)
        share = 1 - float(np.mean(mask[self.x != 0])) if self.x.any() else 0.0
        yield setting("dropout_in_evaluation", f"{share:.0%} of the values are dropped", mask=mask)


def _inverted(p: Layer) -> Layer | None:
    # Another mistake may have left the mask out before.
    return replace(p, mask=~p.mask) if isinstance(p, Dropout) and p.mask is not None else None


def _layer(recorded: Recorded) -> Layer | None:
    get = recorded.settings.get
    return Dropout(x=recorded.x, rate=get("rate", get("p", 0.5)), mask=recorded.mask)


KIND = Kind(name="dropout", torch_classes=("dropout.Dropout",), layer=_layer)
