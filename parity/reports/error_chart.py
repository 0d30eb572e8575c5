"""The report's picture: what differs along the layers, and how much may."""

from __future__ import annotations

import html
import math
from collections.abc import Collection
from dataclasses import dataclass

from parity.reports.rows import Row
from parity.reports.text import number

STEP, TOP, BOTTOM, LEFT = 26, 34, 232, 66
HEIGHT = BOTTOM + 155
ROWS = 40  # in one line: what a page is wide
UNTOLD = 14.0  # height of the row above the axis: differences that no number tells
_BLUE, _RED, _ORANGE, _GREY = "#2f81f7", "#c4301c", "#c98a3c", "#9aa4ae"


def pictured(rows: list[Row]) -> list[Row]:
    """Every layer's own rows, forward and backward, and whatever else isn't equal; all rows where no layer has any."""
    own = [row for row in rows if _of_a_layer(row)]
    kept = {id(row) for row in own} | {id(row) for row in rows if not row.equal}
    return [row for row in rows if id(row) in kept] if own else rows


def draw(rows: list[Row], first: Row | None = None, following: Collection[int] = ()) -> str:
    """One model's errors on a logarithmic axis, with what is allowed at the same elements; as many lines as it takes.

    Args:
        rows: of the model, in order of execution.
        first: the row that the verdict speaks of; it is marked if it is among them.
        following: ids (`id`) of the rows that follow from other divergences.
    """
    rows = pictured(rows)
    values = [v for row in rows for v in (row.max_error, row.bound) if v > 0 and math.isfinite(v)]
    low = math.floor(math.log10(min(values, default=1e-17)))
    axis = _Axis(low, max(math.ceil(math.log10(max(values, default=1.0))), low + 1))
    layers_alone = any(map(_of_a_layer, rows))
    lines = [rows[i : i + ROWS] for i in range(0, len(rows), ROWS)]
    return "".join(_drawn(part, axis, layers_alone, first, following) for part in lines)


@dataclass(frozen=True)
class _Axis:
    """Powers of ten at its ends."""

    low: int
    high: int

    def y(self, value: float) -> float:
        if value <= 0:
            return BOTTOM + 12.0  # a row of its own below the axis: exactly equal
        if not math.isfinite(value):
            return UNTOLD
        share = (min(max(math.log10(value), self.low), self.high) - self.low) / (self.high - self.low)
        return BOTTOM - (BOTTOM - TOP) * share


def _drawn(rows: list[Row], axis: _Axis, layers_alone: bool, first: Row | None, following: Collection[int]) -> str:
    width = LEFT + STEP * len(rows) + 90  # the last name is slanted
    parts = [
        f'<div class="scroll"><svg viewBox="0 0 {width} {HEIGHT}" width="{width}" role="img" '
        f'aria-label="error per layer">'
    ]
    for power in range(axis.low, axis.high + 1, max(1, (axis.high - axis.low) // 8)):
        at = axis.y(10.0**power)
        parts.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{width - 10}" y2="{at:.1f}" stroke="#8884" />')
        parts.append(_text(LEFT - 6, at + 4, f"1e{power}", 'text-anchor="end"'))
    parts.append(_text(LEFT - 6, BOTTOM + 16, "0", 'text-anchor="end"'))
    if any(map(_untold, rows)):
        parts.append(_text(LEFT - 6, UNTOLD + 4, "no number", 'text-anchor="end"'))
    points = [(LEFT + STEP * (i + 0.5), row) for i, row in enumerate(rows)]
    parts.append(_line([(x, axis.y(row.bound)) for x, row in points], f'stroke="{_GREY}" stroke-dasharray="4 3"'))
    told = [(x, axis.y(row.max_error)) for x, row in points if _in_line(row, layers_alone)]
    parts.append(_line(told, f'stroke="{_BLUE}"'))
    for x, row in points:
        at = UNTOLD if _untold(row) else axis.y(row.max_error)
        follows = id(row) in following
        parts += [_mark(x, at, row, follows), _name(x, row, follows)]
        if row is first:
            parts.append(_first(x, at))
    return "".join([*parts, "</svg></div>"])


def _in_line(row: Row, layers_alone: bool) -> bool:
    return not _untold(row) and (_of_a_layer(row) or not layers_alone)


def _of_a_layer(row: Row) -> bool:
    return row.name != "end to end" and (row.stage == "forward" or row.stage.startswith("backward"))


def _untold(row: Row) -> bool:
    """Whether the difference has no size: shapes differ, something is missing or isn't finite."""
    return not row.equal and (not math.isfinite(row.max_error) or row.verdict in ("shape", "missing", "dtype"))


def _mark(x: float, y: float, row: Row, follows: bool) -> str:
    """A disk forward, a ring backward, a diamond for all else: code between layers, weights, whole models."""
    colour, size = (_ORANGE if follows else _RED, 6) if row.diverges else (_GREY if row.open else _BLUE, 4)
    fill = colour if row.stage == "forward" else "none"
    words = f"{row.name} {row.stage}: {number(row.max_error)} of {number(row.bound)}, {row.verdict}"
    title = f"<title>{html.escape(words)}</title>"
    style = f'fill="{fill}" stroke="{colour}" stroke-width="1.5"'
    if _of_a_layer(row):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" {style}>{title}</circle>'
    corners = " ".join(f"{x + dx * size:.1f},{y + dy * size:.1f}" for dx, dy in ((0, -1), (1, 0), (0, 1), (-1, 0)))
    return f'<polygon points="{corners}" {style}>{title}</polygon>'


def _name(x: float, row: Row, follows: bool) -> str:
    short = row.name.split("/")[-1]
    if row.stage == "forward":
        words = short
    elif row.stage.startswith("backward"):
        words = short + row.stage.replace("backward", "'")
    else:
        words = f"{short}, {row.stage}"
    slanted = f'transform="translate({x + 3:.1f},{BOTTOM + 26}) rotate(60)"'
    weight = ' font-weight="bold"' if row.diverges and not follows else ""
    colour = (_ORANGE if follows else _RED) if row.diverges else "currentColor"
    return f'<text {slanted} font-size="10" fill="{colour}"{weight}>{html.escape(_short(words, 26))}</text>'


def _short(words: str, length: int) -> str:
    return words if len(words) <= length else words[: length - 1] + "…"


def _first(x: float, y: float) -> str:
    """A line down to the name of what the verdict speaks of."""
    return (
        f'<line class="first" x1="{x:.1f}" y1="{y + 8:.1f}" x2="{x:.1f}" y2="{BOTTOM + 20}" stroke="{_RED}" '
        f'stroke-dasharray="2 2"><title>the first divergence</title></line>'
    )


def _line(points: list[tuple[float, float]], style: str) -> str:
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{corners}" fill="none" stroke-width="1.5" {style} />'


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x}" y="{y:.1f}" font-size="10" fill="currentColor" {style}>{html.escape(words)}</text>'
