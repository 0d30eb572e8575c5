"""The candidate's half: runs a Flax module leaf by leaf on the reference's inputs, and compares.

Imports JAX and NumPy only; the reference is a directory of captures, whoever wrote it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError
from numpy.typing import NDArray

from parity.bounds.magnitudes import Bound, no_bound, running_bound
from parity.candidate import jax_variables
from parity.candidate.jax_arrays import DTYPES, check_dtype
from parity.candidate.jax_calls import Calls
from parity.candidate.jax_models import JaxLayer, JaxModel
from parity.candidate.jax_visit import Visit, allowed, is_input, place_of
from parity.causes import between_graph, diagnosis
from parity.causes import inputs as input_causes
from parity.comparison import by_input
from parity.comparison.store import Store
from parity.comparison.totals import Total
from parity.comparison.worst_row import Worst
from parity.errors import CannotCompare, LayersUnseen
from parity.kinds import jax_leaves, layouts, parameter
from parity.reports.rows import Row, compare_arrays, told_in_order


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
        calls: how often the module calls each leaf, by path; once if it isn't said.
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
        calls: dict[str, int] | None = None,
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
        self.calls = Calls(store, self.records, calls or {})
        self.compiled: dict[str, Callable] = {}  # leaves alone, and their gradients
        self.visited: dict[str, Visit] = {}
        self.judged: set[str] = set()  # leaves whose weights have been compared
        self.natural: Candidate | None = None  # beside the reference's run at ties: the one beside its natural run
        self.broken: str | None = None  # what stopped Flax among the reference's values, if anything did
        self.output_layouts: list[layouts.Layout | None] = []
        self.worst = Worst()
        self.totals: dict[tuple[str, str], Total] = {}  # gradients of parameters that several calls add to
        self.masks: dict[str, NDArray] = {}  # of dropout, by PyTorch path, where they were injected

    @property
    def owned(self) -> dict[str, str]:
        """Pairs of the parameters that modules own beside their children's."""
        return {ours: theirs for ours, theirs in self.pairs.items() if self.kinds[ours] == parameter.KIND.name}

    def forward(self, inputs: tuple[NDArray, ...]) -> list[Row]:
        """Run the module, every leaf on the reference's input; returns the rows in the reference's order."""
        if self.natural is None:  # at ties they are as they were
            jax_variables.put_owned(self)
            jax_variables.put_tables(self)
        arrays = tuple(self.as_array(x) for x in inputs)
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
        self.calls.finish()
        if self.failed is None and self.broken is None:
            self._compare_outputs(jax.tree.leaves(result))
        for (path, call), key in self.records.items():
            if self.calls.standing_for(key) is not None:
                continue
            if key not in self.visited and (self.broken is None or self.failed is not None):
                facts = self.store.facts(key)
                flax_path = next((f for f, t in self.pairs.items() if t == path), path)
                row = Row(self.name, flax_path, path, "forward", self.dtype, order=place_of(key), kind=facts["kind"])
                row.verdict, row.fraction = "missing", float("inf")
                row.detail = f"PyTorch runs it (call {call + 1}), Flax doesn't"
                diagnosis.name_left_out(row)
                self.rows.append(row)
        self.rows.sort(key=lambda row: row.order)
        told_in_order(self.rows)
        return self.rows

    def as_array(self, x: NDArray) -> jax.Array:
        """For JAX: floating point in the lane's dtype, integers as they are."""
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
        torch_path = self.pairs[path]
        call, key = self.calls.next(path, torch_path, flat)
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
        visit = Visit(self, layer, torch_path, key, flat, tree)
        self.visited.setdefault(key, visit)
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
            self.output_layouts.append(layout)
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
        self.worst.keep(row, ours, reference)
        return row

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
        return jax_variables.shapes_of(jax_leaves.leaf_variables(self.placeholders, path))
