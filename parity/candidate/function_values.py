"""All that a function computes on the way to its results: its traced program, run operation by operation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core
from numpy.typing import NDArray

_MOST_VALUES = 50_000_000  # that are kept; what comes later isn't
_MOST_TURNS = 10_000  # of one loop


def computed(function: Callable[..., Any], *arguments: Any) -> list[NDArray]:
    """The arrays of floating-point numbers that a function's operations give, in the order in which they run.

    Loops (`scan`, `while_loop`) are gone through turn by turn, with what each is given; functions that are called are
    looked into.

    Args:
        function: of arrays and trees of them.
        arguments: its own, given for once.

    Raises:
        NotImplementedError, TypeError, ValueError: its program can't be traced, or not be run so.
    """
    kept = _Kept()
    with jax.default_matmul_precision("highest"):
        traced = jax.make_jaxpr(function)(*arguments)
        _run(traced.jaxpr, traced.consts, jax.tree.leaves(arguments), kept)
    return kept.arrays


class _Kept:
    """Arrays of numbers that were met; of complex ones both parts, which code without complex numbers has."""

    def __init__(self) -> None:
        self.arrays: list[NDArray] = []
        self.size = 0

    def add(self, value: Any) -> None:
        """Keep a value if it is such an array, and if there is room."""
        dtype = getattr(value, "dtype", None)
        if dtype is not None and jax.numpy.issubdtype(dtype, jax.numpy.complexfloating):
            self.add(value.real)
            self.add(value.imag)
            return
        if dtype is None or not jax.numpy.issubdtype(dtype, jax.numpy.floating) or value.size < 2:
            return
        self.size += value.size
        if self.size <= _MOST_VALUES:
            self.arrays.append(np.asarray(value, np.float64))


def _run(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any], kept: _Kept) -> list[Any]:
    """The results of a traced program."""
    known: dict[Any, Any] = {}

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else known[variable]

    known.update(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))
    for const in consts:
        kept.add(const)
    for equation in jaxpr.eqns:
        results = list(_operation(equation, [read(v) for v in equation.invars], kept))
        known.update(zip(equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _operation(equation: Any, values: list[Any], kept: _Kept) -> Sequence[Any]:
    """The results of one operation."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return _scan(params, values, kept)
    if name == "while":
        return _while(params, values, kept)
    if name == "cond":
        branch = params["branches"][int(np.clip(int(values[0]), 0, len(params["branches"]) - 1))]
        return _run(branch.jaxpr, branch.consts, values[1:], kept)
    for inner in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        called = params.get(inner)
        if called is not None and name not in ("custom_linear_solve", "reduce", "reduce_window"):
            return _run(getattr(called, "jaxpr", called), getattr(called, "consts", ()), values, kept)
    results = equation.primitive.bind(*values, **equation.primitive.get_bind_params(params))
    results = results if equation.primitive.multiple_results else [results]
    for result in results:
        kept.add(result)
    return results


def _scan(params: Any, values: list[Any], kept: _Kept) -> list[Any]:
    """A loop over the first axis of some arrays."""
    constant, carried = _constant_and_carried(params)
    consts, rest = values[:constant], values[constant:]
    carry, given = rest[:carried], rest[carried:]
    body, turns = params["jaxpr"], range(params["length"])
    program, its_consts = getattr(body, "jaxpr", body), getattr(body, "consts", ())
    made: list[list[Any]] = []
    for i in reversed(turns) if params["reverse"] else turns:
        here = [each[i] for each in given]
        for each in here:
            kept.add(each)
        results = _run(program, its_consts, [*consts, *carry, *here], kept)
        carry = results[:carried]
        made.append(results[carried:])
    if params["reverse"]:
        made.reverse()
    stacked = [jax.numpy.stack(each) for each in zip(*made, strict=True)]
    if not made:
        stacked = [jax.numpy.zeros(v.aval.shape, v.aval.dtype) for v in program.outvars[carried:]]
    for each in stacked:
        kept.add(each)
    return [*carry, *stacked]


def _constant_and_carried(params: Any) -> tuple[int, int]:
    """How many of a scan's arguments are the same in every turn, and how many are handed on from turn to turn."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constant, carried, _ = params["ft_in"].unpack()  # JAX 0.12 and later
    return len(constant), len(carried)


def _while(params: Any, values: list[Any], kept: _Kept) -> list[Any]:
    """A loop as long as something holds."""
    ask, body = params["cond_jaxpr"], params["body_jaxpr"]
    n, m = params["cond_nconsts"], params["body_nconsts"]
    of_ask, of_body, state = values[:n], values[n : n + m], values[n + m :]
    for turn in itertools.count():
        if not bool(_run(ask.jaxpr, ask.consts, [*of_ask, *state], _Kept())[0]):
            return state
        if turn == _MOST_TURNS:
            raise NotImplementedError("a loop of too many turns")
        state = _run(body.jaxpr, body.consts, [*of_body, *state], kept)
    return state
