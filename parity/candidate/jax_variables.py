"""The variables that a Flax module runs with in a comparison: its own, held to the reference's, or made of those."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from parity.candidate.jax_arrays import DTYPES, placed, shapes_of
from parity.candidate.jax_models import JaxLayer
from parity.candidate.jax_state import State
from parity.errors import CannotCompare
from parity.kinds import embedding, jax_leaves, layouts, parameter
from parity.kinds.weights import weights_to_flax
from parity.reports.rows import Row, compare_arrays


def put_owned(candidate: State) -> None:
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
            value = placed(moved, DTYPES[candidate.dtype])
            jax_leaves.insert_parameter(candidate.placeholders, path, value)
            jax_leaves.insert_parameter(candidate.variables, path, value)
            continue
        row = Row(candidate.name, path, torch_path, "weights:value", candidate.dtype, kind=parameter.KIND.name)
        compare_arrays(row, np.asarray(ours), moved, None)
        if not row.equal:
            candidate.rows.append(row)
            candidate.worst.keep(row, np.asarray(ours), moved)


def put_tables(candidate: State) -> None:
    """Give the code between the leaves the tables of embeddings, which it may use again for the last layer."""
    for path, torch_path in (candidate.likely | candidate.pairs).items():
        if candidate.given is None and candidate.kinds[path] == embedding.KIND.name:
            found = weights_to_flax(candidate.kinds[path], candidate.weights(torch_path), None, candidate.wanted(path))
            arrays = {n: {k: placed(a, DTYPES[candidate.dtype]) for k, a in each.items()} for n, each in found.items()}
            if all(shapes_of(arrays)[name] == shape for name, shape in candidate.wanted(path).items()):
                jax_leaves.insert_leaf(candidate.placeholders, path, arrays)


def of_leaf(candidate: State, torch_path: str, layer: JaxLayer, layout: layouts.Layout | None) -> Any:
    """Variables that a leaf runs with: its own, or converted from the reference's."""
    if candidate.given is not None:
        return layer.variables()
    path = layer.path
    known = jax_leaves.leaf_variables(candidate.variables, path)
    if not known and candidate.kinds[path] != "plain":
        known = weights_to_flax(candidate.kinds[path], candidate.weights(torch_path), layout, candidate.wanted(path))
        known = jax.tree.map(lambda x: placed(x, DTYPES[candidate.dtype]), known)
        jax_leaves.insert_leaf(candidate.variables, path, known)
    return known
