"""Planted bugs in gradients: forward right, backward wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from parity.mutants import planting
from parity.mutants.mutant import (
    Mutant,
)
from parity.pairs import Pair


def gradient_mutants() -> Iterator[Mutant]:
    """Forward right, backward wrong: every custom gradient of the JAX side, and one of the reference's."""
    from jax_alexnet.ops import lrn, pooling

    def wrong(owner: Any, forward: Callable, backward: Callable) -> Callable[[Pair], Any]:
        @contextmanager
        def plant(pair: Pair) -> Iterator[Pair]:
            primitive, right = owner
            primitive.defvjp(forward, backward)
            try:
                yield pair
            finally:
                primitive.defvjp(forward, right)

        return plant

    def lrn_without_cross(window: Any, x: Any, gradient: Any) -> tuple[Any]:
        return (gradient * lrn._power(lrn._base(window, x), -window.beta),)

    def lrn_wrong_beta(window: Any, x: Any, gradient: Any) -> tuple[Any]:
        right = lrn._normalize_backward(window, x, gradient)[0]
        alone = lrn_without_cross(window, x, gradient)[0]
        return (alone + (right - alone) / window.beta,)

    def pool_to_all(geometry: Any, kept: Any, gradient: Any) -> tuple[Any]:
        return (pooling._max_pool_backward(geometry, kept, gradient)[0] * 2,)

    lrn_owner = (lrn._normalize, lrn._normalize_backward)
    pool_owner = (pooling._max_pool, pooling._max_pool_backward)
    for name, title, owner, forward, backward, model, size, layers, causes in (
        ("vjp-lrn", "LRN's gradient lacks its crossing term", lrn_owner, lrn._normalize_forward, lrn_without_cross,
         "cifar_11pct", None, ("lrn2",), ("gradient_cross_term",)),
        ("vjp-lrn-beta", "LRN's gradient lacks beta", lrn_owner, lrn._normalize_forward, lrn_wrong_beta,
         "cifar_11pct", None, ("lrn2",), ("gradient_beta",)),
        ("vjp-rnorm", "the same-map norm's gradient lacks its crossing term", lrn_owner, lrn._normalize_forward,
         lrn_without_cross, "cifar_18pct", None, ("rnorm2",), ("gradient_cross_term",)),
        ("vjp-pool", "the max pool's gradient is doubled", pool_owner, pooling._max_pool_forward, pool_to_all,
         "cifar_13pct", None, ("pool2",), ("gradient_scaled",)),
    ):  # fmt: skip
        yield Mutant(
            f"34-{name}-jax", 34, title, "jax", model, size, "grads", layers, causes, wrong(owner, forward, backward)
        )
    yield Mutant(
        "34-vjp-lrn-torch", 34, "LRN's gradient lacks its crossing term", "torch", "cifar_11pct", None, "grads",
        ("lrn2",), ("gradient_cross_term",), _torch_lrn,
    )  # fmt: skip


def _torch_lrn(pair: Pair) -> Any:

    from torch_ref.lrn import LocalResponseNorm, _window_sum

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
        pair = planting.torch_module(pair, name, change)  # type: ignore[arg-type]
    return nullcontext(pair)
