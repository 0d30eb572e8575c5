"""Both models run freely, from end to end: outputs, and the gradients of all parameters together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import between_forms, farthest, judge_together
from parity.bounds.magnitudes import UNIT_ROUNDOFF, normwise_limit
from parity.candidate.jax_arrays import DTYPES, placed
from parity.candidate.jax_candidate import Candidate
from parity.causes import diagnosis
from parity.causes.layer import parameter_gradients as parameter_causes
from parity.comparison.store import EXACT
from parity.kinds import jax_leaves, layouts, parameter, weights
from parity.reports.rows import Row, fill

Pairs = list[tuple[str, NDArray, NDArray]]


def run(candidate: Candidate, inputs: tuple[NDArray, ...], gradients: bool) -> list[Row]:
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
    rows, exact = [], store.exists(f"{EXACT}output")
    for i, output in enumerate(outputs):
        reference = store.array("output", f"input.{i}")
        layout = layouts.align(reference, np.asarray(output, np.float64), None)
        value = layout.to_flax(reference) if layout else reference
        forms = [(store.array(f"{EXACT}output", f"input.{i}"), reference)] if exact else []
        rows.append(_normwise(candidate, "outputs", [("", np.asarray(output), value)], between_forms(forms)))
    pairs = [] if found is None else list(_gradient_pairs(candidate, found))
    if pairs:  # a model without parameters has none
        forms = _both_forms(candidate, found, pairs)
        rows.append(_normwise(candidate, "gradients", pairs, between_forms(list(forms.values()))))
        if not rows[-1].equal and not any(row.diverges for row in candidate.rows):
            rows = _by_parameter(candidate, pairs, forms) + rows
    return rows


def _both_forms(candidate: Candidate, found: Any, pairs: Pairs) -> dict[str, tuple[NDArray, NDArray]]:
    """PyTorch's gradients where it keeps to formulas, beside those that it gave, by name; none where it always did."""
    if not candidate.store.exists(f"{EXACT}output"):
        return {}
    given = {name: theirs for name, _, theirs in pairs}
    return {name: (exact, given[name]) for name, _, exact in _gradient_pairs(candidate, found, EXACT)}


def _by_parameter(candidate: Candidate, pairs: Pairs, forms: dict) -> list[Row]:
    """The parameters whose gradients differ end to end though every layer's own agree, the farthest one first."""
    rows = []
    # Roundings are relative to all gradients: those of a key's bias, say, are nothing else.
    scale = max((float(np.max(np.abs(theirs), initial=0.0)) for _, _, theirs in pairs), default=0.0)
    for name, ours, theirs in pairs:
        limit = normwise_limit(candidate.dtype) * scale + (farthest(*forms[name]) if name in forms else 0.0)
        if farthest(np.asarray(ours, np.float64), np.asarray(theirs, np.float64)) <= limit:
            continue
        more = between_forms([forms[name]] if name in forms else [])
        stage = f"gradient of {name.rpartition('/')[2]}, end to end"
        row = _normwise(candidate, stage, [(name, ours, theirs)], more)
        row.name = name.rpartition("/")[0]
        row.torch_name = candidate.pairs.get(row.name, row.name)
        if not row.equal:
            a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
            tolerance = row.bound * float(np.max(np.abs(b), initial=0.0))
            alone = _own_calls(candidate, row.name, name.rpartition("/")[2])
            found = [] if alone is None else parameter_causes.of_uses(b, a, alone, tolerance, row.name)
            diagnosis.attach(row, found or parameter_causes.explain(b, a, None, None, tolerance, candidate.dtype))
            rows.append(row)
    return sorted(rows, key=lambda row: -row.fraction)


def _own_calls(candidate: Candidate, path: str, flax_name: str) -> NDArray | None:
    """PyTorch's gradient of a parameter as far as it is of the layer's own calls, in Flax's layout; None without it."""
    kind, torch_path = candidate.kinds[path], candidate.pairs[path]
    keys = [key.replace("forward", "backward") for (of, _), key in candidate.records.items() if of == torch_path]
    for name, array in candidate.weights(torch_path).items() if keys else ():
        if weights.flax_name(kind, name) == flax_name:
            parts = [
                candidate.store.array(k, f"gradient.{name}") for k in keys if candidate.store.has(k, f"gradient.{name}")
            ]
            total = sum(parts, np.zeros(array.shape))
            return weights.to_flax(kind, name, total, candidate.input_layouts(path), candidate.wanted(path))
    return None


def _value_and_pullback(run: Any) -> Any:
    def both(parameters: Any, arrays: list[jax.Array], cotangents: list[jax.Array]) -> Any:
        outputs, pull_back = jax.vjp(lambda p: run(p, *arrays), parameters)
        return outputs, pull_back(cotangents)[0]

    return both


def _cotangents(candidate: Candidate, shapes: list[Any]) -> list[jax.Array]:
    found = []
    for i in range(len(shapes)):
        reference = candidate.store.array("output_cotangent", f"cotangent.{i}")
        layout = candidate.output_layouts[i]  # shapes alone don't tell, where as many channels as tokens come out
        found.append(placed(layout.to_flax(reference) if layout else reference, DTYPES[candidate.dtype]))
    return found


def _gradient_pairs(
    candidate: Candidate, found: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, NDArray, NDArray]]:
    """Gradients of both sides by name, in Flax's layout: Flax's, PyTorch's."""
    for path, torch_path in candidate.pairs.items():
        key = f"{prefix}parameters-{torch_path}"
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


def _normwise(candidate: Candidate, stage: str, pairs: Pairs, more: float = 0.0) -> Row:
    row = Row(candidate.name, "end to end", "end to end", stage, candidate.dtype, order=len(candidate.records) + 1)
    ours, theirs = {name: a for name, a, _ in pairs}, {name: b for name, _, b in pairs}
    fill(row, judge_together(ours, theirs, normwise_limit(candidate.dtype) + more))
    row.n = round(row.bound / UNIT_ROUNDOFF[candidate.dtype])
    return row
