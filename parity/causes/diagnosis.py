"""From a diverging row to its causes: gathers what both sides saw and gave, and asks `layer.parameters`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.bounds.magnitudes import UNIT_ROUNDOFF
from parity.causes.between import between_layers_backward as chain_gradients
from parity.causes.between import kinks
from parity.causes.between.between_graph import Code
from parity.causes.examined import ExaminedCall, ExaminedModel
from parity.causes.graph.node_kinds import PARAMETER
from parity.causes.layer import gradients as gradient_causes
from parity.causes.layer import parameter_gradients as parameter_causes
from parity.causes.layer import parameters as causes
from parity.causes.layer import precision as precision_causes
from parity.causes.layer.parameters import Case, Cause
from parity.kinds import layouts, registry, weights
from parity.kinds.layer import Layer, Recorded
from parity.reports.rows import Row


def name_forward(visit: ExaminedCall, rows: list[Row], variables: dict[str, Any], flax_y: NDArray) -> None:
    """Attach causes to the rows of one leaf call whose output or weights diverge.

    Args:
        visit: the call.
        rows: its diverging rows.
        variables: that the Flax leaf ran with.
        flax_y: what it gave, in Flax's layout.
    """
    candidate, store = visit.candidate, visit.candidate.store
    reference = store.array(visit.key, "output.0")
    case = Case(
        class_name=registry.known_class(visit.facts["bases"]),
        settings=visit.facts["settings"],
        x=np.asarray(store.array(visit.key, "input.0"), np.float64),
        torch_weights=_double(candidate.weights(visit.torch_path)) if visit.kind != "plain" else {},
        flax_weights=_double(flax_weights(visit, variables)),
        torch_y=np.asarray(reference, np.float64),
        flax_y=as_reference(visit, flax_y, reference.ndim),
        allowed=visit.allowed,
        dtype=candidate.dtype,
        map_shape=_map_shape(visit),
        mask=candidate.dropout_mask(visit.torch_path),
        more=recorded_inputs(visit)[1:],
        elsewhere=lambda: _weights_elsewhere(visit),
    )
    coarse = (("torch", visit.facts["coarse"]), ("jax", visit.coarse(variables)))
    found: list[Cause] = []
    if candidate.dtype == "float64":  # there a rounding to fewer bits is found to the bit, and fast
        found = precision_causes.explain(case)
    found = found or precision_causes.seen(coarse, case.torch_y, case.flax_y, visit.allowed, candidate.dtype)
    found = found or causes.explain(case) or precision_causes.explain(case)
    found = found or _inside(visit, case)
    for row in rows:
        attach(row, found)


def _inside(visit: ExaminedCall, case: Case) -> list[Cause]:
    """Causes in the code of a layer of someone's own, where its weights are the same on both sides."""
    store, key = visit.candidate.store, visit.key.replace("forward", "inside")
    if not store.exists(key):
        return []
    facts = store.facts(key)
    constants = {f"c.{place}": array for place, array in store.arrays(key, "c.").items()}
    for place, node in enumerate(facts["nodes"]):
        if node["op"] == PARAMETER and node["args"]["name"] in case.torch_weights:
            constants[f"c.{place}"] = case.torch_weights[node["args"]["name"]]
    code = Code.of(facts["nodes"], constants, recorded_inputs(visit))
    code.given = "the layer's input"
    scale = 64 * UNIT_ROUNDOFF[case.dtype] * float(np.max(np.abs(case.torch_y), initial=0.0))
    allowed = 0.0 if case.allowed is None else float(np.max(case.allowed, initial=0.0))
    tolerance = max(scale, allowed)
    arguments = (facts["sinks"][0], visit.path, case.flax_y, case.torch_y, tolerance, visit.key)
    return code.explain(*arguments) or code.explain_two(*arguments)


def _weights_elsewhere(visit: ExaminedCall) -> Iterator[tuple[str, str, NDArray]]:
    """The reference's weights: path, name and values of each but the call's own."""
    for path in dict.fromkeys(visit.candidate.pairs.values()):
        for name, array in visit.candidate.weights(path).items():
            yield path, name, np.asarray(array, np.float64)


def attach(row: Row, found: list[Cause]) -> None:
    """Write causes into a row."""
    row.causes, row.cause_keys = [str(cause) for cause in found], [cause.key for cause in found]


def name_left_out(row: Row) -> None:
    """Attach a cause to a PyTorch layer that Flax doesn't run."""
    attach(row, [Cause("layer_missing", "jax", f"{row.torch_name} is left out")])


def name_dtype(row: Row, dtype: str) -> None:
    """Attach a cause to a Flax layer that gives or gets another dtype than the lane's."""
    text = f"computes in {dtype}, the lane is {row.dtype}"
    attach(row, [Cause(dtype, "jax", text)])


def name_gradient(visit: ExaminedCall, row: Row, gradient: NDArray, reference: NDArray, cotangent: NDArray) -> None:
    """Attach a cause to a leaf whose gradient with respect to its input diverges while its output doesn't.

    Args:
        visit: the call.
        row: of the gradient.
        gradient: Flax's, in PyTorch's layout; likewise reference, PyTorch's, and cotangent, of the output.
        reference: see `gradient`.
        cotangent: see `gradient`.
    """
    dtype = visit.candidate.dtype
    scale = float(max(np.max(np.abs(reference), initial=0.0), np.max(np.abs(gradient), initial=0.0)))
    tolerance = max(row.bound, 64 * UNIT_ROUNDOFF[dtype] * scale)
    g, torch, flax = (np.asarray(array, np.float64) for array in (cotangent, reference, gradient))
    layer = _layer(visit)
    if layer is None:
        x = np.asarray(visit.candidate.store.array(visit.key, "input.0"), np.float64)
        attach(row, gradient_causes.at_zero(x, torch, flax, tolerance))
        return
    found = precision_causes.of_gradient(layer, g, torch, flax, tolerance) if dtype == "float64" else []
    attach(row, found or gradient_causes.explain(layer, g, torch, flax, tolerance))


def name_parameter(
    visit: ExaminedCall, row: Row, name: str, cotangent: NDArray, arrays: tuple[NDArray, NDArray, NDArray | None]
) -> None:
    """Attach a cause to a parameter whose gradient diverges.

    Args:
        visit: the call of its layer.
        row: of the gradient.
        name: PyTorch's, of the parameter.
        cotangent: of the layer's output, in PyTorch's layout.
        arrays: in PyTorch's layout: PyTorch's gradient, Flax's, and the one that PyTorch's layer makes by itself.
    """
    layer = _layer(visit)
    torch, flax = (np.asarray(array, np.float64) for array in arrays[:2])
    alone = None if arrays[2] is None else np.asarray(arrays[2], np.float64)
    g = np.asarray(cotangent, np.float64)
    right = None if layer is None else layer.weight_gradient(g, name)
    mistakes = () if layer is None else layer.weight_gradient_mistakes(g, name)
    scale = float(np.max(np.abs(flax if alone is None else alone), initial=0.0))
    tolerance = max(row.bound, 64 * UNIT_ROUNDOFF[visit.candidate.dtype] * scale)
    attach(row, parameter_causes.explain(torch, flax, alone, right, tolerance, visit.candidate.dtype, mistakes))


def name_cotangent(candidate: ExaminedModel, key: str, row: Row, torch: NDArray, flax: NDArray) -> None:
    """Attach a cause to a gradient that the code after a layer, or after the input, hands back wrongly.

    Args:
        candidate: with both sides' records.
        key: of the layer's forward record; `given` for the input.
        row: of the gradient.
        torch: PyTorch's, in PyTorch's layout; likewise flax.
        flax: see `torch`.
    """
    store = candidate.store
    name = "input.0" if key == "given" else "passed.0" if store.has(key, "passed.0") else "output.0"  # at ties
    start = store.array(key, name)
    followers = [later for later in candidate.visited if key == "given" or later > key]
    ops, coming = None, None
    if followers:
        # The next layer is the only one behind this one, or the search finds no witness and gives up.
        after = min(followers)
        backward = after.replace("forward", "backward")
        ops = store.facts(after)["ops"]
        root = "root.input.0" if store.has(backward, "root.input.0") else "gradient.input.0"
        coming = store.array(backward, root) if store.has(backward, root) else None
    else:
        ops, coming = store.facts("output")["ops"], store.array("output_cotangent", "cotangent.0")
    scale = float(max(np.max(np.abs(torch), initial=0.0), np.max(np.abs(flax), initial=0.0)))
    tolerance = max(row.bound, 64 * UNIT_ROUNDOFF[candidate.dtype] * scale)
    found = chain_gradients.explain(ops, start, coming, torch, flax, tolerance, candidate.dtype)
    attach(row, found or kinks.explain(candidate, key, torch, flax, tolerance))


def _layer(visit: ExaminedCall) -> Layer | None:
    """The layer as its reference's record says; None if it isn't written out."""
    candidate, facts = visit.candidate, visit.facts
    return registry.layer(
        Recorded(
            class_name=registry.known_class(facts["bases"]),
            settings=facts["settings"],
            x=np.asarray(candidate.store.array(visit.key, "input.0"), np.float64),
            weights=_double(candidate.weights(visit.torch_path)) if visit.kind != "plain" else {},
            mask=candidate.dropout_mask(visit.torch_path),
            more=recorded_inputs(visit)[1:],
        )
    )


def recorded_inputs(visit: ExaminedCall) -> tuple[NDArray, ...]:
    """What a call of PyTorch's got."""
    arrays = visit.candidate.store.arrays(visit.key, "input.")
    return tuple(np.asarray(arrays[name], np.float64) for name in sorted(arrays, key=int))


def flax_weights(visit: ExaminedCall, variables: dict[str, Any]) -> dict[str, NDArray]:
    """A Flax leaf's parameters and statistics under PyTorch's names and in its layout."""
    layout = visit.input_layouts[0] if visit.input_layouts else None
    reference = visit.candidate.weights(visit.torch_path)
    names = {weights.flax_name(visit.kind, name): name for name in reference}
    found = {}
    for arrays in variables.values():
        for flax_name, array in arrays.items():
            name = names.get(flax_name)
            if name is not None:
                ours, shape = np.asarray(array, np.float64), reference[name].shape
                found[name] = weights.to_torch(visit.kind, name, ours, layout, shape)
    return found


def as_reference(visit: ExaminedCall, ours: NDArray, ndim: int, known: Sequence[Any] | None = None) -> NDArray:
    """What a Flax leaf gave, or got in the layouts `known`, in the layout of a PyTorch array of `ndim` axes."""
    layout = known[0] if known else visit.output_layout
    if layout is not None:
        return np.asarray(layout.to_torch(ours), np.float64)
    return layouts.channels_first(ours) if ndim > 2 and ours.ndim > 2 else ours


def _map_shape(visit: ExaminedCall) -> tuple[int, ...] | None:
    shapes = visit.facts["map_shapes"]
    return tuple(shapes[0]) if shapes and shapes[0] else None


def _double(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}
