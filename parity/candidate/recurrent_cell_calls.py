"""A call of a cell of Flax's by itself; see `parity.candidate.recurrent_calls`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from parity.candidate.jax_models import JaxLayer
from parity.candidate.nnx_models import filled
from parity.candidate.recurrent_calls import Call, RecurrentCall


class CellCall(RecurrentCall):
    """A call of a cell by itself: a sequence of one step."""

    def __init__(self, layer: JaxLayer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.given, x = _arguments(args, kwargs)
        super().__init__(layer, layer.module, x)
        self.batch = self.x.shape[:-1]

    def step_shape(self) -> tuple[int, ...]:
        """See `RecurrentCall.step_shape`."""
        return self.x.shape

    def inputs(self) -> tuple[Array, ...]:
        """See `RecurrentCall.inputs`."""
        return self.x.reshape(1, -1, self.x.shape[-1]), *self.state_of(self.typed(self.given))

    def result(self, call: Call) -> Call:
        """See `RecurrentCall.result`."""

        def run(x: Array, *state: Array) -> Array:
            carry, y = call(self.carry_of(state, self.batch), x.reshape(self.x.shape))
            states = (y, carry[0]) if self.arrays == 2 else (y,)
            return jnp.stack([s.reshape(-1, s.shape[-1]) for s in states])

        return run

    def back(self, packed: Array) -> Any:
        """See `RecurrentCall.back`."""
        states = tuple(s.reshape(*self.batch, s.shape[-1]) for s in packed)
        return (states[::-1] if self.arrays == 2 else states[0]), states[0]

    def alone(self, own: dict[str, Any]) -> Call:
        """See `RecurrentCall.alone`."""
        module: Any = self.layer.module
        if isinstance(module, nnx.Module):
            return filled(*nnx.split(module), {"params": own})
        apart: nn.Module = module.clone(parent=None, name=None)
        return lambda *args, **kwargs: apart.apply({"params": own}, *args, **kwargs)


def is_one_step(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a cell's call has a state for each row of its input."""
    carry, x = _arguments(args, kwargs)
    states = jax.tree.leaves(carry)
    return bool(states) and jnp.shape(states[0])[:-1] == jnp.shape(x)[:-1]


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    named = dict(zip(("carry", "inputs"), args, strict=False)) | kwargs
    return named.get("carry"), named.get("inputs")
