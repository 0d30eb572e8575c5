"""A run's trained network as a framework opens it for the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.report_settings import ReportSettings
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.run.evaluation_report import EvaluationReport
from alexnet_io.run.mistakes import Observer
from alexnet_io.run.pictures import FirstKernel


@dataclass(frozen=True)
class OpenedNetwork:
    """Weights, and a way to measure them.

    Attributes:
        which: `best` or `newest`, as found.
        step: steps that they are after.
        kernel: of the first layer: (height, width, channels, filters).
        columns: into how many parts the network divides these filters.
        measure: over the pictures that the settings name, each once; raises a UserError where they can't be had.
    """

    which: str
    step: int
    kernel: FirstKernel
    columns: int
    measure: Callable[[Observer], EvaluationReport]


class Framework(Protocol):
    """One framework's part of a report."""

    def resolve(self, settings: TrainSettings) -> CompleteSettings:
        """Complete settings as its training program does."""
        ...

    def open(self, settings: ReportSettings, given: dict[str, Any]) -> OpenedNetwork:
        """The run's network.

        Raises:
            UserError: none of its weights is there and intact.
        """
        ...
