"""A call of a cell of Flax's by itself, at one step or over a sequence; see `parity.comparison.recurrent_calls`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from parity.comparison.jax_models import JaxLayer
from parity.comparison.nnx_models import filled
from parity.comparison.recurrent_calls import Call, RecurrentCall, SequenceCall
from parity.errors import CannotCompare


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
            return filled(*nnx.split(module), {"params": own})  # type: ignore[return-value]
        apart: nn.Module = module.clone(parent=None, name=None)
        return lambda *args, **kwargs: apart.apply({"params": own}, *args, **kwargs)


class ScannedCall(SequenceCall):
    """A call of a cell that `nn.scan` was applied to: a whole sequence, with the initial state before it."""

    def __init__(self, layer: JaxLayer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        carry, x = _arguments(args, kwargs)
        RecurrentCall.__init__(self, layer, layer.module, x)
        self.time_major = self.reverse = self.keep_order = False
        self.returned, self.given, self.batch = True, carry, _batch(carry)
        self.axis = self._steps(self.x.shape)

    def _steps(self, shape: tuple[int, ...]) -> int:
        """Which axis the steps are: the one that the state hasn't."""
        fits = [i for i in range(len(shape) - 1) if shape[:i] + shape[i + 1 : -1] == self.batch]
        if len(fits) != 1:
            raise CannotCompare(
                f"{self.layer.path or 'the top'} (Flax) is scanned over one of the axes of {shape}, and which can't be "
                f"told from its state's {self.batch}: give inputs with another number of steps than of examples"
            )
        return fits[0]

    def called_with(self) -> tuple[int, ...]:
        """See `RecurrentCall.called_with`."""
        return self.x.shape

    def result(self, call: Call) -> Call:
        """See `RecurrentCall.result`."""

        def run(x: Array, *state: Array) -> Array:
            given = jnp.moveaxis(x.reshape(len(x), *self.batch, x.shape[-1]), 0, self.axis)
            carry, y = call(self.carry_of(state, self.batch), given)
            y = jnp.moveaxis(y, self._steps(y.shape), 0).reshape(len(x), -1, y.shape[-1])
            return jnp.concatenate([y, carry[0].reshape(1, *y.shape[1:])] if self.arrays == 2 else [y])

        return run

    def alone(self, own: dict[str, Any]) -> Call:
        """See `RecurrentCall.alone`."""
        apart: nn.Module = self.cell.clone(parent=None, name=None)
        return lambda *args, **kwargs: apart.apply({"params": own}, *args, **kwargs)


def of_cell(layer: JaxLayer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RecurrentCall:
    """A cell's call: of one step, or of a sequence."""
    carry, x = _arguments(args, kwargs)
    one_step = _batch(carry) == jnp.shape(x)[:-1]
    return (CellCall if one_step else ScannedCall)(layer, args, kwargs)


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    named = dict(zip(("carry", "inputs"), args, strict=False)) | kwargs
    return named["carry"], named["inputs"]


def _batch(carry: Any) -> tuple[int, ...]:
    return jnp.shape(jax.tree.leaves(carry)[0])[:-1]
