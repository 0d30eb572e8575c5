"""What the commands of `python -m parity` do, once their settings are parsed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_io.settings import parse
from parity import settings

if TYPE_CHECKING:
    from parity.report import Report


def run(command: str, arguments: list[str]) -> int:
    """Parse a command's settings and run it; returns the exit code."""
    classes = {"layers": settings.Layers, "grads": settings.Grads}
    runners: dict[str, Callable[[Any], int]] = {"layers": _layers, "grads": _layers}
    chosen = parse(classes[command], f"python -m parity {command}", arguments)
    start_frameworks()
    return runners[command](chosen)


def start_frameworks() -> None:
    """Settings that must be made before JAX touches a device: float64, no grabbing of all GPU memory."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")


def _layers(chosen: settings.Layers) -> int:
    from parity import layers

    began = time.monotonic()
    report = layers.run(
        settings.chosen_models(chosen.model),
        dtype=chosen.dtype,
        gradients=isinstance(chosen, settings.Grads),
        seed=chosen.seed,
        batch=chosen.batch,
        images=Path(chosen.images) if chosen.images else None,
        weights=Path(chosen.weights) if chosen.weights else None,
        show=lambda part: print(f"{part.table()}\n", flush=True),
    )
    report.settings["seconds"] = round(time.monotonic() - began, 1)
    return finish(report, chosen)


def finish(report: Report, chosen: Any) -> int:
    """Print the conclusion, write the files that were asked for; returns the exit code."""
    print("\n".join(report.conclusion()))
    print(", ".join(f"{key} {value}" for key, value in report.settings.items()))
    if chosen.json:
        report.write_json(chosen.json)
        print(f"wrote {chosen.json}")
    if chosen.html:
        from parity import html

        html.write(report, chosen.html)
        print(f"wrote {chosen.html}")
    if getattr(chosen, "arrays", None) and report.arrays:
        import numpy as np

        np.savez(chosen.arrays, **report.arrays)  # type: ignore[arg-type]
        print(f"wrote {chosen.arrays}")
    return report.exit_code
