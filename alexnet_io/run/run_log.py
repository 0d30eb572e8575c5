"""What a run writes down and shows while it goes on: rows of metrics, a bar, a line for each evaluation, its speed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.run.directory import RunDirectory
from alexnet_io.run.engine import Engine, Sums
from alexnet_io.run.epoch_record import TrainingMeans
from alexnet_io.run.evaluation import EvaluationReport
from alexnet_io.run.metrics import MetricsRow, MetricsWriter
from alexnet_io.run.progress import Progress
from alexnet_io.run.speed_meter import SpeedMeter


class RunLog:
    """The log of a run in one of its processes; it writes and shows nothing until it is opened.

    Attributes:
        meter: images per second since the last row of training.
    """

    def __init__(self) -> None:
        self.meter = SpeedMeter()
        self._writer: MetricsWriter | None = None
        self._progress: Progress | None = None

    @contextlib.contextmanager
    def opened(
        self, directory: RunDirectory, settings: CompleteSettings, engine: Engine, step: int, last_step: int
    ) -> Iterator[None]:
        """Write into the run's directory, and show a bar if there is a step left to take.

        Args:
            directory: of the run.
            settings: the run's.
            engine: says what its first step is waited for.
            step: steps done; rows of later ones, which a resumed run takes again, are dropped.
            last_step: the step after which the run is over.
        """
        with contextlib.ExitStack() as stack:
            resume_step = step if settings.resume else None
            writer = MetricsWriter(directory.path, resume_step=resume_step, tensorboard=settings.tensorboard)
            self._writer = stack.enter_context(writer)
            if step < last_step:
                progress = Progress(last_step, start=step, preparing=engine.preparing)
                self._progress = stack.enter_context(progress)
            yield

    def message(self, text: str) -> None:
        """Show a line above the bar."""
        if self._progress is not None:
            self._progress.message(text)

    def step(self, number: int, epoch: float, sums: Sums) -> None:
        """Show a step that is done, by its own numbers."""
        self.meter.count(sums.examples)
        if self._progress is not None:
            means, speed = TrainingMeans.of(sums), self.meter.speed
            self._progress.update(number, epoch=epoch, loss=means.loss, top1=means.top1, images_per_second=speed)

    def training(self, step: int, epoch: float, sums: Sums, rate: float | None) -> None:
        """Write a row of means over the images of the steps since the last one, and measure the speed anew."""
        means = TrainingMeans.of(sums)
        self._write(MetricsRow(step, epoch, "train", means.loss, means.top1, means.top5, rate, self.meter.speed))
        self.meter.restart()

    def evaluation(
        self, step: int, epoch: float, split: str, report: EvaluationReport, rate: float | None, seconds: float
    ) -> None:
        """Write a row of an evaluation that took so many seconds, and show it.

        Args:
            step: steps done.
            epoch: an int at the end of one.
            split: whose images were looked at.
            report: what was found.
            rate: learning rate of the last step.
            seconds: it took.
        """
        speed = report.examples / max(seconds, 1e-9)
        self._write(MetricsRow(step, epoch, split, report.loss, report.top1, report.top5, rate, speed))
        where = f"epoch {epoch}" if isinstance(epoch, int) else f"step {step}, epoch {epoch:.2f}"
        self.message(f"{where}: {split} loss {report.loss:.4f}, accuracy {report.top1:.2%} of {report.examples}")

    def _write(self, row: MetricsRow) -> None:
        if self._writer is not None:
            self._writer.write(row)
