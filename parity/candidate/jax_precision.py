"""Which operations of a JAX function work on fewer bits than its lane: read from its traced program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from parity.bounds.magnitudes import UNIT_ROUNDOFF
from parity.candidate.jax_state import State
from parity.kinds import layouts

# Bits of exponent and significand.
_FORMATS = {(8, 23): "float32", (8, 10): "tf32", (8, 7): "bfloat16", (5, 10): "float16"}


def coarse(function: Callable, arguments: tuple[Any, ...], dtype: str) -> list[tuple[str, str]]:
    """(dtype, operation) of every operation that reads or makes fewer bits than `dtype` has, each once.

    Args:
        function: what is traced, never run.
        arguments: arrays, or their shapes and dtypes.
        dtype: of the lane.
    """
    unit = UNIT_ROUNDOFF[dtype]
    found: dict[tuple[str, str], None] = {}
    for equation in equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        for variable in (*equation.invars, *equation.outvars):
            name = _name(getattr(variable.aval, "dtype", None))
            if UNIT_ROUNDOFF.get(name, 0.0) > unit:
                found[name, equation.primitive.name] = None
        if equation.primitive.name == "reduce_precision":  # keeps its dtype
            bits = equation.params["exponent_bits"], equation.params["mantissa_bits"]
            found[_FORMATS.get(bits, f"{bits[1]} bits"), "reduce_precision"] = None
    return list(found)


def between_layers(candidate: State, inputs: tuple[Any, ...]) -> list[tuple[str, str]]:
    """Likewise of the code between the layers of a model, after its run; none if it can't be traced.

    Args:
        candidate: which gets PyTorch's outputs in the places of its layers.
        inputs: of the model, in Flax's layout.
    """
    outputs = {}
    for key, visit in candidate.visited.items():
        layout = visit.output_layout or layouts.Layout()
        outputs[key] = candidate.as_array(layout.to_flax(candidate.store.array(key, "output.0")))
    given = candidate.given if candidate.given is not None else candidate.placeholders

    def code(outputs: dict[str, jax.Array], arrays: tuple[jax.Array, ...]) -> Any:
        calls, seen = candidate.calls.again(), []

        def force(layer: Any, call: Callable, args: tuple, kwargs: dict) -> Any:
            if layer.path not in candidate.pairs:
                return call(*args, **kwargs)
            _, key = calls.next(layer.path, candidate.pairs[layer.path], ())
            seen.extend(x for x in jax.tree.leaves((args, kwargs)) if hasattr(x, "dtype"))
            return outputs[key] if key in outputs else call(*args, **kwargs)

        return candidate.model.apply(given, arrays, candidate.kwargs, force), seen

    try:
        return coarse(code, (outputs, tuple(candidate.as_array(x) for x in inputs)), candidate.dtype)
    except (TypeError, ValueError, NotImplementedError):
        return []


def _name(dtype: Any) -> str:
    """Of an array's dtype; empty for random keys and what has none."""
    if dtype is None or jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        return ""
    return np.dtype(dtype).name


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every operation of a traced program, those of the functions that it calls behind their call."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from equations(getattr(inner, "jaxpr", inner))
