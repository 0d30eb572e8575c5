"""From an input that diverges to its causes: what lies between the layers, or their order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest
from parity.bounds.magnitudes import UNIT_ROUNDOFF
from parity.causes.between import between_layers as chain_causes
from parity.causes.between import recurrent_inputs as recurrent_causes
from parity.causes.diagnosis import as_reference, attach, recorded_inputs
from parity.causes.examined import ExaminedCall, ExaminedModel
from parity.causes.layer import indices
from parity.causes.layer import parameters as causes
from parity.causes.layer import precision as precision_causes
from parity.causes.layer.parameters import Case, Cause
from parity.causes.mistakes.attempts import channels_moved
from parity.kinds import layouts, registry
from parity.reports.rows import Row


def name_input(
    candidate: ExaminedModel,
    visit: ExaminedCall,
    row: Row,
    x: NDArray,
    reference: NDArray,
    i: int,
    allowed: NDArray | None,
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
    ours = as_reference(visit, np.asarray(x, np.float64), reference.ndim, visit.input_layouts[i : i + 1])
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
    found = found or indices.explain(ours, reference)
    found = found or _sequence(candidate, visit, exact, np.asarray(x, np.float64))
    if not found and i == 0:
        found = chain_causes.explain(visit.facts["ops"], _starts(candidate, visit), exact, ours, tolerance)
    if not found and code is not None and sink:
        for each in readings:
            found = found or code.explain(sink[0], visit.path, each, exact, tolerance, visit.key)
    if not found:
        found = between(exact, ours, candidate.dtype)
    if not found:
        found = _order(visit, got, "something else", ours, reference)
    if not found and code is not None and sink and row.verdict == "mismatch":
        found = code.explain_two(sink[0], visit.path, readings[0], exact, tolerance, visit.key)
    if not found:
        coarse = (("torch", visit.facts["glue_coarse"]),)
        found = precision_causes.seen(coarse, exact, ours, None, candidate.dtype)
    if not found and code is not None and sink:
        row.detail = f"{row.detail}: {code.place(sink[0])}"
    if not found and row.verdict == "mismatch":
        candidate.unexplained.append((row, np.asarray(x, np.float64), visit.input_layouts[i], exact, allowed))
    attach(row, found)


def _sequence(candidate: ExaminedModel, visit: ExaminedCall, reference: NDArray, ours: NDArray) -> list[Cause]:
    """Causes that have to do with a recurrent layer, this one or one before it; see `recurrent_causes`."""
    tolerance = 64 * UNIT_ROUNDOFF[candidate.dtype] * float(np.max(np.abs(reference), initial=0.0))
    if registry.named(visit.kind).recurrent:
        others = [each for each in recorded_inputs(visit) if each.shape == reference.shape]
        others = [each for each in others if not np.array_equal(each, reference)]
        return recurrent_causes.explain(reference, ours, tuple(others), tolerance)
    if any(registry.named(kind).recurrent for kind in candidate.kinds.values()):
        return recurrent_causes.behind(reference, ours, tolerance)
    return []


def name_output(
    candidate: ExaminedModel, row: Row, i: int, ours: NDArray, reference: NDArray, allowed: NDArray | None
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
    found = _another_output(candidate, i, ours, exact, tolerance)
    if not found and code is not None and sink:
        if (echo := code.follows(sink[0], ours, tolerance)) is not None:
            row.echo = echo
            return
        found = code.explain(sink[0], "output", ours, exact, tolerance, "output")
    if not found and ours.shape == exact.shape:
        found = between(exact, ours, candidate.dtype)
    if not found and code is not None and sink:
        found = code.explain_two(sink[0], "output", ours, exact, tolerance, "output")
    if not found and code is not None and sink:
        row.detail = f"the code before the output differs: {code.place(sink[0])}"
    attach(row, found)


def _another_output(candidate: ExaminedModel, i: int, ours: NDArray, exact: NDArray, tolerance: float) -> list[Cause]:
    """The outputs may be in another order."""
    before = farthest(ours, exact) if ours.shape == exact.shape else float("inf")
    for place, other in candidate.store.arrays("output", "input.").items():
        theirs = np.asarray(other, np.float64)
        if int(place) == i or theirs.shape != ours.shape or not np.isfinite(tolerance):
            continue
        if causes.explains(before, after := farthest(ours, theirs), tolerance):
            text = f"the outputs are in another order: JAX's output {i} is PyTorch's output {place}"
            return [Cause("outputs_exchanged", "between", text, before, after)]
    return []


def name_open(candidate: ExaminedModel, visit: ExaminedCall, row: Row, x: NDArray, reference: NDArray, i: int) -> None:
    """Make a mismatch of a row without a bound if a mistake explains its difference; see `name_input`."""
    exact = np.asarray(reference, np.float64)
    code, sink = candidate.code, visit.facts.get("sinks", [])[i : i + 1]
    scale = float(np.max(np.abs(exact), initial=0.0))
    if code is None or not sink or not row.largest > causes.FALL * UNIT_ROUNDOFF[candidate.dtype] * scale:
        return
    ours = as_reference(visit, np.asarray(x, np.float64), reference.ndim, visit.input_layouts[i : i + 1])
    tolerance = _tolerance(exact, None, candidate.dtype)
    row.echo = code.follows(sink[0], ours, tolerance) or ""
    found = [] if row.echo else code.explain(sink[0], visit.path, ours, exact, tolerance, visit.key)
    attach(row, found)
    if found or row.echo:
        row.verdict, row.fraction = "mismatch", float("inf")


def narrow(candidate: ExaminedModel, rows: list[Row]) -> None:
    """Leave out what explains the choices that one layer got, and not those that others like it got."""
    better = {} if candidate.code is None else candidate.code.narrowed()
    for row in rows:
        if row.causes and row.stage == "input" and row.name in better:
            attach(row, [better[row.name]])


def name_coarse(candidate: ExaminedModel, found: list[tuple[str, str]]) -> None:
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


def between(reference: NDArray, ours: NDArray, dtype: str) -> list[Cause]:
    """How two arrays that should be the same are related, no layer being known."""
    if found := precision_causes.of_values(reference, ours, dtype):
        return found
    empty: dict[str, NDArray] = {}
    unknown = np.full((1,), np.nan)
    return causes.explain(Case("", {}, unknown, empty, empty, reference, ours, None, dtype))


def _readings(visit: ExaminedCall, x: NDArray, reference: NDArray, i: int, ours: NDArray) -> list[NDArray]:
    """A Flax array in PyTorch's layout, the likeliest reading first: by wrong values layouts can't be told apart."""
    shape = visit.facts["map_shapes"][i] if i < len(visit.facts["map_shapes"]) else None
    fits = layouts.candidates(reference.shape, x.shape, tuple(shape) if shape else None)
    found = [ours] if fits else [x, ours]
    if not fits and shape and x.ndim == reference.ndim == 2 and x.shape[1] % shape[0] == 0:
        # Rows of a map of another size, as behind a pool with fewer windows: channels lie last in Flax all the same.
        found.insert(0, np.swapaxes(x.reshape(len(x), -1, shape[0]), 1, 2).reshape(x.shape))
    for layout in fits:
        moved = np.asarray(layout.to_torch(x), np.float64)
        if not any(moved.shape == other.shape and np.array_equal(moved, other) for other in found):
            found.append(moved)
    return found


def _tolerance(exact: NDArray, allowed: NDArray | None, dtype: str) -> float:
    """The largest difference that counts as none: what is allowed, or 64 roundings of a third implementation."""
    own = 64 * UNIT_ROUNDOFF[dtype] * float(np.max(np.abs(exact), initial=0.0))
    return own if allowed is None else max(own, float(np.max(allowed, initial=0.0)))


def _starts(candidate: ExaminedModel, visit: ExaminedCall) -> list[NDArray]:
    """What a chain of functions before a leaf may have started from: outputs of earlier leaves, newest first."""
    store = candidate.store
    keys = [key for key in store.keys("forward-") if key < visit.key]
    given = candidate.store if candidate.natural is None else candidate.natural.store
    handed = [store.array(k, "passed.0" if store.has(k, "passed.0") else "output.0") for k in reversed(keys[-4:])]
    return [*handed, given.array("given", "input.0")]


def _sources(candidate: ExaminedModel, ours: NDArray, reference: NDArray) -> tuple[str | None, str | None]:
    """The layers whose outputs the two inputs are, bit for bit, as far as they are any layer's: Flax's, PyTorch's."""
    store = candidate.store
    expected = got = None
    for key in store.keys("forward-"):
        output = store.array(key, "passed.0" if store.has(key, "passed.0") else "output.0")
        if output.shape == reference.shape and np.array_equal(output, reference):
            expected = expected or store.facts(key)["path"]
        handed = output if output.shape == ours.shape else next(channels_moved(output, ours.shape), output)
        if handed.shape == ours.shape and np.array_equal(handed, ours):
            got = got or store.facts(key)["path"]
    return got, expected


def _order(visit: ExaminedCall, got: str | None, expected: str, ours: NDArray, reference: NDArray) -> list[Cause]:
    """The input is another layer's output than the reference's: then the layers are in another order."""
    if got is None or got == expected:
        return []
    before = farthest(ours, reference)
    text = f"{visit.path} works on the output of {got}, in PyTorch on that of {expected}"
    return [Cause("order", "between", f"the layers are in another order: {text}", before, 0.0)]
