"""PyTorch's step of a comparison in several processes: `pairs.json`, the captures and the weights. Imports no JAX."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from parity.comparison import matching
from parity.comparison.store import Store
from parity.comparison.workspace import inputs, leaves_of, load, whole_mapping
from parity.kinds import torch_leaves
from parity.reference import (
    torch_backward,
    torch_capture,
    torch_containers,
    torch_preparation,
    torch_recurrent,
    torch_state,
    torch_structure,
    torch_tensors,
)


def run(workspace: Path, request: dict[str, Any]) -> None:
    """Step 2: write `pairs.json`, the captures and the weights of every leaf with any."""
    torch.manual_seed(request["seed"])
    original, unseen = torch_containers.registered(load(request["torch"]))
    model = torch_structure.prepared(original, request["dtype"])
    given, mapping, store = inputs(workspace, "torch"), whole_mapping(request), Store(workspace / "captures")
    if mapping is not None:
        store.put("state", torch_state.arrays(model))
    leaves = leaves_of(json.loads((workspace / "structure.json").read_text(encoding="utf-8")))
    exact, tensors = (torch_tensors.as_tensors(given, dtype) for dtype in ("float64", request["dtype"]))
    model, structure = torch_preparation.taken_apart(model, exact, tensors, request["torch_kwargs"], leaves)
    structure = torch_preparation.opened_up(model, structure, tensors, request["torch_kwargs"], leaves)
    pairing = matching.match(leaves, structure, request["mapping"] if mapping is None else mapping.layers)
    content = {
        **asdict(pairing),
        "unseen": torch_containers.told(unseen) if unseen else "",
        "states": torch_recurrent.gives_states(model),
        "torch": [leaf.to_json() for leaf in structure],
        "state": torch_state.of(original, model).to_json(),
    }
    (workspace / "pairs.json").write_text(json.dumps(content), encoding="utf-8")
    capture = torch_capture.Capture(
        model, store, request["dtype"], set(pairing.pairs.values()), request["torch_kwargs"]
    )
    torch_backward.record(capture, tensors, request["gradients"], request["seed"])
    read = torch_structure.weights_reader(model)
    with_weights = [path for path, leaf in torch_leaves.leaves(model).items() if torch_leaves.state_of(leaf)]
    for path in [*with_weights, *torch_leaves.owned(model)]:
        store.put(f"weights-{path}", read(path))
