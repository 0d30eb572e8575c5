"""The candidate's gradients: every leaf on the reference's cotangent, and the code between the leaves.

Where PyTorch makes no gradient (something is detached, say), Flax's must be zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from parity.bounds.magnitudes import Bound, unit_roundoff
from parity.candidate import coarse_sums, jax_between, jax_variables
from parity.candidate.jax_candidate import Candidate
from parity.candidate.jax_visit import Visit
from parity.candidate.totals import Total
from parity.causes import diagnosis
from parity.causes.layer import parameter_gradients as parameter_causes
from parity.comparison.recorded_gradients import gradient_bound, recorded_gradient
from parity.errors import CannotCompare
from parity.kinds import layouts, weights
from parity.reports.rows import Row


def run(candidate: Candidate, inputs: tuple[NDArray, ...]) -> list[Row]:
    """Compare the gradients of every leaf call and of the code between; after `Candidate.forward`.

    The code between the leaves is differentiated in one piece, with every leaf replaced by the reference's
    output; its cotangents are the reference's gradients of the leaves' inputs.
    """
    first = len(candidate.rows)
    visits = {
        key: visit if key == first_key else visit.again(key)
        for first_key, visit in candidate.visited.items()
        for key in candidate.calls.together(first_key)
    }
    known = set(candidate.store.keys("backward-"))
    for key in sorted(visits, reverse=True):
        visit, backward = visits[key], key.replace("forward", "backward")
        computed = candidate.natural is None or not visit.facts["linear"]  # at ties
        if backward in known and visit.comparable and computed:
            try:
                _leaf(candidate, visit, backward)
            except (TypeError, ValueError, NotImplementedError) as error:
                _refused(candidate, visit.row("backward"), error)
    _sums(candidate)
    if candidate.natural is None or candidate.store.facts("complete")["between"]:
        try:
            jax_between.run(candidate, inputs)
        except (TypeError, ValueError, NotImplementedError) as error:
            row = Row(candidate.name, "between layers", "between layers", "cotangent", candidate.dtype)
            _refused(candidate, row, error)
    total = len(candidate.records)
    for row in candidate.rows[first:]:
        row.order = 2 * total + 1 - row.order
    candidate.rows[first:] = sorted(candidate.rows[first:], key=lambda row: row.order)
    return candidate.rows[first:]


def _refused(candidate: Candidate, row: Row, error: Exception) -> None:
    """JAX can't differentiate a layer, or the code between layers: a row says so, and the others stay."""
    if isinstance(error, CannotCompare):
        raise error
    row.verdict, row.fraction = "shape", float("inf")
    row.detail = f"JAX can't differentiate it: {str(error).splitlines()[0]}"
    candidate.rows.append(row)


def _leaf(candidate: Candidate, visit: Visit, key: str) -> None:
    store = candidate.store
    forward = store.arrays(visit.key, "input.")
    xs = [
        candidate.as_array(layout.to_flax(forward[str(i)]) if layout else forward[str(i)])
        for i, layout in enumerate(visit.input_layouts)
    ]
    coming = _cotangent(candidate, visit)
    cotangent = candidate.as_array((visit.output_layout or layouts.Layout()).to_flax(coming))
    layout = visit.input_layouts[0]
    variables = jax_variables.of_leaf(candidate, visit.torch_path, visit.layer, layout)
    parameters = variables.get("params", {})
    others = {k: v for k, v in variables.items() if k != "params"}
    pull_back = _vjp(visit, others)
    gradients, x_gradients = pull_back(parameters, xs, cotangent)
    for i, (x, gradient) in enumerate(zip(xs, x_gradients, strict=True)):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            continue
        place = visit.input_layouts[i] or layouts.Layout()
        row = visit.row("backward")
        reference = _compare(candidate, row, gradient, key, f"input.{i}", place.to_flax, forward[str(i)].shape)
        if row.verdict == "mismatch" and i == 0:
            ours = place.to_torch(np.asarray(gradient, np.float64))
            diagnosis.name_gradient(visit, row, ours, reference, coming)
    if parameters and candidate.natural is None:
        sums = coarse_sums.found(pull_back, (parameters, xs, cotangent), candidate.dtype)
        _parameters(candidate, visit, key, gradients, layout, (np.asarray(cotangent, np.float64), sums))


def _cotangent(candidate: Candidate, visit: Visit) -> NDArray:
    """The gradient of a call's output that it is given: what came from behind, or what was drawn for it."""
    key = visit.key.replace("forward", "cotangent")
    return candidate.store.array(key, "drawn.0" if candidate.store.has(key, "drawn.0") else "cotangent.0")


def _parameters(
    candidate: Candidate,
    visit: Visit,
    key: str,
    gradients: dict[str, Any],
    layout: layouts.Layout | None,
    added: tuple[NDArray, set[tuple[int, ...]]],
) -> None:
    """Compare a leaf's gradients with respect to its parameters; `added` is the cotangent, and JAX's coarse sums.

    PyTorch's are those that its whole backward pass left in the parameters, with all that hangs on these. Where several
    calls add to one, each is held to its replay, and the sum to the whole pass in `_sums`.
    """
    store, whole = candidate.store, f"parameters-{visit.torch_path}"
    facts = store.facts(whole)
    wanted = candidate.wanted(visit.path)
    single = sum(path == visit.torch_path for path, _ in candidate.records) == 1
    for name, shape in facts["shapes"].items():
        flax_name = weights.flax_name(visit.kind, name)
        if flax_name not in gradients:
            continue  # reported among the weights

        def move(array: NDArray, name: str = name) -> NDArray:
            return weights.to_flax(visit.kind, name, array, layout, wanted)

        ours, alone = np.asarray(gradients[flax_name]), recorded_gradient(candidate, key, f"gradient.{name}", None)
        judged = recorded_gradient(candidate, whole, name, shape) if single and name not in facts["apart"] else alone
        reference = np.zeros(shape) if judged is None else judged
        bound = gradient_bound(candidate, key, name, move)
        bound = None if bound is None else coarse_sums.counted(bound, ours, *added, candidate.dtype)
        truth = recorded_gradient(candidate, key, f"truth.{name}", None)
        row = visit.row(f"backward:{flax_name}")
        candidate.judge(row, ours, move(reference), bound, None if truth is None else move(truth))
        if row.verdict == "mismatch":
            diagnosis.attach(row, coarse_sums.explain(ours, move(reference), *added, candidate.dtype))
        if row.verdict == "mismatch" and not row.causes:
            back = weights.to_torch(visit.kind, name, ours, layout, shape)
            diagnosis.name_parameter(visit, row, name, _cotangent(candidate, visit), (reference, back, alone))
        if not single and name not in facts["apart"]:
            total = candidate.totals.setdefault((visit.torch_path, name), Total(visit, flax_name, move))
            total.add(ours, np.zeros(ours.shape) if alone is None else move(alone), bound)


def _sums(candidate: Candidate) -> None:
    """Compare gradients of parameters that several calls add to: their sum with what PyTorch's whole pass left."""
    for (path, name), total in candidate.totals.items():
        row = total.visit.row(f"backward:{total.name}, all calls")
        whole = total.move(
            recorded_gradient(candidate, f"parameters-{path}", name, candidate.weights(path)[name].shape)
        )
        added = 2 * total.calls * unit_roundoff(candidate.dtype) * total.size
        bound = Bound(total.n + total.calls, total.allowed + added, unknown=total.unknown)
        candidate.judge(row, total.ours, whole, bound)
        if row.verdict == "mismatch":
            tolerance = max(row.bound, float(np.max(added)))
            arrays = np.asarray(whole, np.float64), total.ours, total.alone
            diagnosis.attach(row, parameter_causes.explain(*arrays, None, tolerance, candidate.dtype))


def _vjp(visit: Visit, others: dict[str, Any]) -> Callable:
    compiled = visit.candidate.compiled
    name = f"vjp:{visit.path}"
    if name not in compiled:
        function = visit.function()

        def pull_back(parameters: Any, xs: list[jax.Array], cotangent: jax.Array) -> Any:
            integers = [not jnp.issubdtype(x.dtype, jnp.floating) for x in xs]

            def leaf(parameters: Any, floats: list[jax.Array | None]) -> Any:
                merged = [x if whole else f for x, f, whole in zip(xs, floats, integers, strict=True)]
                return jax.tree.leaves(function({"params": parameters, **others}, *merged))[0]

            floats = [None if whole else x for x, whole in zip(xs, integers, strict=True)]
            gradients, x_gradients = jax.vjp(leaf, parameters, floats)[1](cotangent)
            return gradients, x_gradients

        compiled[name] = jax.jit(pull_back)
    return compiled[name]


def _compare(
    candidate: Candidate, row: Row, gradient: Any, key: str, name: str, move: Callable, shape: tuple[int, ...]
) -> NDArray:
    """Compare a gradient; returns the reference's, zeros of `shape` where it has none."""
    reference = recorded_gradient(candidate, key, f"gradient.{name}", shape)
    bound = gradient_bound(candidate, key, name, move)
    truth = recorded_gradient(candidate, key, f"truth.{name}", None)
    truth = None if truth is None else move(truth)
    candidate.judge(row, np.asarray(gradient), move(reference), bound, truth)
    return reference
