"""Planted bugs in gradients: forward right, backward wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

from torch import Tensor, nn

from jax_alexnet.ops import lrn, pooling
from parity.alexnet.pairs import Pair
from parity.mutants import planting
from parity.mutants.mutant import Mutant
from torch_ref.lrn import LocalResponseNorm, _window_sum


def gradient_mutants() -> Iterator[Mutant]:
    """Forward right, backward wrong: every custom gradient of the JAX side, and one of the reference's."""
    gradient, shares = lrn._gradient, pooling._shares

    def wrong(module: Any, **functions: Any) -> Callable[[Pair], Any]:
        @contextmanager
        def plant(pair: Pair) -> Iterator[Pair]:
            with mock.patch.multiple(module, **functions):
                yield pair

        return plant

    def lrn_without_cross(window: Any, x: Any, g: Any) -> Any:
        return g * lrn._power(lrn._base(window, x), -window.beta)

    def lrn_wrong_beta(window: Any, x: Any, g: Any) -> Any:
        alone = lrn_without_cross(window, x, g)
        return alone + (gradient(window, x, g) - alone) / window.beta

    without_cross = wrong(lrn, _gradient=lrn_without_cross)
    for name, title, plant, model, layers, causes in (
        ("vjp-lrn", "LRN's gradient lacks its crossing term", without_cross,
         "cifar_11pct", ("lrn2",), ("gradient_cross_term",)),
        ("vjp-lrn-beta", "LRN's gradient lacks beta", wrong(lrn, _gradient=lrn_wrong_beta),
         "cifar_11pct", ("lrn2",), ("gradient_beta",)),
        ("vjp-rnorm", "the same-map norm's gradient lacks its crossing term", without_cross,
         "cifar_18pct", ("rnorm2",), ("gradient_cross_term",)),
        ("vjp-pool", "the max pool's gradient is doubled", wrong(pooling, _shares=lambda *words: 2 * shares(*words)),
         "cifar_13pct", ("pool2",), ("gradient_scaled",)),
    ):  # fmt: skip
        yield Mutant(f"34-{name}-jax", 34, title, "jax", model, None, "grads", layers, causes, plant)
    yield Mutant(
        "34-vjp-lrn-torch",
        34,
        "LRN's gradient lacks its crossing term",
        "torch",
        "cifar_11pct",
        None,
        "grads",
        ("lrn2",),
        ("gradient_cross_term",),
        _torch_lrn,
    )


def _torch_lrn(pair: Pair) -> Any:

    class Detached(LocalResponseNorm):
        """The norm's denominator counts as a constant backward."""

        def forward(self, x: Tensor) -> Tensor:
            constant = x.detach()
            squares = (self.alpha / self.size * constant * constant).reshape(len(x), 1, *x.shape[1:])
            total = _window_sum(squares, dim=2, size=self.size, even=self.even).reshape(x.shape)
            return x * (self.k + total) ** -self.beta

    def change(child: nn.Module) -> None:
        child.__class__ = Detached

    for name in ("lrn1", "lrn2"):
        pair = planting.torch_module(pair, name, change)
    return nullcontext(pair)
