"""The variables that a Flax module runs with in a comparison: its own, held to the reference's, or made of those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.candidate.jax_arrays import DTYPES
from parity.candidate.jax_models import JaxLayer
from parity.errors import CannotCompare
from parity.kinds import embedding, jax_leaves, layouts, parameter
from parity.kinds.weights import weights_to_flax
from parity.reports.rows import Row, compare_arrays

if TYPE_CHECKING:
    from parity.candidate.jax_candidate import Candidate
    from parity.candidate.jax_visit import Visit


def put_owned(candidate: Candidate) -> None:
    """Give the code between the leaves the reference's values of its parameters; hold Flax's own to them.

    Raises:
        CannotCompare: the shapes differ in number of values.
    """
    for path, torch_path in candidate.owned.items():
        reference = candidate.weights(torch_path)[parameter.VALUE]
        tree = candidate.placeholders if candidate.given is None else candidate.given
        ours = jax_leaves.leaf_variables(tree, path)["params"][parameter.VALUE]
        if reference.size != ours.size:
            both = f"{tuple(ours.shape)} in Flax, {reference.shape} in PyTorch"
            raise CannotCompare(f"{path} has the shape {both}")
        moved = reference.reshape(ours.shape)
        if candidate.given is None:
            value = jnp.asarray(moved, DTYPES[candidate.dtype])
            jax_leaves.insert_parameter(candidate.placeholders, path, value)
            jax_leaves.insert_parameter(candidate.variables, path, value)
            continue
        row = Row(candidate.name, path, torch_path, "weights:value", candidate.dtype, kind=parameter.KIND.name)
        compare_arrays(row, np.asarray(ours), moved, None)
        if not row.equal:
            candidate.rows.append(row)
            candidate.worst.keep(row, np.asarray(ours), moved)


def put_tables(candidate: Candidate) -> None:
    """Give the code between the leaves the tables of embeddings, which it may use again for the last layer."""
    for path, torch_path in (candidate.likely | candidate.pairs).items():
        if candidate.given is None and candidate.kinds[path] == embedding.KIND.name:
            found = weights_to_flax(candidate.kinds[path], candidate.weights(torch_path), None, candidate.wanted(path))
            arrays = {
                n: {k: jnp.asarray(a, DTYPES[candidate.dtype]) for k, a in each.items()} for n, each in found.items()
            }
            if all(shapes_of(arrays)[name] == shape for name, shape in candidate.wanted(path).items()):
                jax_leaves.insert_leaf(candidate.placeholders, path, arrays)


def of_leaf(candidate: Candidate, torch_path: str, layer: JaxLayer, layout: layouts.Layout | None) -> Any:
    """Variables that a leaf runs with: its own, or converted from the reference's."""
    if candidate.given is not None:
        return layer.variables()
    path = layer.path
    known = jax_leaves.leaf_variables(candidate.variables, path)
    if not known and candidate.kinds[path] != "plain":
        known = weights_to_flax(candidate.kinds[path], candidate.weights(torch_path), layout, candidate.wanted(path))
        known = jax.tree.map(lambda x: jnp.asarray(x, DTYPES[candidate.dtype]), known)
        jax_leaves.insert_leaf(candidate.variables, path, known)
    return known


def hold_to_converted(visit: Visit, variables: Any, converted: Any) -> None:
    """Converted weights must be the reference's bit for bit; rows are added for those that aren't."""
    for collection, arrays in converted.items():
        own = variables.get(collection, {})
        for name in dict.fromkeys([*arrays, *own]):
            ours, reference = own.get(name), arrays.get(name)
            row = visit.row(f"weights:{name}")
            compare_arrays(row, None if ours is None else np.asarray(ours), reference, None)
            if row.verdict == "missing" and (ours is None or reference is None):
                has, lacks = ("PyTorch", "Flax") if ours is None else ("Flax", "PyTorch")
                row.detail = f"{has} has {name}, {lacks} doesn't"
            if not row.equal:
                visit.candidate.rows.append(row)
                visit.weight_rows += 1
                if ours is not None and reference is not None:
                    visit.candidate.worst.keep(row, np.asarray(ours), reference)


def check_dtypes(visit: Visit, variables: Any) -> None:
    """Every parameter in the lane's precision, or the lane proves nothing."""
    for path, array in jax.tree_util.tree_flatten_with_path(variables)[0]:
        if jnp.issubdtype(array.dtype, jnp.floating) and jax_leaves.dtype_name(array) != visit.candidate.dtype:
            raise CannotCompare(
                f"{visit.path}{jax.tree_util.keystr(path)} is {array.dtype}, the lane is {visit.candidate.dtype}: "
                f"convert the variables first"
            )


def shapes_of(variables: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a leaf's variables by name, whatever their collection."""
    return {name: tuple(array.shape) for arrays in variables.values() for name, array in arrays.items()}
