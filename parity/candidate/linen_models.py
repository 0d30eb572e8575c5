"""Flax Linen's modules as `parity.candidate.jax_models` runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import flax.linen as nn
import jax

from parity.candidate.jax_models import JaxLayer, Look, Variables

# With the batch's own statistics a norm also writes the running ones, which are of no concern here.
_WRITTEN = ["batch_stats"]
# A layer that runs by itself has the path of the whole model; those in it may have paths of other layers in the model.
_ALONE = ContextVar("alone", default=False)


class LinenLayer:
    """A bound module; see `JaxLayer`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.path = "/".join(module.path)

    def variables(self) -> Variables:
        """Its own."""
        return {k: dict(v) for k, v in self.module.variables.items()}

    def apply(self, variables: Variables, *args: Any, **kwargs: Any) -> Any:
        """Its result alone."""
        with _alone():
            # Under its own name, by which it may know itself.
            return self.module.clone(parent=None).apply(variables, *args, **kwargs, mutable=_WRITTEN)[0]

    def wanted(self, *args: Any, **kwargs: Any) -> Variables:
        """What it would make."""
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        with _alone():
            return self.module.clone(parent=None).init(keys, *args, **kwargs)  # type: ignore[return-value]


class LinenModel:
    """See `JaxModel`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def shapes(self, inputs: tuple[Any, ...], kwargs: dict[str, Any], look: Look) -> Variables:
        """By abstract initialisation."""

        def run(*arrays: Any) -> Any:
            keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
            with nn.intercept_methods(_shown_to(look)):
                return self.module.init(keys, *arrays, **kwargs)

        # The module makes its weights in the dtype it was written with, which the inputs needn't have.
        with jax.numpy_dtype_promotion("standard"):
            return jax.eval_shape(run, *inputs)

    def apply(self, variables: Variables, inputs: tuple[Any, ...], kwargs: dict[str, Any], look: Look | None) -> Any:
        """The module's result."""
        if look is None:
            return self.module.apply(variables, *inputs, **kwargs, mutable=_WRITTEN)[0]
        with nn.intercept_methods(_shown_to(look)), _without_remat():
            return self.module.apply(variables, *inputs, **kwargs, mutable=_WRITTEN)[0]


@contextlib.contextmanager
def _without_remat() -> Iterator[None]:
    """Within, `nn.remat` computes what it wraps as it is: the same values, which can be seen and replaced."""
    original: Any = jax.remat

    def plain(function: Callable[..., Any] | None = None, **_: Any) -> Any:
        return plain if function is None else function

    jax.remat = plain
    try:
        yield
    finally:
        jax.remat = original


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Within, no call is shown."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def _shown_to(look: Look) -> Callable[..., Any]:
    def spy(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.method_name != "__call__" or _ALONE.get():
            return call(*args, **kwargs)
        layer: JaxLayer = LinenLayer(context.module)
        return look(layer, call, args, kwargs)

    return spy
