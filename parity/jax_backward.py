"""The candidate's gradients: every leaf on the reference's cotangent, and the code between the leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from parity import diagnosis, layouts
from parity.bounds import Bound, linear_bound, running_bound
from parity.jax_side import Candidate, _Visit
from parity.rows import Row


def run(candidate: Candidate, inputs: tuple[NDArray, ...]) -> list[Row]:
    """Compare the gradients of every leaf call and of the code between; after `Candidate.forward`.

    The code between the leaves is differentiated in one piece, with every leaf replaced by the reference's
    output; its cotangents are the reference's gradients of the leaves' inputs.
    """
    first = len(candidate.rows)
    backwards = {key: key.replace("forward", "backward") for key in candidate.visited}
    known = set(candidate.store.keys("backward-"))
    for key in sorted(backwards, reverse=True):
        if backwards[key] in known and candidate.visited[key].comparable:
            _leaf(candidate, candidate.visited[key], backwards[key])
    _glue(candidate, inputs)
    total = len(candidate.records)
    for row in candidate.rows[first:]:
        row.order = 2 * total + 1 - row.order
    candidate.rows[first:] = sorted(candidate.rows[first:], key=lambda row: row.order)
    return candidate.rows[first:]


def _leaf(candidate: Candidate, visit: _Visit, key: str) -> None:
    store, facts = candidate.store, candidate.store.facts(key)
    forward = store.arrays(visit.key, "input.")
    xs = [
        candidate._array(layout.to_flax(forward[str(i)]) if layout else forward[str(i)])
        for i, layout in enumerate(visit.input_layouts)
    ]
    output_layout = visit.output_layout or layouts.Layout()
    cotangent = candidate._array(
        output_layout.to_flax(store.array(key.replace("backward", "cotangent"), "cotangent.0"))
    )
    layout = visit.input_layouts[0]
    variables = candidate.leaf_weights(visit.path, visit.torch_path, visit.bound_module, layout)
    parameters = variables.get("params", {})
    others = {k: v for k, v in variables.items() if k != "params"}
    gradients, x_gradients = _vjp(visit, others)(parameters, xs, cotangent)
    for i, (x, gradient) in enumerate(zip(xs, x_gradients, strict=True)):
        if not jnp.issubdtype(x.dtype, jnp.floating) or not store.has(key, f"gradient.input.{i}"):
            continue
        place = visit.input_layouts[i] or layouts.Layout()
        row = visit.row("backward")
        _compare(candidate, row, gradient, key, f"input.{i}", place.to_flax, facts)
        if row.verdict == "mismatch" and i == 0:
            ours = place.to_torch(np.asarray(gradient, np.float64))
            coming = store.array(key.replace("backward", "cotangent"), "cotangent.0")
            diagnosis.name_gradient(visit, row, ours, store.array(key, "gradient.input.0"), coming)
    names = {layouts.flax_name(visit.kind, n): n for n in facts["n"] if not n.startswith("input.")}
    for flax_name, torch_name in names.items():
        row = visit.row(f"backward:{flax_name}")
        if flax_name not in gradients:
            continue  # reported among the weights

        def move_parameter(array: NDArray, name: str = torch_name) -> NDArray:
            return layouts.kernel_to_flax(visit.kind, array, layout) if name == "weight" else array

        _compare(candidate, row, gradients[flax_name], key, torch_name, move_parameter, facts)


def _vjp(visit: _Visit, others: dict[str, Any]) -> Callable:
    compiled = visit.candidate._compiled
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
    candidate: Candidate, row: Row, gradient: Any, key: str, name: str, move: Callable, facts: dict[str, Any]
) -> None:
    store = candidate.store
    reference = move(store.array(key, f"gradient.{name}"))
    bound: Bound | None = None
    if store.has(key, f"magnitude.{name}"):
        bound = linear_bound(facts["n"][name], move(store.array(key, f"magnitude.{name}")), candidate.dtype)
    elif store.has(key, f"error.{name}"):
        bound = running_bound(facts["n"][name], move(store.array(key, f"error.{name}")))
    truth = move(store.array(key, f"truth.{name}")) if store.has(key, f"truth.{name}") else None
    candidate.judge(row, np.asarray(gradient), reference, bound, truth)


def _glue(candidate: Candidate, inputs: tuple[NDArray, ...]) -> None:
    """Gradients that the code between the leaves passes back to each leaf's output, and to the inputs."""
    store = candidate.store
    order = list(candidate.visited)
    known = set(store.keys("cotangent-"))
    outputs = {}
    for key in order:
        layout = candidate.visited[key].output_layout or layouts.Layout()
        outputs[key] = candidate._array(layout.to_flax(store.array(key, "output.0")))
    arrays = [candidate._array(x) for x in inputs]
    floating = [jnp.issubdtype(x.dtype, jnp.floating) for x in arrays]

    def glue(outputs: dict[str, jax.Array], floats: list[jax.Array | None]) -> Any:
        given = iter(order)
        seen: dict[str, list] = {}

        def force(next_function: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
            path = "/".join(context.module.path)
            if context.method_name != "__call__" or path not in candidate.pairs:
                return next_function(*args, **kwargs)
            key = next(given)
            flat = jax.tree.leaves((args, kwargs))
            seen[key] = [x for x in flat if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)]
            return outputs[key]

        variables = candidate.given if candidate.given is not None else candidate.placeholders
        merged = [f if whole else x for x, f, whole in zip(arrays, floats, floating, strict=True)]
        with nn.intercept_methods(force):
            result = candidate.module.apply(variables, *merged, **candidate.kwargs)
        return seen, jax.tree.leaves(result)

    floats = [x if whole else None for x, whole in zip(arrays, floating, strict=True)]
    (seen, results), pull_back = jax.vjp(glue, outputs, floats)
    cotangents: dict[str, list] = {}
    for key, xs in seen.items():
        visit, backward = candidate.visited[key], key.replace("forward", "backward")
        cotangents[key] = [
            candidate._array(
                (visit.input_layouts[i] or layouts.Layout()).to_flax(store.array(backward, f"gradient.input.{i}"))
            )
            if store.has(backward, f"gradient.input.{i}")
            else jnp.zeros_like(x)
            for i, x in enumerate(xs)
        ]
    final = []
    for i, result in enumerate(results):
        reference = store.array("output_cotangent", f"cotangent.{i}")
        layout = layouts.align(store.array("output", f"input.{i}"), np.asarray(result, np.float64), None)
        final.append(candidate._array(layout.to_flax(reference) if layout else reference))
    gradients, input_gradients = pull_back((cotangents, final))
    for key in order:
        name = key.replace("forward", "cotangent")
        if name not in known:
            continue
        visit = candidate.visited[key]
        move = (visit.output_layout or layouts.Layout()).to_flax
        _compare_glue(candidate, visit.row("cotangent"), gradients[key], name, "cotangent.0", "cotangent_glue.0", move)
    for i, gradient in enumerate(g for g in input_gradients if g is not None):
        row = Row(candidate.model, "input", "input", "cotangent", candidate.dtype, order=0)
        if store.has("input_gradient", f"gradient.{i}"):
            layout = layouts.Layout(moved=gradient.ndim == 4)
            _compare_glue(candidate, row, gradient, "input_gradient", f"gradient.{i}", f"glue.{i}", layout.to_flax)


def _compare_glue(
    candidate: Candidate, row: Row, gradient: Any, key: str, name: str, glue: str, move: Callable
) -> None:
    store = candidate.store
    bound = None
    if store.has(key, glue):
        bound = running_bound(store.facts(key).get("depth", 1), move(store.array(key, glue)))
    candidate.judge(row, np.asarray(gradient), move(store.array(key, name)), bound)
