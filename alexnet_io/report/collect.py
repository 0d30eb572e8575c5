"""All that a report tells of a run, collected: what is missing is said, and the rest is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from alexnet_io.command_line import repeating
from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.report_settings import ReportSettings
from alexnet_io.command_line.resumed_settings import planned, resumed
from alexnet_io.errors import UserError
from alexnet_io.report.network import Framework, OpenedNetwork
from alexnet_io.report.status import Status, status_of
from alexnet_io.run.evaluation_report import EvaluationReport
from alexnet_io.run.metrics import MetricsRow, read_metrics
from alexnet_io.run.mistakes import Mistake, WorstMistakes
from alexnet_io.run.run_description import read_description

T = TypeVar("T")


@dataclass
class Collected:
    """What there is to show.

    Attributes:
        run: the directory, absolute.
        description: its run.json.
        settings: those that the run began with, and the end that it was last resumed to.
        differing: those that were chosen: by name the run's value and the usual one.
        command: the words that train such a run again.
        rows: its metrics.
        status: where it stands.
        network: its weights, where they could be read.
        report: of the evaluation, where there was one.
        mistakes: its wrong guesses, the surest first.
        split: the images that were evaluated.
        missing: what isn't there and why, for people.
    """

    run: Path
    description: dict[str, Any]
    settings: CompleteSettings
    differing: dict[str, tuple[Any, Any]]
    command: list[str]
    rows: list[MetricsRow]
    status: Status
    network: OpenedNetwork | None = None
    report: EvaluationReport | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    split: str = "test"
    missing: list[str] = field(default_factory=list)

    @property
    def trainer(self) -> str:
        """The package whose program trained it."""
        return self.description.get("framework", "jax_alexnet")


def collect(settings: ReportSettings, given: dict[str, Any], framework: Framework) -> Collected:
    """Read what a run left, and measure its weights where that is wanted and can be done.

    Args:
        settings: of the command.
        given: those that the command line has, by name.
        framework: opens and measures the network.

    Raises:
        UserError: there is no run, or its description is damaged.
    """
    run = settings.run.expanduser().resolve()
    description = read_description(run)
    saved = framework.resolve(resumed(planned(description), {}))
    missing: list[str] = []
    rows = _tried("no metrics", missing, lambda: read_metrics(run)) or []
    found = Collected(
        run=run,
        description=description,
        settings=saved,
        differing=repeating.differing(saved, framework.resolve),
        command=[f"{description.get('framework', 'jax_alexnet')}.train", *repeating.command(saved, framework.resolve)],
        rows=rows,
        status=status_of(run, description, saved, rows),
        split=settings.split,
        missing=missing,
    )
    found.network = network = _tried("no weights", missing, lambda: framework.open(settings, given))
    if network is None:
        return found
    if network.which != settings.checkpoint:
        missing.append(f"the run has no {settings.checkpoint} weights yet: these are its {network.which}")
    if settings.evaluate:
        worst = WorstMistakes(settings.mistakes)
        without = f"nothing was measured on the {settings.split} images"
        found.report = _tried(without, missing, lambda: network.measure(worst))
        found.mistakes = worst.found if found.report is not None else []
    return found


def _tried(without: str, missing: list[str], work: Callable[[], T]) -> T | None:
    """What `work` gives, or None, and why in `missing`."""
    try:
        return work()
    except UserError as error:
        missing.append(f"{without}: {error}")
        return None
