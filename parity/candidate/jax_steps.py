"""JAX's steps of a comparison in several processes: the structure first, the report last. Imports no PyTorch."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax

from parity.candidate import jax_libraries, jax_run
from parity.candidate.jax_arrays import cast
from parity.candidate.jax_candidate import Candidate
from parity.comparison import mapped
from parity.comparison.matching import Pairing
from parity.comparison.store import Store, write_npz
from parity.comparison.worker import WHOLES
from parity.comparison.workspace import inputs, leaves_of, load, whole_mapping
from parity.errors import CannotCompare
from parity.kinds import jax_leaves
from parity.mapping.found import TorchState


def structure(workspace: Path, request: dict[str, Any]) -> None:
    """Step 1: write `structure.json`."""
    module, _ = _model(request)
    typed = tuple(cast(x, request["dtype"]) for x in inputs(workspace, "flax"))
    leaves, _ = jax_leaves.structure(jax_libraries.of(module), typed, request["flax_kwargs"])
    (workspace / "structure.json").write_text(json.dumps([leaf.to_json() for leaf in leaves]), encoding="utf-8")


def run(workspace: Path, request: dict[str, Any]) -> None:
    """Step 3: write `report.json`, `arrays.npz` and `found.json`."""
    module, variables = _model(request)
    found = json.loads((workspace / "pairs.json").read_text(encoding="utf-8"))
    arrays = inputs(workspace, "flax")
    shapes = tuple(cast(x, request["dtype"]) for x in arrays)
    model = jax_libraries.of(module)
    leaves, abstract = jax_leaves.structure(model, shapes, request["flax_kwargs"])
    model.states = found["states"]
    store, mapping = Store(workspace / "captures"), whole_mapping(request)
    variables = None if variables is None else model.canonical(jax_libraries.as_variables(variables))
    if mapping is not None and variables is None:
        state, library = store.arrays("state", ""), jax_libraries.library_of(module)
        native = jax.eval_shape(model.native, abstract)
        variables = model.canonical(mapped.variables(mapping, state, library, native, request["dtype"]))
    candidate = Candidate(
        model,
        request["flax_kwargs"],
        leaves,
        Pairing(**{each.name: found[each.name] for each in fields(Pairing)}),
        store,
        request["dtype"],
        lambda path: store.arrays(f"weights-{path}", ""),
        variables,
        request["name"],
        abstract,
    )
    torch_leaves, state = leaves_of(found["torch"]), TorchState.from_json(found["state"])
    report = jax_run.run(candidate, arrays, request["gradients"], torch_leaves)
    report.not_exercised += [found["unseen"]] if found["unseen"] else []
    facts = mapped.found(candidate, module, (leaves, torch_leaves), state, abstract, model.cells())
    (workspace / "found.json").write_text(json.dumps(facts.to_json()), encoding="utf-8")
    report.write_json(workspace / "report.json")
    write_npz(workspace / "arrays.npz", report.arrays)


def _model(request: dict[str, Any]) -> tuple[Any, Any]:
    """The module, and its own variables if there are any.

    Raises:
        CannotCompare: it is a function.
    """
    # Elsewhere it would make int64 of a model's counters.
    jax.config.update("jax_enable_x64", request["dtype"] == "float64")
    made = load(request["flax"])
    module, variables = made if isinstance(made, tuple) else (made, None)
    if jax_libraries.is_function(module):
        raise CannotCompare(f"{request['flax']} makes a function, which has no layers. {WHOLES}")
    return module, variables
