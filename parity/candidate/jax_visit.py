"""One call of one Flax leaf: its input held to the reference's, the leaf run on that, its output held to it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError
from numpy.typing import NDArray

from parity.bounds.magnitudes import Bound, linear_bound
from parity.candidate import jax_precision, jax_variables
from parity.candidate.jax_arrays import shapes_of
from parity.candidate.jax_models import JaxLayer
from parity.candidate.jax_state import State
from parity.causes import diagnosis
from parity.causes.between import inputs as input_causes
from parity.causes.layer import shapes as shape_causes
from parity.errors import CannotCompare
from parity.kinds import jax_leaves, layouts, registry
from parity.kinds.weights import weights_to_flax
from parity.reports.rows import Row, compare_arrays

# PyTorch's layers that work along the last axis, and what does so in Flax.
_ON_LAST_AXIS = {"Linear": ("Dense", "Linear"), "LayerNorm": ("LayerNorm",), "RMSNorm": ("RMSNorm",)}


class Visit:
    """One call of one Flax leaf, beside the record of the reference's."""

    def __init__(self, candidate: State, layer: JaxLayer, torch_path: str, key: str, flat: list, tree: Any) -> None:
        self.candidate, self.layer, self.path, self.torch_path, self.key = candidate, layer, layer.path, torch_path, key
        self.template, self.tree = flat, tree
        self.facts = candidate.store.facts(key)
        self.weight_rows = 0
        kind = candidate.kinds[self.path]
        self.kind = kind if registry.of_flax_alone(kind) else self.facts["kind"]
        self.input_layouts: list[layouts.Layout | None] = []
        self.output_layout: layouts.Layout | None = None
        self.allowed: NDArray | None = None  # the bound on the output, in PyTorch's layout
        self.comparable = True  # whether the shapes allow a comparison of gradients
        self.forced: tuple[jax.ShapeDtypeStruct, ...] = ()  # of the inputs that it runs on

    def again(self, key: str) -> Visit:
        """The same beside another record, of a call of the reference's for which this one stands."""
        other = copy.copy(self)
        other.key, other.facts = key, self.candidate.store.facts(key)
        return other

    def row(self, stage: str) -> Row:
        """An empty row of this call."""
        c = self.candidate
        stage, order = c.stage(stage), place_of(self.key)
        return Row(c.name, self.path, self.torch_path, stage, c.dtype, order=order, kind=self.facts["kind"])

    def run(self, xs: list[Any]) -> Any:
        """Compare inputs, run on the reference's, compare outputs; returns the reference's output."""
        c = self.candidate
        store = c.store
        references = store.arrays(self.key, "input.")
        if len(xs) != len(references):
            raise CannotCompare(
                f"{self.path} (Flax) takes {len(xs)} arrays, {self.torch_path} (PyTorch) {len(references)}"
            )
        forced = [self._input(i, x, references[str(i)]) for i, x in enumerate(xs)]
        if c.natural is not None and self.facts["linear"]:
            self.output_layout = c.natural.visited[self.key].output_layout
            return self._passed()
        layout = self.input_layouts[0] if self.input_layouts else None
        variables = jax_variables.of_leaf(c, self.torch_path, self.layer, layout)
        if c.given is not None and self.kind != "plain" and self.path not in c.judged:
            c.judged.add(self.path)
            converted = weights_to_flax(self.kind, c.weights(self.torch_path), layout, c.wanted(self.path))
            hold_to_converted(self, variables, converted)
        check_dtypes(self, variables)
        self.forced = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in forced)
        try:
            results = jax.tree.leaves(self.function()(variables, *forced))
        except (ValueError, TypeError, FlaxError) as error:
            return self._refused(error, variables, forced)
        first = len(c.rows)
        outputs = [self._output(i, y) for i, y in enumerate(results)]
        wrong = [row for row in c.rows[first - self.weight_rows :] if row.diverges]
        if wrong and any(row.verdict != "dtype" for row in wrong):
            diagnosis.name_forward(self, wrong, variables, np.asarray(results[0], np.float64))
        if len(outputs) != 1:
            raise CannotCompare(
                f"{self.path} (Flax) returns {len(outputs)} arrays; only layers with one output are compared"
            )
        return outputs[0] if c.natural is None else self._passed()

    def _passed(self) -> jax.Array:
        """What the reference handed on at ties."""
        array = self.candidate.store.array(self.key, "passed.0")
        return self.candidate.as_array((self.output_layout or layouts.Layout()).to_flax(array))

    def _refused(self, error: Exception, variables: Any, forced: list[jax.Array]) -> jax.Array:
        """The layer can't run on the reference's input with the reference's weights: that is a divergence."""
        c = self.candidate
        self.comparable = False
        row = self.row("forward")
        row.verdict, row.fraction = "shape", float("inf")
        row.detail = f"Flax can't run it with PyTorch's weights: {str(error).splitlines()[0]}"
        found = shape_causes.explain(self.kind, self._wanted(forced), shapes_of(variables))
        row.causes, row.cause_keys = [str(cause) for cause in found], [cause.key for cause in found]
        c.rows.append(row)
        reference = c.store.array(self.key, "output.0")
        return c.as_array(self._guess(forced, reference.shape).to_flax(reference))

    def _guess(self, forced: list[jax.Array], reference: tuple[int, ...]) -> layouts.Layout:
        """How a result that the Flax leaf can't make would lie: as its own does, as far as that can be said."""

        def own(*inputs: jax.Array) -> Any:
            args, kwargs = self._arguments(inputs)
            return jax.tree.leaves(self.layer.apply(self.layer.wanted(*args, **kwargs), *args, **kwargs))[0]

        try:
            shape = jax.eval_shape(own, *forced).shape
        except (ValueError, TypeError, FlaxError):
            return self._unknown(len(reference))
        heads = shape[len(reference) - 1 : -1]
        if heads and shape[: len(reference) - 1] == reference[:-1] and reference[-1] % math.prod(heads) == 0:
            return layouts.Layout(last=(*heads, -1))
        return self._unknown(len(reference))

    def _layout(self, reference: NDArray, ours: NDArray, map_shape: Any) -> layouts.Layout | None:
        """How a reference's array lies in the leaf's; None if the shapes can't hold the same values."""
        if registry.named(self.kind).recurrent:
            return layouts.Layout() if reference.shape == ours.shape else None
        if reference.ndim > 2 and reference.shape == ours.shape and works_on_last_axis(self.layer.module, self.facts):
            return layouts.Layout()  # with as many places as channels, too: else an exchange of both would go unseen
        return layouts.align(reference, ours, tuple(map_shape) if map_shape else None)

    def _unknown(self, ndim: int) -> layouts.Layout:
        """Likewise, where shapes don't say it."""
        return layouts.Layout(moved=ndim > 2 and not registry.named(self.kind).recurrent)

    def _wanted(self, forced: list[jax.Array]) -> dict[str, tuple[int, ...]]:
        """Shapes of the variables that the Flax leaf would make for these inputs."""

        def init(*inputs: jax.Array) -> Any:
            args, kwargs = self._arguments(inputs)
            return self.layer.wanted(*args, **kwargs)

        return shapes_of(jax.eval_shape(init, *forced))

    def _arguments(self, inputs: tuple[jax.Array, ...]) -> Any:
        """Positional and named arguments of the leaf's call, with other inputs."""
        tensors = iter(inputs)
        return jax.tree.unflatten(self.tree, [next(tensors) if is_input(t) else t for t in self.template])

    def function(self) -> Callable:
        """The leaf alone, compiled: f(variables, *inputs)."""
        compiled = self.candidate.compiled
        static = [None if hasattr(t, "dtype") else t for t in self.template]
        name = f"{self.path}/{static}"
        if name not in compiled:

            def call(variables: Any, *inputs: jax.Array) -> Any:
                args, kwargs = self._arguments(inputs)
                return self.layer.apply(variables, *args, **kwargs)

            compiled[name] = jax.jit(call)
        return compiled[name]

    def _input(self, i: int, x: jax.Array, reference: NDArray) -> jax.Array:
        c = self.candidate
        map_shape = self.facts["map_shapes"][i]
        known = None if c.natural is None else c.natural.visited[self.key]  # tied values may fit in several ways
        layout = known.input_layouts[i] if known else self._layout(reference, np.asarray(x, np.float64), map_shape)
        if layout is None and not registry.named(self.kind).recurrent:
            layout = layouts.without_padding(reference, x.shape, self.facts["ops"])
        row = self.row("input")
        value = layout.to_flax(reference) if layout else reference
        bound = c.glue_bound(self.key, i, self.facts["glue_depth"], layout)
        c.judge(row, np.asarray(x), value, bound)
        if layout is None:
            # The shapes differ: the leaf is still judged on what it should have been given.
            layout = self._unknown(reference.ndim)
            value = layout.to_flax(reference)
        if jax_leaves.dtype_name(x) != c.dtype and jnp.issubdtype(x.dtype, jnp.floating):
            row.verdict, row.detail = "dtype", f"Flax computes in {x.dtype} here"
            diagnosis.name_dtype(row, jax_leaves.dtype_name(x))
        self.input_layouts.append(layout)
        if row.verdict in ("mismatch", "shape"):
            row.detail = row.detail or "the code before this layer differs"
            input_causes.name_input(c, self, row, np.asarray(x), reference, i, allowed(bound))
        elif row.open:
            input_causes.name_open(c, self, row, np.asarray(x), reference, i)
        self._met(i, row, np.asarray(x), reference)
        return c.as_array(value)

    def _met(self, i: int, row: Row, x: NDArray, reference: NDArray) -> None:
        """Tell the code between the layers what this one got."""
        code, sinks, layout = self.candidate.code, self.facts.get("sinks", []), self.input_layouts[i]
        if code is None or i >= len(sinks) or row.verdict not in ("equal", "mismatch"):
            return
        ours = None if row.equal or layout is None else np.asarray(layout.to_torch(np.asarray(x)), np.float64)
        if ours is None or (ours.shape == reference.shape and np.issubdtype(reference.dtype, np.floating)):
            code.meet(sinks[i], self.path, self.key, i, ours)

    def _output(self, i: int, y: jax.Array) -> jax.Array:
        c = self.candidate
        reference = c.store.array(self.key, f"output.{i}")
        ours = np.asarray(y, np.float64)
        map_shape = self.facts["map_shapes"][0] if self.kind == "plain" and self.facts["map_shapes"] else None
        known = None if c.natural is None else c.natural.visited[self.key]
        layout = known.output_layout if known else self._layout(reference, ours, map_shape)
        row = self.row("forward")
        if layout is None:
            self.comparable = False
            guess = self._unknown(reference.ndim)
            self.output_layout = guess
            bound = self._bound(i, guess)
            self.allowed = None if bound is None or bound.unknown else guess.to_torch(bound.allowed)
            c.judge(row, ours, guess.to_flax(reference), None)
            return c.as_array(guess.to_flax(reference))
        self.output_layout = layout
        value = layout.to_flax(reference)
        truth = layout.to_flax(c.store.array(self.key, f"truth.{i}")) if c.store.has(self.key, f"truth.{i}") else None
        bound = self._bound(i, layout)
        self.allowed = None if bound is None or bound.unknown else layout.to_torch(bound.allowed)
        c.judge(row, ours, value, bound, truth)
        if np.issubdtype(reference.dtype, np.floating):
            row.flips = int(np.sum((ours > 0) != (value > 0)))
            if jax_leaves.dtype_name(y) != c.dtype:
                row.verdict, row.detail = "dtype", f"Flax returns {y.dtype}"
                diagnosis.name_dtype(row, jax_leaves.dtype_name(y))
        return c.as_array(value)

    def coarse(self, variables: Any) -> list[tuple[str, str]]:
        """The leaf's operations on fewer bits than the lane's, see `jax_precision.coarse`."""
        return jax_precision.coarse(self.function(), (variables, *self.forced), self.candidate.dtype)

    def _bound(self, i: int, layout: layouts.Layout) -> Bound | None:
        store, dtype = self.candidate.store, self.candidate.dtype
        if self.facts["linear"]:
            return linear_bound(self.facts["n"], layout.to_flax(store.array(self.key, f"magnitude.{i}")), dtype)
        return self.candidate.recorded_bound(self.key, f"error.{i}", self.facts["n"], layout.to_flax)


def hold_to_converted(visit: Visit, variables: Any, converted: Any) -> None:
    """Converted weights must be the reference's bit for bit; rows are added for those that aren't."""
    for collection, arrays in converted.items():
        own = variables.get(collection, {})
        for name in dict.fromkeys([*arrays, *own]):
            ours, reference = own.get(name), arrays.get(name)
            row = visit.row(f"weights:{name}")
            compare_arrays(row, None if ours is None else np.asarray(ours), reference, None)
            if row.verdict == "missing" and (ours is None or reference is None):
                has, lacks = ("PyTorch", "Flax") if ours is None else ("Flax", "PyTorch")
                row.detail = f"{has} has {name}, {lacks} doesn't"
            if not row.equal:
                visit.candidate.rows.append(row)
                visit.weight_rows += 1
                if ours is not None and reference is not None:
                    visit.candidate.worst.keep(row, np.asarray(ours), reference)


def check_dtypes(visit: Visit, variables: Any) -> None:
    """Every parameter in the lane's precision, or the lane proves nothing."""
    for path, array in jax.tree_util.tree_flatten_with_path(variables)[0]:
        if jnp.issubdtype(array.dtype, jnp.floating) and jax_leaves.dtype_name(array) != visit.candidate.dtype:
            raise CannotCompare(
                f"{visit.path}{jax.tree_util.keystr(path)} is {array.dtype}, the lane is {visit.candidate.dtype}: "
                f"convert the variables first"
            )


def allowed(bound: Bound | None) -> NDArray | None:
    """The largest differences that are allowed; None where there is no bound."""
    return None if bound is None or bound.unknown else bound.allowed


def works_on_last_axis(module: Any, facts: dict[str, Any]) -> bool:
    """Whether a layer is one of those of both libraries that work along the last axis of whatever they get."""
    own, theirs = type(module), facts["bases"]
    if theirs[1:] != ["Module", "object"] or theirs[0] not in _ON_LAST_AXIS:
        return False
    if len(facts["settings"].get("normalized_shape", [1])) != 1:
        return False
    along = {getattr(module, name, -1) for name in ("reduction_axes", "feature_axes")}
    return own.__module__.startswith("flax.") and own.__name__ in _ON_LAST_AXIS[theirs[0]] and along == {-1}


def is_input(x: Any) -> bool:
    """Whether an argument of a leaf is one that the reference has too; masks (bool) are handed on as they are."""
    return isinstance(x, (jax.Array, np.ndarray)) and x.dtype != bool


def place_of(key: str) -> int:
    """Which of the reference's calls a record is of."""
    return int(key.rsplit("-", 1)[1])
