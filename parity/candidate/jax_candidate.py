"""The candidate's half: runs a Flax module leaf by leaf on the reference's inputs, and compares.

Imports JAX and NumPy only; the reference is a directory of captures, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.core
import numpy as np
from flax.errors import FlaxError
from numpy.typing import NDArray

from parity.candidate import jax_variables
from parity.candidate.jax_models import JaxLayer
from parity.candidate.jax_state import State
from parity.candidate.jax_visit import Visit, allowed, is_input, place_of
from parity.candidate.totals import Total
from parity.causes import diagnosis
from parity.causes.between import inputs as input_causes
from parity.comparison import by_input
from parity.errors import CannotCompare, LayersUnseen
from parity.kinds import layouts
from parity.reports.rows import Row, told_in_order


class Candidate(State):
    """A Flax module run beside a capture of its reference; `State` says what it takes."""

    visited: dict[str, Visit]
    natural: Candidate | None

    @cached_property
    def totals(self) -> dict[tuple[str, str], Total]:
        """Gradients of parameters that several calls add to, by the leaf's path and the parameter's name."""
        return {}

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
            if self.natural is None:
                layout = layouts.align(reference, np.asarray(result, np.float64), None)
            else:  # as in the natural run: tied values may fit in several ways
                layout = self.natural.output_layouts[i]
            self.output_layouts.append(layout)
            value = layout.to_flax(reference) if layout else reference
            bound = self.glue_bound("output", i, facts["depth"], layout)
            self.judge(row, np.asarray(result), value, bound)
            if row.verdict in ("mismatch", "shape"):
                ours = np.asarray(result, np.float64)
                ours = ours if layout is None else layout.to_torch(ours)
                input_causes.name_output(self, row, i, ours, reference, allowed(bound))

    def input_layouts(self, path: str) -> layouts.Layout | None:
        """Layout of the first input of a leaf, which orders the rows of a dense kernel."""
        visit = next((v for v in self.visited.values() if v.path == path), None)
        return visit.input_layouts[0] if visit and visit.input_layouts else None
