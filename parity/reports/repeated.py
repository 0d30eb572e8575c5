"""Divergences of the same causes, as of a mistake in a class that a model has twenty layers of: told once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from parity.reports.rows import Row

_MEASURED = re.compile(r" \(undone, the difference falls from [^)]*\)$")
_PATH = re.compile(r"[A-Za-z][\w-]*(?:[./][\w\[\]-]+)+|[A-Za-z]\w*_\d+\w*")  # blocks/3/norm, blocks.3.norm, blocks_3
_NUMBER = re.compile(r"\d+")


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that differ, in order; those of one stage that have the same causes, but for layers' numbers, together.

    Rows without a cause, or with more to say, stay alone.
    """
    found: dict[tuple, list[Row]] = {}
    for place, row in enumerate(rows):
        alone = not row.causes or bool(row.detail)
        same = (place,) if alone else (row.model, row.stage, *row.cause_keys, *map(_without_numbers, row.causes))
        found.setdefault(same, []).append(row)
    return list(found.values())


def told(others: Sequence[Row]) -> list[str]:
    """Where else a cause holds: how many places, the first and the last of them; nothing if there are none."""
    if not others:
        return []
    if len(others) == 1:
        return [f"  and the same at {others[0].name}"]
    between = " and " if len(others) == 2 else " to "
    where = f"{others[0].name}{between}{others[-1].name}"
    return [f"  and the same at {len(others)} more places: {where} (--all shows each)"]


def _without_numbers(cause: str) -> str:
    """A cause without what it was measured by, and without the numbers in layers' names."""
    return _PATH.sub(lambda path: _NUMBER.sub("*", path[0]), _MEASURED.sub("", cause))
