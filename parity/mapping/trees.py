"""Arrays by path, and the trees that JAX's libraries hold them in.

JAX and Flax are imported for their own trees alone: files are converted without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import CannotConvert

LINEN, NNX, FUNCTION = "flax.linen", "flax.nnx", "function"
COLLECTIONS = ("params", "batch_stats")  # of what is converted; others may be the JAX model's own


def nested(arrays: Mapping[str, NDArray], library: str) -> dict[Any, Any]:
    """Dictionaries in dictionaries: Linen's variables, what `nnx.update` takes, or a function's tree.

    Args:
        arrays: by path.
        library: whose; nnx numbers the members of its lists, so parts that are numbers become numbers there.

    Raises:
        CannotConvert: a function's tree has numbers in its paths, and so may be one of lists.
    """
    tree: dict[Any, Any] = {}
    for path, array in arrays.items():
        parts: list[Any] = path.split("/")
        if library == FUNCTION and any(part.isdigit() for part in parts):
            raise CannotConvert(f"{path} may lie in a list: give a tree of the same form, to_tree(state, like=tree)")
        if library == NNX:
            parts = [int(part) if part.isdigit() else part for part in parts]
        node = tree
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        node[parts[-1]] = array
    return tree


def flat(tree: Any) -> dict[str, NDArray]:
    """The arrays of a tree by path: of dictionaries and lists, of nnx's state, or whatever JAX knows as a tree.

    Of an nnx state parameters and statistics alone: random keys are no weights.
    """
    found: dict[str, NDArray] = {}
    tree = _state(tree)
    if hasattr(tree, "flat_state"):
        from parity.candidate.nnx_models import collection_of

        for path, variable in tree.flat_state():
            if collection_of(variable) is not None:
                found["/".join(map(str, path))] = np.asarray(variable[...])
        return found
    _gather(tree, (), found)
    return found


def _gather(node: Any, path: tuple[str, ...], found: dict[str, NDArray]) -> None:
    if isinstance(node, Mapping):
        for key, child in node.items():
            _gather(child, (*path, str(key)), found)
    elif isinstance(node, (list, tuple)):
        names = getattr(node, "_fields", range(len(node)))
        for name, child in zip(names, node, strict=True):
            _gather(child, (*path, str(name)), found)
    elif hasattr(node, "__array__") or isinstance(node, (int, float)):
        found["/".join(path)] = np.asarray(node)
    elif node is not None:
        for name, leaf in _leaves(node)[0]:
            found["/".join([*path, name])] = np.asarray(leaf)


def filled(like: Any, arrays: Mapping[str, NDArray]) -> Any:
    """The tree `like` with these arrays, as JAX's, in the place of its own; what they don't name stays.

    Args:
        like: an nnx module or its state, Linen's variables, or a function's tree.
        arrays: by path.

    Raises:
        CannotConvert: a path isn't in it, or has another shape there.
    """
    import jax.numpy as jnp

    like = _state(like)
    if hasattr(like, "flat_state"):
        from flax import nnx

        state = {"/".join(map(str, path)): (path, variable) for path, variable in like.flat_state()}
        _check(arrays, {path: tuple(state[path][1].shape) for path in arrays if path in state})
        items = [
            (path, variable.replace(jnp.asarray(arrays[name])) if name in arrays else variable)
            for name, (path, variable) in state.items()
        ]
        return nnx.State.from_flat_path(items)
    leaves, put = _leaves(like)
    _check(arrays, {name: tuple(np.shape(leaf)) for name, leaf in leaves})
    return put([jnp.asarray(arrays[name]) if name in arrays else leaf for name, leaf in leaves])


def _check(arrays: Mapping[str, NDArray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if wrong := misplaced({path: array.shape for path, array in arrays.items()}, shapes):
        raise CannotConvert(listed("the mapping is another model's", wrong, "compare the two models again"))


def misplaced(ours: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What a mapping's leaves of these shapes have no place for in a model of those, in words."""
    wrong = [f"{path} isn't in the JAX model" for path in ours if path not in shapes]
    return wrong + [
        f"{path} is {shape} by the mapping, {shapes[path]} in the JAX model"
        for path, shape in ours.items()
        if path in shapes and shape != shapes[path]
    ]


def listed(what: str, wrong: list[str], then: str, most: int = 12) -> str:
    """A message that names what is wrong, the first ones of many."""
    more = [f"and {len(wrong) - most} more"] if len(wrong) > most else []
    return f"{what}:\n  " + "\n  ".join([*wrong[:most], *more]) + f"\n{then[0].upper()}{then[1:]}."


def _state(tree: Any) -> Any:
    """An nnx module's state; anything else as it is."""
    if any(f"{base.__module__}.{base.__name__}" == "flax.nnx.module.Module" for base in type(tree).__mro__):
        from flax import nnx

        return nnx.state(tree)
    return tree


def _leaves(tree: Any) -> tuple[list[tuple[str, Any]], Any]:
    """Leaves by name as `parity.compare` calls them, and what makes the tree of others."""
    import jax

    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
    return named, lambda others: jax.tree.unflatten(structure, others)
