"""What `parity gpu` found, as text and as one HTML page."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from typing import Any

from parity.reports.page import whole
from parity.speed import input_page, page, profile_page
from parity.speed.on_gpu import kernels
from parity.speed.result import told


def text(found: dict[str, Any]) -> str:
    """A line a part."""
    parts = found["parts"]
    width = max((len(part["name"]) for part in parts), default=0)
    return "\n".join(
        f"{part['name']:{width}}  {part['state']:11}  {part['seconds']:>5.0f} s  {line(part)}" for part in parts
    )


def line(part: dict[str, Any]) -> str:
    """What a part found, in a line."""
    found = part["found"]
    if found is None:
        return part["said"][-1] if part["said"] else ""
    schema = found.get("schema", "")
    if "tests" in found:
        return f"{found['tests']} tests, {found['failures'] + found['errors']} failed, {found['skipped']} skipped"
    if schema.startswith("parity-kernels"):
        return f"{found['seconds'] * 1e3:.2f} ms of kernels a step, {len(found['kernels'])} kinds, on {found['device']}"
    if schema.startswith("parity-throughput"):
        return "; ".join(f"{r['verdict']}: {r['ratio']}" for r in found["ratios"]) or "; ".join(
            told(found["budget"])[:1]
        )
    if schema.startswith("parity-input"):
        return "; ".join(f"{r['what']}: {r['ratio']}" for r in found["ratios"])
    if "versions" in found:
        return ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)
    if "first_divergence" in found:
        first = found["first_divergence"]
        return "equal" if found["equal"] else f"differs, first at {first and first['layer']}"
    return ""


def render(found: dict[str, Any]) -> str:
    """The page."""
    rows = "".join(_row(i, part) for i, part in enumerate(found["parts"]))
    heads = "<tr><th class=l>part</th><th class=l>state</th><th>seconds</th><th class=l>found</th></tr>"
    body = [
        "<h1>What only a GPU can show</h1>",
        f'<div class="scroll"><table>{heads}{rows}</table></div>',
        *(section(i, part) for i, part in enumerate(found["parts"])),
    ]
    return whole("What only a GPU can show", body)


def _row(number: int, part: dict[str, Any]) -> str:
    colour = "" if part["state"] == "done" else " class=bad"
    name = f'<a href="#part{number}">{html.escape(part["name"])}</a>'
    return (
        f"<tr{colour}><td class=l>{name}</td><td class=l>{part['state']}</td><td>{part['seconds']:.0f}</td>"
        f"<td class=l>{html.escape(line(part))}</td></tr>"
    )


def section(number: int, part: dict[str, Any]) -> str:
    """One part: its command, and all that it found or the last that it said."""
    head = (
        f'<hr id="part{number}"><h1>{html.escape(part["name"])}</h1>'
        f"<p>{html.escape(part['asks'])}: {part['state']} after {part['seconds']:g} s</p>"
        f"<pre>{html.escape(part['command'])}</pre>"
    )
    said = f"<pre>{html.escape(chr(10).join(part['said']))}</pre>"
    if part["found"] is None:
        return head + said
    body = _body(part["found"])
    return head + (said if body is None else "".join(body(part["found"])))


def _body(found: dict[str, Any]) -> Callable[[dict[str, Any]], list[str]] | None:
    """What draws these findings; None where the last lines say it all."""
    if "versions" in found:
        return lambda result: [f"<pre>{html.escape(json.dumps(result, indent=1))}</pre>"]
    bodies = {
        "parity-throughput/": page.body,
        "parity-input/": input_page.body,
        "parity-profile/": profile_page.body,
        "parity-kernels/": lambda result: [f"<pre>{html.escape(kernels.table(result, 40))}</pre>"],
    }
    return next((body for sign, body in bodies.items() if found.get("schema", "").startswith(sign)), None)
