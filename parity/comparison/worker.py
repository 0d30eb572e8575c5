"""One side of a comparison in a process of its own: `python -m parity.comparison.worker STEP WORKSPACE`.

The two frameworks may live in different virtual environments; all that passes between them are files in the
workspace: `request.json`, captures, and at the end `report.json`. Each step imports one framework.

1. `flax-structure`: the Flax module's leaves (no arithmetic).
2. `torch`: pairs the leaves, runs the PyTorch module, writes captures and weights.
3. `flax`: runs the Flax module leaf by leaf against the captures, writes the report.
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
    from parity.comparison import compare as comparison
    from parity.comparison import jax_models
    from parity.kinds import jax_leaves

    inputs = tuple(comparison.cast(x, request["dtype"]) for x in _flax_inputs(workspace))
    leaves, _ = jax_leaves.structure(jax_models.of(module), inputs, request["flax_kwargs"])
    (workspace / "structure.json").write_text(json.dumps([leaf.to_json() for leaf in leaves]), encoding="utf-8")


def run_torch(workspace: Path, request: dict[str, Any]) -> None:
    """Step 2: write `pairs.json`, the captures and the weights of every leaf with any."""
    import torch

    from parity.comparison import torch_attention, torch_backward, torch_fused, torch_side
    from parity.kinds import torch_leaves

    torch.manual_seed(request["seed"])
    model = torch_side.prepared(load(request["torch"]), request["dtype"])
    given = inputs(workspace, "torch")
    exact = torch_side.as_tensors(given, "float64")
    model = torch_attention.separated(model, exact, request["torch_kwargs"])
    model = torch_fused.separated(model, exact, request["torch_kwargs"])
    leaves = _leaves(json.loads((workspace / "structure.json").read_text(encoding="utf-8")))
    tensors = torch_side.as_tensors(given, request["dtype"])
    structure = torch_side.structure(model, tensors, request["torch_kwargs"])
    if opened := matching.uncalled(leaves, structure):
        torch_fused.open_up(model, opened, leaves)
        structure = torch_side.structure(model, tensors, request["torch_kwargs"])
    pairing = matching.match(leaves, structure, request["mapping"])
    (workspace / "pairs.json").write_text(
        json.dumps({**asdict(pairing), "torch": [leaf.to_json() for leaf in structure]}), encoding="utf-8"
    )
    store = Store(workspace / "captures")
    torch_side.pin_precision()
    capture = torch_side.Capture(model, store, request["dtype"], set(pairing.pairs.values()), request["torch_kwargs"])
    if request["gradients"]:
        torch_backward.run(capture, tensors, seed=request["seed"])
    else:
        capture.forward(tensors)
    read = torch_side.weights_reader(model)
    with_weights = [path for path, leaf in torch_leaves.leaves(model).items() if torch_leaves.state_of(leaf)]
    for path in [*with_weights, *torch_leaves.owned(model)]:
        store.put(f"weights-{path}", read(path))


def run_flax(workspace: Path, request: dict[str, Any]) -> None:
    """Step 3: write `report.json` and `arrays.npz`."""
    module, variables = _flax(request)
    from parity.comparison import compare as comparison
    from parity.comparison import jax_models
    from parity.comparison.jax_side import Candidate
    from parity.kinds import jax_leaves

    found = json.loads((workspace / "pairs.json").read_text(encoding="utf-8"))
    arrays = _flax_inputs(workspace)
    shapes = tuple(comparison.cast(x, request["dtype"]) for x in arrays)
    model = jax_models.of(module)
    leaves, abstract = jax_leaves.structure(model, shapes, request["flax_kwargs"])
    store = Store(workspace / "captures")
    kinds = {leaf.path: leaf.kind for leaf in leaves} | found["kinds"]
    candidate = Candidate(
        model, request["flax_kwargs"], found["pairs"], kinds, store,
        request["dtype"], lambda path: store.arrays(f"weights-{path}", ""), variables, request["name"], abstract,
        found["undecided"], found["likely"],
    )  # fmt: skip
    report = comparison.finish(candidate, arrays, request["gradients"], _leaves(found["torch"]))
    report.write_json(workspace / "report.json")
    np.savez(workspace / "arrays.npz", **report.arrays)  # type: ignore[arg-type]


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
