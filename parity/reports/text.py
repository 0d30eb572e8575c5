"""What a report looks like in a terminal: what differs in words, a tree of modules, or a table of all comparisons."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from parity.reports.rows import Row

_MOST_PLACES = 12  # of what follows from a divergence that are told


def _allowed(row: Row) -> str:
    return "it isn't known what is allowed" if row.open else f"{number(row.bound)} is allowed"


def described(row: Row, title: str) -> list[str]:
    """A divergence in words: where, by how much, and why."""
    where = f"{row.model}: {row.name}" + (f" ({row.torch_name} in PyTorch)" if row.torch_name != row.name else "")
    lines = [f"{title}: {where}, {row.stage}, {row.kind or 'model'}: {row.verdict}"]
    if row.index is not None and row.jax is not None and row.torch is not None:
        lines.append(
            f"  worst at {list(row.index)}: JAX {row.jax!r}, PyTorch {row.torch!r}; they differ by "
            f"{number(abs(row.jax - row.torch))}, {_allowed(row)}"
        )
    elif math.isfinite(row.max_error) and row.max_error:
        lines.append(f"  they differ by {number(row.max_error)}, {_allowed(row)}")
    if row.detail:
        lines.append(f"  {row.detail}")
    lines += [f"  cause: {cause}" for cause in row.causes]
    return lines


def consequences(rows: list[Row], all_places: bool = False) -> list[str]:
    """What follows from a divergence, in a line: of each place, the stages; of many the first and the last places."""
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(row.name, []).append(row.stage)
    words = [f"{name} ({', '.join(dict.fromkeys(stages))})" for name, stages in places.items()]
    if len(words) > _MOST_PLACES and not all_places:
        words[_MOST_PLACES // 2 : -_MOST_PLACES // 2] = [f"{len(words) - _MOST_PLACES} more places"]
    return [f"  what follows from it: {'; '.join(words)}"] if words else []


def tree(rows: list[Row], follows: dict[int, int]) -> list[str]:
    """A line for each module of the top level, and what it holds only on the way to what differs by itself.

    Args:
        rows: of a report.
        follows: places of the rows that follow from others, see `parity.reports.consequences`.
    """
    if not rows:
        return []
    root = _Node("")
    several = len({row.model for row in rows}) > 1
    for place, row in enumerate(rows):
        node = root.within(row.model) if several else root
        for part in row.name.split("/"):
            node = node.within(part)
        node.rows.append((row, _OPEN if row.open else _FOLLOWS if place in follows else _DIFFERENT))
    lines = [("module", "comparisons", "used", ""), *(line for node in root.children.values() for line in node.lines())]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    return [f"{a.ljust(widths[0])}  {b.rjust(widths[1])}  {c.rjust(widths[2])}  {d}".rstrip() for a, b, c, d in lines]


_SORTS = _DIFFERENT, _FOLLOWS, _OPEN = "DIFFERENT", "follow from others", "without a bound"


class _Node:
    """A module, with the rows of its own and the modules in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[tuple[Row, str]] = []  # each with what it is if it isn't equal
        self.children: dict[str, _Node] = {}

    def within(self, name: str) -> _Node:
        """The module of that name in this one."""
        return self.children.setdefault(name, _Node(name))

    def everything(self) -> list[tuple[Row, str]]:
        """The rows of this module and of all in it."""
        return self.rows + [each for child in self.children.values() for each in child.everything()]

    @property
    def folded(self) -> bool:
        """Whether nothing differs by itself in here, nor lacks a bound."""
        return all(row.equal or sort == _FOLLOWS for row, sort in self.everything())

    def lines(self, depth: int = 0) -> list[tuple[str, str, str, str]]:
        """This module's line, and below it what isn't equal in it."""
        everything = self.everything()
        counts = Counter(sort for row, sort in everything if not row.equal)
        words = ", ".join(f"{counts[sort]} {sort}" for sort in _SORTS if counts[sort])
        found = [(f"{'  ' * depth}{self.name}", str(len(everything)), _used([row for row, _ in everything]), words)]
        if self.folded:
            return found
        for row, sort in self.rows:
            if not row.equal and sort != _FOLLOWS:
                verdict = row.verdict if row.open else row.verdict.upper()
                found.append((f"{'  ' * (depth + 1)}{row.stage}", "", _used([row]), verdict))
        for child in self.children.values():
            found += [] if child.folded else child.lines(depth + 1)
        return found


def _used(rows: list[Row]) -> str:
    """The largest fraction of a bound."""
    known = [row.fraction for row in rows if not row.open]
    return number(max(known)) if known else "-"


def table(rows: list[Row]) -> list[str]:
    """Columns as wide as their contents; numbers to the right."""
    header = ["layer", "stage", "shape", "n", *ERROR_COLUMNS, "ratio", "verdict"]
    several = len({row.model for row in rows}) > 1
    cells = [
        [
            f"{row.model}/{row.name}" if several else row.name,
            row.stage,
            "x".join(map(str, row.shape)) or "-",
            str(row.n),
            *error_cells(row),
            "-" if row.ratio is None else f"{row.ratio:.2f}",
            row.verdict if row.equal else row.verdict.upper(),
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [header, *cells]) for i in range(len(header))]
    left = {0, 1, 2, len(header) - 1}
    lines = []
    for line in [header, *cells]:
        parts = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        lines.append("  ".join(parts).rstrip())
    return lines


# The largest difference of all elements, and three columns of the one that uses most of what is allowed to it.
ERROR_COLUMNS = ("largest error", "error at worst", "bound there", "used")


def error_cells(row: Row) -> tuple[str, ...]:
    """What stands in `ERROR_COLUMNS`."""
    bound, used = ("-", "-") if row.open else (number(row.bound), number(row.fraction))
    return number(row.largest), number(row.max_error), bound, used


def number(value: float) -> str:
    """Two significant digits; infinities by name."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "inf" if value > 0 or np.isnan(value) else "-inf"
    return f"{value:.2g}" if 1e-2 <= abs(value) < 1e4 else f"{value:.1e}"
