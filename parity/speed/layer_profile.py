"""`parity profile`: where each framework's time goes, layer by layer."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

from alexnet_io.errors import UserError
from parity.processes import environment
from parity.speed import machine
from parity.speed.workload import Workload

SCHEMA = "parity-profile/1"


def run(base: Workload, frameworks: list[str], pythons: dict[str, str | None]) -> dict[str, Any]:
    """Seconds by layer of one or both frameworks, each in a process of its own.

    Returns:
        `schema`, `settings`, `machine` and `frameworks`: by name a list of `layer`, `forward`, `backward` in seconds.
    """
    found = {}
    for framework in frameworks:
        workload = replace(base, framework=framework)
        command = [pythons.get(framework) or sys.executable, "-m", "parity.speed.layer_times", framework]
        done = subprocess.run(
            [*command, json.dumps(workload.as_json())], env=environment(), text=True, capture_output=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise UserError(f"the process for {framework} ended ({done.returncode}): {said[-1]}")
        found[framework] = json.loads(done.stdout)["layers"]
    return {"schema": SCHEMA, "settings": base.as_json(), "machine": machine.describe(), "frameworks": found}


def table(result: dict[str, Any]) -> str:
    """Milliseconds side by side."""
    frameworks = list(result["frameworks"])
    by_layer: dict[str, dict[str, dict[str, float]]] = {}
    for framework, layers in result["frameworks"].items():
        for entry in layers:
            by_layer.setdefault(entry["layer"], {})[framework] = entry
    head = f"{'layer':10}" + "".join(f"{f + ' forward':>16}{f + ' backward':>16}" for f in frameworks)
    lines = [head + "   (ms)"]
    totals = dict.fromkeys(((f, d) for f in frameworks for d in ("forward", "backward")), 0.0)
    for layer, entries in by_layer.items():
        line = f"{layer:10}"
        for framework in frameworks:
            for direction in ("forward", "backward"):
                seconds = entries.get(framework, {}).get(direction)
                totals[framework, direction] += seconds or 0.0
                line += f"{'-' if seconds is None else f'{seconds * 1e3:.2f}':>16}"
        lines.append(line)
    lines.append(f"{'sum':10}" + "".join(f"{s * 1e3:>16.2f}" for s in totals.values()))
    return "\n".join(lines)
