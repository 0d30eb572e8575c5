"""`python -m examples.ports --checkout PATH [MODEL ...]`: ports that others wrote beside what they were ported from.

PATH is a checkout of https://github.com/jax-ml/bonsai or https://github.com/matthias-wright/flaxmodels; give both by
giving the option twice. Printed is a table, and with --reports DIR each report as JSON and text.

Exit codes: 0 all equal, 1 some differ, 2 something is missing or can't be compared, 3 equal as far as exercised.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from alexnet_io.command_line.settings import one_of, run_command
from alexnet_io.errors import UserError
from examples.ports.port import Port
from parity.errors import CannotCompare

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("*_*.py") if not p.stem.startswith("_"))
HEADER = ("model", "lane", "compared with", "layers", "rows", "verdict", "of a bound", "largest bound", "logits differ")


def main(arguments: list[str] | None = None) -> int:
    """Compare; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.ports", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"any of {', '.join(NAMES)}; all if none is named")
    parser.add_argument("--checkout", action="append", default=[], metavar="PATH", help="of a repository of ports")
    parser.add_argument("--reports", metavar="DIR", help="write each report there")
    parser.add_argument("--lane", choices=("float64", "float32"), help="only this one")
    parser.add_argument("--forward", action="store_true", help="without gradients")
    chosen = parser.parse_args(arguments)
    for path in chosen.checkout:
        if not Path(path).is_dir():
            raise UserError(f"--checkout {path}: there is no such directory; clone the repository of the ports there")
    sys.path[:0] = [str(Path(path).resolve()) for path in chosen.checkout]
    for name in chosen.models:
        one_of("MODEL", name, NAMES)
    print("| " + " | ".join(HEADER) + " |\n|" + " --- |" * len(HEADER))
    codes = [
        compared(port, dtype, chosen.reports, not chosen.forward)
        for port in (import_module(f"examples.ports.{name}").PORT for name in chosen.models or NAMES)
        for dtype in port.dtypes
        if chosen.lane in (None, dtype)
    ]
    return next((code for code in (2, 1, 3) if code in codes), 0)


def compared(port: Port, dtype: str, reports: str | None = None, gradients: bool = True) -> int:
    """Compare one port in one lane and print its line; returns its report's exit code."""
    import jax

    import parity

    jax.config.update("jax_enable_x64", dtype == "float64")  # it would make int64 of some ports' counters
    start = time.perf_counter()
    try:
        pair = port.pair()
        settings = {"dtype": dtype, "name": port.name, "gradients": gradients, **pair.settings}
        report = parity.compare(pair.flax, pair.torch, pair.inputs, **settings)
    except (CannotCompare, UserError) as error:
        print(f"{port.name}, {dtype}: {error}", file=sys.stderr)
        return 2
    print("| " + " | ".join(line(port, dtype, report)) + " |", flush=True)
    print(f"{port.name}, {dtype}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if reports:
        directory = Path(reports)
        directory.mkdir(parents=True, exist_ok=True)
        report.write_json(directory / f"{port.name}-{dtype}.json")
        (directory / f"{port.name}-{dtype}.txt").write_text(str(report) + "\n", encoding="utf-8")
    return report.exit_code


def line(port: Port, dtype: str, report: Any) -> list[str]:
    """A row of the table, as HEADER says."""
    version = getattr(import_module(port.package), "__version__", "")
    layers = {row.name for row in report.rows if row.stage == "forward"}
    forward = [row.bound for row in report.rows if row.stage in ("input", "forward") and row.bound < float("inf")]
    whole = [row.largest for row in report.rows if (row.name, row.stage) == ("end to end", "outputs")]
    verdicts = {0: "equal", 1: f"{len(report.divergences)} different", 3: "equal as far as exercised"}
    return [
        port.name,
        dtype,
        f"{port.reference} ({version})",
        str(len(layers)),
        str(len(report.rows)),
        verdicts[report.exit_code],
        f"{max((row.fraction for row in report.rows), default=0.0):.2g}",
        f"{max(forward, default=0.0):.1e}",
        f"{whole[0]:.1e}" if whole else "-",
    ]


if __name__ == "__main__":
    run_command(main)
