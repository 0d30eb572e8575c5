"""Flax modules of any kind: their leaves, in order of execution, found without computing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.errors import FlaxError

from parity.candidate import jax_taken
from parity.candidate.jax_arrays import in_one_precision
from parity.candidate.jax_models import JaxLayer, JaxModel, Look
from parity.errors import CannotCompare
from parity.kinds import dense, embedding, parameter, registry, transposed_convolution
from parity.kinds.leaf import Leaf

_WRONG = TypeError, ValueError, ArithmeticError, LookupError, AssertionError, FlaxError
_LAYERS = "flax.linen", "flax.nnx.nn"  # where both libraries keep theirs, under the same names


def structure(model: JaxModel, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Leaf], dict[str, Any]]:
    """The leaves of a model and the shapes of its variables, by abstract evaluation.

    Args:
        model: of any library.
        inputs: arrays or shapes for its call.
        kwargs: of its call (`train=False` and the like).

    Returns:
        Leaves in order of first execution, and the abstract variables.

    Raises:
        CannotCompare: a layer is of a kind that can't be compared, or the model can't run.
    """
    calls: list[tuple[str, list[str], bool, int]] = []
    causal: set[str] = set()
    modules: dict[str, Any] = {}
    rows: dict[str, list[int]] = {}  # that each call of a layer takes, were it a table
    stack: list[list[str]] = []
    broken: list[str] = []  # the layers in which something went wrong, the inner ones first

    def look(layer: JaxLayer, call: Callable, args: tuple, keywords: dict) -> Any:
        _refuse_unsupported(layer)
        for children in stack[-1:]:
            children.append(layer.path)
        stack.append([])
        results = 1
        try:
            result = call(*args, **keywords)
            results = len(jax.tree.leaves(result))
            return result
        except _WRONG:
            broken.append(layer.path)
            raise
        finally:
            names = [base.__name__ for base in type(layer.module).__mro__]
            modules[layer.path] = layer.module
            rows.setdefault(layer.path, []).append(int(getattr(args[0], "size", 0)) if args else 0)
            calls.append((layer.path, names, bool(stack.pop()), results))
            if _is_causal(getattr(layer.module, "padding", None)):
                causal.add(layer.path)

    try:
        variables = model.shapes(inputs, kwargs, look)
        features = _features(calls, variables)
        program = _traced(model, variables, inputs, kwargs, jax_taken.marked(features))
    except CannotCompare:
        raise
    except _WRONG as error:
        shapes, where = ", ".join(str(tuple(x.shape)) for x in inputs), _where([path for path, *_ in calls], broken)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        message = f"the JAX model can't run by itself on inputs of {shapes}: {where}, {' '.join(lines[:3])}"
        raise CannotCompare(message) from error
    used, taken = _used(program, variables), jax_taken.taken(program, features)
    leaves: list[Leaf] = []
    for path, names, has_children, results in calls:
        if has_children or any(leaf.path == path for leaf in leaves):
            continue
        shapes = {k: tuple(v.shape) for k, v in _variables_at(variables, path).items()}
        if not shapes and results > 1:
            continue  # with several results and no weights it is code between layers
        kind = registry.in_flax(names[0], shapes, names[1:])
        count = sum(other == path for other, *_ in calls)
        stored = ""
        if kind.name == transposed_convolution.KIND.name:
            stored, shapes = transposed_convolution.stored(modules[path], shapes)
        looked_up = tuple(rows[path]) if kind.name == embedding.KIND.name else ()
        facts: Any = {
            "looked_up": looked_up,
            "causal": path in causal,
            "stored": stored,
            "taken": tuple(taken.get(path, ())),
        }
        leaves.append(Leaf(path, names[0], kind.name, shapes, calls=count, **facts))
    called = {leaf.path for leaf in leaves}
    for (collection, *above, name), variable in variables_by_path(variables):
        if "/".join(above) not in called and collection == "params":
            path = "/".join([*above, name])
            shapes, idle = {parameter.VALUE: tuple(variable.shape)}, (collection, *above, name) not in used
            leaves.append(Leaf(path, "parameter", parameter.KIND.name, shapes, idle))
    return leaves, variables


def _is_causal(padding: Any) -> bool:
    """Whether a convolution's padding may be for what comes before: `CAUSAL`, nothing behind, none of its own.

    `SAME`, which gives as many places as there are, too: a port says so by mistake.
    """
    if isinstance(padding, str):
        return padding in ("CAUSAL", "VALID", "SAME")
    first = padding[0] if isinstance(padding, (tuple, list)) and padding else padding
    return first == 0 or (isinstance(first, (tuple, list)) and len(first) == 2 and first[1] == 0)


def _where(called: list[str], broken: list[str]) -> str:
    """Where a model broke down, from the paths of the layers that it called and of those in which that was."""
    done = [path for path in called if path and path not in broken]
    if broken and broken[0]:
        return f"in {broken[0]}"
    if not broken and "" in called:
        return "with variables from outside"
    return f"behind {done[-1]}" if done else "at its beginning"


def _features(calls: list[tuple[str, list[str], bool, int]], variables: dict[str, Any]) -> dict[str, int]:
    """How many features layers have that are products with a kernel alone, by path."""
    found = {}
    for path, names, has_children, _ in calls:
        shapes = {} if has_children else {k: tuple(v.shape) for k, v in _variables_at(variables, path).items()}
        if shapes and registry.in_flax(names[0], shapes, names[1:]).name == dense.KIND.name:
            # Of several axes those behind the first are features, unless the first ones are inputs, too.
            found[path] = math.prod(shapes.get("bias") or shapes.get("kernel", ())[1:])
    return found


def _traced(
    model: JaxModel, variables: dict[str, Any], inputs: tuple[Any, ...], kwargs: dict[str, Any], look: Look
) -> Any:
    """The model's program, of its variables and inputs."""

    def run(variables: Any, *arrays: Any) -> Any:
        return model.apply(variables, arrays, kwargs, look)

    with jax.numpy_dtype_promotion("standard"):
        return jax.make_jaxpr(run)(in_one_precision(variables, inputs), *inputs).jaxpr


def _used(program: Any, variables: dict[str, Any]) -> set[tuple[str, ...]]:
    """Collection, path and name of the variables that a program computes with: nnx's hold modules that never run."""
    read = {id(each) for equation in program.eqns for each in equation.invars} | {id(each) for each in program.outvars}
    named = [_parts(path) for path, _ in jax.tree_util.tree_flatten_with_path(variables)[0]]
    return {path for path, variable in zip(named, program.invars, strict=False) if id(variable) in read}


def _refuse_unsupported(layer: JaxLayer) -> None:
    classes = [name for package in _LAYERS for name in registry.classes_of(layer.module, package)]
    if (refused := registry.refusal(classes, registry.REFUSED_IN_FLAX)) is not None:
        name, why = refused
        raise CannotCompare(f"{name} at {layer.path or 'the top'!r} (Flax) can't be compared: {why}")


def leaf_variables(variables: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """The part of a variable tree that belongs to the leaf at `path`, by collection."""
    found = {}
    for collection, tree in variables.items():
        for part in path.split("/") if path else ():
            tree = tree.get(part, {}) if isinstance(tree, dict) else {}
        if not isinstance(tree, dict):
            found[collection] = {parameter.VALUE: tree}
        elif tree:
            found[collection] = dict(tree)
    return found


def insert_parameter(variables: dict[str, Any], path: str, value: Any) -> None:
    """Put one parameter into a tree, in place."""
    *above, name = path.split("/")
    tree = variables.setdefault("params", {})
    for part in above:
        tree = tree.setdefault(part, {})
    tree[name] = value


def insert_leaf(variables: dict[str, Any], path: str, leaf: dict[str, dict[str, Any]]) -> None:
    """Put a leaf's variables into a tree, in place."""
    for collection, arrays in leaf.items():
        tree = variables.setdefault(collection, {})
        for part in path.split("/") if path else ():
            tree = tree.setdefault(part, {})
        tree.update(arrays)


def dtype_name(array: Any) -> str:
    """Name of an array's dtype."""
    return np.dtype(array.dtype).name if array.dtype != jax.numpy.bfloat16 else "bfloat16"


def _variables_at(variables: dict[str, Any], path: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for arrays in leaf_variables(variables, path).values():
        merged |= {name: array for name, array in arrays.items() if hasattr(array, "shape")}
    return merged


def variables_by_path(variables: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Collection, path and name of each variable, and the variable."""
    found = jax.tree_util.tree_flatten_with_path(variables)[0]
    named = [(_parts(path), variable) for path, variable in found]
    # Trees come in the order of the alphabet, in which the tenth block precedes the second.
    return sorted(named, key=lambda each: [_numbered(part) for part in each[0]])


def _parts(path: Any) -> tuple[str, ...]:
    return tuple(str(getattr(key, "key", key)) for key in path)


def _numbered(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]
