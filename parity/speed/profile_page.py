"""Time by layer as one HTML page that opens from disk: measured in both frameworks, or modelled for a GPU."""

from __future__ import annotations

import html
from typing import Any

from jax_alexnet.variants import VARIANTS
from parity.reports.page import whole
from parity.speed import charts, layer_profile, page


def render(result: dict[str, Any]) -> str:
    """The page of `layer_profile.run`'s result."""
    return whole(_title(result["settings"]), body(result))


def _title(settings: dict[str, Any]) -> str:
    return f"{settings['model']}, batch {settings['batch_size']}, {settings['precision']}"


def body(result: dict[str, Any]) -> list[str]:
    """What that page holds, for a larger one too."""
    title = _title(result["settings"])
    return [
        f"<h1>Time by layer, ms: {html.escape(title)}</h1>",
        page.LAYERS_NOTE,
        charts.layers(result["frameworks"]),
        f"<pre>{html.escape(layer_profile.table(result))}</pre>",
        page.measured_on(result),
    ]


def render_gpu(result: dict[str, Any]) -> str:
    """The page of a GPU program's JSON; see `jax_alexnet.compiled.gpu_text.as_json`."""
    settings = result["settings"]
    where = f"{settings['batch_size']} images on each of {settings['devices']} {settings['gpu']}"
    title = f"{settings['model']}, {settings['precision']}, {where}"
    body = [
        f"<h1>Modelled time by layer, ms: {html.escape(title)}</h1>",
        '<p class="note">From the program that XLA compiles: for each operation the longer of its bytes and its '
        "arithmetic. Nothing was run.</p>",
        charts.layers({settings["gpu"]: by_layer(result["launches"], settings["model"])}),
        f"<pre>{html.escape(result['report'])}</pre>",
    ]
    return whole(title, body)


def by_layer(launches: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """Modelled seconds of each layer, `forward`, `backward` and `update`; what belongs to none comes last."""
    order = [row.name for row in VARIANTS[model].layers]
    found: dict[str, dict[str, Any]] = {name: {"layer": name} for name in (*order, "other")}
    for launch in launches:
        entry, direction = found[launch["layer"] or "other"], launch["direction"] or "forward"
        entry[direction] = entry.get(direction, 0.0) + launch["seconds"]
    return [entry for entry in found.values() if len(entry) > 1]
