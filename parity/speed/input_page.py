"""Input rates as one HTML page that opens from disk."""

from __future__ import annotations

import html
from typing import Any

from parity.reports.page import whole
from parity.speed import charts, page, statistics
from parity.speed.input_result import label

MET = {True: "met", False: "MISSED", None: "inside the interval"}


def render(result: dict[str, Any]) -> str:
    """The page of a result's JSON."""
    return whole(_title(result["settings"]), body(result))


def _title(settings: dict[str, Any]) -> str:
    return f"Input of {settings['model']}: {settings['stored_size']} to {settings['image_size']} pixels"


def body(result: dict[str, Any]) -> list[str]:
    """What the page holds, for a larger one too."""
    settings, title = result["settings"], _title(result["settings"])
    groups = (
        ("Reading the warm cache", ("reading",)),
        ("Filling the cache", ("decode", "prepare", "fill", "fill, all cores")),
        ("Training", ("cached", "there")),
    )
    targeted = [row for row in result["rows"] if row["target"] is not None]
    found = [
        f"<h1>{html.escape(title)}</h1>",
        *(_verdict(label(row), statistics.Interval(**row["images_per_second"]), row) for row in targeted),
        *(_verdict(ratio["what"], ratio["ratio"], ratio) for ratio in result["ratios"]),
        *(f'<div class="verdict bad">Not measured: {html.escape(why)}</div>' for why in result["skipped"]),
        *page.cut(result["budget"]),
        f"<p>Images: {html.escape(settings['images'])}.</p>",
        '<p class="note">Images a second. Bars: medians of blocks; whiskers: 95% bootstrap intervals.</p>',
    ]
    for heading, kinds in groups:
        rows = [row for row in result["rows"] if row["what"] in kinds]
        if rows:
            found += [f"<h2>{heading}</h2>", charts.bars([_bar(row) for row in rows], 380)]
    if result["aa_control"]:
        control = html.escape(result["aa_control"]["ratio"])
        found.append(f'<p class="note">A/A control, training on a batch that is there against itself: {control}</p>')
    found += ["<h2>Rows</h2>", _table(result["rows"]), page.measured_on(result)]
    return found


def _verdict(what: str, found: Any, judged: dict[str, Any]) -> str:
    state = {True: "", False: " bad", None: " open"}[judged["met"]]
    words = f"{what}: {found} (target {judged['target']:,g}: {MET[judged['met']]})"
    return f'<div class="verdict{state}">{html.escape(words)}</div>'


def _bar(row: dict[str, Any]) -> charts.Bar:
    note = "" if row["target"] is None else f"(target {row['target']:,g}: {MET[row['met']]})"
    return charts.Bar(
        label(row), row["images_per_second"], charts.COLOURS.get((row["framework"], "tuned"), charts.OTHER), note
    )


def _table(rows: list[dict[str, Any]]) -> str:
    head = "<tr><th class=l>what</th>" + "".join(
        f"<th>{name}</th>" for name in ("batch", "images/s", "low", "high", "n", "compile s", "peak GB")
    )
    lines = []
    for row in rows:
        speed, compiled, peak = row["images_per_second"], row["compile_seconds"], row["peak_bytes"]
        cells = [
            row["batch_size"] or "-",
            f"{speed['median']:.4g}",
            f"{speed['low']:.4g}",
            f"{speed['high']:.4g}",
            row["n"],
            "-" if compiled is None else f"{compiled:.1f}",
            "-" if peak is None else f"{peak / 1e9:.2f}",
        ]
        more = [f"{key} {row[key]}" for key in ("loader", "crops", "stored_bytes", "files") if key in row]
        note = f' <span class="note">{html.escape(", ".join(more))}</span>' if more else ""
        lines.append(
            f"<tr><td class=l>{html.escape(label(row))}{note}</td>" + "".join(f"<td>{cell}</td>" for cell in cells)
        )
    return f'<div class="scroll"><table>{head}{"".join(f"{line}</tr>" for line in lines)}</table></div>'
