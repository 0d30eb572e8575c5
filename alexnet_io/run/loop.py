"""The bookkeeping of a training run, for any framework: what is counted, logged, evaluated, saved, and when it ends.

A framework plugs in as an `Engine`: it computes, this loop decides. Steps are counted when they are handed out
(`step`), since the learning rate and the order of examples follow them. Where steps run ahead of the host, their
numbers are fetched one step later, so that a device never waits for the host, and are counted then (`_account`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn, Protocol

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.data.batches import Batch
from alexnet_io.run import pictures, steering
from alexnet_io.run.data_identity import refuse_other_data
from alexnet_io.run.directory import RunDirectory
from alexnet_io.run.evaluation import EvaluationReport
from alexnet_io.run.flat_loss import watched
from alexnet_io.run.metrics import MetricsRow, MetricsWriter
from alexnet_io.run.pictures import FirstKernel
from alexnet_io.run.progress import Progress
from alexnet_io.run.signals import Signals


@dataclass(frozen=True)
class Sums:
    """Training metrics summed over the real examples of one or more steps, in float64."""

    loss: float = 0.0
    top1: float = 0.0
    top5: float = 0.0
    examples: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.loss + other.loss, self.top1 + other.top1, self.top5 + other.top5, self.examples + other.examples
        )


class Engine(Protocol):
    """One framework's part of a run, in one of its processes. All processes call the same methods in the same order."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps that cover the training set, the short last one included."""
        ...

    @property
    def runs_ahead(self) -> bool:
        """Whether `train` returns before its step is done."""
        ...

    @property
    def preparing(self) -> str:
        """What the first step is waited for, in a word or two."""
        ...

    def say(self, text: str) -> None:
        """Print a line, once for all processes."""
        ...

    def fail(self, text: str) -> NoReturn:
        """End the run over something that all processes found alike."""
        ...

    def start(self) -> None:
        """Begin with fresh weights."""
        ...

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Go on from the newest intact checkpoint: its step and facts; None, and nothing done, where there is none."""
        ...

    def batches(self, step: int) -> Iterator[Batch]:
        """This process's share of the batches that are left of the epoch in which `step` lies."""
        ...

    def learning_rate(self, step: int) -> float:
        """Of the weights, in the step after `step` steps."""
        ...

    def train(self, batch: Batch, step: int, rate: float) -> Any:
        """Hand out the step after `step` steps; returns what `fetch` takes."""
        ...

    def fetch(self, handle: Any) -> Sums:
        """Wait for a step's numbers, over all processes."""
        ...

    def agree(self, stop: int, save: bool) -> tuple[int, bool]:
        """What all processes want after this step, or wanted one step ago: the signal to stop by, and to save."""
        ...

    def evaluate(self) -> EvaluationReport:
        """Over every image once that steers the run: the validation images, or the test images where there are none."""
        ...

    def evaluate_test(self) -> EvaluationReport:
        """Over every test image once; asked for only where others steer the run."""
        ...

    def count_error(self, error: float) -> None:
        """Let a plateau schedule see an epoch's error on the images that steer the run, 0 to 1."""
        ...

    def weights_are_finite(self) -> bool:
        """Whether every weight is a finite number."""
        ...

    def saving(self, directory: RunDirectory | None) -> contextlib.AbstractContextManager[Any]:
        """Open from the first step to the last; leaving it waits for what is being saved."""
        ...

    def save(self, step: int, facts: dict[str, Any]) -> None:
        """Save all that `restore` needs."""
        ...

    def save_best(self, step: int, facts: dict[str, Any], top1: float) -> None:
        """Save the weights alone: all that evaluation and prediction need."""
        ...

    def first_kernel(self) -> FirstKernel:
        """The weights of conv1: float32 (height, width, channels, filters)."""
        ...


@dataclass(frozen=True)
class _Step:
    """A step that was handed out and whose numbers are still to be fetched; `number` counts from 1."""

    number: int
    batch: Batch
    rate: float
    handle: Any


@dataclass
class TrainingLoop:
    """A run in one of its processes.

    Args:
        engine: computes.
        settings: the run's.
        identity: which data these are, from `sources.fingerprint`.
        directory: where the first process writes; None in the others.
        signals: what asks the run to stop.
    """

    engine: Engine
    settings: CompleteSettings
    identity: dict[str, Any]
    directory: RunDirectory | None
    signals: Signals
    step: int = 0
    pending: _Step | None = None
    rate: float | None = None  # of the last step that was counted
    sums: Sums = field(default_factory=Sums)  # since the last row
    best: float = -math.inf
    best_step: int = 0
    report: EvaluationReport | None = None
    evaluated_step: int = -1
    flat_since: int | None = None
    clock: float | None = None  # since when `timed_images` were trained on
    timed_images: float = 0.0
    speed: float | None = None
    saved_step: int = -1
    saved_at: float = field(default_factory=time.monotonic)
    save_is_due: bool = False
    stopped: int = 0  # the signal after which all processes stop
    writer: MetricsWriter | None = None
    progress: Progress | None = None

    @property
    def last_step(self) -> int:
        """The step after which the run is over."""
        total = self.settings.epochs * self.engine.steps_per_epoch
        return min(total, self.settings.steps or total)

    def go(self) -> int:
        """Train to the end or to a signal; returns the exit code: 0, or 128 + the signal.

        Raises:
            UserError: the loss or a weight is not finite, or a file can't be written.
        """
        with contextlib.ExitStack() as stack:
            self._open_files(stack)
            while self.step < self.last_step and not self.stopped:
                self._train_to_the_end_of_an_epoch()
            if not self.stopped:
                self._measure_the_end()
            if self.saved_step != self.step:
                self._save()
        if self.stopped:
            where = self.directory.path if self.directory else ""
            self.engine.say(
                f"stopped by signal {self.stopped} after step {self.step}; go on with --resume --output {where}"
            )
            return 128 + self.stopped
        self._conclude()
        return 0

    # --- the beginning -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start, or go on from the newest checkpoint; to be called before `go`.

        Raises:
            UserError: the run can't go on: its checkpoints are damaged, or the data are not its own.
        """
        found = self.engine.restore() if self.settings.resume else None
        if found is None:
            if self.settings.resume:
                self.engine.say("no checkpoint was finished: the run starts from its first step")
            self.engine.start()
            return
        self.step, facts = found
        self.saved_step = self.step
        sums = facts["sums"]
        self.sums = Sums(**sums) if isinstance(sums, dict) else Sums(*sums)
        self.flat_since, self.rate = facts["flat_since"], facts.get("rate")
        best = facts["best"]
        if best is not None and best >= 0:
            self.best, self.best_step = best, facts["best_step"]
        changed = refuse_other_data(
            facts.get("data"), self.identity, self.step, self.engine.steps_per_epoch, self.settings.changed_data
        )
        if changed is not None:
            self.engine.say(changed.warning)
            if changed.other_steering_images:
                self.best, self.best_step = -math.inf, 0
        if self.step >= self.last_step:
            last = (
                "its last one" if self.step == self.last_step else f"beyond step {self.last_step}, the last asked for"
            )
            self.engine.say(
                f"the run has already reached step {self.step}, {last}: raise --epochs or --steps to train on"
            )

    def _open_files(self, stack: contextlib.ExitStack) -> None:
        settings = self.settings
        stack.enter_context(self.engine.saving(self.directory))
        if self.directory is None:
            return
        resume_step = self.step if settings.resume else None
        writer = MetricsWriter(self.directory.path, resume_step=resume_step, tensorboard=settings.tensorboard)
        self.writer = stack.enter_context(writer)
        if self.step < self.last_step:
            progress = Progress(self.last_step, start=self.step, preparing=self.engine.preparing)
            self.progress = stack.enter_context(progress)

    # --- steps -------------------------------------------------------------------------------------------

    def _train_to_the_end_of_an_epoch(self) -> None:
        """Train to the end of the epoch, of the run, or to a signal."""
        per_epoch = self.engine.steps_per_epoch
        if self.clock is not None:
            self.clock, self.timed_images = time.perf_counter(), 0.0
        for batch in self.engine.batches(self.step):
            rate = self.engine.learning_rate(self.step)
            handle = self.engine.train(batch, self.step, rate)
            self.step += 1
            self._account_for_pending()
            self.pending = _Step(self.step, batch, rate, handle)
            if not self.engine.runs_ahead:
                self._account_for_pending()
            stop, self.save_is_due = self.engine.agree(self.signals.received, self._time_to_save())
            if self.step >= self.last_step:
                break
            if stop:
                self.stopped = stop
                break
            # At the end of an epoch the evaluation comes first: what is saved there knows its result.
            if self.save_is_due and self.step % per_epoch:
                self._account_for_pending()
                self._save()
        self._account_for_pending()
        if self.step % per_epoch == 0:
            self._end_epoch(self.step // per_epoch)

    def _account_for_pending(self) -> None:
        if self.pending is not None:
            done, self.pending = self.pending, None
            self._account(done)

    def _account(self, done: _Step) -> None:
        """Count one finished step; stop the run if its loss is not finite."""
        sums = self.engine.fetch(done.handle)
        loss = sums.loss / sums.examples
        if not math.isfinite(loss):
            ids = done.batch.ids[done.batch.weights > 0][:8].tolist()
            self.engine.fail(
                f"the loss became {loss} at step {done.number} (images {ids}...). {self._kept}: go on from it with a "
                "smaller --learning-rate in a new run"
            )
        self.rate, self.sums = done.rate, self.sums + sums
        self.flat_since, warning = watched(self.flat_since, done.number, loss, self.identity["classes"])
        if warning and self.progress is not None:
            self.progress.message(warning)
        self._time(sums.examples)
        per_epoch = self.engine.steps_per_epoch
        if self.progress is not None:
            accuracy = sums.top1 / sums.examples
            self.progress.update(
                done.number, epoch=done.number / per_epoch, loss=loss, top1=accuracy, images_per_second=self.speed
            )
        if done.number % self.settings.log_every == 0 or done.number % per_epoch == 0:
            self._write_train_row(done.number)

    def _time(self, examples: float) -> None:
        """Images per second since the last row; the first step of all, which may compile, only starts the clock."""
        now = time.perf_counter()
        if self.clock is None:
            self.clock = now
            return
        self.timed_images += examples
        self.speed = self.timed_images / max(now - self.clock, 1e-9)

    def _write_train_row(self, step: int) -> None:
        sums, self.sums = self.sums, Sums()
        means = (sums.loss / sums.examples, sums.top1 / sums.examples, sums.top5 / sums.examples)
        self._write(MetricsRow(step, step / self.engine.steps_per_epoch, "train", *means, self.rate, self.speed))
        self.clock, self.timed_images = time.perf_counter(), 0.0

    def _write(self, row: MetricsRow) -> None:
        if self.writer is not None:
            self.writer.write(row)

    def _end_epoch(self, epoch: int) -> None:
        due = epoch % self.settings.evaluate_every == 0 or self.step >= self.last_step
        # A plateau counts epochs, so it sees each of them.
        if due or self.settings.schedule == "plateau":
            report = self._evaluate()
            self.engine.count_error(1 - report.top1)
        if self.save_is_due:
            self._save()

    # --- evaluation --------------------------------------------------------------------------------------

    def _evaluate(self) -> EvaluationReport:
        """Measure the weights of this step on the images that steer, and keep them if they are the best so far."""
        report = self._measured(steering.split_of(self.settings), self.engine.evaluate)
        if report.top1 > self.best:
            self.best, self.best_step = report.top1, self.step
            self._check_finite()
            self.engine.save_best(self.step, self._facts(), report.top1)
        self.report, self.evaluated_step = report, self.step
        return report

    def _measured(self, split: str, evaluate: Callable[[], EvaluationReport]) -> EvaluationReport:
        """An evaluation of this step's weights, written down and told."""
        started, per_epoch = time.perf_counter(), self.engine.steps_per_epoch
        report = evaluate()
        speed = report.examples / max(time.perf_counter() - started, 1e-9)
        rate = self.engine.learning_rate(self.step - 1) if self.rate is None else self.rate
        epoch = self.step / per_epoch if self.step % per_epoch else self.step // per_epoch
        self._write(MetricsRow(self.step, epoch, split, report.loss, report.top1, report.top5, rate, speed))
        text = f"{split} loss {report.loss:.4f}, accuracy {report.top1:.2%} of {report.examples}"
        if self.progress is not None:
            self.progress.message(
                f"epoch {epoch}: {text}" if isinstance(epoch, int) else f"step {self.step}, epoch {epoch:.2f}: {text}"
            )
        return report

    def _measure_the_end(self) -> None:
        """The last rows, of steps that no row has told of yet, and evaluations of the last step's weights."""
        if self.sums.examples:
            self._write_train_row(self.step)
        if self.evaluated_step != self.step:
            best_step = self.best_step
            self._evaluate()  # in the middle of an epoch: nothing that a plateau counts
            if self.best_step != best_step:
                self.saved_step = -1
        if self.settings.validation is not None:
            self.report = self._measured("test", self.engine.evaluate_test)

    # --- checkpoints -------------------------------------------------------------------------------------

    def _time_to_save(self) -> bool:
        return time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds

    @property
    def _kept(self) -> str:
        where = f" in {self.directory.checkpoints}" if self.directory else ""
        return f"The last finite checkpoint is kept{where}"

    def _check_finite(self) -> None:
        if not self.engine.weights_are_finite():
            self.engine.fail(
                f"the weights are no longer finite after step {self.step}; they are not saved. {self._kept}: use a "
                "smaller --learning-rate"
            )

    def _save(self) -> None:
        self._check_finite()
        self.engine.save(self.step, self._facts())
        self.saved_step, self.saved_at, self.save_is_due = self.step, time.monotonic(), False

    def _facts(self) -> dict[str, Any]:
        """What `begin` needs besides the engine's state."""
        return {
            "epoch": self.step // self.engine.steps_per_epoch,
            "best": self.best if math.isfinite(self.best) else None,
            "best_step": self.best_step,
            "sums": asdict(self.sums),
            "flat_since": self.flat_since,
            "rate": self.rate,
            "data": self.identity,
        }

    # --- the end -----------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        kernel, report = self.engine.first_kernel(), self.report
        if self.directory is None or report is None:
            return
        path = self.directory.path
        complaint = pictures.draw(path, kernel, report)
        if complaint:
            self.engine.say(f"warning: {complaint}")
        where = "" if self.settings.validation is None else " on the validation images"
        self.engine.say(
            f"reached {report.top1:.2%} on {report.examples} test images after {self.step} steps (best "
            f"{self.best:.2%}{where}, step {self.best_step}); the run lies in {path}"
        )
