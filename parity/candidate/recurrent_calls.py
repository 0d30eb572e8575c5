"""One call of a recurrent module of Flax's, of either library, as one layer in one direction: see `jax_recurrent`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from flax import nnx
from jax import Array

from parity.candidate.jax_models import JaxLayer
from parity.candidate.nnx_models import filled, variables_of
from parity.errors import CannotCompare

Call = Callable[..., Any]


def is_cell(classes: list[str]) -> bool:
    """Whether a module with these classes of the library's is a cell, or one made after them."""
    return "recurrent.RNNCellBase" in classes


def option(module: Any, kwargs: dict[str, Any], name: str) -> bool:
    """What a call says of an option, or the module."""
    given = kwargs.get(name)
    return bool(getattr(module, name) if given is None else given)


def first_state(cell: Any, shape: tuple[int, ...]) -> Any:
    """What a cell starts from, for one step's input of this shape."""
    if isinstance(cell, nnx.Module):
        return cell.initialize_carry(shape, nnx.Rngs(0))  # type: ignore[attr-defined]
    return cell.initialize_carry(jax.random.key(0), shape)


class RecurrentCall:
    """A call's arrays as a leaf's, and a leaf's as a call's.

    Attributes:
        cell: that is called at each step.
        arrays: of its state.
        dtype: of the input.
    """

    arrays = 1

    def __init__(self, layer: JaxLayer, cell: Any, x: Any) -> None:
        self.layer, self.cell, self.x, self.dtype = layer, cell, jnp.asarray(x), jnp.asarray(x).dtype

    def inputs(self) -> tuple[Array, ...]:
        """The sequence, steps first, and the initial state, h first."""
        raise NotImplementedError

    def result(self, call: Call) -> Call:
        """A function of a leaf's inputs that gives its result, from the module's own call."""
        raise NotImplementedError

    def back(self, packed: Array) -> Any:
        """What the module gives, from the leaf's result."""
        raise NotImplementedError

    def flat(self, packed: Array) -> Any:
        """What the module gives as the whole model: steps first, and the last state."""
        return self.back(packed)

    def alone(self, own: dict[str, Any]) -> Call:
        """The module's call with other parameters of its cell, outside of its model."""
        raise NotImplementedError

    def cell_path(self) -> str:
        """Where the cell's variables lie in the model's."""
        if isinstance(self.cell, nnx.Module):
            return self.layer.path if self.cell is self.layer.module else f"{self.layer.path}/cell".lstrip("/")
        return "/".join(self.cell.path)

    def shapes(self) -> dict[str, Any]:
        """Shapes of the cell's parameters."""
        if isinstance(self.cell, nnx.Module):
            return dict(variables_of(nnx.state(self.cell)).get("params", {}))

        def made(x: Array) -> Any:
            keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
            cell = self.cell.clone(parent=None, name=None)
            return cell.init(keys, self.typed(first_state(cell, self.step_shape())), x)

        with jax.numpy_dtype_promotion("standard"):
            return dict(jax.eval_shape(made, jax.ShapeDtypeStruct(self.step_shape(), self.dtype)).get("params", {}))

    def step_shape(self) -> tuple[int, ...]:
        """Of one step's input."""
        raise NotImplementedError

    def typed(self, carry: Any) -> Any:
        """A state in the dtype in which the cell computes: where it starts from zeros, their dtype says nothing."""
        dtype = getattr(self.cell, "dtype", None) or self.dtype

        def cast(x: Any) -> Any:
            x = jnp.asarray(x)
            zeros = isinstance(x, jax.core.Tracer) or not x.any()
            return x.astype(dtype) if zeros and jnp.issubdtype(x.dtype, jnp.floating) else x

        return jax.tree.map(cast, carry)

    def state_of(self, carry: Any) -> tuple[Array, ...]:
        """A leaf's state (N, H) from a cell's: h, then c."""
        states = carry[::-1] if self.arrays == 2 else (carry,)
        return tuple(jnp.asarray(s).reshape(-1, jnp.shape(s)[-1]).astype(self.dtype) for s in states)

    def carry_of(self, state: tuple[Array, ...], batch: tuple[int, ...]) -> Any:
        """The inverse."""
        shaped = self.typed(tuple(s.reshape(*batch, s.shape[-1]) for s in state))
        return shaped[::-1] if self.arrays == 2 else shaped[0]


class SequenceCall(RecurrentCall):
    """A call of `RNN`."""

    def __init__(self, layer: JaxLayer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        module: Any = layer.module
        super().__init__(layer, module.cell, args[0] if args else kwargs["inputs"])
        if kwargs.get("seq_lengths") is not None:
            raise CannotCompare(f"{layer.path or 'the top'} (Flax) gets seq_lengths: compare sequences of one length")
        names = "time_major", "reverse", "keep_order", "return_carry"
        self.time_major, self.reverse, self.keep_order, self.returned = (option(module, kwargs, n) for n in names)
        self.axis = 0 if self.time_major else self.x.ndim - 2
        self.batch = tuple(n for i, n in enumerate(self.x.shape[:-1]) if i != self.axis)
        self.given = kwargs.get("initial_carry")

    def step_shape(self) -> tuple[int, ...]:
        """See `RecurrentCall.step_shape`."""
        return (*self.batch, self.x.shape[-1])

    def carry(self) -> Any:
        """The initial one."""
        return self.typed(first_state(self.cell, self.step_shape()) if self.given is None else self.given)

    def steps(self) -> Array:
        """The sequence as it is processed, steps first."""
        steps = jnp.moveaxis(self.x, self.axis, 0)
        return steps[::-1] if self.reverse else steps

    def inputs(self) -> tuple[Array, ...]:
        """See `RecurrentCall.inputs`."""
        steps = self.steps()
        return steps.reshape(len(steps), -1, steps.shape[-1]), *self.state_of(self.carry())

    def result(self, call: Call) -> Call:
        """See `RecurrentCall.result`."""

        def run(x: Array, *state: Array) -> Array:
            steps = x.reshape(len(x), *self.batch, x.shape[-1])
            given = jnp.moveaxis(steps[::-1] if self.reverse else steps, 0, self.axis)
            options = {"time_major": self.time_major, "reverse": self.reverse, "keep_order": False}
            carry, y = call(given, initial_carry=self.carry_of(state, self.batch), return_carry=True, **options)
            y = jnp.moveaxis(y, self.axis, 0).reshape(len(x), -1, y.shape[-1])
            rest = (carry[0].reshape(1, *y.shape[1:]),) if self.arrays == 2 else ()
            return jnp.concatenate([y, *rest])

        return run

    def back(self, packed: Array) -> Any:
        """See `RecurrentCall.back`."""
        steps = self._ordered(packed)
        own = self.x.shape[self.axis], math.prod(self.batch)
        if steps.shape[:2] == own[::-1] != own:
            steps = steps.swapaxes(0, 1)  # where the sides have exchanged both, what follows has them, too
        y = jnp.moveaxis(steps.reshape(len(steps), *self._batch(steps), steps.shape[-1]), 0, self.axis)
        return (self._last(packed), y) if self.returned else y

    def flat(self, packed: Array) -> Any:
        """See `RecurrentCall.flat`."""
        return self._ordered(packed), *self._states(packed)

    def _batch(self, steps: Array) -> tuple[int, ...]:
        """The call's axes before the features; those of a reference that has another number of examples."""
        return self.batch if math.prod(self.batch) == steps.shape[-2] else (steps.shape[-2],)

    def _states(self, packed: Array) -> tuple[Array, ...]:
        count = len(packed) - self.arrays + 1
        return packed[count - 1], *packed[count:]

    def _ordered(self, packed: Array) -> Array:
        steps = packed[: len(packed) - self.arrays + 1]
        return steps[::-1] if self.reverse and self.keep_order else steps

    def _last(self, packed: Array) -> Any:
        shaped = tuple(s.reshape(*self._batch(s), s.shape[-1]) for s in self._states(packed))
        return shaped[::-1] if self.arrays == 2 else shaped[0]

    def alone(self, own: dict[str, Any]) -> Call:
        """See `RecurrentCall.alone`."""
        module: Any = self.layer.module
        if isinstance(module, nnx.Module):
            return filled(*nnx.split(module), {"params": {"cell": own}})
        apart = module.clone(parent=None, cell=self.cell.clone(parent=None, name=None))
        return lambda *args, **kwargs: apart.apply({"params": {"cell": own}}, *args, **kwargs)

    def step_by_step(self) -> Any:
        """What the module gives, without its loop: every step's layers are called where they can be seen."""
        carry, found = self.carry(), []
        for x in self.steps():
            carry, y = self.cell(carry, x)
            found.append(y)
        steps = jnp.stack(found[::-1] if self.reverse and self.keep_order else found)
        y = jnp.moveaxis(steps, 0, self.axis)
        return (carry, y) if self.returned else y

    def as_it_is(self, call: Call) -> Any:
        """What the module gives by itself."""
        options = {"time_major": self.time_major, "reverse": self.reverse, "keep_order": self.keep_order}
        return call(self.x, initial_carry=self.carry(), return_carry=self.returned, **options)
