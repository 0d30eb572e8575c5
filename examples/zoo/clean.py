"""The zoo's ports as they are, with other weights and inputs each time: does `parity` cry wolf?

python -m examples.zoo.clean [--runs 200] [--model NAME ...] [--seed 0]
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time

from examples.zoo.port import MODELS, compare, programs_kept


def main(arguments: list[str] | None = None) -> int:
    """Compare each model in turn until there are so many runs; 0 if no comparison said that anything differs."""
    parser = argparse.ArgumentParser("python -m examples.zoo.clean", description=__doc__)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=MODELS, help="models to compare")
    parser.add_argument("--runs", type=int, default=200, help="comparisons in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others count on from there")
    parser.add_argument("--report", action="store_true", help="print each report that isn't equal")
    chosen = parser.parse_args(arguments)
    if chosen.runs < 1:
        parser.error(f"--runs {chosen.runs}: one run at least")
    alarms, rows, most, began = 0, 0, 0.0, time.monotonic()
    with programs_kept():
        for number, model in enumerate(itertools.islice(itertools.cycle(chosen.model), chosen.runs)):
            report = compare(model, seed=chosen.seed + number)
            rows += len(report.rows)
            most = max([most, *(row.fraction for row in report.rows)])
            if report.exit_code != 0:
                alarms += 1
                print(f"{model}, seed {chosen.seed + number}: {report.outcome()[-1]}", flush=True)
                if chosen.report:
                    print(report, flush=True)
    print(
        f"{chosen.runs} runs without a bug, {rows} comparisons: {alarms} alarms, at most {most:.3g} of a bound used; "
        f"{time.monotonic() - began:.0f} s"
    )
    return int(alarms > 0)


if __name__ == "__main__":
    sys.exit(main())
