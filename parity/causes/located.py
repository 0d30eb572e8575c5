"""Naming what is wrong in a function from the values that it computes on the way, a mistake after the other.

A function has no layers to cut at, but most of what PyTorch's operations give is found again among the values of the
function's own program, whatever their order. The first products that aren't, nor anything that depends on them, lie
behind a mistake, which is then looked for in the little code before them. What explains one of the function's own
values is left in PyTorch's code, and the next values that differ are looked for, until the result comes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.causes import families, value_matching
from parity.causes.attempts import MOST_WORK, WRONG, Attempt, Problem
from parity.causes.cause import explains
from parity.causes.graph import Changes, Graph, Region
from parity.causes.jax_values import JaxValues, allowed
from parity.causes.parameters import Cause

_PRODUCTS = frozenset({"linear", "addmm", "matmul", "mm", "bmm", "baddbmm", "einsum", "convolution", "_convolution"})
_DEPTHS = (14, 40)  # operations before a product in which its mistake is looked for
_MOST_ANCHORS = 3  # products that are tried, of those that come first behind a mistake; and other values
_MOST_MISTAKES = 48  # places that may be wrong in one function
_MOST_HITS = 6  # mistakes that give one value, of which that is taken which explains most
_PLACES = re.compile(r", and so in (?:all )?(\d+) places like it(?:, of \d+)?")
_WORK = MOST_WORK // 20  # elements that may be computed for one product


class _Hit(NamedTuple):
    """A mistake that gives one of the function's own values, and what the difference falls from and to."""

    attempt: Attempt
    before: float
    after: float
    family: int


@dataclass
class _Here(Problem):
    """A difference in what one product gives: any value of the function's that nothing of PyTorch's is will do."""

    values: JaxValues = field(default_factory=lambda: JaxValues([]))
    known: frozenset[int] = frozenset()

    def hit(self, attempt: Attempt) -> tuple[float, float] | None:
        """What the difference falls from and to if a mistake gives one of the function's values; None if it doesn't."""
        try:
            with np.errstate(all="ignore"):
                made = np.asarray(self.region.changed(attempt.changes))
        except WRONG:
            return None
        if made.size != self.right.size:
            return None
        found = self.values.find(made, self.known)
        return None if found is None else (self.values.apart(found[0], self.right), found[1])


class _State(NamedTuple):
    """What is known before the next mistake is looked for.

    Attributes:
        whole: PyTorch's code without mistakes; region with those that were found.
        region: see `whole`.
        matched: of each node that can be compared its place among the function's values, or None.
        wrong: nodes whose values the function doesn't have, nor anything that depends on them, in order.
        ours: the function's result.
        tolerance: largest difference from it that counts as none.
    """

    whole: Region
    region: Region
    matched: dict[int, int | None]
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
    """

    graph: Graph
    values: JaxValues
    words: Callable[[int], str]
    changes: dict[int, Callable] = field(default_factory=dict)
    hits: list[_Hit] = field(default_factory=list)
    _known: dict[int, int | None] = field(default_factory=dict)

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
        complete = False
        for _ in range(_MOST_MISTAKES):
            region = self._with_mistakes(whole)
            complete = region is not None and self._gives(region, ours, tolerance)
            if region is None or complete:
                break
            hit = self._next(whole, region, ours, tolerance)
            if hit is None:
                break
            self.changes.update(hit.attempt.changes)
            self.hits.append(hit)
        inside = [hit for hit in self.hits if set(hit.attempt.changes) & whole.inside]
        return list(_told(inside)), complete

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

    def _next(self, whole: Region, region: Region, ours: NDArray, tolerance: float) -> _Hit | None:
        """The mistake before the first values that differ, or before the result."""
        matched = value_matching.matched(region, self.values, whole, self._known)
        state = _State(whole, region, matched, value_matching.wrong(region, matched), ours, tolerance)
        products = [p for p in state.wrong if region.node(p).op in _PRODUCTS][:_MOST_ANCHORS]
        others = [p for p in state.wrong if p not in products][:_MOST_ANCHORS]
        strange = None
        for several in (False, True):
            looks = [
                lambda several=several: self._before(state, products, several),
                lambda several=several: self._before(state, others, several),
                lambda several=several: self._at_the_end(state, several),
            ]
            for look in looks if products else looks[::-1]:  # what is wrong before a product isn't told at the end
                hit = look()
                if hit is not None and not hit.attempt.strange:
                    return hit
                strange = strange or hit
        return strange

    def _before(self, state: _State, anchors: list[int], several: bool) -> _Hit | None:
        """A mistake before one of these values, or the same one in several places."""
        for anchor in anchors:
            for cut in self._cuts(state.region, anchor, state.matched):
                problem = self._problem(state, anchor, cut)
                hit = None if problem is None else self._best(problem, state, anchor, several)
                if hit is not None:
                    return hit
        return None

    def _at_the_end(self, state: _State, several: bool) -> _Hit | None:
        """The last mistake, which gives the result itself."""
        region = state.region
        for cut in self._cuts(region, region.sink, state.matched):
            inner = self._region(region, region.sink, cut)
            problem = None if inner is None else Problem(inner, state.ours, state.tolerance, self.words, (), _WORK)
            if problem is not None and (hit := _last(problem, several)) is not None:
                return hit
        return None

    def _cuts(self, region: Region, anchor: int, matched: dict[int, int | None]) -> Iterator[list[int]]:
        """Where the code before a node may begin: at values that the function has, so far back at least."""
        before: list[int] = []
        for depth in _DEPTHS:
            near, waiting = {anchor}, [anchor]
            for _ in range(depth):
                waiting = [p for q in waiting for p in region.graph.nodes[q].parents if p not in near]
                near.update(waiting)
            cut = [p for p, place in matched.items() if place is not None and p < anchor and p not in near]
            inside = region.graph.before(anchor, cut)
            if inside != before:
                yield cut
            before = inside

    def _region(self, region: Region, anchor: int, cut: list[int]) -> Region | None:
        inner = Region(self.graph, anchor, {p: lambda p=p: region.value(p) for p in cut}, parameters=True)
        changes = {p: c for p, c in self.changes.items() if p in inner.inside and p not in inner.cut and p != anchor}
        try:
            inner.value(anchor)
            with np.errstate(all="ignore"):
                return inner.with_mistakes(changes) if changes else inner
        except WRONG:
            return None

    def _problem(self, state: _State, anchor: int, cut: list[int]) -> _Here | None:
        inner = self._region(state.region, anchor, cut)
        if inner is None:
            return None
        right = np.asarray(inner.value(anchor), np.float64)
        earlier = state.region.graph.before(anchor)
        begun = max((place for p in earlier if (place := state.matched.get(p)) is not None), default=-1)
        known = frozenset(place for place in state.matched.values() if place is not None)
        new = [place for place in self.values.of_size(right.size) if place > begun and place not in known]
        observed = self.values.likely(right, new)
        observed = np.full(right.shape, np.nan) if observed is None else observed
        return _Here(
            inner, observed, float(np.median(allowed(right))), self.words, (), _WORK, values=self.values, known=known
        )

    def _best(self, problem: _Here, state: _State, anchor: int, several: bool) -> _Hit | None:
        """Of the mistakes that give one of the function's values that which leaves the fewest others wrong.

        It must make right what comes behind. Only of a product it may leave that wrong, for another mistake: a value
        on the way to it, of which functions have many of their own, is no result that must come out.
        """
        behind = sum(p > anchor for p in state.wrong)
        best, least, hits, strange = None, (behind, len(state.wrong)), 0, True
        if state.region.node(anchor).op not in _PRODUCTS:
            least = (behind, 0)
        for family, attempt in _attempts(problem, several, [hit.family for hit in self.hits[-1:]]):
            if attempt.strange and not strange:
                continue
            found = problem.hit(attempt)
            if found is None or not explains(*found, max(found[1], problem.tolerance)):
                continue
            left = self._left(state, anchor, attempt.changes)
            if left < least or (strange and not attempt.strange and left == least and best is not None):
                best, least, strange = _Hit(attempt, *found, family), left, attempt.strange
            hits += not attempt.strange
            if (least[0] < behind and not strange) or hits == _MOST_HITS:
                break
        return best

    def _left(self, state: _State, anchor: int, changes: Changes) -> tuple[int, int]:
        """How many values behind a place, and how many in all, are wrong still with a mistake made, too."""
        before, self.changes = self.changes, {**self.changes, **changes}
        try:
            region = self._with_mistakes(state.whole)
        finally:
            self.changes = before
        if region is None:
            return len(state.whole.places), len(state.whole.places)
        if self._gives(region, state.ours, state.tolerance):
            return -1, 0
        matched = value_matching.matched(region, self.values, state.whole, self._known)
        wrong = value_matching.wrong(region, matched)
        return sum(p > anchor for p in wrong), len(wrong)


def _attempts(problem: Problem, several: bool, likely: Iterable[int] = ()) -> Iterator[tuple[int, Attempt]]:
    """All mistakes, those of likely families first; or those that are made in several places at once."""
    for family in () if several else dict.fromkeys((*likely, *range(len(families.FAMILIES)))):
        for attempt in families.attempts(problem, (families.FAMILIES[family],)):
            yield family, attempt
    for attempt in families.everywhere(problem, families.ALIKE) if several else ():
        yield 0, attempt


def _last(problem: Problem, several: bool) -> _Hit | None:
    """The mistake that explains the result, a plain one if there is one."""
    before, strange = farthest(problem.right, problem.observed), None
    for family, attempt in _attempts(problem, several):
        after = problem.left(attempt.changes)
        if explains(before, after, problem.tolerance):
            hit = _Hit(attempt, before, after, family)
            if not attempt.strange:
                return hit
            strange = strange or hit
    return strange


def _told(hits: list[_Hit]) -> Iterator[Cause]:
    """Mistakes as causes, those that are alike as one."""
    alike: dict[tuple[str, str], list[_Hit]] = {}
    for hit in hits:
        text = _PLACES.sub("", hit.attempt.text)
        alike.setdefault((hit.attempt.key, re.sub(r"\d+", "*", text)), []).append(hit)
    for several in alike.values():
        first = several[0]
        text = first.attempt.text
        if len(several) > 1:
            places = [int(match[1]) if (match := _PLACES.search(hit.attempt.text)) else 1 for hit in several]
            text = f"{_PLACES.sub('', text)}, and so in {sum(places)} places like it"
        yield Cause(first.attempt.key, "jax", text, first.before, first.after)
