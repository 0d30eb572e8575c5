"""The candidate's gradients of the code between the leaves, every leaf replaced by the reference's output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import difference
from parity.bounds.magnitudes import Bound, no_bound, unit_roundoff
from parity.candidate.jax_candidate import Candidate
from parity.candidate.jax_models import JaxLayer
from parity.candidate.jax_visit import is_input
from parity.causes import diagnosis
from parity.comparison.recorded_gradients import gradient_bound, recorded_gradient
from parity.comparison.store import Store
from parity.kinds import jax_leaves, layouts, parameter
from parity.reports.rows import Row


def run(candidate: Candidate, inputs: tuple[NDArray, ...]) -> None:
    """Compare the gradients that the code between the leaves passes back to each leaf's output, and to the inputs."""
    arrays = [candidate.as_array(x) for x in inputs]
    outputs = {key: _passed(candidate, key) for key in candidate.visited}
    given = candidate.given if candidate.given is not None else candidate.placeholders
    owned = {path: jax_leaves.leaf_variables(given, path)["params"][parameter.VALUE] for path in candidate.owned}
    floats = [x if jnp.issubdtype(x.dtype, jnp.floating) else None for x in arrays]
    code = _Code(candidate, arrays, given)
    (seen, _), pull_back = jax.vjp(code, outputs, floats, owned)
    cotangents = {key: _coming(candidate, key, code.places[key], xs) for key, xs in seen.items()}
    gradients, input_gradients, owned_gradients = pull_back((cotangents, _of_outputs(candidate)))
    for key, output in outputs.items():
        if jnp.issubdtype(output.dtype, jnp.floating):
            visit = candidate.visited[key]
            layout = visit.output_layout or layouts.Layout()
            _compare(candidate, visit.row("cotangent"), gradients[key], key, layout)
    if candidate.natural is not None:
        return  # the inputs and the parameters are as in the natural run
    for path, torch_path in candidate.owned.items():
        _compare_owned(candidate, path, torch_path, owned_gradients[path])
    for i, gradient in enumerate(input_gradients):
        if gradient is not None:
            _compare_input(candidate, i, arrays[i], gradient)


class _Code:
    """The model with every leaf replaced by an argument, as a function that JAX can differentiate.

    Args:
        candidate: after its run forward.
        arrays: the model's inputs.
        given: its variables.

    Attributes:
        places: of the floating-point inputs of a call among all of them, by the call's record; known once it has run.
    """

    def __init__(self, candidate: Candidate, arrays: list[jax.Array], given: dict[str, Any]) -> None:
        self.candidate, self.arrays, self.given = candidate, arrays, given
        self.places: dict[str, list[int]] = {}

    def __call__(
        self, outputs: dict[str, jax.Array], floats: list[jax.Array | None], owned: dict[str, jax.Array]
    ) -> tuple[dict[str, list], list]:
        """What the leaves get, by call, and what the model gives.

        Args:
            outputs: of the leaves, by call.
            floats: the model's floating-point inputs, None in the places of others.
            owned: the parameters that modules own beside their children's.
        """
        candidate, calls = self.candidate, self.candidate.calls.again()
        seen: dict[str, list] = {}

        def force(layer: JaxLayer, next_function: Callable, args: tuple, kwargs: dict) -> Any:
            path = layer.path
            if path not in candidate.pairs:
                return next_function(*args, **kwargs)
            _, key = calls.next(path, candidate.pairs[path], ())
            if key is None or key not in outputs:
                return next_function(*args, **kwargs)  # PyTorch doesn't run it, which is told already
            if key in seen:
                return outputs[key]  # a call again: PyTorch hands everything back through one
            taken = [x for x in jax.tree.leaves((args, kwargs)) if is_input(x)]
            self.places[key] = [i for i, x in enumerate(taken) if jnp.issubdtype(x.dtype, jnp.floating)]
            seen[key] = [taken[i] for i in self.places[key]]
            return outputs[key]

        variables = jax.tree.map(lambda leaf: leaf, self.given)  # a copy of the tree, not of the arrays
        for path, value in owned.items():
            jax_leaves.insert_parameter(variables, path, value)
        merged = tuple(x if f is None else f for x, f in zip(self.arrays, floats, strict=True))
        result = candidate.model.apply(variables, merged, candidate.kwargs, force)
        return seen, jax.tree.leaves(result)


def _passed(candidate: Candidate, key: str) -> jax.Array:
    """What the reference's call handed on, as JAX's code gets it."""
    layout, store = candidate.visited[key].output_layout or layouts.Layout(), candidate.store
    return candidate.as_array(layout.to_flax(store.array(key, handed_on(store, key))))


def _coming(candidate: Candidate, key: str, places: list[int], xs: list[jax.Array]) -> list[jax.Array]:
    """The gradients of a call's floating-point inputs, from which the code before it goes on; zeros without one."""
    found = []
    for i, x in zip(places, xs, strict=True):
        gradient, layout = _all_handed_back(candidate, key, i), candidate.visited[key].input_layouts[i]
        if gradient is None:
            found.append(jnp.zeros_like(x))
        else:
            found.append(candidate.as_array((layout or layouts.Layout()).to_flax(gradient)))
    return found


def _of_outputs(candidate: Candidate) -> list[jax.Array]:
    """The gradients of the model's outputs, as they were drawn."""
    store, found = candidate.store, []
    for i, layout in enumerate(candidate.output_layouts):
        reference = store.array("output_cotangent", f"cotangent.{i}")
        found.append(candidate.as_array(layout.to_flax(reference) if layout else reference))
    return found


def _compare_input(candidate: Candidate, i: int, array: jax.Array, gradient: jax.Array) -> None:
    """Compare the gradient of an input of the model."""
    row = Row(candidate.name, "input", "input", "cotangent", candidate.dtype, order=0)
    there = np.asarray(candidate.store.array("given", f"input.{i}"), np.float64)
    if (layout := layouts.of_input(there, np.asarray(array, np.float64))) is not None:
        _compare(candidate, row, gradient, "given", layout, i)


def _all_handed_back(candidate: Candidate, key: str, place: int) -> NDArray | None:
    """See `_handed_back`: of all calls together for which one of JAX's stands."""
    found = (_handed_back(candidate, each, place) for each in candidate.calls.together(key))
    return _added([array for array in found if array is not None])


def _added(arrays: list[NDArray]) -> NDArray | None:
    """Their sum in float64; one alone as it is, None without any."""
    return sum((np.asarray(a, np.float64) for a in arrays[1:]), np.asarray(arrays[0])) if arrays else None


def _handed_back(candidate: Candidate, key: str, place: int) -> NDArray | None:
    """PyTorch's gradient of an input of a call, from which the code before it goes on; None without one.

    That is what the call itself handed back in the whole pass, whose maps may lie otherwise in memory than those of the
    replay, so that a sum is rounded otherwise. Where the two differ by more (a hook changed one), it is the replay's.
    """
    store, backward, name = candidate.store, key.replace("forward", "backward"), f"input.{place}"
    replayed = recorded_gradient(candidate, backward, f"gradient.{name}", None)
    if not store.has(backward, f"root.{name}"):
        return replayed
    whole = store.array(backward, f"root.{name}")
    if candidate.natural is not None or replayed is None:  # at ties it was drawn
        return whole
    bound = gradient_bound(candidate, backward, name, lambda array: array)
    allowed = 0.0 if bound is None or bound.unknown else bound.allowed
    return whole if bool((difference(whole, replayed) <= allowed).all()) else replayed


def _compare_owned(candidate: Candidate, path: str, torch_path: str, gradient: Any) -> None:
    """Compare the gradient of a parameter that the code between the leaves uses."""
    store, key = candidate.store, f"parameters-{torch_path}"
    facts = store.facts(key)
    if parameter.VALUE in facts["frozen"]:
        return
    found = recorded_gradient(candidate, key, parameter.VALUE, facts["shapes"][parameter.VALUE])
    bound = candidate.recorded_bound(key, "glue", facts["depth"], lambda array: array.reshape(gradient.shape))
    row = Row(candidate.name, path, torch_path, "backward:value", candidate.dtype, kind=parameter.KIND.name)
    candidate.judge(row, np.asarray(gradient), found.reshape(gradient.shape), bound)
    if row.verdict == "mismatch":
        row.detail = row.detail or "the code that uses this parameter differs"


def handed_on(store: Store, key: str) -> str:
    """Name of what the reference's call handed on: its output, or at ties another array."""
    return "passed.0" if store.has(key, "passed.0") else "output.0"


def _added_bound(bounds: list[Bound | None], parts: list[NDArray], dtype: str) -> Bound | None:
    """What a sum may differ by: what its parts may, and a rounding of each sum on the way, of either side's."""
    if len(bounds) < 2:
        return bounds[0] if bounds else None
    known = [bound for bound in bounds if bound is not None]
    if unknown := [name for bound in known for name in bound.unknown]:
        return no_bound(tuple(dict.fromkeys(unknown)))
    sizes = sum(np.abs(np.asarray(part, np.float64)) for part in parts)
    added = 2 * (len(parts) - 1) * unit_roundoff(dtype) * sizes
    allowed = sum((bound.allowed for bound in known), np.asarray(added))
    return Bound(max((bound.n for bound in known), default=0) + len(parts) - 1, allowed)


def _compare(candidate: Candidate, row: Row, gradient: Any, start: str, layout: layouts.Layout, i: int = 0) -> None:
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
    name, glue = ("gradient", "glue") if start == "given" else ("cotangent", "cotangent_glue")
    starts = [start] if start == "given" else candidate.calls.together(start)
    keys = ["input_gradient" if start == "given" else each.replace("forward", "cotangent") for each in starts]
    keys = [key for key in keys if store.exists(key)]  # else nothing flows back there
    bounds = [
        candidate.recorded_bound(key, f"{glue}.{i}", store.facts(key).get("depth", 1), layout.to_flax) for key in keys
    ]
    recorded = (recorded_gradient(candidate, key, f"{name}.{i}", None) for key in keys)
    parts = [part for part in recorded if part is not None]
    found, bound = _added(parts), _added_bound(bounds, [layout.to_flax(part) for part in parts], candidate.dtype)
    moved = np.zeros(gradient.shape) if found is None else layout.to_flax(found)
    candidate.judge(row, np.asarray(gradient), moved, bound)
    if row.verdict == "mismatch":
        theirs, ours = (layout.to_torch(np.asarray(array, np.float64)) for array in (moved, gradient))
        diagnosis.name_cotangent(candidate, start, row, theirs, ours)
        if candidate.code is not None and not row.causes and start != "given":
            row.echo = candidate.code.consumer(start) or ""  # of other values the derivatives are others, too
