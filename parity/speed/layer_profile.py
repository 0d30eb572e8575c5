"""`parity profile`: where each framework's time goes, layer by layer."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.speed import machine
from parity.speed.processes import OverBudget, Worker, flags
from parity.speed.workload import Workload

SCHEMA = "parity-profile/1"


def run(
    base: Workload, frameworks: list[str], pythons: dict[str, str | None], patience: Callable[[], float] | None = None
) -> dict[str, Any]:
    """Seconds by layer of one or both frameworks, each in a process of its own.

    Args:
        base: of everything but the framework.
        frameworks: `jax`, `torch` or both.
        pythons: interpreter by framework; this one if None.
        patience: gives the seconds that a framework may still take.

    Returns:
        `schema`, `settings`, `machine`, `frameworks`: by name a list of `layer`, `forward`, `backward` in seconds; and
        `cut`: a line for each that took too long.
    """
    found, cut = {}, []
    for framework in frameworks:
        workload = replace(base, framework=framework)
        python = pythons.get(framework) or sys.executable
        command = [python, "-m", "parity.speed.layer_times", framework, json.dumps(workload.as_json())]
        with tempfile.TemporaryDirectory(prefix="profile-") as folder:
            variables = flags(workload, Path(folder))
            try:
                worker = Worker(f"{framework}, by layer", command, variables, patience or (lambda: math.inf))
            except OverBudget as over:
                cut.append(f"time by layer: {over}")
                continue
            found[framework] = worker.facts["layers"]
            worker.close()
    return {
        "schema": SCHEMA,
        "settings": base.as_json(),
        "machine": machine.describe(),
        "frameworks": found,
        "cut": cut,
    }


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
                if seconds is not None:
                    totals[framework, direction] += seconds
                line += f"{'-' if seconds is None else f'{seconds * 1e3:.2f}':>16}"
        lines.append(line)
    lines.append(f"{'sum':10}" + "".join(f"{s * 1e3:>16.2f}" for s in totals.values()))
    return "\n".join(lines)
