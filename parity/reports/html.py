"""The report as one HTML page that opens from disk: nothing is loaded, pictures are drawn as SVG or embedded.

Pillow is imported for a map in colours alone.
"""

from __future__ import annotations

import base64
import html
import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parity.reports import error_chart, page
from parity.reports.report import Report
from parity.reports.rows import Row
from parity.reports.text import ERROR_COLUMNS, error_cells, number

LIMIT_BYTES = 5_000_000

_CHART_WORDS = (
    "Each layer's error where most of its bound is used, and what is allowed there (grey, dashed): above it is a "
    "mismatch. Every layer gets the reference's input. Disks are forward passes, rings backward ones; diamonds all "
    "else that differs: code between the layers, weights, whole models. What differs is red, what merely follows from "
    "that orange, and a dotted line leads from the first divergence to its name."
)
_TABLE_WORDS = (
    "Largest error: of all elements, wherever it is allowed. The next three: of the element that uses most of what is "
    "allowed to it."
)


def write(report: Report, path: str | Path) -> None:
    """Write the page; at most 5 MB, whatever the report holds."""
    Path(path).write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """The page as text."""
    models, first = list(dict.fromkeys(row.model for row in report.rows)), report.first_divergence
    origins = {id(report.rows[i]): report.rows[root] for i, root in report.follows.items()}
    body = [
        "<h1>Parity of JAX and PyTorch</h1>",
        _verdict(report),
        "<h2>Error through the layers</h2>",
        f'<p class="note">{_CHART_WORDS}</p>',
        *(
            f"<h3>{html.escape(m)}</h3>{error_chart.draw([r for r in report.rows if r.model == m], first, origins)}"
            for m in models
        ),
        _heat_map(report, origins),
        "<h2>All comparisons</h2>",
        f'<p class="note">{_TABLE_WORDS}</p>',
        _table(report.rows, origins),
        f'<p class="note">{html.escape(", ".join(f"{k}: {v}" for k, v in report.settings.items()))}</p>',
    ]
    text = page.whole(f"Parity: {_outcome(report)}", body)
    return text if len(text.encode()) < LIMIT_BYTES else render(_shortened(report))


def _shortened(report: Report) -> Report:
    """The rows that matter most, should there be tens of thousands of them: first of all what the verdict speaks of."""
    bugs = {id(row) for row in report.divergences}

    def rank(row: Row) -> tuple[bool, bool, bool, float]:
        return id(row) not in bugs, row.equal, row.open, -row.fraction

    worst = sorted(report.rows, key=rank)[: len(report.rows) // 2]
    kept = {id(row) for row in worst}
    note = [*report.not_exercised, f"only {len(worst)} of {len(report.rows)} comparisons are shown"]
    rows = [r for r in report.rows if id(r) in kept]
    return Report(rows, note, report.settings, report.arrays, report.arrays_of)


def _verdict(report: Report) -> str:
    lines = "\n".join(report.conclusion())
    style = {"equal": "verdict", "open": "verdict open", "mismatch": "verdict bad"}[_outcome(report)]
    return f'<div class="{style}"><pre>{html.escape(lines)}</pre></div>'


def _outcome(report: Report) -> str:
    if report.equal:
        return "equal"
    return "open" if report.rows and report.first_divergence is None else "mismatch"


def _heat_map(report: Report, origins: dict[int, Row]) -> str:
    difference, row = report.arrays.get("difference"), report.arrays_of or report.worst_row
    if difference is None or difference.size == 0:
        return ""
    title = _place(row) if row else "the worst layer"
    first = report.first_divergence
    heading = "Where it differs" if first or row is None or row.open else "Where most of a bound is used"
    if first is not None and row is not None and row is not first:
        origin = origins.get(id(row))
        why = "it differs too" if row.diverges else "it is equal"
        why = f"it follows from {_place(origin)}" if origin is not None else why
        heading = "Where most of a bound is used" if row.equal else heading
        title += f" ({why}; the values of the first divergence are not kept)"
    flat, over = _flattened(difference, row is not None and row.stage.startswith(("weights", "backward:")))
    untold = int((~np.isfinite(difference)).sum())
    top = float(np.max(difference, initial=0.0, where=np.isfinite(difference)))
    words = f"Largest |JAX - PyTorch| {over}, {difference.shape} in all, from 0 (dark) to {number(top)} (bright)"
    words += f"; white: {untold:,} of {difference.size:,} values aren't finite on both sides." if untold else "."
    picture = base64.b64encode(_png(flat)).decode()
    return (
        f"<h2>{heading}: {html.escape(title)}</h2>"
        f'<p class="note">{html.escape(words)}</p>'
        f'<img alt="heat map of the difference" src="data:image/png;base64,{picture}">'
    )


def _place(row: Row) -> str:
    return f"{row.model}, {row.name}, {row.stage}"


def _flattened(difference: NDArray, of_weights: bool) -> tuple[NDArray, str]:
    """Two dimensions to look at: rows and columns of maps, channels of kernels, or features in a near-square."""
    if difference.ndim == 4 and of_weights:
        return difference.max(axis=(0, 1)), "over the window, by input and output channel"
    if difference.ndim == 4:
        return difference.max(axis=(0, 3)), "over the batch and the channels"
    flat = difference.reshape(-1, difference.shape[-1] if difference.ndim else 1).max(axis=0)
    side = math.ceil(math.sqrt(len(flat)))
    return np.pad(flat, (0, side * side - len(flat))).reshape(side, side), "over all but the last axis"


def _png(values: NDArray) -> bytes:
    from PIL import Image

    told = np.isfinite(values)
    top = float(np.max(values, initial=0.0, where=told)) or 1.0
    scaled = np.where(told, np.clip(values / top, 0, 1), 1.0)
    # Dark blue over red to bright yellow: readable in grey as well.
    stops = np.array([[13, 8, 60], [120, 20, 110], [215, 70, 70], [250, 165, 50], [250, 250, 160]], float)
    place = scaled * (len(stops) - 1)
    below = np.minimum(place.astype(int), len(stops) - 2)
    share = (place - below)[..., None]
    colours = (stops[below] * (1 - share) + stops[below + 1] * share).astype(np.uint8)
    colours[~told] = 255
    image = Image.fromarray(colours)
    scale = max(1, 256 // max(image.size))
    buffer = io.BytesIO()
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def _table(rows: list[Row], origins: dict[int, Row]) -> str:
    names = ("model", "layer", "stage", "shape", "n", *ERROR_COLUMNS, "ratio", "verdict")
    left = {0, 1, 2, 3, len(names) - 1}
    head = "".join(f'<th class="l">{n}</th>' if i in left else f"<th>{n}</th>" for i, n in enumerate(names))
    lines = []
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        shape = "×".join(map(str, row.shape))
        origin = origins.get(id(row))
        verdict = f"{row.verdict}, follows from {origin.name} {origin.stage}" if origin else row.verdict
        cells = (row.model, row.name, row.stage, shape, str(row.n), *error_cells(row), ratio, verdict)
        inner = "".join(
            f'<td class="l">{html.escape(c)}</td>' if i in left else f"<td>{c}</td>" for i, c in enumerate(cells)
        )
        lines.append(f"<tr{' class=bad' if row.diverges else ''}>{inner}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
