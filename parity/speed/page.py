"""Throughput as one HTML page that opens from disk; charts are SVG."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from parity.reports.page import whole
from parity.speed import charts
from parity.speed.result import percent, said, told


def write(result: dict[str, Any], path: str | Path) -> None:
    """Write the page of a result's JSON."""
    Path(path).write_text(render(result), encoding="utf-8")


def render(result: dict[str, Any]) -> str:
    """The page as text."""
    return whole(_title(result["settings"]), body(result))


def _title(settings: dict[str, Any]) -> str:
    return f"{settings['model']} at {settings['image_size']} pixels, {settings['mode']}, {settings['precision']}"


def body(result: dict[str, Any]) -> list[str]:
    """What the page holds, for a larger one too."""
    rows, title = result["rows"], _title(result["settings"])
    return [
        f"<h1>Throughput: {html.escape(title)}</h1>",
        *(f'<div class="verdict"><pre>{html.escape(_ratio(r))}</pre></div>' for r in result["ratios"]),
        _control(result["aa_control"]),
        *_layers(result["layers"]),
        *cut(result["budget"]),
        "<h2>Images a second</h2>",
        '<p class="note">Bars: medians of blocks. Whiskers: 95% bootstrap intervals of the medians.</p>',
        charts.bars([_bar(row) for row in rows]),
        *_by_devices(rows),
        *_profile(result["profile"]),
        "<h2>Rows</h2>",
        _table(rows),
        '<p class="note">Of ceiling: arithmetic a second over that of the largest matrix product. Bandwidth: bytes '
        "that the step's program reads and writes, as XLA counts them, over what a copy moves; PyTorch counts none. "
        "Logits and update: distance from the reference's, of the form that was timed.</p>",
        "<h2>PyTorch was tried as</h2>",
        f"<p>Plain: {html.escape(_tried(result['plain_forms']))}</p>",
        f"<p>Tuned, of which the fastest is PyTorch's best here: {html.escape(_tried(result['tuned_forms']))}</p>",
        measured_on(result),
    ]


def _tried(forms: dict[str, float]) -> str:
    found = sorted(forms.items(), key=lambda item: -item[1])
    return ", ".join(f"{form}: {speed:.3g} images/s" for form, speed in found) or "not run"


def measured_on(result: dict[str, Any]) -> str:
    """The machine and the settings."""
    facts = "\n".join(f"{key}: {value}" for key, value in (result["machine"] | result["settings"]).items())
    return f"<h2>Measured on</h2><pre>{html.escape(facts)}</pre>"


def _ratio(ratio: dict[str, Any]) -> str:
    where = f"{ratio['style']}, {ratio['devices']} device(s), {ratio['n']} rounds"
    return f"{ratio['verdict']} ({where}): {ratio['ratio']}"


def _control(control: dict[str, Any] | None) -> str:
    if control is None:
        return '<p class="note">No A/A control was run.</p>'
    rounds = f"{control['ratio']} ({control['n']} rounds)"
    return f'<p class="note">A/A control, JAX against itself: {html.escape(rounds)}</p>'


def _layers(layers: dict[str, Any] | None) -> list[str]:
    """What is the matter with the comparison of the layers, if anything."""
    if layers is None or layers["equal"]:
        return []
    unequal = f"differ, the first of them {layers.get('first')}"
    words = unequal if layers["equal"] is False else f"were not compared: {layers['why']}"
    return [f'<div class="verdict bad">The layers {html.escape(words)}</div>']


def cut(budget: dict[str, Any] | None) -> list[str]:
    """What was left out for lack of time."""
    if not budget or not budget["cut"]:
        return []
    items = "".join(f"<li>{html.escape(line)}</li>" for line in told(budget))
    return [f'<div class="verdict bad">Cut to end within {budget["seconds"]:g} s:<ul>{items}</ul></div>']


def _label(row: dict[str, Any]) -> str:
    return f"{row['framework']} {row['style']} {row['form']} x{row['devices']}".replace("  ", " ")


def _bar(row: dict[str, Any]) -> charts.Bar:
    colour = charts.COLOURS[row["framework"], row["style"]]
    return charts.Bar(_label(row), row["images_per_second"], colour, "(void)" if row["void"] else "")


def _by_devices(rows: list[dict[str, Any]]) -> list[str]:
    """Speed and efficiency over the number of devices, where more than one number was measured."""
    if not any(row["scaling_efficiency"] for row in rows):
        return []
    speeds, shares, cells = [], [], []
    for key in dict.fromkeys((row["framework"], row["style"]) for row in rows):
        mine = sorted((r for r in rows if (r["framework"], r["style"]) == key), key=lambda r: r["devices"])
        name, colour = " ".join(key), charts.COLOURS[key]
        speeds.append(charts.Line(name, [(r["devices"], r["images_per_second"]) for r in mine], colour))
        points = [(r["devices"], r["scaling_efficiency"]) for r in mine if r["scaling_efficiency"]]
        shares += [charts.Line(name, points, colour)] if points else []
        cells += [
            f"<tr><td class=l>{name}</td><td>{count}</td><td>{share['median']:.0%}</td>"
            f"<td>{share['low']:.0%} to {share['high']:.0%}</td><td>{share['over']}</td></tr>"
            for count, share in points
            if count > share["over"]
        ]
    head = "<tr><th class=l>who</th><th>devices</th><th>efficiency</th><th>95%</th><th>over</th></tr>"
    note = "Speed on N devices over N times that on the fewest, at the same global batch."
    if any(row["platform"] == "cpu" for row in rows):
        note += " These are CPU devices, which share the same cores: one Nth is what N of them can reach."
    return [
        "<h2>Images a second by devices</h2>",
        charts.lines(speeds, "images/s"),
        "<h2>Scaling efficiency by devices</h2>",
        f'<p class="note">{note}</p>',
        charts.lines(shares, "%", ideal=True),
        f"<table>{head}{''.join(cells)}</table>",
    ]


def _profile(profile: dict[str, Any] | None) -> list[str]:
    if not profile or not profile["frameworks"]:
        return []
    return ["<h2>Time by layer, ms</h2>", LAYERS_NOTE, charts.layers(profile["frameworks"])]


LAYERS_NOTE = (
    '<p class="note">Each layer alone on the input that it has in the network; what is fused across layers in a whole '
    "step is not seen here.</p>"
)


def _table(rows: list[dict[str, Any]]) -> str:
    names = (
        "batch",
        "images/s",
        "low",
        "high",
        "n",
        "of ceiling",
        "bandwidth",
        "scaling",
        "compile s",
        "peak GB",
        "logits apart",
        "allowed",
        "update apart",
        "allowed",
    )
    heads = "".join(f"<th>{name}</th>" for name in names)
    lines = [f"<tr><th class=l>who</th>{heads}<th class=l>parity</th></tr>"]
    for row in rows:
        speed, parity = row["images_per_second"], row["parity"]
        apart = [
            "-" if parity[key] is None else f"{parity[key]:.1e}"
            for key in ("logits", "allowed", "update", "update_allowed")
        ]
        held = said(row)
        cells = [
            row["batch_size"],
            f"{speed['median']:.4g}",
            f"{speed['low']:.4g}",
            f"{speed['high']:.4g}",
            row["n"],
            percent(row["ceiling_fraction"]),
            percent(row["bandwidth_fraction"]),
            percent((row["scaling_efficiency"] or {}).get("median")),
            f"{row['compile_seconds']:.1f}",
            f"{row['peak_bytes'] / 1e9:.2f}",
            *apart,
        ]
        lines.append(
            f"<tr{' class=bad' if row['void'] else ''}><td class=l>{html.escape(_label(row))}</td>"
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + f"<td class=l>{held}</td></tr>"
        )
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'
