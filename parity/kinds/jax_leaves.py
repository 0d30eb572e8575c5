"""What the harness knows about Flax modules: their leaves, in order of execution, found without computing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from parity.comparison.jax_models import JaxLayer, JaxModel
from parity.errors import CannotCompare

_UNSUPPORTED: dict[str, str] = {
    "ConvTranspose": "JAX and PyTorch disagree on its padding",
    "ConvLocal": "use a module of your own with a kernel of (H', W', h, w, in, out)",
    "MultiHeadDotProductAttention": "it computes with its projections' weights directly",
    "SelfAttention": "it computes with its projections' weights directly",
    "SimpleCell": "write the cell out with Dense layers",
    "LSTMCell": "write the cell out with Dense layers",
    "OptimizedLSTMCell": "write the cell out with Dense layers",
    "GRUCell": "write the cell out with Dense layers",
    "MGUCell": "write the cell out with Dense layers",
    "ConvLSTMCell": "write the cell out with Dense and Conv layers",
    "RNN": "write the loop over time out with cells of Dense layers",
}


def structure(
    model: JaxModel, inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The leaves of a model and the shapes of its variables, by abstract evaluation.

    Args:
        model: of any library.
        inputs: arrays or shapes for its call.
        kwargs: of its call (`train=False` and the like).

    Returns:
        Leaves in order of first execution (`path`, `class`, `kind`, `shapes` by parameter name), and the abstract
        variables.
    """
    calls: list[tuple[str, str, bool]] = []
    stack: list[list[str]] = []

    def look(layer: JaxLayer, call: Callable, args: tuple, keywords: dict) -> Any:
        _refuse_unsupported(layer)
        for children in stack[-1:]:
            children.append(layer.path)
        stack.append([])
        try:
            return call(*args, **keywords)
        finally:
            calls.append((layer.path, type(layer.module).__name__, bool(stack.pop())))

    variables = model.shapes(inputs, kwargs, look)
    leaves: list[dict[str, Any]] = []
    for path, name, has_children in calls:
        if has_children or any(leaf["path"] == path for leaf in leaves):
            continue
        shapes = {k: tuple(v.shape) for k, v in _variables_at(variables, path).items()}
        leaves.append({"path": path, "class": name, "kind": kind_of(name, shapes), "shapes": shapes})
    owned = {"/".join(p[1:-1]) for p in _paths(variables)}
    for path in sorted(owned - {leaf["path"] for leaf in leaves}):
        raise CannotCompare(
            f"{path or 'the top module'} (Flax) owns parameters besides its children, or isn't called through "
            f"__call__: move them into a module of their own"
        )
    return leaves, variables


def _refuse_unsupported(layer: JaxLayer) -> None:
    for kind in type(layer.module).__mro__:
        if kind.__module__.startswith("flax.") and kind.__name__ in _UNSUPPORTED:
            why = _UNSUPPORTED[kind.__name__]
            raise CannotCompare(f"{kind.__name__} at {layer.path or 'the top'!r} (Flax) can't be compared: {why}")


def kind_of(class_name: str, shapes: dict[str, tuple[int, ...]]) -> str:
    """The kind of a leaf by its parameters, as `parity.kinds.torch_leaves.kind_of` names it."""
    kernel = shapes.get("kernel")
    if kernel is not None:
        return {2: "dense", 3: "conv", 4: "conv", 5: "conv", 6: "local_conv"}.get(len(kernel), "other")
    if "embedding" in shapes:
        return "embedding"
    if "mean" in shapes and "var" in shapes:
        return "batch_norm"
    if "scale" in shapes or "bias" in shapes:
        return {"LayerNorm": "layer_norm", "GroupNorm": "group_norm"}.get(class_name, "other")
    return "other" if shapes else "plain"


def leaf_variables(variables: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """The part of a variable tree that belongs to the leaf at `path`, by collection."""
    found = {}
    for collection, tree in variables.items():
        for part in path.split("/"):
            tree = tree.get(part, {}) if isinstance(tree, dict) else {}
        if tree:
            found[collection] = dict(tree)
    return found


def insert_leaf(variables: dict[str, Any], path: str, leaf: dict[str, dict[str, Any]]) -> None:
    """Put a leaf's variables into a tree, in place."""
    for collection, arrays in leaf.items():
        tree = variables.setdefault(collection, {})
        for part in path.split("/"):
            tree = tree.setdefault(part, {})
        tree.update(arrays)


def dtype_name(array: Any) -> str:
    """Name of an array's dtype."""
    return np.dtype(array.dtype).name if array.dtype != jax.numpy.bfloat16 else "bfloat16"


def _variables_at(variables: dict[str, Any], path: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for arrays in leaf_variables(variables, path).values():
        merged |= arrays
    return merged


def _paths(variables: Any) -> list[tuple[str, ...]]:
    found = jax.tree_util.tree_flatten_with_path(variables)[0]
    return [tuple(str(getattr(k, "key", k)) for k in path) for path, _ in found]
