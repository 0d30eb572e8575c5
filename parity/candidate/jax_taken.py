"""Which of a layer's features the code behind it takes out of the result, read off from JAX's traced program.

The other half of `parity.reference.torch_taken`: results of layers are marked as the model is traced, and what each
operation that only moves values makes of them holds some of the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from parity.candidate.jax_models import JaxLayer
from parity.comparison.interleaved import Pattern, pattern

_MARK = "parity_result_of_"
_SAME = {"copy", "convert_element_type", "optimization_barrier"}
_EACH = {"mul", "div", "add", "sub", "neg", "min", "max", "clamp"}  # of each value alone, beside scalars
_RESHAPED = {"reshape", "squeeze", "expand_dims"}


def marked(features: Mapping[str, int]) -> Callable[[JaxLayer, Callable, tuple, dict], Any]:
    """Calls layers, and marks the results of some in a traced program.

    Args:
        features: how many there are, by path of each layer to mark.
    """

    def look(layer: JaxLayer, call: Callable, args: tuple, kwargs: dict) -> Any:
        result = call(*args, **kwargs)
        if layer.path not in features or not isinstance(result, jax.Array):
            return result

        def same(y: jax.Array) -> jax.Array:
            return y

        same.__name__ = _MARK + layer.path
        return jax.jit(same)(result)

    return look


def taken(program: Any, features: Mapping[str, int]) -> dict[str, list[Pattern]]:
    """What is taken out of the marked results, by path of the layer.

    Args:
        program: a jaxpr of a model whose layers were `marked`.
        features: see there.
    """
    found: dict[str, list[Pattern]] = {}
    _walk(program, {}, features, found)
    return found


Followed = tuple[NDArray, str]  # each value's feature, and the layer's path


def _walk(
    program: Any, known: dict[Any, Followed], features: Mapping[str, int], found: dict[str, list[Pattern]]
) -> dict[Any, Followed]:
    """Follow results through a program; `known` are its inputs that hold some, what is returned all that is known."""
    last = {id(each): place for place, eqn in enumerate(program.eqns) for each in eqn.invars}
    kept = {id(each) for each in program.outvars}
    for place, eqn in enumerate(program.eqns):
        name, inner = str(eqn.params.get("name", "")), _inner(eqn)
        first = next((known[each] for each in eqn.invars if _is_variable(each) and each in known), None)
        if inner is not None and name.startswith(_MARK):
            path = name.removeprefix(_MARK)
            if (codes := _codes(eqn.outvars[0].aval.shape, features[path])) is not None:
                known[eqn.outvars[0]] = codes, path
        elif inner is not None and len(inner.invars) == len(eqn.invars):
            given = {
                theirs: known[ours]
                for ours, theirs in zip(eqn.invars, inner.invars, strict=True)
                if _is_variable(ours) and ours in known
            }
            inside = _walk(inner, given, features, found)
            for ours, theirs in zip(eqn.outvars, inner.outvars, strict=False):
                if _is_variable(theirs) and theirs in inside:
                    known[ours] = inside[theirs]
        elif first is not None:
            codes, path = first
            for variable, moved in zip(eqn.outvars, _moved(eqn, codes), strict=False):
                if moved.shape == variable.aval.shape:
                    known[variable] = moved, path
                    some = moved.size < codes.size  # else it holds the features that were there before
                    part = pattern(_held(moved, features[path]), features[path]) if some else None
                    if part is not None and part not in found.setdefault(path, []):
                        found[path].append(part)
        for each in [each for each in known if last.get(id(each), place + 1) <= place and id(each) not in kept]:
            del known[each]
    return known


def _held(codes: NDArray, total: int) -> NDArray:
    """Which of all features some values are, ascending."""
    return np.flatnonzero(np.bincount(codes.ravel(), minlength=total))


def _codes(shape: tuple[int, ...], total: int) -> NDArray | None:
    """Each value's feature in a result whose last axes hold so many; None where none do."""
    first = next((i for i in range(len(shape)) if math.prod(shape[i:]) == total), None)
    if first is None:
        return None
    return np.broadcast_to(np.arange(total, dtype=np.int32).reshape(shape[first:]), shape)


def _inner(eqn: Any) -> Any:
    """The program of a call inside a program; None for other operations."""
    if eqn.primitive.name in ("scan", "while", "cond"):
        return None
    inner = next((eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params), None)
    return getattr(inner, "jaxpr", inner)


def _is_variable(each: Any) -> bool:
    return not hasattr(each, "val")  # a literal has a value instead


def _moved(eqn: Any, codes: NDArray) -> list[NDArray]:
    """The features that lie in what an operation gives; none if it does more than moving."""
    name, params, shape = eqn.primitive.name, eqn.params, eqn.outvars[0].aval.shape
    if name in _SAME:
        return [codes]
    if name in _EACH and all(not getattr(x.aval, "shape", ()) or x.aval.shape == codes.shape for x in eqn.invars):
        alone = sum(bool(getattr(x.aval, "shape", ())) for x in eqn.invars) == 1
        return [codes] if alone else []
    if name in _RESHAPED or (name == "broadcast_in_dim" and math.prod(shape) == codes.size):
        return [codes.reshape(shape)]
    if name == "transpose":
        return [codes.transpose(params["permutation"])]
    if name == "rev":
        return [np.flip(codes, params["dimensions"])]
    if name == "slice":
        steps = params["strides"] or (1,) * codes.ndim
        ends = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
        return [codes[tuple(slice(*each) for each in ends)]]
    if name == "split":
        return np.split(codes, np.cumsum(params["sizes"])[:-1], params["axis"])
    return []
