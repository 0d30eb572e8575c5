"""Which of the reference's calls each of the candidate's is, where one side repeats a call that the other makes once.

A layer called twice on the same input gives the same twice, so a port may call it once and use the result twice, or the
other way round. Both are the same function. Then one call stands for several: what they give is one array, and backward
the gradient that reaches it is the sum of those that reach them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from parity.comparison.store import Store

Digest = tuple[str, ...]


class Calls:
    """The candidate's calls as they come, each with the reference's call that it is.

    Args:
        store: the reference's records.
        records: their keys, by PyTorch path and number of the call.
        counts: how often the candidate calls each leaf, by its path; as often as the reference where that isn't said.

    Attributes:
        keys: of the reference's records, by path of the leaf and number of the candidate's call; None where the
            reference has no such call.
    """

    def __init__(self, store: Store, records: Mapping[tuple[str, int], str], counts: Mapping[str, int]) -> None:
        self.counts = dict(counts)
        self.keys: dict[tuple[str, int], str | None] = {}
        self._store = store
        self._records: dict[str, list[str]] = defaultdict(list)
        for (path, _), key in sorted(records.items(), key=lambda item: item[1]):
            self._records[path].append(key)
        self._made: dict[str, int] = defaultdict(int)
        self._next: dict[str, int] = defaultdict(int)  # place among the reference's calls, by PyTorch path
        self._surplus: dict[str, int] = {}  # calls that the reference makes more, by PyTorch path
        self._met: dict[str, dict[str, Digest]] = defaultdict(dict)  # what the candidate's calls got, by record
        self._given: dict[str, Digest] = {}
        self._standing: dict[str, str] = {}
        self._known: Mapping[tuple[str, int], str | None] | None = None

    def again(self) -> Calls:
        """For another run of the same models: every call is what it was."""
        other = Calls(self._store, {}, self.counts)
        other._known = self.keys if self._known is None else self._known
        other._standing = self._standing
        return other

    def next(self, path: str, torch_path: str, arguments: Iterable[Any]) -> tuple[int, str | None]:
        """The number of a leaf's next call, and the reference's record that it is compared with; None without one.

        Args:
            path: of the leaf.
            torch_path: of its partner.
            arguments: that the call gets, arrays and others.
        """
        call = self._made[path]
        self._made[path] += 1
        if self._known is not None:
            return call, self._known.get((path, call))
        key = self.keys[path, call] = self._found(path, torch_path, arguments)
        return call, key

    def standing_for(self, key: str) -> str | None:
        """The record of the candidate's call that stands for another of the same input; None if none does."""
        return self._standing.get(key)

    def together(self, key: str) -> list[str]:
        """The records for which one call of the candidate's stands, its own first."""
        return [key, *(other for other, first in self._standing.items() if first == key)]

    def finish(self) -> None:
        """The candidate makes no more calls: those that only repeat one that it made aren't left out."""
        made = {*self.keys.values()}
        for keys in self._records.values():
            for place, key in enumerate(keys):
                if key not in made and key not in self._standing and len(keys) > 1:
                    self._stand(key, [first for first in keys[:place] if first in made])

    def _found(self, path: str, torch_path: str, arguments: Iterable[Any]) -> str | None:
        records = self._records[torch_path]
        surplus = self._surplus.setdefault(torch_path, len(records) - self.counts.get(path, len(records)))
        place, met = self._next[torch_path], self._met[torch_path]
        got = () if surplus == 0 and not met else _digest(arguments)
        while surplus > 0 and place < len(records):
            first = next((key for key in met if self._repeats(records[place], key)), None)
            if first is None or met[first] == got:
                break
            self._standing[records[place]] = first
            place, surplus = place + 1, surplus - 1
        if surplus < 0:
            first = next((key for key, digest in met.items() if digest == got), None)
            if first is not None and not (place < len(records) and self._repeats(records[place], first)):
                self._surplus[torch_path] = surplus + 1
                return first
        self._next[torch_path], self._surplus[torch_path] = place + 1, surplus
        if place >= len(records):
            return None
        met[records[place]] = got
        return records[place]

    def _stand(self, key: str, candidates: list[str]) -> None:
        first = next((other for other in candidates if self._repeats(key, other)), None)
        if first is not None:
            self._standing[key] = first

    def _repeats(self, key: str, first: str) -> bool:
        """Whether a call of the reference's got and gave what an earlier one did, bit for bit."""
        return self._recorded(key) == self._recorded(first)

    def _recorded(self, key: str) -> Digest:
        if key not in self._given:
            arrays = [self._store.arrays(key, prefix) for prefix in ("input.", "output.")]
            self._given[key] = _digest(each[name] for each in arrays for name in sorted(each))
        return self._given[key]


def _digest(arguments: Iterable[Any]) -> Digest:
    """What tells arguments apart, without keeping their values."""
    found = []
    for each in arguments:
        if hasattr(each, "dtype") and hasattr(each, "shape"):
            array = np.asarray(each)
            content = hashlib.blake2b(np.ascontiguousarray(array).tobytes()).hexdigest()
            found.append(f"{array.dtype} {array.shape} {content}")
        else:
            found.append(repr(each))
    return tuple(found)
