"""One side of a comparison in a process of its own: `python -m parity.comparison.worker STEP WORKSPACE`.

The two frameworks may live in different virtual environments; all that passes between them are files in the
workspace: `request.json`, captures, and at the end `report.json`. Each step imports one framework.

1. `flax-structure`: the Flax module's leaves (no arithmetic).
2. `torch`: pairs the leaves, runs the PyTorch module, writes captures and weights.
3. `flax`: runs the Flax module leaf by leaf against the captures, writes the report and what the mapping is made from.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.comparison import matching
from parity.comparison.store import Store
from parity.errors import CannotCompare
from parity.kinds.leaf import Leaf
from parity.mapping.found import TorchState
from parity.mapping.mapping import Mapping, is_mapping


def main(arguments: list[str]) -> int:
    """Run one step; a CannotCompare is printed as one line, exit code 2."""
    step, directory = arguments
    workspace = Path(directory)
    request = json.loads((workspace / "request.json").read_text(encoding="utf-8"))
    steps = {"flax-structure": flax_structure, "torch": run_torch, "flax": run_flax}
    try:
        steps[step](workspace, request)
    except CannotCompare as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def load(spec: str) -> Any:
    """The object that `package.module:attribute` names, called if it is a function or class.

    Raises:
        CannotCompare: there is no such module or attribute.
    """
    name, _, attribute = spec.partition(":")
    if not attribute:
        raise CannotCompare(f"{spec!r} must look like package.module:attribute")
    try:
        found = getattr(import_module(name), attribute)
    except (ImportError, AttributeError) as error:
        raise CannotCompare(f"{spec!r} can't be loaded: {error}") from error
    # Modules of both frameworks can be called too; a class or a function makes one.
    is_factory = isinstance(found, type) or type(found).__name__ in (
        "function",
        "builtin_function_or_method",
        "partial",
    )
    return found() if is_factory else found


def flax_structure(workspace: Path, request: dict[str, Any]) -> None:
    """Step 1: write `structure.json`."""
    module, _ = _flax(request)
    from parity.comparison import jax_models
    from parity.comparison.jax_arrays import cast
    from parity.kinds import jax_leaves

    inputs = tuple(cast(x, request["dtype"]) for x in _flax_inputs(workspace))
    leaves, _ = jax_leaves.structure(jax_models.of(module), inputs, request["flax_kwargs"])
    (workspace / "structure.json").write_text(json.dumps([leaf.to_json() for leaf in leaves]), encoding="utf-8")


def run_torch(workspace: Path, request: dict[str, Any]) -> None:
    """Step 2: write `pairs.json`, the captures and the weights of every leaf with any."""
    import torch

    from parity.comparison import (
        torch_backward,
        torch_capture,
        torch_preparation,
        torch_recurrent,
        torch_state,
        torch_structure,
        torch_tensors,
    )
    from parity.kinds import torch_leaves

    torch.manual_seed(request["seed"])
    original = load(request["torch"])
    model = torch_structure.prepared(original, request["dtype"])
    given, mapping, store = inputs(workspace, "torch"), _mapping(request), Store(workspace / "captures")
    if mapping is not None:
        store.put("state", torch_state.arrays(model))
    leaves = _leaves(json.loads((workspace / "structure.json").read_text(encoding="utf-8")))
    exact, tensors = (torch_tensors.as_tensors(given, dtype) for dtype in ("float64", request["dtype"]))
    model, structure = torch_preparation.taken_apart(model, exact, tensors, request["torch_kwargs"], leaves)
    structure = torch_preparation.opened_up(model, structure, tensors, request["torch_kwargs"], leaves)
    pairing = matching.match(leaves, structure, request["mapping"] if mapping is None else mapping.layers)
    content = {
        **asdict(pairing),
        "states": torch_recurrent.gives_states(model),
        "torch": [leaf.to_json() for leaf in structure],
        "state": torch_state.of(original, model).to_json(),
    }
    (workspace / "pairs.json").write_text(json.dumps(content), encoding="utf-8")
    torch_tensors.pin_precision()
    capture = torch_capture.Capture(
        model, store, request["dtype"], set(pairing.pairs.values()), request["torch_kwargs"]
    )
    if request["gradients"]:
        torch_backward.run(capture, tensors, seed=request["seed"])
    else:
        capture.forward(tensors)
    read = torch_structure.weights_reader(model)
    with_weights = [path for path, leaf in torch_leaves.leaves(model).items() if torch_leaves.state_of(leaf)]
    for path in [*with_weights, *torch_leaves.owned(model)]:
        store.put(f"weights-{path}", read(path))


def run_flax(workspace: Path, request: dict[str, Any]) -> None:
    """Step 3: write `report.json`, `arrays.npz` and `found.json`."""
    module, variables = _flax(request)
    from parity.comparison import jax_models, jax_run, mapped
    from parity.comparison.jax_arrays import cast
    from parity.comparison.jax_candidate import Candidate
    from parity.kinds import jax_leaves

    found = json.loads((workspace / "pairs.json").read_text(encoding="utf-8"))
    arrays = _flax_inputs(workspace)
    shapes = tuple(cast(x, request["dtype"]) for x in arrays)
    model = jax_models.of(module)
    leaves, abstract = jax_leaves.structure(model, shapes, request["flax_kwargs"])
    model.states = found["states"]
    store, mapping = Store(workspace / "captures"), _mapping(request)
    variables = None if variables is None else model.canonical(jax_models.as_variables(variables))
    if mapping is not None and variables is None:
        state, library = store.arrays("state", ""), jax_models.library_of(module)
        variables = mapped.variables(mapping, state, library, abstract, request["dtype"])
    kinds = {leaf.path: leaf.kind for leaf in leaves} | found["kinds"]
    candidate = Candidate(
        model, request["flax_kwargs"], found["pairs"], kinds, store,
        request["dtype"], lambda path: store.arrays(f"weights-{path}", ""), variables, request["name"], abstract,
        found["undecided"], found["likely"],
    )  # fmt: skip
    torch_leaves, state = _leaves(found["torch"]), TorchState.from_json(found["state"])
    report = jax_run.run(candidate, arrays, request["gradients"], torch_leaves)
    if not model.places:  # mappings don't know how cells keep their gates
        facts = mapped.found(candidate, module, torch_leaves, state, abstract)
        (workspace / "found.json").write_text(json.dumps(facts.to_json()), encoding="utf-8")
    report.write_json(workspace / "report.json")
    np.savez(workspace / "arrays.npz", **report.arrays)  # type: ignore[arg-type]


def _mapping(request: dict[str, Any]) -> Mapping | None:
    """The mapping that was given, if it is more than pairs."""
    content = request["mapping"]
    return Mapping.from_json(content) if is_mapping(content) else None


def _leaves(content: list[dict[str, Any]]) -> list[Leaf]:
    return [Leaf.from_json(leaf) for leaf in content]


def _flax(request: dict[str, Any]) -> tuple[Any, Any]:
    import jax

    # Elsewhere it would make int64 of a model's counters.
    jax.config.update("jax_enable_x64", request["dtype"] == "float64")
    made = load(request["flax"])
    return made if isinstance(made, tuple) else (made, None)


def _flax_inputs(workspace: Path) -> tuple[NDArray, ...]:
    return inputs(workspace, "flax")


def inputs(workspace: Path, side: str) -> tuple[NDArray, ...]:
    """The arrays that one side gets."""
    with np.load(workspace / f"inputs-{side}.npz") as file:
        return tuple(file[name] for name in sorted(file.files))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
