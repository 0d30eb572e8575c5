"""`parity.compare`: is this Flax module the same function as that PyTorch module, and if not, where not?"""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from parity.bounds.judging import farthest, judge_together
from parity.bounds.magnitudes import UNIT_ROUNDOFF, normwise_limit
from parity.causes import diagnosis
from parity.causes import inputs as input_causes
from parity.causes import parameter_gradients as parameter_causes
from parity.comparison import functions, jax_backward, jax_models, jax_precision, jax_ties, mapped, matching
from parity.comparison.jax_candidate import Candidate
from parity.comparison.jax_dtypes import DTYPES, check_dtype
from parity.comparison.store import Store
from parity.comparison.untold import only_in_flax
from parity.errors import CannotCompare, LayersUnseen
from parity.kinds import jax_leaves, layouts, parameter, registry, weights
from parity.kinds.leaf import Leaf
from parity.mapping.mapping import Mapping
from parity.reports.report import Report
from parity.reports.rows import Row, fill


def compare(
    flax_module: Any,
    torch_module: Any,
    inputs: ArrayLike | tuple[ArrayLike, ...],
    *,
    variables: Any = None,
    dtype: str = "float64",
    gradients: bool = True,
    mapping: dict[str, str] | Mapping | None = None,
    flax_inputs: tuple[ArrayLike, ...] | None = None,
    flax_kwargs: dict[str, Any] | None = None,
    torch_kwargs: dict[str, Any] | None = None,
    name: str = "model",
    seed: int = 0,
    workspace: str | Path | None = None,
    jax_python: str | None = None,
    torch_python: str | None = None,
) -> Report:
    """Compare a JAX model with the PyTorch module it was ported from, layer by layer.

    Every layer gets the reference's (PyTorch's) input, and backward the reference's cotangent, so each row of the
    report judges one layer alone; the code between layers is judged by what it hands to the next one. Then both
    models run freely from end to end.

    Args:
        flax_module: the candidate, a module of flax.linen or flax.nnx; or a function of (parameters, *inputs), which
            is compared from end to end only.
        torch_module: the reference, with its weights; neither changed nor moved: a copy runs in evaluation mode.
            Both may be names, `package.module:attribute`, and then run in processes of their own.
        inputs: array or arrays in PyTorch's layout; arrays of rank 4 (NCHW) are turned to NHWC for Flax.
        variables: Flax's own, to check the conversion of the weights as well, for nnx `nnx.state(module)`; None to
            convert PyTorch's here. Of a function the tree of its parameters, which holds PyTorch's values.
        dtype: `float64` decides correctness; `float32` and `bfloat16` compare the precisions.
        gradients: compare backward passes too.
        mapping: Flax path to PyTorch path of leaves that names, kinds and shapes don't pair. Or a whole
            `parity.Mapping`: its pairs are compared, and what it makes of PyTorch's weights is held to them.
        flax_inputs: what Flax gets, if not the inputs with channels moved last.
        flax_kwargs: more arguments of Flax's call, such as `{"train": False}`.
        torch_kwargs: likewise PyTorch's.
        name: of this pair, for the report.
        seed: of the cotangent.
        workspace: directory for captures, kept; a temporary one if None.
        jax_python: interpreter of a virtual environment that holds JAX, for modules given by name.
        torch_python: likewise of one that holds PyTorch.

    Returns:
        The report; `print(report)` shows it, `report.equal` and `report.exit_code` decide, and `report.mapping`
        converts weights as the comparison did.

    Raises:
        CannotCompare: layers can't be paired, something can't be compared (by name), or float64 is off in JAX.
    """
    arrays = tuple(np.asarray(x) for x in (inputs if isinstance(inputs, (tuple, list)) else (inputs,)))
    ours = tuple(np.asarray(x) for x in flax_inputs) if flax_inputs is not None else tuple(map(to_flax, arrays))
    kwargs = flax_kwargs or {}
    if isinstance(flax_module, str) or isinstance(torch_module, str):
        return _by_name(
            flax_module, torch_module, arrays, flax_inputs=ours, flax_kwargs=kwargs, torch_kwargs=torch_kwargs or {},
            dtype=dtype, gradients=gradients, mapping=mapping, name=name, seed=seed, workspace=workspace,
            jax_python=jax_python, torch_python=torch_python, variables=variables,
        )  # fmt: skip
    if jax_python or torch_python:
        raise CannotCompare(
            "another interpreter can't be handed an object: give both modules as 'package.module:attribute'"
        )
    from parity.comparison import (
        torch_backward,
        torch_capture,
        torch_preparation,
        torch_recurrent,
        torch_state,
        torch_structure,
        torch_tensors,
    )

    check_dtype(dtype)
    typed = tuple(cast(x, dtype) for x in ours)
    if jax_models.is_function(flax_module):
        if variables is None:
            raise CannotCompare("a function has no parameters of its own: give its tree of them as `variables`")
        return functions.compare(
            flax_module, variables, torch_structure.prepared(torch_module, dtype), arrays, ours, dtype=dtype,
            gradients=gradients, mapping=mapping, kwargs=kwargs, torch_kwargs=torch_kwargs or {}, name=name, seed=seed,
            state=torch_state.of(torch_module),
        )  # fmt: skip
    model = jax_models.of(flax_module)
    leaves, abstract = jax_leaves.structure(model, typed, kwargs)
    torch_model, exact = torch_structure.prepared(torch_module, dtype), torch_tensors.as_tensors(arrays, "float64")
    state = torch_state.arrays(torch_model)
    tensors, named = torch_tensors.as_tensors(arrays, dtype), torch_kwargs or {}
    torch_model, torch_leaves = torch_preparation.taken_apart(torch_model, exact, tensors, named, leaves)
    if model.places and not any(registry.named(leaf.kind).recurrent for leaf in torch_leaves):
        model = jax_models.of(flax_module, whole=False)
        leaves, abstract = jax_leaves.structure(model, typed, kwargs)
    torch_leaves = torch_preparation.opened_up(torch_model, torch_leaves, tensors, named, leaves)
    model.states = torch_recurrent.gives_states(torch_model)
    if variables is not None:
        variables = model.canonical(jax_models.as_variables(variables))
    whole = functools.partial(
        functions.compare_modules, model, variables, (torch_model, torch_structure.prepared(torch_module, dtype)),
        arrays, ours, dtype=dtype, gradients=gradients, kwargs=kwargs, torch_kwargs=torch_kwargs or {}, name=name,
        seed=seed, state=torch_state.of(torch_module),
    )  # fmt: skip
    given = mapping if isinstance(mapping, Mapping) else None
    try:
        pairing = matching.match(leaves, torch_leaves, mapping.layers if isinstance(mapping, Mapping) else mapping)
    except LayersUnseen as error:
        if variables is None:
            raise
        return whole(str(error))
    if given is not None and variables is None:
        variables = mapped.variables(given, state, jax_models.library_of(flax_module), abstract, dtype)
    directory = Path(workspace) if workspace else Path(tempfile.mkdtemp(prefix="parity-"))
    try:
        store = Store(directory)
        torch_tensors.pin_precision()
        capture = torch_capture.Capture(torch_model, store, dtype, set(pairing.pairs.values()), torch_kwargs or {})
        if gradients:
            torch_backward.run(capture, tensors, seed=seed)
        else:
            capture.forward(tensors)
        candidate = Candidate(
            model, kwargs, pairing.pairs, {leaf.path: leaf.kind for leaf in leaves} | pairing.kinds, store, dtype,
            torch_structure.weights_reader(torch_model), variables, name, abstract, pairing.undecided,
            pairing.likely,
        )  # fmt: skip
        report = finish(candidate, ours, gradients, torch_leaves)
        if not model.places:  # mappings don't know how cells keep their gates
            facts = torch_state.of(torch_module, torch_model)
            report.found = given or mapped.found(candidate, flax_module, torch_leaves, facts, abstract)
        return report
    except LayersUnseen as error:
        if variables is None:
            raise
        return whole(str(error))
    finally:
        if workspace is None:
            shutil.rmtree(directory, ignore_errors=True)


def _by_name(flax_module: Any, torch_module: Any, arrays: tuple[NDArray, ...], **settings: Any) -> Report:
    from parity.comparison import environments as processes

    if not (isinstance(flax_module, str) and isinstance(torch_module, str)):
        raise CannotCompare("give both modules as 'package.module:attribute', or both as objects")
    if settings.pop("variables") is not None:
        raise CannotCompare("with modules given by name, let the Flax name stand for (module, variables)")
    return processes.compare(flax_module, torch_module, arrays, **settings)


def finish(
    candidate: Candidate,
    inputs: tuple[NDArray, ...],
    gradients: bool,
    torch_leaves: list[Leaf],
    whole: bool = True,
) -> Report:
    """The candidate's half of a comparison, once the reference's captures lie in its store.

    Args:
        candidate: prepared, not yet run.
        inputs: in Flax's layout.
        gradients: compare backward passes too; they must have been captured.
        torch_leaves: the reference's structure.
        whole: run from end to end as well.
    """
    candidate.forward(inputs)
    if candidate.unexplained and candidate.failed is None:
        input_causes.name_coarse(candidate, jax_precision.between_layers(candidate, inputs))
    ran = candidate.failed is None and candidate.broken is None
    gradients, whole = gradients and ran, whole and ran
    told: list[str] = []
    if gradients:
        jax_backward.run(candidate, inputs)
    comparable = all(row.verdict not in ("shape", "missing") for row in candidate.rows)
    if gradients and comparable:
        at_ties, told = jax_ties.run(candidate, inputs)
        candidate.rows += at_ties
    if whole and comparable:
        candidate.rows += end_to_end(candidate, inputs, gradients)
    report = Report(candidate.rows, not_exercised(candidate, torch_leaves) + told)
    report.arrays, report.arrays_of = candidate.worst.arrays, candidate.worst.row
    report.settings = {"dtype": candidate.dtype, "jax": jax.__version__, "backend": jax.default_backend()}
    return report


def end_to_end(candidate: Candidate, inputs: tuple[NDArray, ...], gradients: bool) -> list[Row]:
    """Both models run freely: outputs, and gradients of all parameters together, compared normwise."""
    store, model, kwargs = candidate.store, candidate.model, candidate.kwargs
    variables = candidate.given if candidate.given is not None else candidate.variables
    parameters = variables.get("params", {})
    others = {k: v for k, v in variables.items() if k != "params"}
    arrays = [candidate.as_array(x) for x in inputs]

    def run(parameters: Any, *arrays: jax.Array) -> Any:
        return jax.tree.leaves(model.apply({"params": parameters, **others}, arrays, kwargs, None))

    with jax.default_matmul_precision("highest"):
        if gradients:
            cotangents = _cotangents(candidate, jax.eval_shape(run, parameters, *arrays))
            outputs, found = jax.jit(_value_and_pullback(run))(parameters, arrays, cotangents)
        else:
            outputs, found = jax.jit(run)(parameters, *arrays), None
    rows = []
    for i, output in enumerate(outputs):
        reference = store.array("output", f"input.{i}")
        layout = layouts.align(reference, np.asarray(output, np.float64), None)
        value = layout.to_flax(reference) if layout else reference
        rows.append(_normwise(candidate, "outputs", [("", np.asarray(output), value)]))
    pairs = [] if found is None else list(_gradient_pairs(candidate, found))
    if pairs:  # a model without parameters has none
        rows.append(_normwise(candidate, "gradients", pairs, _coarse_gradients(candidate)))
        if not rows[-1].equal and not any(row.diverges for row in candidate.rows):
            rows = _by_parameter(candidate, pairs) + rows
    return rows


def _by_parameter(candidate: Candidate, pairs: list[tuple[str, NDArray, NDArray]]) -> list[Row]:
    """The parameters whose gradients differ end to end though every layer's own agree, the farthest one first."""
    rows = []
    # Roundings are relative to all gradients: those of a key's bias, say, are nothing else.
    scale = max((float(np.max(np.abs(theirs), initial=0.0)) for _, _, theirs in pairs), default=0.0)
    for name, ours, theirs in pairs:
        if (
            farthest(np.asarray(ours, np.float64), np.asarray(theirs, np.float64))
            <= normwise_limit(candidate.dtype) * scale
        ):
            continue
        row = _normwise(candidate, f"gradient of {name.rpartition('/')[2]}, end to end", [(name, ours, theirs)])
        row.name = name.rpartition("/")[0]
        row.torch_name = candidate.pairs.get(row.name, row.name)
        if not row.equal:
            a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
            tolerance = row.bound * float(np.max(np.abs(b), initial=0.0))
            diagnosis.attach(row, parameter_causes.explain(b, a, None, None, tolerance, candidate.dtype))
            rows.append(row)
    return sorted(rows, key=lambda row: -row.fraction)


def _value_and_pullback(run: Any) -> Any:
    def both(parameters: Any, arrays: list[jax.Array], cotangents: list[jax.Array]) -> Any:
        outputs, pull_back = jax.vjp(lambda p: run(p, *arrays), parameters)
        return outputs, pull_back(cotangents)[0]

    return both


def _cotangents(candidate: Candidate, shapes: list[Any]) -> list[jax.Array]:
    found = []
    for i, shape in enumerate(shapes):
        reference = candidate.store.array("output_cotangent", f"cotangent.{i}")
        fits = layouts.candidates(reference.shape, shape.shape, None)
        found.append(jnp.asarray(fits[0].to_flax(reference) if fits else reference, DTYPES[candidate.dtype]))
    return found


def _gradient_pairs(candidate: Candidate, found: dict[str, Any]) -> Any:
    for path, torch_path in candidate.pairs.items():
        key = f"parameters-{torch_path}"
        ours = jax_leaves.leaf_variables({"params": found}, path).get("params", {})
        layout = candidate.input_layouts(path)
        facts = candidate.store.facts(key) if ours else {"shapes": {}, "frozen": []}
        for name, shape in facts["shapes"].items():
            if name in facts["frozen"]:
                continue
            has = candidate.store.has(key, name)
            reference = candidate.store.array(key, name) if has else np.zeros(shape)
            flax_name = weights.flax_name(candidate.kinds[path], name)
            reference = weights.to_flax(candidate.kinds[path], name, reference, layout, candidate.wanted(path))
            if flax_name in ours:
                found_here = np.asarray(ours[flax_name])
                same = candidate.kinds[path] != parameter.KIND.name or reference.size != found_here.size
                yield f"{path}/{flax_name}", found_here, reference if same else reference.reshape(found_here.shape)


def _coarse_gradients(candidate: Candidate) -> float:
    """What PyTorch's gradients may err by in any lane: its hardsigmoid's hold their 1/6 in float32."""
    store = candidate.store
    records = [store.facts(key) for key in (*store.keys("forward-"), "output")]
    calls = sum(op == "hardsigmoid" for facts in records for op, _ in facts["ops"])
    calls += sum("Hardsigmoid" in facts.get("bases", ()) for facts in records)
    return 4 * calls * UNIT_ROUNDOFF["float32"]


def _normwise(candidate: Candidate, stage: str, pairs: list[tuple[str, NDArray, NDArray]], more: float = 0.0) -> Row:
    row = Row(candidate.name, "end to end", "end to end", stage, candidate.dtype, order=len(candidate.records) + 1)
    ours, theirs = {name: a for name, a, _ in pairs}, {name: b for name, _, b in pairs}
    fill(row, judge_together(ours, theirs, normwise_limit(candidate.dtype) + more))
    row.n = round(row.bound / UNIT_ROUNDOFF[candidate.dtype])
    return row


def not_exercised(candidate: Candidate, torch_leaves: list[Leaf]) -> list[str]:
    """What this comparison could not have noticed, in words."""
    found = []
    if candidate.failed is not None:
        place = candidate.failed["path"] or f"the code after {candidate.failed['after']}"
        found.append(f"everything from {place} on, where PyTorch breaks down: {candidate.failed['message']}")
    elif candidate.broken is not None:
        last = max(candidate.visited, default=None)
        place = "the beginning" if last is None else candidate.visited[last].path
        found.append(f"everything behind {place}, where Flax breaks down on PyTorch's values: {candidate.broken}")
    paths = {path for path, _ in candidate.records}
    biased = [x.path for x in torch_leaves if registry.named(x.kind).linear and "bias" in x.shapes]
    found += only_in_flax(candidate)
    zero = [path for path in biased if path in paths and not np.any(candidate.weights(path)["bias"])]
    if zero:
        found.append(f"biases of zeros, where one left out would not show: {', '.join(zero)}")
    layers = [x for x in torch_leaves if x.shapes and x.kind != parameter.KIND.name]
    found += [f"{x.path} has parameters but never ran" for x in layers if x.path not in paths]
    frozen = _frozen(candidate, [x.path for x in torch_leaves if x.shapes])
    if frozen:
        found.append(f"gradients of parameters that PyTorch doesn't train (requires_grad is off): {', '.join(frozen)}")
    for (path, _), key in candidate.records.items():
        if candidate.store.has(key, "output.0") and not np.any(candidate.store.array(key, "output.0")):
            found.append(f"{path} gives nothing but zeros: what follows can't be judged")
    return found


def _frozen(candidate: Candidate, paths: list[str]) -> list[str]:
    """Parameters without a gradient in a PyTorch model that trains others; none if it trains none at all."""
    store = candidate.store
    records = {p: store.facts(f"parameters-{p}") for p in paths if store.exists(f"parameters-{p}")}
    frozen = [f"{path}.{name}" for path, facts in records.items() for name in facts["frozen"]]
    return frozen if len(frozen) < sum(len(facts["shapes"]) for facts in records.values()) else []


def to_flax(array: NDArray) -> NDArray:
    """Arrays of rank 4 from NCHW to NHWC; others as they are."""
    return layouts.channels_last(array) if array.ndim == 4 else array


def cast(x: NDArray, dtype: str) -> Any:
    """Shape and dtype of an input as the lane sees it."""
    floating = np.issubdtype(x.dtype, np.floating)
    return jax.ShapeDtypeStruct(x.shape, DTYPES[dtype] if floating else x.dtype)
