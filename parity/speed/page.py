"""Throughput as one HTML page that opens from disk; charts are SVG."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from parity.html import STYLE

_COLOURS = {("jax", "plain"): "#9ecae1", ("jax", "tuned"): "#0072b2", ("torch", "plain"): "#fdd0a2",
            ("torch", "tuned"): "#d55e00"}  # fmt: skip


def write(result: dict[str, Any], path: str | Path) -> None:
    """Write the page of a result's JSON."""
    Path(path).write_text(render(result), encoding="utf-8")


def render(result: dict[str, Any]) -> str:
    """The page as text."""
    rows, settings = result["rows"], result["settings"]
    tried = ", ".join(f"{form}: {speed:.3g} images/s" for form, speed in result["plain_forms"].items())
    title = f"{settings['model']} at {settings['image_size']} pixels, {settings['mode']}, {settings['precision']}"
    body = [
        f"<h1>Throughput: {html.escape(title)}</h1>",
        *(f'<div class="verdict"><pre>{html.escape(_ratio(r))}</pre></div>' for r in result["ratios"]),
        _control(result["aa_control"]),
        "<h2>Images a second</h2>",
        '<p class="note">Bars: medians of blocks. Whiskers: 95% bootstrap intervals of the medians.</p>',
        _bars(rows),
        *_efficiency(rows),
        "<h2>Rows</h2>",
        _table(rows),
        "<h2>Plain PyTorch was tried as</h2>",
        f"<p>{html.escape(tried or 'not run')}</p>",
        "<h2>Measured on</h2>",
        f"<pre>{html.escape(chr(10).join(f'{k}: {v}' for k, v in (result['machine'] | settings).items()))}</pre>",
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _ratio(ratio: dict[str, Any]) -> str:
    return f"{ratio['verdict']} ({ratio['style']}, {ratio['devices']} device(s)): {ratio['ratio']}"


def _control(control: dict[str, Any] | None) -> str:
    if control is None:
        return '<p class="note">No A/A control was run.</p>'
    return f'<p class="note">A/A control, JAX against itself: {html.escape(control["ratio"])}</p>'


def _label(row: dict[str, Any]) -> str:
    return f"{row['framework']} {row['style']} {row['form']} x{row['devices']}".replace("  ", " ")


def _bars(rows: list[dict[str, Any]]) -> str:
    most = max((row["images_per_second"]["high"] for row in rows), default=1.0) * 1.08
    parts = []
    for i, row in enumerate(rows):
        y, speed = 8 + i * 30, row["images_per_second"]
        left, scale = 260, 480 / most
        colour = _COLOURS[row["framework"], row["style"]]
        low, high = left + speed["low"] * scale, left + speed["high"] * scale
        text = f"{speed['median']:.3g}" + (" (void)" if row["void"] else "")
        parts.append(
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end" font-size="13" fill="currentColor">'
            f"{html.escape(_label(row))}</text>"
            f'<rect x="{left}" y="{y}" width="{speed["median"] * scale:.1f}" height="20" fill="{colour}"/>'
            f'<path d="M{low:.1f} {y + 10}H{high:.1f}M{low:.1f} {y + 5}v10M{high:.1f} {y + 5}v10" '
            f'stroke="currentColor" fill="none"/>'
            f'<text x="{high + 8:.1f}" y="{y + 15}" font-size="13" fill="currentColor">{text}</text>'
        )
    height = 16 + 30 * len(rows)
    return f'<svg viewBox="0 0 860 {height}" width="860" role="img">{"".join(parts)}</svg>'


def _efficiency(rows: list[dict[str, Any]]) -> list[str]:
    """Speed on N devices over N times that on the fewest, at the same global batch."""
    found = []
    for key in dict.fromkeys((row["framework"], row["style"]) for row in rows):
        mine = sorted((r for r in rows if (r["framework"], r["style"]) == key), key=lambda r: r["devices"])
        if len(mine) < 2:
            continue
        base = mine[0]["images_per_second"]["median"] / mine[0]["devices"]
        for row in mine[1:]:
            share = row["images_per_second"]["median"] / row["devices"] / base
            found.append(f"<tr><td class=l>{' '.join(key)}</td><td>{row['devices']}</td><td>{share:.0%}</td></tr>")
    if not found:
        return []
    head = "<tr><th class=l>who</th><th>devices</th><th>efficiency</th></tr>"
    note = '<p class="note">On a CPU the devices share the same cores: half each is what two can reach.</p>'
    return ["<h2>Scaling efficiency</h2>", note, f"<table>{head}{''.join(found)}</table>"]


def _table(rows: list[dict[str, Any]]) -> str:
    head = (
        "<tr><th class=l>who</th><th>batch</th><th>images/s</th><th>low</th><th>high</th><th>n</th><th>of ceiling</th>"
        "<th>compile s</th><th>peak GB</th><th>logits apart</th><th>allowed</th><th class=l>parity</th></tr>"
    )
    lines = []
    for row in rows:
        speed, parity = row["images_per_second"], row["parity"]
        share = "-" if row["ceiling_fraction"] is None else f"{row['ceiling_fraction']:.0%}"
        apart = ["-" if parity[k] is None else f"{parity[k]:.1e}" for k in ("logits", "allowed")]
        held = {True: "holds", False: "VOID", None: "not compared"}[parity["equal"]]
        cells = [
            row["batch_size"], f"{speed['median']:.4g}", f"{speed['low']:.4g}", f"{speed['high']:.4g}", row["n"], share,
            f"{row['compile_seconds']:.1f}", f"{row['peak_bytes'] / 1e9:.2f}", *apart,
        ]  # fmt: skip
        lines.append(
            f"<tr{' class=bad' if row['void'] else ''}><td class=l>{html.escape(_label(row))}</td>"
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + f"<td class=l>{held}</td></tr>"
        )
    return f'<div class="scroll"><table>{head}{"".join(lines)}</table></div>'
