"""The candidate's half: runs a Flax module leaf by leaf on the reference's inputs, and compares.

Imports JAX and NumPy only; the reference is a directory of captures, whoever wrote it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError
from numpy.typing import NDArray

from parity.bounds.judging import difference
from parity.bounds.magnitudes import Bound, linear_bound, no_bound, running_bound
from parity.causes import between_graph, diagnosis
from parity.causes import inputs as input_causes
from parity.causes import shapes as shape_causes
from parity.comparison import by_input, jax_precision
from parity.comparison.jax_models import JaxLayer, JaxModel
from parity.comparison.store import Store
from parity.comparison.totals import Total
from parity.errors import CannotCompare, LayersUnseen
from parity.kinds import embedding, jax_leaves, layouts, parameter, registry
from parity.kinds.weights import weights_to_flax
from parity.reports.rows import Row, compare_arrays, told_in_order

# Larger arrays (gradients of fully connected layers) aren't kept for the report.
_KEPT_ELEMENTS = 4_000_000

DTYPES = {"float64": jnp.float64, "float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check_dtype(dtype: str) -> None:
    """Refuse float64 where JAX would quietly compute in float32.

    Raises:
        CannotCompare: float64 isn't enabled, or the name is unknown.
    """
    if dtype not in DTYPES:
        raise CannotCompare(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    if dtype == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise CannotCompare(
            "float64 is off in JAX: set JAX_ENABLE_X64=1, or call jax.config.update('jax_enable_x64', True) first"
        )


class Candidate:
    """A Flax module beside a capture of its reference.

    Args:
        model: to be run.
        kwargs: of its call.
        pairs: Flax leaf path to PyTorch leaf path.
        kinds: kind of each Flax leaf, by path.
        store: the reference's records.
        dtype: of the lane.
        variables: the module's own; None to convert the reference's weights leaf by leaf.
        weights: gives a PyTorch leaf's parameters and statistics by path; arrays in float32 or float64.
        name: of the model, for the report.
        abstract: shapes of the module's variables, where `variables` is None.
        undecided: see `matching.Pairing`; likely, too.
        likely: see `undecided`.
    """

    def __init__(
        self,
        model: JaxModel,
        kwargs: dict[str, Any],
        pairs: dict[str, str],
        kinds: dict[str, str],
        store: Store,
        dtype: str,
        weights: Callable[[str], dict[str, NDArray]],
        variables: dict[str, Any] | None = None,
        name: str = "model",
        abstract: dict[str, Any] | None = None,
        undecided: dict[str, list[str]] | None = None,
        likely: dict[str, str] | None = None,
    ) -> None:
        check_dtype(dtype)
        # Modules with a `setup` look at their parameters as soon as they are bound: zeros without memory will do.
        self.placeholders = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), abstract or {})
        self.model, self.kwargs, self.pairs, self.kinds = model, kwargs, dict(pairs), kinds
        self.undecided, self.likely = undecided or {}, likely or {}
        self.store, self.dtype, self.weights, self.name = store, dtype, weights, name
        self.given = variables
        self.variables: dict[str, Any] = {}
        self.layouts: dict[str, list[layouts.Layout]] = {}
        self.rows: list[Row] = []
        self.records: dict[tuple[str, int], str] = {}
        # Where the reference broke down, if it did: nothing behind that place can be compared.
        self.failed: dict[str, Any] | None = store.facts("failed") if any(store.keys("failed")) else None
        counts: dict[str, int] = defaultdict(int)
        for key in store.keys("forward-"):
            path = store.facts(key)["path"]
            self.records[path, counts[path]] = key
            counts[path] += 1
        flax_paths = {theirs: ours for ours, theirs in pairs.items()}
        names = {key: flax_paths.get(path, path) for (path, _), key in self.records.items()}
        # Inputs that differ and nobody knows why: rows, Flax's arrays, their layouts, PyTorch's, and what is allowed.
        self.unexplained: list[tuple[Row, NDArray, layouts.Layout | None, NDArray, NDArray | None]] = []
        self.code = between_graph.Code.read(store, names)
        self._calls: dict[str, int] = defaultdict(int)
        self._compiled: dict[str, Callable] = {}
        self.visited: dict[str, _Visit] = {}
        self.judged: set[str] = set()  # leaves whose weights have been compared
        self.natural: Candidate | None = None  # beside the reference's run at ties: the one beside its natural run
        self.broken: str | None = None  # what stopped Flax among the reference's values, if anything did
        self.worst: Row | None = None
        self.arrays: dict[str, NDArray] = {}  # of the worst row
        self.totals: dict[tuple[str, str], Total] = {}  # gradients of parameters that several calls add to
        self.masks: dict[str, NDArray] = {}  # of dropout, by PyTorch path, where they were injected

    @property
    def owned(self) -> dict[str, str]:
        """Pairs of the parameters that modules own beside their children's."""
        return {ours: theirs for ours, theirs in self.pairs.items() if self.kinds[ours] == parameter.KIND.name}

    def _put_owned(self) -> None:
        """Give the code between the leaves the reference's values of its parameters; hold Flax's own to them.

        Raises:
            CannotCompare: the shapes differ in number of values.
        """
        for path, torch_path in self.owned.items():
            reference = self.weights(torch_path)[parameter.VALUE]
            tree = self.placeholders if self.given is None else self.given
            ours = jax_leaves.leaf_variables(tree, path)["params"][parameter.VALUE]
            if reference.size != ours.size:
                shapes = f"{tuple(ours.shape)} in Flax, {reference.shape} in PyTorch"
                raise CannotCompare(f"{path} has the shape {shapes}")
            moved = reference.reshape(ours.shape)
            if self.given is None:
                value = jnp.asarray(moved, DTYPES[self.dtype])
                jax_leaves.insert_parameter(self.placeholders, path, value)
                jax_leaves.insert_parameter(self.variables, path, value)
                continue
            row = Row(self.name, path, torch_path, "weights:value", self.dtype, kind=parameter.KIND.name)
            compare_arrays(row, np.asarray(ours), moved, None)
            if not row.equal:
                self.rows.append(row)
                self.keep(row, np.asarray(ours), moved)

    def _put_tables(self) -> None:
        """Give the code between the leaves the tables of embeddings, which it may use again for the last layer."""
        for path, torch_path in (self.likely | self.pairs).items():
            if self.given is None and self.kinds[path] == embedding.KIND.name:
                found = weights_to_flax(self.kinds[path], self.weights(torch_path), None, self.wanted(path))
                arrays = {
                    n: {k: jnp.asarray(a, DTYPES[self.dtype]) for k, a in each.items()} for n, each in found.items()
                }
                if all(_shapes(arrays)[name] == shape for name, shape in self.wanted(path).items()):
                    jax_leaves.insert_leaf(self.placeholders, path, arrays)

    def forward(self, inputs: tuple[NDArray, ...]) -> list[Row]:
        """Run the module, every leaf on the reference's input; returns the rows in the reference's order."""
        if self.natural is None:  # at ties they are as they were
            self._put_owned()
            self._put_tables()
        arrays = tuple(self._array(x) for x in inputs)
        variables = self.given if self.given is not None else self.placeholders
        try:
            result = self.model.apply(variables, arrays, self.kwargs, self._force)
        except (TypeError, ValueError, IndexError, AssertionError, FlaxError) as error:
            # Behind the place where PyTorch broke down, maps of the wrong size break Flax as well.
            if isinstance(error, LayersUnseen) or (self.failed is None and isinstance(error, CannotCompare)):
                raise
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            # As do the reference's values behind a layer that was given others than PyTorch's was.
            if self.failed is None and not any(row.diverges for row in self.rows):
                raise CannotCompare(f"the Flax module can't run: {message}") from error
            self.broken, result = message, None
        if self.failed is None and self.broken is None:
            self._compare_outputs(jax.tree.leaves(result))
        for (path, call), key in self.records.items():
            if key not in self.visited and (self.broken is None or self.failed is not None):
                facts = self.store.facts(key)
                flax_path = next((f for f, t in self.pairs.items() if t == path), path)
                row = Row(self.name, flax_path, path, "forward", self.dtype, order=_order(key), kind=facts["kind"])
                row.verdict, row.fraction = "missing", float("inf")
                row.detail = f"PyTorch runs it (call {call + 1}), Flax doesn't"
                diagnosis.name_left_out(row)
                self.rows.append(row)
        self.rows.sort(key=lambda row: row.order)
        told_in_order(self.rows)
        return self.rows

    def _array(self, x: NDArray) -> jax.Array:
        x = np.asarray(x)
        return jnp.asarray(x, DTYPES[self.dtype]) if np.issubdtype(x.dtype, np.floating) else jnp.asarray(x)

    def _force(self, layer: JaxLayer, next_function: Callable, args: tuple, kwargs: dict) -> Any:
        path = layer.path
        if path not in self.pairs and path not in self.undecided:
            return next_function(*args, **kwargs)
        flat, tree = jax.tree.flatten((args, kwargs))
        xs = [x for x in flat if is_input(x)]
        if any(isinstance(x, jax.core.Tracer) for x in xs):
            raise LayersUnseen(
                f"{path} (Flax) runs inside scan, vmap, jit or remat, where its values can't be replaced: use the "
                f"plain module for the comparison, called in a Python loop on each item's own parameters "
                f"(jax.tree.map(lambda x: x[i], stacked)), or give the module's variables to compare it as a whole"
            )
        if path not in self.pairs and not self._decide(path, xs):
            return next_function(*args, **kwargs)
        call = self._calls[path]
        self._calls[path] += 1
        torch_path = self.pairs[path]
        key = self.records.get((torch_path, call))
        if key is None and self.failed is not None:
            if torch_path == self.failed["path"] and not any(row.torch_name == torch_path for row in self.rows):
                row = Row(self.name, path, torch_path, "forward", self.dtype, order=len(self.records))
                row.verdict, row.fraction = "shape", float("inf")
                row.detail = f"PyTorch can't run it: {self.failed['message']}"
                self.rows.append(row)
            return next_function(*args, **kwargs)
        if key is None:
            row = Row(self.name, path, torch_path, "forward", self.dtype, order=len(self.records) + 1)
            row.verdict, row.fraction = "missing", float("inf")
            row.detail = f"Flax runs it {call + 1} times, PyTorch {call}"
            self.rows.append(row)
            return next_function(*args, **kwargs)
        visit = _Visit(self, layer, torch_path, key, flat, tree)
        self.visited[key] = visit
        return visit.run(xs)

    def _decide(self, path: str, xs: list[jax.Array]) -> bool:
        """Find a layer's partner by its input; False where PyTorch broke down before it ran any that may be it."""
        taken = set(self.pairs.values())
        first = {p: self.records[p, 0] for p in self.undecided[path] if p not in taken and (p, 0) in self.records}
        if not first and self.failed is not None:
            return False
        ordered = dict(sorted(first.items(), key=lambda item: item[1]))
        try:
            if not xs:
                raise LayersUnseen(f"{path} (Flax) takes no arrays, which would tell its partner: give a mapping")
            found = by_input.choose(self.store, path, np.asarray(xs[0]), ordered, self.likely.get(path))
        except LayersUnseen:
            if self.failed is not None:
                return False
            raise
        self.pairs[path] = found
        if self.code is not None:
            self.code.names |= {key: path for (torch_path, _), key in self.records.items() if torch_path == found}
        return True

    def _compare_outputs(self, results: list[jax.Array]) -> None:
        facts = self.store.facts("output")
        references = self.store.arrays("output", "input.")
        if len(results) != len(references):
            raise CannotCompare(f"Flax returns {len(results)} arrays, PyTorch {len(references)}")
        for i, result in enumerate(results):
            row = Row(self.name, "output", "output", self.stage("input"), self.dtype, order=len(self.records))
            reference = references[str(i)]
            layout = layouts.align(reference, np.asarray(result, np.float64), None)
            value = layout.to_flax(reference) if layout else reference
            bound = self.glue_bound("output", i, facts["depth"], layout)
            self.judge(row, np.asarray(result), value, bound)
            if row.verdict in ("mismatch", "shape"):
                ours = np.asarray(result, np.float64)
                ours = ours if layout is None else layout.to_torch(ours)
                input_causes.name_output(self, row, i, ours, reference, allowed(bound))

    def judge(
        self,
        row: Row,
        ours: NDArray,
        reference: NDArray,
        bound: Bound | None,
        truth: NDArray | None = None,
    ) -> Row:
        """`compare_arrays`, and add the row; the arrays of the worst row so far are kept for the report."""
        compare_arrays(row, ours, reference, bound, truth)
        self.rows.append(row)
        self.keep(row, ours, reference)
        return row

    def keep(self, row: Row, ours: NDArray, reference: NDArray) -> None:
        """Keep the arrays of a row for the report, if it is the worst so far."""
        if ours.size <= _KEPT_ELEMENTS and self._rank(row) > self._rank(self.worst):
            self.worst = row
            self.arrays = {"jax": np.asarray(ours, np.float64), "torch": np.asarray(reference, np.float64)}
            if ours.shape == reference.shape:
                self.arrays["difference"] = difference(self.arrays["jax"], self.arrays["torch"])

    @staticmethod
    def _rank(row: Row | None) -> tuple[int, float]:
        """A first divergence outranks all, however large; else what uses most of its bound does."""
        if row is None:
            return (-1, 0.0)
        if row.equal:
            return 0, row.fraction
        if row.open:
            return 1, row.max_error
        # Backward passes come after all forward ones, from the last layer to the first.
        backward = row.stage == "cotangent" or row.stage.startswith("backward")
        return 2, row.order - 1e9 if backward else -float(row.order)

    def stage(self, name: str) -> str:
        """A stage as rows call it."""
        return name if self.natural is None else f"{name} at ties"

    def dropout_mask(self, torch_path: str) -> NDArray | None:
        """The mask that was injected into a dropout layer of both sides, True where kept."""
        return self.masks.get(torch_path)

    def input_layouts(self, path: str) -> layouts.Layout | None:
        """Layout of the first input of a leaf, which orders the rows of a dense kernel."""
        visit = next((v for v in self.visited.values() if v.path == path), None)
        return visit.input_layouts[0] if visit and visit.input_layouts else None

    def glue_bound(self, key: str, position: int, depth: int, layout: layouts.Layout | None) -> Bound | None:
        """What the reference's code since the last leaf may err by, in the candidate's layout."""
        return self.recorded_bound(key, f"glue.{position}", depth, layout.to_flax if layout else lambda x: x)

    def recorded_bound(self, key: str, name: str, depth: int, move: Callable[[NDArray], NDArray]) -> Bound | None:
        """What the reference's roundings allow, as its record says; None if nothing was rounded.

        Args:
            key: of the record.
            name: of the array of errors.
            depth: roundings in a row.
            move: brings the array into the candidate's layout.
        """
        if unknown := self.store.facts(key).get("unbounded", {}).get(name):
            return no_bound(unknown)
        return running_bound(depth, move(self.store.array(key, name))) if self.store.has(key, name) else None

    def wanted(self, path: str) -> dict[str, tuple[int, ...]]:
        """Shapes of the variables that the Flax leaf at `path` has, by name."""
        return _shapes(jax_leaves.leaf_variables(self.placeholders, path))

    def leaf_weights(self, torch_path: str, layer: JaxLayer, layout: layouts.Layout | None) -> Any:
        """Variables that a leaf runs with: its own, or converted from the reference's."""
        if self.given is not None:
            return layer.variables()
        path = layer.path
        known = jax_leaves.leaf_variables(self.variables, path)
        if not known and self.kinds[path] != "plain":
            known = weights_to_flax(self.kinds[path], self.weights(torch_path), layout, self.wanted(path))
            known = jax.tree.map(lambda x: jnp.asarray(x, DTYPES[self.dtype]), known)
            jax_leaves.insert_leaf(self.variables, path, known)
        return known


class _Visit:
    """One call of one Flax leaf, beside the record of the reference's."""

    def __init__(self, candidate: Candidate, layer: JaxLayer, torch_path: str, key: str, flat: list, tree: Any) -> None:
        self.candidate, self.layer, self.path, self.torch_path, self.key = candidate, layer, layer.path, torch_path, key
        self.template, self.tree = flat, tree
        self.facts = candidate.store.facts(key)
        self.weight_rows = 0
        kind = candidate.kinds[self.path]
        self.kind = kind if kind.startswith(registry.RENAMED) else self.facts["kind"]
        self.input_layouts: list[layouts.Layout | None] = []
        self.output_layout: layouts.Layout | None = None
        self.allowed: NDArray | None = None  # the bound on the output, in PyTorch's layout
        self.comparable = True  # whether the shapes allow a comparison of gradients
        self.forced: tuple[jax.ShapeDtypeStruct, ...] = ()  # of the inputs that it runs on

    def row(self, stage: str) -> Row:
        """An empty row of this call."""
        c = self.candidate
        stage, order = c.stage(stage), _order(self.key)
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
        variables = c.leaf_weights(self.torch_path, self.layer, layout)
        if c.given is not None and self.kind != "plain" and self.path not in c.judged:
            c.judged.add(self.path)
            converted = weights_to_flax(self.kind, c.weights(self.torch_path), layout, c.wanted(self.path))
            self._compare_weights(variables, converted)
        self.check_dtypes(variables)
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
        return self.candidate._array((self.output_layout or layouts.Layout()).to_flax(array))

    def _refused(self, error: Exception, variables: Any, forced: list[jax.Array]) -> jax.Array:
        """The layer can't run on the reference's input with the reference's weights: that is a divergence."""
        c = self.candidate
        self.comparable = False
        row = self.row("forward")
        row.verdict, row.fraction = "shape", float("inf")
        row.detail = f"Flax can't run it with PyTorch's weights: {str(error).splitlines()[0]}"
        found = shape_causes.explain(self.kind, self._wanted(forced), _shapes(variables))
        row.causes, row.cause_keys = [str(cause) for cause in found], [cause.key for cause in found]
        c.rows.append(row)
        reference = c.store.array(self.key, "output.0")
        return c._array(self._guess(forced, reference.shape).to_flax(reference))

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
        return layouts.align(reference, ours, tuple(map_shape) if map_shape else None)

    def _unknown(self, ndim: int) -> layouts.Layout:
        """Likewise, where shapes don't say it."""
        return layouts.Layout(moved=ndim > 2 and not registry.named(self.kind).recurrent)

    def _wanted(self, forced: list[jax.Array]) -> dict[str, tuple[int, ...]]:
        """Shapes of the variables that the Flax leaf would make for these inputs."""

        def init(*inputs: jax.Array) -> Any:
            args, kwargs = self._arguments(inputs)
            return self.layer.wanted(*args, **kwargs)

        return _shapes(jax.eval_shape(init, *forced))

    def _arguments(self, inputs: tuple[jax.Array, ...]) -> Any:
        """Positional and named arguments of the leaf's call, with other inputs."""
        tensors = iter(inputs)
        return jax.tree.unflatten(self.tree, [next(tensors) if is_input(t) else t for t in self.template])

    def function(self) -> Callable:
        """The leaf alone, compiled: f(variables, *inputs)."""
        compiled = self.candidate._compiled
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
        layout = self._layout(reference, np.asarray(x, np.float64), map_shape)
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
        return c._array(value)

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
        layout = self._layout(reference, ours, map_shape)
        row = self.row("forward")
        if layout is None:
            self.comparable = False
            guess = self._unknown(reference.ndim)
            self.output_layout = guess
            bound = self._bound(i, guess)
            self.allowed = None if bound is None or bound.unknown else guess.to_torch(bound.allowed)
            c.judge(row, ours, guess.to_flax(reference), None)
            return c._array(guess.to_flax(reference))
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
        return c._array(value)

    def coarse(self, variables: Any) -> list[tuple[str, str]]:
        """The leaf's operations on fewer bits than the lane's, see `jax_precision.coarse`."""
        return jax_precision.coarse(self.function(), (variables, *self.forced), self.candidate.dtype)

    def _bound(self, i: int, layout: layouts.Layout) -> Bound | None:
        store, dtype = self.candidate.store, self.candidate.dtype
        if self.facts["linear"]:
            return linear_bound(self.facts["n"], layout.to_flax(store.array(self.key, f"magnitude.{i}")), dtype)
        return self.candidate.recorded_bound(self.key, f"error.{i}", self.facts["n"], layout.to_flax)

    def _compare_weights(self, variables: Any, converted: Any) -> None:
        """Converted weights must be the reference's bit for bit; rows are added for those that aren't."""
        for collection, arrays in converted.items():
            own = variables.get(collection, {})
            for name in dict.fromkeys([*arrays, *own]):
                ours, reference = own.get(name), arrays.get(name)
                row = self.row(f"weights:{name}")
                compare_arrays(row, None if ours is None else np.asarray(ours), reference, None)
                if row.verdict == "missing" and (ours is None or reference is None):
                    has, lacks = ("PyTorch", "Flax") if ours is None else ("Flax", "PyTorch")
                    row.detail = f"{has} has {name}, {lacks} doesn't"
                if not row.equal:
                    self.candidate.rows.append(row)
                    self.weight_rows += 1
                    if ours is not None and reference is not None:
                        self.candidate.keep(row, np.asarray(ours), reference)

    def check_dtypes(self, variables: Any) -> None:
        """Every parameter in the lane's precision, or the lane proves nothing."""
        for path, array in jax.tree_util.tree_flatten_with_path(variables)[0]:
            if jnp.issubdtype(array.dtype, jnp.floating) and jax_leaves.dtype_name(array) != self.candidate.dtype:
                raise CannotCompare(
                    f"{self.path}{jax.tree_util.keystr(path)} is {array.dtype}, the lane is {self.candidate.dtype}: "
                    f"convert the variables first"
                )


def allowed(bound: Bound | None) -> NDArray | None:
    """The largest differences that are allowed; None where there is no bound."""
    return None if bound is None or bound.unknown else bound.allowed


def _shapes(variables: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a leaf's variables by name, whatever their collection."""
    return {name: tuple(array.shape) for arrays in variables.values() for name, array in arrays.items()}


def is_input(x: Any) -> bool:
    """Whether an argument of a leaf is one that the reference has too; masks (bool) are handed on as they are."""
    return isinstance(x, (jax.Array, np.ndarray)) and x.dtype != bool


def _order(key: str) -> int:
    return int(key.rsplit("-", 1)[1])
