"""What `parity` makes of bugs in the zoo's ports: found or not, the place named first, the cause.

python -m examples.zoo.score [--model NAME ...] [--bug NAME ...] [--report]
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from examples.zoo.planting import Bug, bugs, plant
from examples.zoo.port import MODELS, compare, programs_kept
from parity.errors import CannotCompare
from parity.reports.report import Report


@dataclass(frozen=True)
class Result:
    """What became of one bug.

    Attributes:
        model: into whose port it was planted.
        bug: the mistake.
        report: what the comparison said; None if it couldn't run.
        error: why it couldn't.
    """

    model: str
    bug: Bug
    report: Report | None
    error: str = ""

    @property
    def first(self) -> str:
        """Place that is named first, as `Bug.place` says it; empty if none is."""
        row = None if self.report is None else self.report.first_divergence
        return "" if row is None else f"{row.name}, {row.stage}"

    @property
    def causes(self) -> list[str]:
        """Keys and words of the causes that are named there."""
        row = None if self.report is None else self.report.first_divergence
        return [] if row is None else [f"{key}: {text}" for key, text in zip(row.cause_keys, row.causes, strict=True)]

    @property
    def found(self) -> bool:
        """Whether anything differs; of an equivalent bug, whether nothing does."""
        if self.bug.equivalent:
            return self.report is not None and self.report.exit_code == 0
        return bool(self.first)

    @property
    def placed(self) -> bool:
        """Whether the place that is named first is the right one."""
        return self.first == self.bug.place

    @property
    def explained(self) -> bool:
        """Whether the cause that is named there is the right one."""
        return any(re.search(self.bug.cause, cause, re.IGNORECASE) for cause in self.causes)


@dataclass(frozen=True)
class Score:
    """Results counted; equivalent bugs apart.

    Attributes:
        bugs: how many could be found; likewise found, placed, explained.
        equivalent: bugs that nobody can tell; silent those at which nothing was found.
    """

    bugs: int
    found: int
    placed: int
    explained: int
    equivalent: int
    silent: int

    @classmethod
    def of(cls, results: Iterable[Result]) -> Score:
        """Count them."""
        results = list(results)
        real = [result for result in results if not result.bug.equivalent]
        same = [result for result in results if result.bug.equivalent]
        found, placed, explained = (sum(getattr(r, name) for r in real) for name in ("found", "placed", "explained"))
        return cls(len(real), found, placed, explained, len(same), sum(result.found for result in same))

    def __str__(self) -> str:
        def share(count: int) -> str:
            return f"{count} of {self.bugs} ({count / max(self.bugs, 1):.1%})"

        return (
            f"found {share(self.found)}, place first {share(self.placed)}, cause named {share(self.explained)}; "
            f"silent at {self.silent} of {self.equivalent} equivalent ones"
        )


def result(model: str, bug: Bug, seed: int = 0) -> Result:
    """Plant one bug and compare."""
    try:
        return Result(model, bug, compare(model, seed=seed, planted=plant(model, bug)))
    except CannotCompare as error:
        return Result(model, bug, None, str(error))


def run(models: Iterable[str], only: Iterable[str] = (), seed: int = 0) -> Iterator[Result]:
    """Every bug of these models, or those of the names in `only`."""
    wanted = set(only)
    for model in models:
        for bug in bugs(model):
            if not wanted or bug.name in wanted:
                yield result(model, bug, seed)


def line(result: Result) -> str:
    """A result in a line."""
    where = f"{result.model}, {result.bug.name}"
    if result.bug.equivalent:
        return f"{'silent' if result.found else 'ALARM':8} {where}: equivalent, {result.bug.equivalent}"
    if result.error:
        return f"REFUSED  {where}: {result.error.splitlines()[0]}"
    if not result.found:
        return f"SURVIVED {where}"
    told = [] if result.placed else [f"PLACE {result.first!r}, not {result.bug.place!r}"]
    told += [] if result.explained else [f"CAUSE {result.causes or 'none'}, not {result.bug.cause!r}"]
    return f"{'found' if not told else 'found, but':8} {where}: {'; '.join(told) or result.first}"


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each bug, then the totals; 0 if every bug was found and no equivalent one."""
    parser = argparse.ArgumentParser("python -m examples.zoo.score", description=__doc__)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=MODELS, help="models whose ports get bugs")
    parser.add_argument("--bug", nargs="+", default=[], metavar="NAME", help="only bugs of these names")
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs")
    parser.add_argument("--report", action="store_true", help="print each comparison's report, too")
    chosen = parser.parse_args(arguments)
    known = {bug.name for model in chosen.model for bug in bugs(model)}
    if unknown := [name for name in chosen.bug if name not in known]:
        parser.error(f"there is no bug {', '.join(unknown)}; choose from {', '.join(sorted(known))}")
    results, began = [], time.monotonic()
    with programs_kept():
        for each in run(chosen.model, chosen.bug, chosen.seed):
            results.append(each)
            print(line(each), flush=True)
            if chosen.report:
                print(each.report if each.report is not None else each.error, flush=True)
    score = Score.of(results)
    print(f"{score}; {time.monotonic() - began:.0f} s")
    return int(not (score.found == score.bugs and score.silent == score.equivalent))


if __name__ == "__main__":
    sys.exit(main())
