"""A comparison of two models in this process, step by step. Imports both frameworks."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from numpy.typing import NDArray
from torch import Tensor, nn

from parity.candidate import function_models, jax_libraries, jax_run
from parity.candidate.jax_arrays import cast, check_dtype
from parity.candidate.jax_candidate import Candidate
from parity.candidate.jax_recurrent import RecurrentModel
from parity.comparison import mapped, matching, tables
from parity.comparison.request import Request
from parity.comparison.store import Store
from parity.errors import CannotCompare, LayersUnseen
from parity.kinds import jax_leaves, registry
from parity.kinds.leaf import Leaf
from parity.mapping.mapping import Mapping
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
from parity.reports.report import Report


@dataclass
class _Models:
    """Both models, made ready to be paired.

    Attributes:
        model: JAX's; its leaves, and its variables' shapes.
        leaves: see `model`.
        abstract: see `model`.
        torch_model: a copy of PyTorch's, packed modules taken apart; its leaves.
        torch_leaves: see `torch_model`.
        state: PyTorch's state dict, before anything was taken apart.
        tensors: PyTorch's inputs, in the lane's dtype.
        variables: JAX's own, if they are given.
    """

    model: RecurrentModel
    leaves: list[Leaf]
    abstract: dict[str, Any]
    torch_model: nn.Module
    torch_leaves: list[Leaf]
    state: dict[str, NDArray]
    tensors: tuple[Tensor, ...]
    variables: Any


def run(request: Request) -> Report:
    """Compare a pair of objects; see `parity.compare`.

    Raises:
        CannotCompare: see there.
    """
    check_dtype(request.dtype)
    module, unseen = torch_containers.registered(request.torch_module)
    report = _run(replace(request, torch_module=module))
    report.not_exercised += [torch_containers.told(unseen)] if unseen else []
    return report


def _run(request: Request) -> Report:
    """As layers where that can be, else as wholes."""
    if jax_libraries.is_function(request.flax_module):
        return _function(request)
    models = _prepared(request)
    mapping = request.mapping
    try:
        given = mapping.layers if isinstance(mapping, Mapping) else mapping
        pairing = matching.match(models.leaves, models.torch_leaves, given)
        if isinstance(mapping, Mapping) and models.variables is None:
            library = jax_libraries.library_of(request.flax_module)
            native = jax.eval_shape(models.model.native, models.abstract)
            made = mapped.variables(mapping, models.state, library, native, request.dtype)
            models.variables = models.model.canonical(made)
        return _layer_by_layer(request, models, pairing)
    except LayersUnseen as error:
        if models.variables is None:
            raise
        return _as_wholes(request, models, str(error))


def _function(request: Request) -> Report:
    """A function has no layers: it is compared from end to end.

    Raises:
        CannotCompare: without its parameters.
    """
    if request.variables is None:
        raise CannotCompare("a function has no parameters of its own: give its tree of them as `variables`")
    reference = torch_structure.prepared(request.torch_module, request.dtype)
    state = torch_state.of(request.torch_module)
    return function_models.compare(request, request.flax_module, request.variables, reference, state)


def _prepared(request: Request) -> _Models:
    """Both models, with PyTorch's taken apart as far as JAX's is, and JAX's as far as PyTorch's can be."""
    model, kwargs = jax_libraries.of(request.flax_module), request.flax_kwargs
    typed = tuple(cast(x, request.dtype) for x in request.flax_inputs)
    leaves, abstract = jax_leaves.structure(model, typed, kwargs)
    torch_model = torch_structure.prepared(request.torch_module, request.dtype)
    exact = torch_tensors.as_tensors(request.inputs, "float64")
    state = torch_state.arrays(torch_model)
    tensors, named = torch_tensors.as_tensors(request.inputs, request.dtype), request.torch_kwargs
    own = jax_libraries.kernels_of(request.variables)
    torch_model, torch_leaves = torch_preparation.taken_apart(torch_model, exact, tensors, named, leaves, own)
    if model.places and not any(registry.named(leaf.kind).recurrent for leaf in torch_leaves):
        model = jax_libraries.of(request.flax_module, whole=False)
        leaves, abstract = jax_leaves.structure(model, typed, kwargs)
    if hidden := tables.looked_up_otherwise(leaves, torch_leaves):
        model.hidden = frozenset(hidden)
        leaves, abstract = jax_leaves.structure(model, typed, kwargs)
    torch_leaves = torch_preparation.opened_up(torch_model, torch_leaves, tensors, named, leaves)
    model.states = torch_recurrent.gives_states(torch_model)
    variables = request.variables
    if variables is not None:
        variables = model.canonical(jax_libraries.as_variables(variables))
    return _Models(model, leaves, abstract, torch_model, torch_leaves, state, tensors, variables)


def _layer_by_layer(request: Request, models: _Models, pairing: matching.Pairing) -> Report:
    """Run PyTorch's model once, then JAX's beside what was written of it."""
    directory = Path(request.workspace) if request.workspace else Path(tempfile.mkdtemp(prefix="parity-"))
    try:
        store = Store(directory)
        cut, named = set(pairing.pairs.values()), request.torch_kwargs
        capture = torch_capture.Capture(models.torch_model, store, request.dtype, cut, named)
        torch_backward.record(capture, models.tensors, request.gradients, request.seed)
        candidate = Candidate(
            models.model,
            request.flax_kwargs,
            models.leaves,
            pairing,
            store,
            request.dtype,
            torch_structure.weights_reader(models.torch_model),
            models.variables,
            request.name,
            models.abstract,
        )
        report = jax_run.run(candidate, request.flax_inputs, request.gradients, models.torch_leaves)
        facts = torch_state.of(request.torch_module, models.torch_model)
        given = request.mapping if isinstance(request.mapping, Mapping) else None
        module, leaves, cells = request.flax_module, (models.leaves, models.torch_leaves), models.model.cells()
        report.found = given or mapped.found(candidate, module, leaves, facts, models.abstract, cells)
        return report
    finally:
        if request.workspace is None:
            shutil.rmtree(directory, ignore_errors=True)


def _as_wholes(request: Request, models: _Models, why: str) -> Report:
    """Layers that can't be seen or paired: both models as functions of all their parameters."""
    references = models.torch_model, torch_structure.prepared(request.torch_module, request.dtype)
    state = torch_state.of(request.torch_module)
    return function_models.compare_modules(request, models.model, models.variables, references, state, why)
