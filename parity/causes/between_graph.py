"""Naming what is wrong between two layers, wherever residual connections lead: one mistake in PyTorch's own code there.

What PyTorch ran since the last layers is run again in NumPy, from what these gave, and every mistake that people make
in such code is made in it (`families.py`). If JAX's numbers come out, that is the cause. Where one layer got something
wrong before, what it got stands in the graph from there on: what follows from it explains itself, and isn't told again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes import chosen, families, near_by, node_words, part_by_part, two_at_once
from parity.causes.attempts import MOST_WORK, WRONG, Attempt, Problem, explaining
from parity.causes.clock import Clock
from parity.causes.data_nodes import Counted
from parity.causes.graph import Graph, Region
from parity.causes.graph_nodes import Node
from parity.causes.node_kinds import CONSTANT, GIVEN, LAYER, PARAMETER, SOURCES
from parity.causes.numpy_table import CannotRun
from parity.causes.parameters import Cause

_SHOWN = 12  # operations that are told
_MOST_IN_ALL = 6 * MOST_WORK  # elements that may be computed for one model where nothing is found


@dataclass
class _Met:
    """What a layer got: its name, the reference's value, and JAX's where that is something else."""

    path: str
    load: Callable[[], NDArray]
    ours: NDArray | None = None

    def given(self) -> NDArray:
        """What JAX's layer got."""
        return self.load() if self.ours is None else self.ours


@dataclass
class Code:
    """The code between the layers of one model, and what has been found out about it on the way.

    Attributes:
        graph: of the whole model.
        names: of layers, by the key of their records.
        values: gives an array of a record.
        met: what layers got, by place in the graph.
        found: mistakes that explained what a layer got.
        work: elements that the search has computed.
        pairs: of mistakes that it has tried at once.
        whole: whether the model is one function, in which a mistake may be in all layers of a list at once.
        clock: how long the search has run.
        cut_short: that the last search ended before all was tried, in words; empty if it didn't.
        given: what the inputs are called.
        choices: what layers got that nothing but choices tell of, by their paths.
        sinks: gives the nodes that layers get, by the key of their records.
    """

    graph: Graph
    names: dict[str, str]
    values: Callable[[str, str], NDArray]
    met: dict[int, _Met] = field(default_factory=dict)
    found: list[tuple[str, Attempt]] = field(default_factory=list)
    work: int = 0
    pairs: int = 0
    whole: bool = False
    clock: Clock = field(default_factory=Clock)
    cut_short: str = ""
    given: str = "the model's input"
    _words: dict[tuple[int, int, int], str] = field(default_factory=dict, repr=False)
    choices: dict[str, chosen.Alike] = field(default_factory=dict)
    sinks: Callable[[str], list[int]] = lambda key: []

    @classmethod
    def read(cls, store: Any, names: dict[str, str]) -> Code | None:
        """The code that a record holds; None if there is none, as at ties."""
        if not store.exists("graph"):
            return None

        def load(place: int, node: Node) -> NDArray:
            if node.op == LAYER:
                return store.array(node.args["key"], f"output.{node.args['index']}")
            if node.op == GIVEN:
                return store.array("given", f"input.{node.args['index']}")
            if not store.has("graph", f"c.{place}"):
                raise CannotRun("a constant wasn't kept")
            return store.array("graph", f"c.{place}")

        graph = Graph(store.facts("graph")["nodes"], load)
        return cls(graph, names, store.array, sinks=lambda key: store.facts(key).get("sinks", []))

    @classmethod
    def of(cls, nodes: list[dict[str, Any]], constants: dict[str, NDArray], inputs: tuple[NDArray, ...]) -> Code:
        """The code of a whole model, layers and all, from its inputs on."""

        def load(place: int, node: Node) -> NDArray:
            if node.op == GIVEN:
                return inputs[node.args["index"]]
            if f"c.{place}" not in constants:
                raise CannotRun("a constant wasn't kept")
            return constants[f"c.{place}"]

        def values(key: str, name: str) -> NDArray:
            raise CannotRun("a model that runs as a whole has no records")

        return cls(Graph(nodes, load), {}, values, whole=True)

    def meet(self, sink: int, path: str, key: str, i: int, ours: NDArray | None) -> None:
        """Note what a layer got: `ours`, of PyTorch's layout, where it isn't what PyTorch's layer got."""
        place = self.graph.moved[sink]
        known = self.met.get(place)
        if known is None or known.ours is None:
            self.met[place] = _Met(path, lambda: self.values(key, f"input.{i}"), ours)

    def follows(self, sink: int, ours: NDArray, tolerance: float) -> str | None:
        """The layer whose wrong input explains that JAX hands on `ours`; None if there is none."""
        place = self.graph.moved[sink]
        known = self.met.get(place)
        if known is not None and known.ours is not None and within(farthest(known.ours, ours), tolerance):
            return known.path
        for cut in self._cuts(place):
            region = Region(self.graph, place, cut)
            wrong = [p for p in region.places if p in region.cut and p in self.met and self.met[p].ours is not None]
            if wrong and self._gives(lambda region=region: region.value(place), ours, tolerance):
                return self.met[wrong[-1]].path
            for path, attempt in self.found:
                if region.inside.intersection(attempt.changes) and self._gives(
                    lambda region=region, attempt=attempt: region.changed(attempt.changes), ours, tolerance
                ):
                    return path
        return None

    def explain(
        self, sink: int, path: str, ours: NDArray, reference: NDArray, tolerance: float, near: str
    ) -> list[Cause]:
        """Causes of a difference between what both sides hand to a layer.

        Args:
            sink: node of what PyTorch hands on, as the record numbers it.
            path: of the layer that gets it.
            ours: JAX's, in PyTorch's layout; the shape may differ.
            reference: PyTorch's.
            tolerance: largest difference that counts as none.
            near: key of the layer's record.
        """
        self.cut_short = ""
        for problem, before in self._problems(sink, ours, reference, tolerance, near):
            several = families.ALIKE if self.whole else families.ALIKE_BETWEEN
            with self.clock:
                found = explaining(problem, families.attempts(problem), before)
                by_choice = bool(found) and chosen.only_choices(problem.region, found[-1][0].changes)
                if by_choice:
                    found = chosen.alike(problem, families.attempts(problem), before, self.choices.values())
                if not found or (found[-1][0].strange and not by_choice):
                    alike = explaining(problem, families.everywhere(problem, several), before)
                    found = alike if alike and not alike[-1][0].strange else found or alike
                if not found and (wider := problem.region.counting(Counted.ALL)) is not None:
                    problem = replace(problem, region=wider)
                    found = explaining(problem, families.attempts(problem), before)
                found = found or part_by_part.explain(problem, families.attempts, before)
            self.work += problem.region.work
            self.cut_short = self.cut_short or problem.cut_short()
            if found:
                return [self._told(path, found, by_choice, before)]
        return []

    def _told(self, path: str, found: list[tuple[Attempt, float]], by_choice: bool, before: float) -> Cause:
        """What explains a difference as a cause: the plain mistake, else all strange ones; or all that choose alike."""
        attempt, after = found[0] if by_choice or found[-1][0].strange else found[-1]
        self.found.append((path, attempt))
        if by_choice:
            self.choices[path] = chosen.Alike(found, before)
        alike = [other.text for other, _ in found[1:3]] if attempt.strange else []
        text = chosen.told(found) if by_choice else "; or, which gives the same, ".join([attempt.text, *alike])
        return Cause(attempt.key, "jax", text, before, after)

    def narrowed(self) -> dict[str, Cause]:
        """Causes of what layers got, by their paths, that other layers like them let fewer mistakes explain."""
        return {
            path: Cause(found[0][0].key, "jax", chosen.told(found), before, found[0][1])
            for path, (found, before) in chosen.narrowed(self.choices).items()
        }

    def explain_two(
        self, sink: int, path: str, ours: NDArray, reference: NDArray, tolerance: float, near: str
    ) -> list[Cause]:
        """Two causes at once, where `explain` finds none; see there."""
        for problem, before in self._problems(sink, ours, reference, tolerance, near):
            with self.clock:
                pair, tried = two_at_once.find(problem, families.simple, before, two_at_once.MOST_PAIRS - self.pairs)
            self.cut_short = self.cut_short or problem.cut_short()
            self.pairs += tried
            self.work += problem.region.work
            if pair is not None:
                self.found.append((path, pair.both))
                texts = (f"{each.text}, one of two mistakes at once" for each in pair[:2])
                keys = (each.key for each in pair[:2])
                return [Cause(key, "jax", text, before, pair.left) for key, text in zip(keys, texts, strict=True)]
        return []

    def _problems(
        self, sink: int, ours: NDArray, reference: NDArray, tolerance: float, near: str
    ) -> Iterator[tuple[Problem, float]]:
        """The code before a layer from wherever it may begin, if it gives what PyTorch gave; and the difference."""
        place = self.graph.moved[sink]
        for cut in self._cuts(place):
            region = Region(self.graph, place, cut)
            forced = any(p in region.cut and p in self.met and self.met[p].ours is not None for p in region.places)
            try:
                right = region.value(place)
            except WRONG:
                continue
            if not forced and not within(farthest(np.asarray(right, np.float64), reference), tolerance):
                continue  # the graph doesn't give what PyTorch gave: it can't show anything
            most = min(MOST_WORK, _MOST_IN_ALL - self.work)
            allowed, about = tolerance * _larger(ours, reference), near_by.arrays(self, near, region)
            code = near_by.code(self, region)
            problem = Problem(region, ours, allowed, self.words, about, most, True, self.clock, near, code)
            yield problem, farthest(right, ours)

    def consumer(self, key: str) -> str | None:
        """A layer whose wrong input is made of what the layer of this record gave; None if there is none."""
        sources = [p for p, node in enumerate(self.graph.nodes) if node.op == LAYER and node.args["key"] == key]
        for place, met in self.met.items():
            if met.ours is not None:
                others = [p for p, other in self.met.items() if p != place and self._is_data(p)]
                if set(sources) & set(self.graph.before(place, [p for p in others if p not in sources])):
                    return met.path
        return None

    def _cuts(self, place: int) -> Iterator[dict[int, Callable[[], NDArray]]]:
        """Where a region may begin: at what the layers so far got, with JAX's mistakes and without."""
        with_mistakes: dict[int, Callable[[], NDArray]] = {p: met.given for p, met in self.met.items()}
        ways = [with_mistakes]
        if any(met.ours is not None for met in self.met.values()):
            ways.append({p: c for p, c in with_mistakes.items() if self.graph.nodes[p].op not in SOURCES})
            ways.append({p: met.load for p, met in self.met.items()})
        for cut in ways:
            yield {p: load for p, load in cut.items() if self._is_data(p)}

    def _is_data(self, place: int) -> bool:
        return self.graph.nodes[place].op not in (PARAMETER, CONSTANT)

    def _gives(self, made: Callable[[], NDArray], ours: NDArray, tolerance: float) -> bool:
        try:
            result = np.asarray(made(), np.float64)
        except WRONG:
            return False
        return result.shape == ours.shape and within(farthest(result, ours), tolerance)

    def words(self, place: int) -> str:
        """A node in words."""
        known = place, len(self.names), len(self.met)  # more of which change words
        if known not in self._words:
            met = {p: each.path for p, each in self.met.items()}
            self._words[known] = node_words.Words(self.graph, self.names, met, self.given).of(place)
        return self._words[known]

    def place(self, sink: int) -> str:
        """Where code lies: behind which layers, what PyTorch ran there, and whether the search there was cut short."""
        region = Region(self.graph, self.graph.moved[sink], {p: met.load for p, met in self.met.items()})
        sources = [p for p in region.places if (p in region.cut or region.node(p).op in SOURCES) and region.of_data(p)]
        names = list(dict.fromkeys(self.words(p) for p in sources))
        ran = [region.node(p).op.strip("_") for p in region.operations if region.of_data(p)]
        shown = ", ".join(ran[:_SHOWN]) + (f" and {len(ran) - _SHOWN} more" if len(ran) > _SHOWN else "")
        behind = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        told = f"it starts from {behind or 'constants'}; PyTorch ran {shown or 'nothing'} there"
        return f"{told}; {self.cut_short}" if self.cut_short else told


def _larger(ours: NDArray, reference: NDArray) -> float:
    """How many times larger JAX's values are where a mistake made them larger: so are its roundings."""
    sizes = [float(np.max(np.abs(x[np.isfinite(x)]), initial=0.0)) for x in (ours, reference)]
    return max(sizes[0] / sizes[1], 1.0) if sizes[1] > 0 else 1.0
