"""From a diverging row to its causes: gathers what both sides saw and gave, and asks `parity.causes.parameters`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest
from parity.bounds.magnitudes import UNIT_ROUNDOFF
from parity.causes import between_graph
from parity.causes import between_layers as chain_causes
from parity.causes import between_layers_backward as chain_gradients
from parity.causes import gradients as gradient_causes
from parity.causes import parameter_gradients as parameter_causes
from parity.causes import parameters as causes
from parity.causes import precision as precision_causes
from parity.causes.parameters import Case, Cause
from parity.kinds import layouts, registry, weights
from parity.kinds.layer import Layer, Recorded
from parity.reports.rows import Row

if TYPE_CHECKING:
    from parity.comparison.jax_side import Candidate, _Visit


def name_forward(visit: _Visit, rows: list[Row], variables: dict[str, Any], flax_y: NDArray) -> None:
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
        flax_y=_as_reference(visit, flax_y, reference.ndim),
        allowed=visit.allowed,
        dtype=candidate.dtype,
        map_shape=_map_shape(visit),
        mask=candidate.dropout_mask(visit.torch_path),
    )
    coarse = (("torch", visit.facts["coarse"]), ("jax", visit.coarse(variables)))
    found: list[Cause] = []
    if candidate.dtype == "float64":  # there a rounding to fewer bits is found to the bit, and fast
        found = precision_causes.explain(case)
    found = found or precision_causes.seen(coarse, case.torch_y, case.flax_y, visit.allowed, candidate.dtype)
    found = found or causes.explain(case) or precision_causes.explain(case)
    for row in rows:
        attach(row, found)


def attach(row: Row, found: list[Cause]) -> None:
    """Write causes into a row."""
    row.causes, row.cause_keys = [str(cause) for cause in found], [cause.key for cause in found]


def name_dtype(row: Row, dtype: str) -> None:
    """Attach a cause to a Flax layer that gives or gets another dtype than the lane's."""
    text = f"computes in {dtype}, the lane is {row.dtype}"
    attach(row, [Cause(dtype, "jax", text)])


def name_input(
    candidate: Candidate, visit: _Visit, row: Row, x: NDArray, reference: NDArray, i: int, allowed: NDArray | None
) -> None:
    """Attach a cause to a leaf call whose input diverges: what lies between the layers, or their order.

    Args:
        candidate: with both sides' records.
        visit: the call.
        row: of the input.
        x: what Flax hands on, in its layout.
        reference: what PyTorch does, in its own.
        i: which input of the call.
        allowed: what the lane's roundings may make of it, in Flax's layout; None where there is no bound.
    """
    ours = _as_reference(visit, np.asarray(x, np.float64), reference.ndim, visit.input_layouts[i : i + 1])
    exact = np.asarray(reference, np.float64)
    tolerance = _tolerance(exact, allowed, candidate.dtype)
    code, sink = candidate.code, visit.facts.get("sinks", [])[i : i + 1]
    readings = _readings(visit, np.asarray(x, np.float64), reference, i, ours)
    if code is not None and sink:
        row.echo = next(filter(None, (code.follows(sink[0], each, tolerance) for each in readings)), "")
        if row.echo:
            return
    got, expected = _sources(candidate, ours, reference)
    found = _order(visit, got, expected, ours, reference) if expected else []
    found = found or precision_causes.of_values(exact, ours, candidate.dtype)
    found = found or between_graph.whole_number(ours, reference)
    if not found and i == 0:
        found = chain_causes.explain(visit.facts["ops"], _starts(candidate, visit), exact, ours, tolerance)
    if not found and code is not None and sink:
        for each in readings:
            found = found or code.explain(sink[0], visit.path, each, exact, tolerance, visit.key)
    if not found:
        found = between(exact, ours, candidate.dtype)
    if not found:
        found = _order(visit, got, "something else", ours, reference)
    if not found:
        coarse = (("torch", visit.facts["glue_coarse"]),)
        found = precision_causes.seen(coarse, exact, ours, None, candidate.dtype)
    if not found and code is not None and sink:
        row.detail = f"{row.detail}: {code.place(sink[0])}"
    if not found and row.verdict == "mismatch":
        candidate.unexplained.append((row, np.asarray(x, np.float64), visit.input_layouts[i], exact, allowed))
    attach(row, found)


def name_open(candidate: Candidate, visit: _Visit, row: Row, x: NDArray, reference: NDArray, i: int) -> None:
    """Make a mismatch of a row without a bound if a mistake explains its difference; see `name_input`."""
    exact = np.asarray(reference, np.float64)
    code, sink = candidate.code, visit.facts.get("sinks", [])[i : i + 1]
    scale = float(np.max(np.abs(exact), initial=0.0))
    if code is None or not sink or not row.largest > causes.FALL * UNIT_ROUNDOFF[candidate.dtype] * scale:
        return
    ours = _as_reference(visit, np.asarray(x, np.float64), reference.ndim, visit.input_layouts[i : i + 1])
    tolerance = _tolerance(exact, None, candidate.dtype)
    row.echo = code.follows(sink[0], ours, tolerance) or ""
    found = [] if row.echo else code.explain(sink[0], visit.path, ours, exact, tolerance, visit.key)
    attach(row, found)
    if found or row.echo:
        row.verdict, row.fraction = "mismatch", float("inf")


def name_coarse(candidate: Candidate, found: list[tuple[str, str]]) -> None:
    """Attach a cause to inputs that differ by no more than the roundings of coarser operations between JAX's layers.

    Args:
        candidate: after its run.
        found: (dtype, operation) of what it computes between layers on fewer bits than the lane's.
    """
    for row, x, layout, exact, allowed in candidate.unexplained:
        theirs = layout.to_flax(exact) if layout is not None else exact
        causes_found = precision_causes.seen((("jax", found),), theirs, x, allowed, candidate.dtype)
        if causes_found:
            attach(row, causes_found)


def _readings(visit: _Visit, x: NDArray, reference: NDArray, i: int, ours: NDArray) -> list[NDArray]:
    """A Flax array in PyTorch's layout, the likeliest reading first: by wrong values layouts can't be told apart."""
    shape = visit.facts["map_shapes"][i] if i < len(visit.facts["map_shapes"]) else None
    fits = layouts.candidates(reference.shape, x.shape, tuple(shape) if shape else None)
    found = [ours] if fits else [x, ours]
    for layout in fits:
        moved = np.asarray(layout.to_torch(x), np.float64)
        if not any(moved.shape == other.shape and np.array_equal(moved, other) for other in found):
            found.append(moved)
    return found


def _tolerance(exact: NDArray, allowed: NDArray | None, dtype: str) -> float:
    """The largest difference that counts as none: what is allowed, or 64 roundings of a third implementation."""
    own = 64 * UNIT_ROUNDOFF[dtype] * float(np.max(np.abs(exact), initial=0.0))
    return own if allowed is None else max(own, float(np.max(allowed, initial=0.0)))


def name_output(
    candidate: Candidate, row: Row, i: int, ours: NDArray, reference: NDArray, allowed: NDArray | None
) -> None:
    """Attach a cause to an output of the model that diverges: the code behind the last layers.

    Args:
        candidate: with both sides' records.
        row: of the output.
        i: which one.
        ours: Flax's, in PyTorch's layout if that is known.
        reference: PyTorch's.
        allowed: what the lane's roundings may make of it; None where there is no bound.
    """
    exact, ours = np.asarray(reference, np.float64), np.asarray(ours, np.float64)
    tolerance = _tolerance(exact, allowed, candidate.dtype)
    code, sink = candidate.code, candidate.store.facts("output").get("sinks", [])[i : i + 1]
    found: list[Cause] = []
    if code is not None and sink:
        if (echo := code.follows(sink[0], ours, tolerance)) is not None:
            row.echo = echo
            return
        found = code.explain(sink[0], "output", ours, exact, tolerance, "output")
    if not found and ours.shape == exact.shape:
        found = between(exact, ours, candidate.dtype)
    if not found and code is not None and sink:
        row.detail = f"the code before the output differs: {code.place(sink[0])}"
    attach(row, found)


def name_gradient(visit: _Visit, row: Row, gradient: NDArray, reference: NDArray, cotangent: NDArray) -> None:
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
    visit: _Visit, row: Row, name: str, cotangent: NDArray, arrays: tuple[NDArray, NDArray, NDArray | None]
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
    right = None if layer is None else layer.weight_gradient(np.asarray(cotangent, np.float64), name)
    scale = float(np.max(np.abs(flax if alone is None else alone), initial=0.0))
    tolerance = max(row.bound, 64 * UNIT_ROUNDOFF[visit.candidate.dtype] * scale)
    attach(row, parameter_causes.explain(torch, flax, alone, right, tolerance, visit.candidate.dtype))


def name_cotangent(candidate: Candidate, key: str, row: Row, torch: NDArray, flax: NDArray) -> None:
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
    attach(row, chain_gradients.explain(ops, start, coming, torch, flax, tolerance, candidate.dtype))


def _layer(visit: _Visit) -> Layer | None:
    """The layer as its reference's record says; None if it isn't written out."""
    candidate, facts = visit.candidate, visit.facts
    return registry.layer(
        Recorded(
            class_name=registry.known_class(facts["bases"]),
            settings=facts["settings"],
            x=np.asarray(candidate.store.array(visit.key, "input.0"), np.float64),
            weights=_double(candidate.weights(visit.torch_path)) if visit.kind != "plain" else {},
            mask=candidate.dropout_mask(visit.torch_path),
        )
    )


def _starts(candidate: Candidate, visit: _Visit) -> list[NDArray]:
    """What a chain of functions before a leaf may have started from: outputs of earlier leaves, newest first."""
    store = candidate.store
    keys = [key for key in store.keys("forward-") if key < visit.key]
    given = candidate.store if candidate.natural is None else candidate.natural.store
    handed = [store.array(k, "passed.0" if store.has(k, "passed.0") else "output.0") for k in reversed(keys[-4:])]
    return [*handed, given.array("given", "input.0")]


def between(reference: NDArray, ours: NDArray, dtype: str) -> list[Cause]:
    """How two arrays that should be the same are related, no layer being known."""
    if found := precision_causes.of_values(reference, ours, dtype):
        return found
    empty: dict[str, NDArray] = {}
    unknown = np.full((1,), np.nan)
    return causes.explain(Case("", {}, unknown, empty, empty, reference, ours, None, dtype))


def _sources(candidate: Candidate, ours: NDArray, reference: NDArray) -> tuple[str | None, str | None]:
    """The layers whose outputs the two inputs are, bit for bit, as far as they are any layer's: Flax's, PyTorch's."""
    store = candidate.store
    expected = got = None
    for key in store.keys("forward-"):
        output = store.array(key, "passed.0" if store.has(key, "passed.0") else "output.0")
        if output.shape == reference.shape and np.array_equal(output, reference):
            expected = expected or store.facts(key)["path"]
        if output.shape == ours.shape and np.array_equal(output, ours):
            got = got or store.facts(key)["path"]
    return got, expected


def _order(visit: _Visit, got: str | None, expected: str, ours: NDArray, reference: NDArray) -> list[Cause]:
    """The input is another layer's output than the reference's: then the layers are in another order."""
    if got is None or got == expected:
        return []
    before = farthest(ours, reference)
    text = f"{visit.path} works on the output of {got}, in PyTorch on that of {expected}"
    return [Cause("order", "between", f"the layers are in another order: {text}", before, 0.0)]


def flax_weights(visit: _Visit, variables: dict[str, Any]) -> dict[str, NDArray]:
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


def _as_reference(visit: _Visit, ours: NDArray, ndim: int, known: list[Any] | None = None) -> NDArray:
    layout = known[0] if known else visit.output_layout
    if layout is not None:
        return np.asarray(layout.to_torch(ours), np.float64)
    return layouts.channels_first(ours) if ndim > 2 and ours.ndim > 2 else ours


def _map_shape(visit: _Visit) -> tuple[int, ...] | None:
    shapes = visit.facts["map_shapes"]
    return tuple(shapes[0]) if shapes and shapes[0] else None


def _double(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}
