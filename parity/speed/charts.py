"""Charts as SVG inside a page: bars with intervals, lines over the number of devices, time by layer."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from parity.speed.statistics import brief

COLOURS = {
    ("jax", "plain"): "#9ecae1",
    ("jax", "tuned"): "#0072b2",
    ("torch", "plain"): "#fdd0a2",
    ("torch", "tuned"): "#d55e00",
}
OTHER = "#7a8590"
_DIRECTIONS = {"forward": 1.0, "backward": 0.55, "update": 0.3}  # opacity


@dataclass(frozen=True)
class Bar:
    """A value with its interval."""

    label: str
    value: dict[str, float]  # median, low, high
    colour: str = OTHER
    note: str = ""


def bars(rows: Sequence[Bar], label_width: int = 260) -> str:
    """Horizontal bars with whiskers."""
    most = max((row.value["high"] for row in rows), default=1.0) or 1.0
    room = 70 + max((7 * len(row.note) for row in rows), default=0)  # for the words behind the longest bar
    parts, scale = [], (850 - label_width - room) / most
    for i, row in enumerate(rows):
        y = 8 + i * 30
        low, high = (label_width + row.value[key] * scale for key in ("low", "high"))
        parts += [
            _text(label_width - 8, y + 15, row.label, "end"),
            f'<rect x="{label_width}" y="{y}" width="{row.value["median"] * scale:.1f}" height="20" '
            f'fill="{row.colour}"/>',
            f'<path d="M{low:.1f} {y + 10}H{high:.1f}M{low:.1f} {y + 5}v10M{high:.1f} {y + 5}v10" '
            'stroke="currentColor" fill="none"/>',
            _text(high + 8, y + 15, f"{brief(row.value['median'])} {row.note}".strip()),
        ]
    return _svg(parts, 16 + 30 * len(rows))


@dataclass(frozen=True)
class Line:
    """Values with their intervals over numbers of devices."""

    label: str
    points: Sequence[tuple[int, dict[str, float]]]
    colour: str


def lines(found: Sequence[Line], unit: str, ideal: bool = False) -> str:
    """Lines over the number of devices, from 0 up; `ideal` draws 1, what an efficiency can be."""
    left, right, top, bottom = 70, 640, 12, 250
    counts = sorted({count for line in found for count, _ in line.points})
    most = max([point["high"] for line in found for _, point in line.points] + [1.0] * ideal) * 1.08 or 1.0
    first, span = counts[0], max(counts[-1] - counts[0], 1)

    def x(count: float) -> float:
        return left + 20 + (count - first) / span * (right - left - 40)

    def y(value: float) -> float:
        return bottom - value / most * (bottom - top)

    parts = [f'<path d="M{left} {top}V{bottom}H{right}" stroke="currentColor" fill="none"/>']
    for value in _round_steps(most / 1.08):
        shown = f"{value:.0%}" if unit == "%" else brief(value)
        parts.append(_text(left - 8, y(value) + 4, shown, "end"))
        parts.append(f'<path d="M{left} {y(value):.1f}H{right}" stroke="currentColor" opacity=".15" fill="none"/>')
    parts += [_text(x(count), bottom + 18, str(count), "middle") for count in counts]
    parts.append(_text((left + right) / 2, bottom + 36, "devices", "middle"))
    if ideal:
        parts.append(f'<path d="M{left} {y(1):.1f}H{right}" stroke="currentColor" stroke-dasharray="4 4" fill="none"/>')
    for i, line in enumerate(found):
        path = "L".join(f"{x(count):.1f} {y(point['median']):.1f}" for count, point in line.points)
        parts.append(f'<path d="M{path}" stroke="{line.colour}" stroke-width="2.5" fill="none"/>')
        for count, point in line.points:
            low, high = y(point["low"]), y(point["high"])
            parts.append(
                f'<circle cx="{x(count):.1f}" cy="{y(point["median"]):.1f}" r="4" fill="{line.colour}"/>'
                f'<path d="M{x(count):.1f} {low:.1f}V{high:.1f}" stroke="{line.colour}" fill="none"/>'
            )
        parts.append(f'<rect x="{right + 20}" y="{top + i * 22}" width="14" height="14" fill="{line.colour}"/>')
        parts.append(_text(right + 42, top + 12 + i * 22, line.label))
    return _svg(parts, bottom + 46)


def _round_steps(most: float) -> list[float]:
    """0 and up to `most` in steps of 1, 2 or 5 times a power of ten: three to six values."""
    power = 10.0 ** math.floor(math.log10(most / 2.5))
    step = next(factor * power for factor in (1, 2, 5, 10) if most / (factor * power) <= 5)
    return [i * step for i in range(int(most / step + 1e-9) + 1)]


def layers(frameworks: dict[str, list[dict[str, Any]]]) -> str:
    """Milliseconds of each layer, one bar a framework, the passes one after the other."""
    names = list(dict.fromkeys(entry["layer"] for entries in frameworks.values() for entry in entries))
    passes = [d for d in _DIRECTIONS if any(e.get(d) for entries in frameworks.values() for e in entries)]
    found = {(who, entry["layer"]): entry for who, entries in frameworks.items() for entry in entries}
    most = max((sum(entry.get(d) or 0.0 for d in passes) for entry in found.values()), default=0.0) or 1.0
    left, thick, scale, parts = 110, 13, 600 / most, []
    colours = {who: COLOURS.get((who, "tuned"), OTHER) for who in frameworks}
    legend = [(f"{who} {d}", colours[who], _DIRECTIONS[d]) for who in frameworks for d in passes]
    for i, (label, colour, opacity) in enumerate(legend):
        parts.append(f'<rect x="{left + i * 150}" y="4" width="14" height="14" fill="{colour}" opacity="{opacity}"/>')
        parts.append(_text(left + i * 150 + 20, 16, label))
    for i, name in enumerate(names):
        base = 34 + i * (thick * len(frameworks) + 9)
        parts.append(_text(left - 8, base + thick * len(frameworks) / 2 + 5, name, "end"))
        for j, who in enumerate(frameworks):
            entry, x = found.get((who, name), {}), float(left)
            for direction in passes:
                width = (entry.get(direction) or 0.0) * scale
                parts.append(
                    f'<rect x="{x:.1f}" y="{base + j * thick}" width="{width:.1f}" height="{thick - 1}" '
                    f'fill="{colours[who]}" opacity="{_DIRECTIONS[direction]}"/>'
                )
                x += width
            if entry:
                milliseconds = sum(entry.get(d) or 0.0 for d in passes) * 1e3
                parts.append(_text(x + 6, base + j * thick + 10, f"{milliseconds:.3g}", size=11))
    return _svg(parts, 40 + len(names) * (thick * len(frameworks) + 9))


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 13) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="currentColor">'
        f"{html.escape(words)}</text>"
    )


def _svg(parts: Sequence[str], height: float) -> str:
    return f'<svg viewBox="0 0 860 {height:.0f}" width="860" role="img">{"".join(parts)}</svg>'
