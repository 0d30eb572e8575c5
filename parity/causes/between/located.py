"""Naming what is wrong in a function from the values that it computes on the way, a mistake after the other.

A function has no layers to cut at, but most of what PyTorch's operations give is found again among the values of the
function's own program, whatever their order. The first products that aren't, nor anything that depends on them, lie
behind a mistake, which is then looked for in the little code before them. What explains one of the function's own
values is left in PyTorch's code, and the next values that differ are looked for, until the result comes out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes.between import located_mistakes as mistakes
from parity.causes.between import value_matching
from parity.causes.between.jax_values import JaxValues, allowed
from parity.causes.between.located_mistakes import Here, Hit
from parity.causes.cause import explains
from parity.causes.clock import Clock
from parity.causes.graph.data_nodes import Counted
from parity.causes.graph.graph import Graph, Region
from parity.causes.graph.nodes import Changes
from parity.causes.layer.parameters import Cause
from parity.causes.mistakes.attempts import MOST_WORK, WRONG, Attempt, Problem

_PRODUCTS = frozenset({"linear", "addmm", "matmul", "mm", "bmm", "baddbmm", "einsum", "convolution", "_convolution"})
_DEPTHS = (6, 14, 40)  # operations before a product in which its mistake is looked for
_MOST_PRODUCTS = 2  # that are tried, of those that come first behind a mistake
_MOST_OTHERS = 6  # other values, likewise; they lie nearer
_MOST_AGAIN = 16  # values before which a mistake is looked for that was made before
_MOST_TRIED = 30_000  # mistakes in the code of one function
_MOST_BESIDE = 6  # values of a size beside some code that may stand in for others
_SMALL = 70  # nodes of code that is looked through before the values on the way to its result are
_MOST_MISTAKES = 200  # places that may be wrong in one function
_MOST_HITS = 6  # mistakes that give one value, of which that is taken which explains most
_MOST_DOUBTED = 4  # products whose mistakes are taken back
_WORK = MOST_WORK // 20  # elements that may be computed for one product


class _State(NamedTuple):
    """What is known before the next mistake is looked for.

    Attributes:
        whole: PyTorch's code without mistakes; region with those that were found.
        region: see `whole`.
        matched: of each node that can be compared its place among the function's values, or None.
        moved: places of the function's values that the code has by moving others.
        wrong: nodes whose values the function doesn't have, nor anything that depends on them, in order.
        ours: the function's result.
        tolerance: largest difference from it that counts as none.
    """

    whole: Region
    region: Region
    matched: dict[int, int | None]
    moved: frozenset[int]
    wrong: list[int]
    ours: NDArray
    tolerance: float


@dataclass
class Located:
    """The mistakes of one function that have been found so far.

    Attributes:
        graph: PyTorch's model.
        values: of the function.
        words: names a node for people.
        changes: what the mistakes make of nodes.
        hits: the mistakes, in the order in which they were found.
        tried: how many were.
        clock: how long causes in this model have been looked for, by whatever search.
    """

    graph: Graph
    values: JaxValues
    words: Callable[[int], str]
    changes: dict[int, Callable] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    tried: int = 0
    clock: Clock = field(default_factory=Clock)
    _known: dict[int, int | None] = field(default_factory=dict)
    _doubted: set[int] = field(default_factory=set)

    def explain(self, sink: int, ours: NDArray, tolerance: float) -> tuple[list[Cause], bool]:
        """The causes of a difference in one of the function's results, and whether they explain all of it.

        Args:
            sink: the node of PyTorch's result.
            ours: the function's, in PyTorch's layout.
            tolerance: largest difference that counts as none.
        """
        whole = Region(self.graph, sink, {})
        try:
            whole.value(sink)
        except WRONG:
            return [], False
        with self.clock:
            complete = self._find(whole, ours, tolerance)
        inside = mistakes.standing(self.hits, whole.inside)
        problem = Problem(whole, ours, tolerance, self.words, (), _WORK, clock=self.clock)
        with self.clock:
            return list(mistakes.told(inside, lambda hit: mistakes.nodes_of_all(problem, hit))), complete

    def _find(self, whole: Region, ours: NDArray, tolerance: float) -> bool:
        """Find one mistake after the other; whether they explain everything.

        One that makes nothing else right may be half of another, as a bias that isn't added where it is added later:
        where nothing is found behind it, it is taken back, and stays only if nothing else explains all either.
        """
        begun, first = len(self.hits), None
        for _ in range(_MOST_MISTAKES):
            region = self._with_mistakes(whole)
            if region is not None and self._gives(region, ours, tolerance):
                return True
            hit = None if region is None or self.clock.over else self._next(whole, region, ours, tolerance)
            if hit is None:
                first = self.hits[begun:] if first is None else first
                doubtful = [i for i, each in enumerate(self.hits) if i >= begun and each.gain <= 0]
                if not doubtful or self.clock.over or len(self._doubted) == _MOST_DOUBTED:
                    break
                self._doubted.add(self.hits[doubtful[-1]].anchor)
                self._keep(self.hits[: doubtful[-1]])
                continue
            self._keep([*self.hits, hit])
        self._keep([*self.hits[:begun], *(first or [])])
        return False

    def _keep(self, hits: list[Hit]) -> None:
        """Take these mistakes for those of the function."""
        self.hits = hits
        self.changes = {place: change for hit in hits for place, change in hit.attempt.changes.items()}

    def _with_mistakes(self, whole: Region) -> Region | None:
        changes = {p: c for p, c in self.changes.items() if p in whole.inside}
        if not changes:
            return whole
        try:
            with np.errstate(all="ignore"):
                return whole.with_mistakes(changes)
        except WRONG:
            return None

    def _gives(self, region: Region, ours: NDArray, tolerance: float) -> bool:
        result = np.asarray(region.value(region.sink), np.float64)
        return result.shape == ours.shape and within(farthest(result, ours), tolerance)

    def _next(self, whole: Region, region: Region, ours: NDArray, tolerance: float) -> Hit | None:
        """The mistake before the first values that differ, or before the result."""
        matched = value_matching.matched(region, self.values, whole, self._known)
        moved = value_matching.moved(region, self.values)
        state = _State(whole, region, matched, moved, value_matching.wrong(region, matched), ours, tolerance)
        if (hit := self._again(state)) is not None:
            return hit
        products = [p for p in state.wrong if region.node(p).op in _PRODUCTS][:_MOST_PRODUCTS]
        others = [p for p in state.wrong if p not in products][:_MOST_OTHERS]
        near = bool(products) and len(self._near(state, products[0], _DEPTHS[1]).places) <= _SMALL
        first, second = (products, others) if near else (others, products)
        strange = None
        for several in (False, True):
            for depth in _DEPTHS[several:]:
                looks: list[Callable[[], Hit | None]] = [
                    lambda d=depth, s=several: self._before(state, first, d, s),
                    lambda d=depth, s=several: self._before(state, second, d, s),
                    lambda d=depth, s=several: self._at_the_end(state, d, s),
                ]
                for look in looks:
                    hit = look()
                    if hit is not None and (look is not looks[-1] or not hit.attempt.strange):
                        return hit
                    strange = strange or hit  # the result may be had by one strange number in many ways
        return strange

    def _again(self, state: _State) -> Hit | None:
        """The mistake that was found last, made in another place: in the next turn of a loop, the next layer."""
        for anchor in state.wrong[:_MOST_AGAIN] if self.hits else ():
            problem = self._problem(state, anchor, _DEPTHS[1])
            for attempt in () if problem is None else mistakes.similar(problem, self.hits[-1]):
                found = problem.hit(attempt) if problem is not None else None
                if found is not None and explains(*found, max(found[1], state.tolerance)):
                    return Hit(attempt, *found, self.hits[-1].family)
        return None

    def _before(self, state: _State, anchors: list[int], depth: int, several: bool) -> Hit | None:
        """A mistake before one of these values, or the same one in several places."""
        for anchor in anchors:
            problem = self._problem(state, anchor, depth)
            hit = None if problem is None else self._best(problem, state, anchor, several)
            if hit is not None:
                return hit
        return None

    def _at_the_end(self, state: _State, depth: int, several: bool) -> Hit | None:
        """The last mistake, which gives the result itself."""
        if (inner := self._region(state, state.region.sink, depth)) is None:
            return None
        problem = Problem(inner, state.ours, state.tolerance, self.words, (), _WORK)
        return mistakes.at_the_end(problem, self._tries(problem, several))

    def _tries(self, problem: Problem, several: bool) -> Iterator[tuple[int, Attempt]]:
        """Mistakes, those of the last one's family first, as long as there aren't too many of one function."""
        for each in mistakes.attempts(problem, several, [hit.family for hit in self.hits[-1:]]):
            self.tried += 1
            if self.tried > _MOST_TRIED or self.clock.over:
                return
            yield each

    def _near(self, state: _State, anchor: int, depth: int) -> Region:
        """The code before a node, begun at values that the function has, so far back at least."""
        near, waiting = {anchor}, [anchor]
        for _ in range(depth):
            waiting = [p for q in waiting for p in state.region.graph.nodes[q].parents if p not in near]
            near.update(waiting)
        cut = [p for p, place in state.matched.items() if place is not None and p < anchor and p not in near]
        return Region(self.graph, anchor, {p: lambda p=p: state.region.value(p) for p in cut}, Counted.LEARNED)

    def _region(self, state: _State, anchor: int, depth: int) -> Region | None:
        """The same with the mistakes in it that were found; None if it can't be run."""
        inner = self._near(state, anchor, depth)
        changes = {p: c for p, c in self.changes.items() if p in inner.inside and p not in inner.cut and p != anchor}
        try:
            inner.value(anchor)
            with np.errstate(all="ignore"):
                return inner.with_mistakes(changes) if changes else inner
        except WRONG:
            return None

    def _problem(self, state: _State, anchor: int, depth: int) -> Here | None:
        inner = self._region(state, anchor, depth)
        if inner is None:
            return None
        right = np.asarray(inner.value(anchor), np.float64)
        earlier = state.region.graph.before(anchor)
        begun = max((place for p in earlier if (place := state.matched.get(p)) is not None), default=-1)
        known = state.moved.union(place for place in state.matched.values() if place is not None)
        new = [place for place in self.values.of_size(right.size) if place > begun and place not in known]
        observed = self.values.likely(right, new)
        observed = np.full(right.shape, np.nan) if observed is None else observed
        beside, close = self._beside(state, inner), float(np.median(allowed(right)))
        return Here(inner, observed, close, self.words, beside, _WORK, values=self.values, known=known)

    def _beside(self, state: _State, inner: Region) -> list[tuple[str, Callable[[], NDArray]]]:
        """What was computed right beside some code, the nearest first: it may stand in for something there."""
        near = [
            p for p, place in state.matched.items() if place is not None and p < inner.sink and p not in inner.inside
        ]
        sizes: Counter[int] = Counter()
        found = []
        for p in reversed(near):
            size = np.size(state.region.value(p))
            sizes[size] += 1
            if sizes[size] <= _MOST_BESIDE:
                found.append((self.words(p), lambda p=p: state.region.value(p)))
        return found

    def _best(self, problem: Here, state: _State, anchor: int, several: bool) -> Hit | None:
        """Of the mistakes that give one of the function's values that which makes most others right.

        It must make some others right than that value and what it changes itself. Only for a product it needn't, as
        behind it may be another mistake: a value on the way to one, of which functions have many of their own, is no
        result that must come out.
        """
        doubtful = state.region.node(anchor).op in _PRODUCTS and anchor not in self._doubted
        best, most, hits, strange = None, -1 if doubtful else 0, 0, True
        for family, attempt in self._tries(problem, several):
            if attempt.strange and not strange:
                continue
            found = problem.hit(attempt)
            if found is None or not explains(*found, max(found[1], problem.tolerance)):
                continue
            gain = self._gain(state, anchor, attempt.changes)
            if gain > most or (strange and not attempt.strange and gain == most and best is not None):
                best, most, strange = Hit(attempt, *found, family, gain, anchor), gain, attempt.strange
            hits += not attempt.strange
            if (most > 0 and not strange) or hits == _MOST_HITS:
                break
        return best

    def _gain(self, state: _State, anchor: int, changes: Changes) -> int:
        """How many more values are right with a mistake made, too, but for the anchor and those that are changed."""
        before, self.changes = self.changes, {**self.changes, **changes}
        try:
            region = self._with_mistakes(state.whole)
        finally:
            self.changes = before
        if region is None:
            return -len(state.whole.places)
        if self._gives(region, state.ours, state.tolerance):
            return len(state.whole.places)
        matched = value_matching.matched(region, self.values, state.whole, self._known)
        counted = {*changes, anchor}
        wrong = [p for p in value_matching.wrong(region, matched) if p not in counted]
        return sum(p not in counted for p in state.wrong) - len(wrong)
