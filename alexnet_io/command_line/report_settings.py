"""The settings of a run's report, the same for both frameworks."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import ClassVar

from alexnet_io.command_line.evaluate_settings import EvaluateSettings, MeasuredData, MeasuringDevices
from alexnet_io.command_line.flags import setting
from alexnet_io.command_line.network_source import WhichCheckpoint
from alexnet_io.errors import UserError

PAGE = "report.html"
_page = partial(setting, group="the page")


@dataclass(frozen=True)
class _Page:
    runs: list[Path] = field(
        default_factory=list,
        metadata={"help": "the directory that training wrote", "positional": True, "metavar": "RUN", "single": True},
    )
    output: str | None = _page(None, "the page", metavar="FILE", unset=f"{PAGE} in the run's directory", writes="text")
    evaluate: bool = _page(True, "measure the weights on the pictures, for classes, confusions and mistakes")
    mistakes: int = _page(12, "wrong guesses that are shown, the surest first", minimum=0, maximum=200)


@dataclass(frozen=True)
class ReportSettings(MeasuringDevices, WhichCheckpoint, MeasuredData, _Page):
    """Write all that is to be seen of a run as one HTML page: a run that has ended, was stopped, or goes on."""

    EXAMPLES: ClassVar = (
        ("runs/cifar", "into runs/cifar/report.html"),
        ("runs/cifar --output cifar.html --data folder:elsewhere", "the run's pictures lie elsewhere now"),
        ("runs/cifar --no-evaluate", "from what the run has written down, at once"),
    )

    def __post_init__(self) -> None:
        if len(self.runs) > 1:
            raise UserError(f"one run has one page, and {len(self.runs)} were named: call it once for each")

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self.runs[0]

    @property
    def page(self) -> str:
        """Where the page goes."""
        return self.output if self.output is not None else str(self.run / PAGE)

    @property
    def evaluation(self) -> EvaluateSettings:
        """Of the evaluation that the page shows."""
        shared = {item.name for item in fields(self)} & {item.name for item in fields(EvaluateSettings)}
        return EvaluateSettings(run=self.run, **{name: getattr(self, name) for name in shared})
