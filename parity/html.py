"""The report as one HTML page that opens from disk: nothing is loaded, pictures are drawn as SVG or embedded."""

from __future__ import annotations

import base64
import html
import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from parity.report import Report, number
from parity.rows import Row

LIMIT_BYTES = 5_000_000

STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;font-size:12.5px;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.2rem .55rem;border-bottom:1px solid #e3e6ea;text-align:right;white-space:nowrap}
th{position:sticky;top:0;background:#f4f6f8}td.l,th.l{text-align:left}tr.bad{background:#fde8e6}
.verdict{padding:.6rem .9rem;border-left:5px solid #1a7f37;background:#e9f7ee}
.verdict.bad{border-color:#c4301c;background:#fdeeec}.verdict.open{border-color:#7a8590;background:#f1f3f5}
pre{white-space:pre-wrap;margin:.4rem 0}svg{max-width:100%;height:auto}.scroll{overflow-x:auto}
.note{color:#57606a}img{image-rendering:pixelated;width:28rem;max-width:100%;border:1px solid #d0d7de}
@media(prefers-color-scheme:dark){body{background:#14171a;color:#e6e8ea}th{background:#20252a}
th,td{border-color:#30363d}tr.bad{background:#4a1d18}.verdict{background:#12301d}.verdict.bad{background:#3d1712}
.verdict.open{background:#262b31}
.note{color:#9aa4ae}}
"""


def write(report: Report, path: str | Path) -> None:
    """Write the page; at most 5 MB, whatever the report holds."""
    page = render(report)
    Path(path).write_text(page, encoding="utf-8")


def render(report: Report) -> str:
    """The page as text."""
    models = list(dict.fromkeys(row.model for row in report.rows))
    body = [
        "<h1>Parity of JAX and PyTorch</h1>",
        _verdict(report),
        "<h2>Error through the layers</h2>",
        '<p class="note">Difference of each layer at its worst element, and what the bound allows there (grey); every '
        "layer gets the reference's input. Above the grey line is a mismatch.</p>",
        *(f"<h3>{html.escape(m)}</h3>{_chart([r for r in report.rows if r.model == m])}" for m in models),
        _heat_map(report),
        "<h2>All comparisons</h2>",
        _table(report.rows),
        f'<p class="note">{html.escape(", ".join(f"{k}: {v}" for k, v in report.settings.items()))}</p>',
    ]
    head = (
        f'<meta charset="utf-8"><title>Parity: {"equal" if report.equal else "mismatch"}</title><style>{STYLE}</style>'
    )
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'
    return page if len(page.encode()) < LIMIT_BYTES else render(_shortened(report))


def _shortened(report: Report) -> Report:
    """The rows that matter most, should there be tens of thousands of them."""
    worst = sorted(report.rows, key=lambda row: (row.equal, -row.fraction))[: len(report.rows) // 2]
    kept = {id(row) for row in worst}
    note = [*report.not_exercised, f"only {len(worst)} of {len(report.rows)} comparisons are shown"]
    return Report([r for r in report.rows if id(r) in kept], note, report.settings, report.arrays)


def _verdict(report: Report) -> str:
    lines = "\n".join(report.conclusion())
    return f'<div class="verdict{"" if report.equal else " bad"}"><pre>{html.escape(lines)}</pre></div>'


def _chart(rows: list[Row]) -> str:
    """Logarithmic lines: largest error and allowed error of each forward (solid) and backward (hollow) row."""
    rows = [r for r in rows if r.name != "end to end" and (r.stage == "forward" or r.stage.startswith("backward"))]
    if not rows:
        return ""
    values = [v for r in rows for v in (r.max_error, r.bound) if v > 0 and math.isfinite(v)]
    low = math.floor(math.log10(min(values, default=1e-17)))
    high = max(math.ceil(math.log10(max(values, default=1.0))), low + 1)
    step, top, bottom, left = 26, 12, 210, 52
    width = left + step * len(rows) + 20

    def y(value: float) -> float:
        if value <= 0:
            return bottom + 12.0  # a row of its own below the axis: exactly equal
        return bottom - (bottom - top) * (min(max(math.log10(value), low), high) - low) / (high - low)

    parts = [
        f'<div class="scroll"><svg viewBox="0 0 {width} 330" width="{width}" role="img" aria-label="error per layer">'
    ]
    for power in range(low, high + 1, max(1, (high - low) // 8)):
        at = y(10.0**power)
        parts.append(f'<line x1="{left}" y1="{at:.1f}" x2="{width - 10}" y2="{at:.1f}" stroke="#8884" />')
        parts.append(
            f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end" font-size="10" fill="currentColor">'
            f"1e{power}</text>"
        )
    parts.append(
        f'<text x="{left - 6}" y="{bottom + 16}" text-anchor="end" font-size="10" fill="currentColor">0</text>'
    )
    points = [(left + step * (i + 0.5), row) for i, row in enumerate(rows)]
    allowed = " ".join(f"{x:.1f},{y(r.bound):.1f}" for x, r in points)
    parts.append(
        f'<polyline points="{allowed}" fill="none" stroke="#9aa4ae" stroke-width="1.5" stroke-dasharray="4 3" />'
    )
    found = " ".join(f"{x:.1f},{y(r.max_error):.1f}" for x, r in points)
    parts.append(f'<polyline points="{found}" fill="none" stroke="#2f81f7" stroke-width="1.5" />')
    for x, row in points:
        colour = "#2f81f7" if row.equal else "#c4301c"
        fill = colour if row.stage == "forward" else "none"
        label = f"{row.name} {row.stage}: {number(row.max_error)} of {number(row.bound)}, {row.verdict}"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y(row.max_error):.1f}" r="{4 if row.equal else 6}" fill="{fill}" '
            f'stroke="{colour}">'
            f"<title>{html.escape(label)}</title></circle>"
        )
        name = row.name.split("/")[-1] + ("" if row.stage == "forward" else row.stage.replace("backward", "'"))
        parts.append(
            f'<text transform="translate({x + 3:.1f},{bottom + 26}) rotate(60)" font-size="10" fill="{colour}">'
            f"{html.escape(name[:20])}</text>"
        )
    return "".join([*parts, "</svg></div>"])


def _heat_map(report: Report) -> str:
    difference = report.arrays.get("difference")
    if difference is None or difference.size == 0:
        return ""
    row = report.worst_row
    title = f"{row.model}, {row.name}, {row.stage}" if row else "the worst layer"
    picture = base64.b64encode(_png(_flattened(difference))).decode()
    return (
        f"<h2>Where it differs: {html.escape(title)}</h2>"
        f'<p class="note">Largest |JAX - PyTorch| over the batch and the channels, {difference.shape} in all, from 0 '
        f"(dark) to {number(float(np.max(difference)))} (bright).</p>"
        f'<img alt="heat map of the difference" src="data:image/png;base64,{picture}">'
    )


def _flattened(difference: NDArray) -> NDArray:
    """Two dimensions to look at: rows and columns of maps, or features in a near-square."""
    if difference.ndim == 4:
        return difference.max(axis=(0, 3))
    flat = difference.reshape(-1, difference.shape[-1]).max(axis=0)
    side = math.ceil(math.sqrt(len(flat)))
    return np.pad(flat, (0, side * side - len(flat))).reshape(side, side)


def _png(values: NDArray) -> bytes:
    from PIL import Image

    top = float(values.max()) or 1.0
    with np.errstate(invalid="ignore"):
        scaled = np.nan_to_num(np.clip(values / top, 0, 1), nan=1.0)
    # Dark blue over red to bright yellow: readable in grey as well.
    stops = np.array([[13, 8, 60], [120, 20, 110], [215, 70, 70], [250, 165, 50], [250, 250, 160]], float)
    place = scaled * (len(stops) - 1)
    below = np.minimum(place.astype(int), len(stops) - 2)
    share = (place - below)[..., None]
    colours = (stops[below] * (1 - share) + stops[below + 1] * share).astype(np.uint8)
    image = Image.fromarray(colours)
    scale = max(1, 256 // max(image.size))
    buffer = io.BytesIO()
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def _table(rows: list[Row]) -> str:
    names = ("model", "layer", "stage", "shape", "n", "max error", "bound", "used", "ratio", "verdict")
    left = {0, 1, 2, 3, 9}
    head = "".join(f'<th class="l">{n}</th>' if i in left else f"<th>{n}</th>" for i, n in enumerate(names))
    lines = []
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        shape = "×".join(map(str, row.shape))
        cells = (row.model, row.name, row.stage, shape, str(row.n), number(row.max_error), number(row.bound))
        cells += (number(row.fraction), ratio, row.verdict)
        inner = "".join(
            f'<td class="l">{html.escape(c)}</td>' if i in left else f"<td>{c}</td>" for i, c in enumerate(cells)
        )
        lines.append(f"<tr{'' if row.equal else ' class=bad'}>{inner}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
