"""Planted bugs in dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import torch
from torch import Tensor

from parity.alexnet.pairs import Pair
from parity.mutants import planting
from parity.mutants.mutant import (
    SMALL,
    Mutant,
    Plant,
    on_both_sides,
    patch,
    turned_into,
)
from torch_ref.layers import Dropout


class TorchAlwaysOn(Dropout):
    """Dropout that drops in evaluation as well."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop, whatever the mode."""
        kept = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) >= self.rate
        return torch.where(kept, x * (1 / (1 - self.rate)), torch.zeros((), dtype=x.dtype))


def _always_on(original: Any) -> Any:
    class AlwaysOn(original):
        """Dropout that drops in evaluation as well, from a key of its own."""

        def __call__(self, x: Any, *, train: bool, mask: Any = None, first_example: Any = 0) -> Any:
            kept = jax.random.bernoulli(jax.random.key(0), 1 - self.rate, x.shape)
            return jax.numpy.where(kept, x / (1 - self.rate), 0.0)

    return AlwaysOn


def dropout_mutants() -> Iterator[Mutant]:
    """Scale, rate and presence of dropout, with masks that both sides share."""

    def jax_dropout(result: Callable[[Any, Any, float], Any]) -> Plant:
        def changed(original: Any) -> Any:
            class Changed(original):
                """Dropout with another result, of the same mask."""

                def __call__(self, x: Any, *, train: bool, mask: Any = None, first_example: Any = 0) -> Any:
                    return result(x, mask, self.rate) if train else x

            return Changed

        return patch("jax_alexnet.layers", "Dropout", changed)

    def torch_dropout(result: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[[Pair], Pair]:
        class Changed(Dropout):
            """Dropout with another result, of the same mask."""

            def forward(self, x: Tensor) -> Tensor:
                if not self.training:
                    return x
                if self.mask is None:
                    raise ValueError("the bug is one of dropout with a given mask")
                return result(x, self.mask, self.rate)

        def change(pair: Pair) -> Pair:
            for name in ("drop6", "drop7"):
                pair = planting.torch_module(pair, name, turned_into(Changed))
            return pair

        return change

    masked = partial(on_both_sides, model="caffe_alexnet", size=SMALL, layers="drop6", stage="masks")
    yield from masked(
        20,
        "dropout-unscaled",
        "kept values not scaled",
        causes="dropout_unscaled",
        jax=jax_dropout(lambda x, m, r: x * m),
        torch=torch_dropout(lambda x, m, r: x * m),
    )
    yield from masked(
        21,
        "dropout-rate",
        "rate taken for the probability of keeping",
        causes="dropout_rate",
        jax=jax_dropout(lambda x, m, r: x * m / r),
        torch=torch_dropout(lambda x, m, r: x * m / r),
    )

    yield from on_both_sides(
        22,
        "dropout-in-evaluation",
        "dropout on in evaluation",
        "caffe_alexnet",
        SMALL,
        "drop6",
        "dropout_in_evaluation",
        jax=patch("jax_alexnet.layers", "Dropout", _always_on),
        torch=lambda pair: planting.torch_module(pair, "drop6", turned_into(TorchAlwaysOn)),
    )
