"""What a comparison knows of its JAX model: what it was given, the reference's records, and what was found so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from parity.bounds.magnitudes import Bound, no_bound, running_bound
from parity.candidate.jax_arrays import DTYPES, check_dtype, placed, shapes_of
from parity.candidate.jax_calls import Calls
from parity.candidate.jax_models import JaxModel
from parity.causes.between import between_graph
from parity.causes.examined import ExaminedCall
from parity.comparison.matching import Pairing
from parity.comparison.store import Store
from parity.comparison.worst_row import Worst
from parity.kinds import jax_leaves, layouts, parameter
from parity.kinds.leaf import Leaf
from parity.reports.rows import Row, compare_arrays


class State:
    """A Flax module and a capture of its reference, before and while it runs; `jax_candidate.Candidate` runs it.

    Args:
        model: to be run.
        kwargs: of its call.
        leaves: the module's.
        pairing: which of PyTorch's each is.
        store: the reference's records.
        dtype: of the lane.
        variables: the module's own; None to convert the reference's weights leaf by leaf.
        weights: gives a PyTorch leaf's parameters and statistics by path; arrays in float32 or float64.
        name: of the model, for the report.
        abstract: shapes of the module's variables, where `variables` is None.
    """

    def __init__(
        self,
        model: JaxModel,
        kwargs: dict[str, Any],
        leaves: Sequence[Leaf],
        pairing: Pairing,
        store: Store,
        dtype: str,
        weights: Callable[[str], dict[str, NDArray]],
        variables: dict[str, Any] | None = None,
        name: str = "model",
        abstract: dict[str, Any] | None = None,
    ) -> None:
        check_dtype(dtype)
        # Modules with a `setup` look at their parameters as soon as they are bound: zeros without memory will do.
        self.placeholders = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), abstract or {})
        self.model, self.kwargs, self.leaves = model, kwargs, leaves
        self.pairs, self.undecided, self.likely = dict(pairing.pairs), dict(pairing.undecided), pairing.likely
        self.kinds = {leaf.path: leaf.kind for leaf in leaves} | pairing.kinds
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
        flax_paths = {theirs: ours for ours, theirs in self.pairs.items()}
        names = {key: flax_paths.get(path, path) for (path, _), key in self.records.items()}
        # Inputs that differ and nobody knows why: rows, Flax's arrays, their layouts, PyTorch's, and what is allowed.
        self.unexplained: list[tuple[Row, NDArray, layouts.Layout | None, NDArray, NDArray | None]] = []
        self.code = between_graph.Code.read(store, names)
        self.calls = Calls(store, self.records, {leaf.path: leaf.calls for leaf in leaves})
        self.compiled: dict[str, Callable] = {}  # leaves alone, and their gradients
        self.visited: dict[str, ExaminedCall] = {}
        self.judged: set[str] = set()  # leaves whose weights have been compared
        self.natural: State | None = None  # beside the reference's run at ties: the one beside its natural run
        self.broken: str | None = None  # what stopped Flax among the reference's values, if anything did
        self.output_layouts: list[layouts.Layout | None] = []
        self.worst = Worst()
        self.masks: dict[str, NDArray] = {}  # of dropout, by PyTorch path, where they were injected

    @property
    def owned(self) -> dict[str, str]:
        """Pairs of the parameters that modules own beside their children's."""
        return {ours: theirs for ours, theirs in self.pairs.items() if self.kinds[ours] == parameter.KIND.name}

    def as_array(self, x: NDArray) -> jax.Array:
        """For JAX: floating point in the lane's dtype, integers as they are."""
        x = np.asarray(x)
        return placed(x, DTYPES[self.dtype] if np.issubdtype(x.dtype, np.floating) else None)

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
        return shapes_of(jax_leaves.leaf_variables(self.placeholders, path))
