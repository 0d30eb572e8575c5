"""The candidate's gradients: every leaf on the reference's cotangent, and the code between the leaves.

Where PyTorch makes no gradient (something is detached, say), Flax's must be zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import difference
from parity.bounds.magnitudes import Bound, linear_bound, unit_roundoff
from parity.causes import diagnosis
from parity.causes import parameter_gradients as parameter_causes
from parity.comparison import jax_variables
from parity.comparison.jax_candidate import Candidate
from parity.comparison.jax_models import JaxLayer
from parity.comparison.jax_visit import Visit, is_input
from parity.comparison.store import Store
from parity.comparison.totals import Total
from parity.errors import CannotCompare
from parity.kinds import jax_leaves, layouts, parameter, weights
from parity.reports.rows import Row


def run(candidate: Candidate, inputs: tuple[NDArray, ...]) -> list[Row]:
    """Compare the gradients of every leaf call and of the code between; after `Candidate.forward`.

    The code between the leaves is differentiated in one piece, with every leaf replaced by the reference's
    output; its cotangents are the reference's gradients of the leaves' inputs.
    """
    first = len(candidate.rows)
    backwards = {key: key.replace("forward", "backward") for key in candidate.visited}
    known = set(candidate.store.keys("backward-"))
    for key in sorted(backwards, reverse=True):
        visit = candidate.visited[key]
        computed = candidate.natural is None or not visit.facts["linear"]  # at ties
        if backwards[key] in known and visit.comparable and computed:
            try:
                _leaf(candidate, visit, backwards[key])
            except (TypeError, ValueError, NotImplementedError) as error:
                _refused(candidate, visit.row("backward"), error)
    _sums(candidate)
    if candidate.natural is None or candidate.store.facts("complete")["between"]:
        try:
            _glue(candidate, inputs)
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
    gradients, x_gradients = _vjp(visit, others)(parameters, xs, cotangent)
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
        _parameters(candidate, visit, key, gradients, layout)


def _cotangent(candidate: Candidate, visit: Visit) -> NDArray:
    """The gradient of a call's output that it is given: what came from behind, or what was drawn for it."""
    key = visit.key.replace("forward", "cotangent")
    return candidate.store.array(key, "drawn.0" if candidate.store.has(key, "drawn.0") else "cotangent.0")


def _parameters(
    candidate: Candidate, visit: Visit, key: str, gradients: dict[str, Any], layout: layouts.Layout | None
) -> None:
    """Compare a leaf's gradients with respect to its parameters.

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

        ours, alone = np.asarray(gradients[flax_name]), _gradient(candidate, key, f"gradient.{name}", None)
        judged = _gradient(candidate, whole, name, shape) if single and name not in facts["apart"] else alone
        reference = np.zeros(shape) if judged is None else judged
        bound = _bound(candidate, key, name, move)
        truth = _gradient(candidate, key, f"truth.{name}", None)
        row = visit.row(f"backward:{flax_name}")
        candidate.judge(row, ours, move(reference), bound, None if truth is None else move(truth))
        if row.verdict == "mismatch":
            back = weights.to_torch(visit.kind, name, ours, layout, shape)
            diagnosis.name_parameter(visit, row, name, _cotangent(candidate, visit), (reference, back, alone))
        if not single and name not in facts["apart"]:
            total = candidate.totals.setdefault((visit.torch_path, name), Total(visit, flax_name, move))
            total.add(ours, np.zeros(ours.shape) if alone is None else move(alone), bound)


def _gradient(candidate: Candidate, key: str, name: str, shape: Any) -> Any:
    """A recorded gradient; zeros of `shape`, or None without one, where PyTorch made none."""
    if candidate.store.has(key, name):
        return candidate.store.array(key, name)
    return None if shape is None else np.zeros(shape)


def _sums(candidate: Candidate) -> None:
    """Compare gradients of parameters that several calls add to: their sum with what PyTorch's whole pass left."""
    for (path, name), total in candidate.totals.items():
        row = total.visit.row(f"backward:{total.name}, all calls")
        whole = total.move(_gradient(candidate, f"parameters-{path}", name, candidate.weights(path)[name].shape))
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
    reference = _gradient(candidate, key, f"gradient.{name}", shape)
    bound = _bound(candidate, key, name, move)
    truth = _gradient(candidate, key, f"truth.{name}", None)
    truth = None if truth is None else move(truth)
    candidate.judge(row, np.asarray(gradient), move(reference), bound, truth)
    return reference


def _bound(candidate: Candidate, key: str, name: str, move: Callable) -> Bound | None:
    """What the gradient with respect to `name` may differ by, in Flax's layout."""
    store = candidate.store
    if store.has(key, f"magnitude.{name}"):
        n = store.facts(key)["n"][name]
        return linear_bound(n, move(store.array(key, f"magnitude.{name}")), candidate.dtype)
    return candidate.recorded_bound(key, f"error.{name}", store.facts(key)["n"].get(name, 0), move)


def _glue(candidate: Candidate, inputs: tuple[NDArray, ...]) -> None:
    """Gradients that the code between the leaves passes back to each leaf's output, and to the inputs."""
    store = candidate.store
    order = list(candidate.visited)
    outputs = {}
    for key in order:
        layout = candidate.visited[key].output_layout or layouts.Layout()
        outputs[key] = candidate.as_array(layout.to_flax(store.array(key, handed_on(store, key))))
    arrays = [candidate.as_array(x) for x in inputs]
    floating = [jnp.issubdtype(x.dtype, jnp.floating) for x in arrays]

    given = candidate.given if candidate.given is not None else candidate.placeholders
    places: dict[str, list[int]] = {}  # of the floating-point inputs of a call among all
    owned = {path: jax_leaves.leaf_variables(given, path)["params"][parameter.VALUE] for path in candidate.owned}

    def glue(outputs: dict[str, jax.Array], floats: list[jax.Array | None], owned: dict[str, jax.Array]) -> Any:
        calls: dict[str, int] = defaultdict(int)
        seen: dict[str, list] = {}

        def force(layer: JaxLayer, next_function: Callable, args: tuple, kwargs: dict) -> Any:
            path = layer.path
            if path not in candidate.pairs:
                return next_function(*args, **kwargs)
            key = candidate.records.get((candidate.pairs[path], calls[path]))
            calls[path] += 1
            if key not in outputs:
                return next_function(*args, **kwargs)  # PyTorch doesn't run it, which is told already
            taken = [x for x in jax.tree.leaves((args, kwargs)) if is_input(x)]
            places[key] = [i for i, x in enumerate(taken) if jnp.issubdtype(x.dtype, jnp.floating)]
            seen[key] = [taken[i] for i in places[key]]
            return outputs[key]

        variables = jax.tree.map(lambda leaf: leaf, given)  # a copy of the tree, not of the arrays
        for path, value in owned.items():
            jax_leaves.insert_parameter(variables, path, value)
        merged = [f if whole else x for x, f, whole in zip(arrays, floats, floating, strict=True)]
        result = candidate.model.apply(variables, tuple(merged), candidate.kwargs, force)
        return seen, jax.tree.leaves(result)

    floats = [x if whole else None for x, whole in zip(arrays, floating, strict=True)]
    (seen, results), pull_back = jax.vjp(glue, outputs, floats, owned)
    cotangents: dict[str, list] = {}
    for key, xs in seen.items():
        cotangents[key] = [
            jnp.zeros_like(x)
            if (found := _handed_back(candidate, key, i)) is None
            else candidate.as_array((candidate.visited[key].input_layouts[i] or layouts.Layout()).to_flax(found))
            for i, x in zip(places[key], xs, strict=True)
        ]
    final = []
    for i, result in enumerate(results):
        reference = store.array("output_cotangent", f"cotangent.{i}")
        layout = layouts.align(store.array("output", f"input.{i}"), np.asarray(result, np.float64), None)
        final.append(candidate.as_array(layout.to_flax(reference) if layout else reference))
    gradients, input_gradients, owned_gradients = pull_back((cotangents, final))
    for key in order:
        if not jnp.issubdtype(outputs[key].dtype, jnp.floating):
            continue
        visit = candidate.visited[key]
        layout = visit.output_layout or layouts.Layout()
        _compare_glue(candidate, visit.row("cotangent"), gradients[key], key, layout)
    if candidate.natural is not None:
        return  # the inputs and the parameters are as in the natural run
    for path, torch_path in candidate.owned.items():
        _compare_owned(candidate, path, torch_path, owned_gradients[path])
    for i, gradient in enumerate(input_gradients):
        if gradient is None:
            continue
        row = Row(candidate.name, "input", "input", "cotangent", candidate.dtype, order=0)
        given_there = np.asarray(store.array("given", f"input.{i}"), np.float64)
        if (layout := layouts.of_input(given_there, np.asarray(arrays[i], np.float64))) is not None:
            _compare_glue(candidate, row, gradient, "given", layout, i)


def _handed_back(candidate: Candidate, key: str, place: int) -> NDArray | None:
    """PyTorch's gradient of an input of a call, from which the code before it goes on; None without one.

    That is what the call itself handed back in the whole pass, whose maps may lie otherwise in memory than those of the
    replay, so that a sum is rounded otherwise. Where the two differ by more (a hook changed one), it is the replay's.
    """
    store, backward, name = candidate.store, key.replace("forward", "backward"), f"input.{place}"
    replayed = _gradient(candidate, backward, f"gradient.{name}", None)
    if not store.has(backward, f"root.{name}"):
        return replayed
    whole = store.array(backward, f"root.{name}")
    if candidate.natural is not None or replayed is None:  # at ties it was drawn
        return whole
    bound = _bound(candidate, backward, name, lambda array: array)
    allowed = 0.0 if bound is None or bound.unknown else bound.allowed
    return whole if bool((difference(whole, replayed) <= allowed).all()) else replayed


def _compare_owned(candidate: Candidate, path: str, torch_path: str, gradient: Any) -> None:
    """Compare the gradient of a parameter that the code between the leaves uses."""
    store, key = candidate.store, f"parameters-{torch_path}"
    facts = store.facts(key)
    if parameter.VALUE in facts["frozen"]:
        return
    found = _gradient(candidate, key, parameter.VALUE, facts["shapes"][parameter.VALUE])
    bound = candidate.recorded_bound(key, "glue", facts["depth"], lambda array: array.reshape(gradient.shape))
    row = Row(candidate.name, path, torch_path, "backward:value", candidate.dtype, kind=parameter.KIND.name)
    candidate.judge(row, np.asarray(gradient), found.reshape(gradient.shape), bound)
    if row.verdict == "mismatch":
        row.detail = row.detail or "the code that uses this parameter differs"


def handed_on(store: Store, key: str) -> str:
    """Name of what the reference's call handed on: its output, or at ties another array."""
    return "passed.0" if store.has(key, "passed.0") else "output.0"


def _compare_glue(
    candidate: Candidate, row: Row, gradient: Any, start: str, layout: layouts.Layout, i: int = 0
) -> None:
    """Compare what the code after a layer or an input hands back to it; zeros where PyTorch's hands back nothing.

    Args:
        candidate: see `run`.
        row: to be filled.
        gradient: Flax's.
        start: key of the record of what the code starts from, `given` for the inputs.
        layout: of both.
        i: which of the outputs or inputs.
    """
    store = candidate.store
    name = "gradient" if start == "given" else "cotangent"
    key = "input_gradient" if start == "given" else start.replace("forward", "cotangent")
    glue, bound = ("cotangent_glue" if name == "cotangent" else "glue"), None
    if store.exists(key):  # else nothing flows back there
        bound = candidate.recorded_bound(key, f"{glue}.{i}", store.facts(key).get("depth", 1), layout.to_flax)
    found = _gradient(candidate, key, f"{name}.{i}", None)
    moved = np.zeros(gradient.shape) if found is None else layout.to_flax(found)
    candidate.judge(row, np.asarray(gradient), moved, bound)
    if row.verdict == "mismatch":
        theirs, ours = (layout.to_torch(np.asarray(array, np.float64)) for array in (moved, gradient))
        diagnosis.name_cotangent(candidate, start, row, theirs, ours)
        if candidate.code is not None and not row.causes and start != "given":
            row.echo = candidate.code.consumer(start) or ""  # of other values the derivatives are others, too
