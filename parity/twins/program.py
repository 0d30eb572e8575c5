"""`parity runs`: twins of both shipped training programs, compared with each other and with what was asked for."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.twins import after_resumption, against_ledger, both_sides, cases
from parity.twins.cases import Case
from parity.twins.differences import Difference, Largest
from parity.twins.engines import Fate, JaxPrograms
from parity.twins.records import Arrays, Record
from parity.twins.sides import run_jax, run_torch

SHOWN = 5


@dataclass
class Outcome:
    """What one comparison found.

    Attributes:
        name: of the case, and how it was disturbed.
        compared: what, in a few words.
        differences: the first few, in the order of the steps.
        seconds: it took.
    """

    name: str
    compared: str
    differences: list[Difference]
    seconds: float

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def __str__(self) -> str:
        verdict = "equal" if self.equal else "DIFFERENT"
        lines = [f"{self.name}: {verdict} ({self.compared}; {self.seconds:.1f} s)"]
        lines += [f"  {'first: ' if i == 0 else '       '}{found}" for i, found in enumerate(self.differences)]
        return "\n".join(lines)


@dataclass
class Twins:
    """All outcomes of a call."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether every comparison found nothing, and there was one."""
        return bool(self.outcomes) and all(outcome.equal for outcome in self.outcomes)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "equal": self.equal,
            "runs": [{**vars(o), "differences": [vars(d) for d in o.differences]} for o in self.outcomes],
        }


def run(
    model: str = "cifar_18pct",
    recipe: str = "all",
    schedule: str | None = None,
    *,
    data: str | None = None,
    seed: int = 0,
    image_size: int | None = None,
    stops: bool = True,
    show: Callable[[Outcome], Any] = lambda outcome: None,
) -> Twins:
    """Twin the cases that the command line asks for; see `parity.settings.Runs`."""
    twins = Twins()

    def add(outcome: Outcome) -> None:
        twins.outcomes.append(outcome)
        show(outcome)

    with tempfile.TemporaryDirectory() as scratch:
        root, programs = Path(scratch), JaxPrograms()
        chosen = cases.choose(model, recipe, schedule, data, seed, root / "cache", image_size)
        falling = cases.choose(model, "paper", "cosine", data, seed, root / "cache", image_size)
        if recipe == "all":
            chosen.append(cases.fine_tuning(chosen[0], root / "weights.safetensors"))
            chosen.append(cases.validating(chosen[1]))
            chosen += map(cases.refined, falling)
        pairs = []
        for number, case in enumerate(chosen):
            jax, torch, outcome = twin(case, root / str(number), programs)
            add(outcome)
            pairs.append((case, jax, torch, outcome.equal))
        # One case is enough, one with a plateau best, whose counter must come back. Sides that differ already would
        # only say so once more.
        whole = [pair for pair in pairs if pair[3]]
        whole.sort(key=lambda pair: pair[0].settings.schedule != "plateau")
        for case, jax, torch, _ in whole[:1] if stops else []:
            for outcome in disturbed(case, jax, torch, root / "disturbed", programs):
                add(outcome)
    return twins


def twin(case: Case, root: Path, programs: JaxPrograms) -> tuple[Record, Record, Outcome]:
    """Both programs straight through, and in what they differ."""
    began, largest = time.monotonic(), Largest()
    jax = run_jax(case.at(root / "jax"), programs)
    torch = run_torch(case.at(root / "torch"), jax.first_parameters)
    found = itertools.chain(
        both_sides.between(jax, torch, largest), against_ledger.from_ledger(jax), against_ledger.from_ledger(torch)
    )
    first = _first(found)
    compared = f"{len(jax.steps)} steps, {len(jax.evaluations)} evaluations, {len(jax.rows)} rows; {largest}"
    return jax, torch, Outcome(case.name, compared, first, time.monotonic() - began)


def disturbed(
    case: Case, jax: Record, torch: Record, root: Path, programs: JaxPrograms, steps: Sequence[int] | None = None
) -> Iterator[Outcome]:
    """Each side killed, and stopped by a signal; resumed; and held to its straight run.

    Args:
        case: what is run.
        jax: its straight run; likewise torch.
        torch: see `jax`.
        root: where the runs lie.
        programs: JAX's compiled steps.
        steps: after which they are disturbed; after every one by default.
    """
    for straight in (jax, torch):
        wanted = range(1, len(straight.steps)) if steps is None else steps
        for how in ("killed", "stopped"):
            began, found = time.monotonic(), []
            for step in wanted:
                fate = Fate(kill_after=step) if how == "killed" else Fate(signal_after=step)
                where = root / straight.side / f"{how} {step}"
                before, record = _broken_and_mended(case, straight, where, fate, programs, jax.first_parameters)
                found += _first(after_resumption.from_straight(record, straight, before))
                if found:
                    break
            compared = f"after {', '.join(map(str, wanted))} steps and resumed"
            yield Outcome(f"{case.name}, {straight.side} {how}", compared, found[:SHOWN], time.monotonic() - began)


def _broken_and_mended(
    case: Case, straight: Record, where: Path, fate: Fate, programs: JaxPrograms, first: Arrays
) -> tuple[int, Record]:
    """A run that its fate ends, gone on with; the steps it had saved, and what was done afterwards."""
    # A killed run has what it saved after each step; one that is stopped saves by itself.
    broken = case.at(where, checkpoint_seconds=0.0 if fate.kill_after else 300.0)
    mended = case.at(where, resume=True)
    if straight.side == "jax_alexnet":
        half = run_jax(broken, programs, fate)
        return half.kept_steps.get("newest", 0), run_jax(mended, programs)
    half = run_torch(broken, first, fate)
    return half.kept_steps.get("newest", 0), run_torch(mended, first)


def _first(found: Iterator[Difference]) -> list[Difference]:
    """The first few differences, those of the earliest step first."""
    return sorted(itertools.islice(found, 4 * SHOWN), key=lambda difference: difference.step)[:SHOWN]
