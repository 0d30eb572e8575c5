"""The bookkeeping of a training run, for any framework: what is counted, when it is evaluated and saved, when it ends.

A framework plugs in as an `Engine`: it computes, this loop decides, `RunLog` tells of it, and `Saving` keeps it. Steps
are counted when they are handed out (`step`), since the learning rate and the order of examples follow them. Where
steps run ahead of the host, their numbers are fetched one step later, so that a device never waits for the host, and
are counted then (`_account`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.run import length, pictures, steering
from alexnet_io.run.data_identity import refuse_other_data
from alexnet_io.run.directory import RunDirectory
from alexnet_io.run.engine import Engine, Step, Sums
from alexnet_io.run.epoch_record import Callback, EpochRecord, TrainingMeans
from alexnet_io.run.evaluation import EvaluationReport
from alexnet_io.run.flat_loss import watched
from alexnet_io.run.profiling import StepProfile
from alexnet_io.run.run_log import RunLog
from alexnet_io.run.saving import Saving
from alexnet_io.run.signals import Signals
from alexnet_io.run.state import RunState


@dataclass
class TrainingLoop:
    """A run in one of its processes.

    Args:
        engine: computes.
        settings: the run's.
        identity: which data these are, from `sources.fingerprint`.
        directory: where the first process writes; None in the others.
        signals: what asks the run to stop.
        callbacks: called at the end of each epoch, in every process.
    """

    engine: Engine
    settings: CompleteSettings
    identity: dict[str, Any]
    directory: RunDirectory | None
    signals: Signals
    callbacks: Sequence[Callback] = ()
    state: RunState = field(default_factory=RunState)
    log: RunLog = field(default_factory=RunLog)
    pending: Step | None = None
    report: EvaluationReport | None = None
    evaluated_step: int = -1
    stopped: int = 0  # the signal after which all processes stop
    profile: StepProfile = field(init=False)

    def __post_init__(self) -> None:
        self.saving = Saving(self.engine, self.identity, self.directory, self.settings.checkpoint_seconds)

    @property
    def last_step(self) -> int:
        """The step after which the run is over."""
        return length.last_step(self.settings, self.engine.steps_per_epoch)

    @property
    def out_of_patience(self) -> bool:
        """Whether the best evaluation lies as many epochs before this one as `--patience` tolerates."""
        state, patience, per_epoch = self.state, self.settings.patience, self.engine.steps_per_epoch
        if patience is None or not state.best_step or state.step % per_epoch:
            return False
        return self._evaluation_is_due(state.step // per_epoch) and state.step - state.best_step >= patience * per_epoch

    def go(self) -> int:
        """Train to the end or to a signal; returns the exit code: 0, or 128 + the signal.

        Raises:
            UserError: the loss or a weight is not finite, or a file can't be written.
        """
        with contextlib.ExitStack() as stack:
            self._open_files(stack)
            while self.state.step < self.last_step and not self.stopped and not self.out_of_patience:
                self._train_to_the_end_of_an_epoch()
            if not self.stopped:
                self._say_why_it_ends()
                self._measure_the_end()
            self.saving.catch_up(self.state)
        if self.stopped:
            where = self.directory.path if self.directory else ""
            self.engine.say(
                f"stopped by signal {self.stopped} after step {self.state.step}; go on with --resume --output {where}"
            )
            return 128 + self.stopped
        self._conclude()
        return 0

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
        step, facts = found
        self.state, self.saving.step = RunState.restored(step, facts), step
        changed = refuse_other_data(
            facts.get("data"), self.identity, self.state.step, self.engine.steps_per_epoch, self.settings.changed_data
        )
        if changed is not None:
            self.engine.say(changed.warning)
            if changed.other_steering_images:
                self.state.forget_best()
        if self.state.step >= self.last_step:
            last = f"beyond step {self.last_step}, the last asked for"
            if self.state.step == self.last_step:
                last = "its last one"
            self.engine.say(
                f"the run has already reached step {self.state.step}, {last}: raise --epochs or --steps to train on"
            )
        elif self.out_of_patience:
            self.engine.say(f"the run has stopped early, at step {self.state.step}: raise --patience to train on")

    def _open_files(self, stack: contextlib.ExitStack) -> None:
        state, last_step, traced = self.state, self.last_step, self.settings.profile if self.directory else None
        stack.enter_context(self.engine.saving(self.directory))
        self.profile = stack.enter_context(StepProfile(traced, self.engine.trace, state.step, last_step))
        if self.directory is not None:
            stack.enter_context(self.log.opened(self.directory, self.settings, self.engine, state.step, last_step))

    # --- steps -------------------------------------------------------------------------------------------

    def _train_to_the_end_of_an_epoch(self) -> None:
        """Train to the end of the epoch, of the run, or to a signal."""
        per_epoch = self.engine.steps_per_epoch
        self.log.meter.restart()
        for batch in self.engine.batches(self.state.step):
            self.profile.before(self.state.step)
            rate = self.engine.learning_rate(self.state.step)
            handle = self.engine.train(batch, self.state.step, rate)
            self.state.step += 1
            self._account_for_pending()
            self.pending = Step(self.state.step, batch, rate, handle)
            if not self.engine.runs_ahead:
                self._account_for_pending()
            if self.profile.is_over(self.state.step):
                self._end_profile()
            stop, self.saving.is_due = self.engine.agree(self.signals.received, self.saving.is_time())
            if self.state.step >= self.last_step:
                break
            if stop:
                self.stopped = stop
                break
            # At the end of an epoch the evaluation comes first: what is saved there knows its result.
            if self.saving.is_due and self.state.step % per_epoch:
                self._account_for_pending()
                self.saving.save(self.state)
        self._account_for_pending()
        if self.state.step % per_epoch == 0:
            self._end_epoch(self.state.step // per_epoch)

    def _account_for_pending(self) -> None:
        if self.pending is not None:
            done, self.pending = self.pending, None
            self._account(done)

    def _account(self, done: Step) -> None:
        """Count one finished step; stop the run if its loss is not finite."""
        sums = self.engine.fetch(done.handle)
        loss = sums.loss / sums.examples
        if not math.isfinite(loss):
            ids = done.batch.ids[done.batch.weights > 0][:8].tolist()
            self.engine.fail(
                f"the loss became {loss} at step {done.number} (images {ids}...). {self.saving.kept}: go on from it "
                "with a smaller --learning-rate in a new run"
            )
        self.state.rate, self.state.sums = done.rate, self.state.sums + sums
        self.state.epoch_sums += sums
        self.state.flat_since, warning = watched(self.state.flat_since, done.number, loss, self.identity["classes"])
        if warning:
            self.log.message(warning)
        per_epoch = self.engine.steps_per_epoch
        self.log.step(done.number, done.number / per_epoch, sums)
        if done.number % self.settings.log_every == 0 or done.number % per_epoch == 0:
            self._write_train_row(done.number)

    def _write_train_row(self, step: int) -> None:
        sums, self.state.sums = self.state.sums, Sums()
        self.log.training(step, step / self.engine.steps_per_epoch, sums, self.state.rate)

    def _end_profile(self) -> None:
        """Wait for the last step that is traced, and write the trace."""
        self._account_for_pending()
        self.profile.close()
        first, last = self.profile.first + 1, self.profile.last
        self.engine.say(f"steps {first} to {last} are traced in {self.settings.profile}")

    def _evaluation_is_due(self, epoch: int) -> bool:
        # A plateau counts epochs, so it sees each of them.
        due = epoch % self.settings.evaluate_every == 0 or self.state.step >= self.last_step
        return due or self.settings.schedule == "plateau"

    def _end_epoch(self, epoch: int) -> None:
        sums, self.state.epoch_sums, report = self.state.epoch_sums, Sums(), None
        if self._evaluation_is_due(epoch):
            report = self._evaluate()
            self.engine.count_error(1 - report.top1)
        if self.saving.is_due:
            self.saving.save(self.state)
        if self.callbacks:
            self._call_back(epoch, sums, report)

    def _call_back(self, epoch: int, sums: Sums, report: EvaluationReport | None) -> None:
        """Tell of a finished epoch; what the user's own code raises ends the run, which is saved first."""
        state = self.state
        record = EpochRecord(
            epoch=epoch,
            step=state.step,
            last_step=self.last_step,
            learning_rate=self._last_rate,
            train=TrainingMeans.of(sums),
            split=steering.split_of(self.settings),
            evaluation=report,
            best=state.known_best,
            best_step=state.best_step,
            images_per_second=self.log.meter.speed,
            directory=None if self.directory is None else self.directory.path,
        )
        try:
            for callback in self.callbacks:
                callback(record)
        except Exception:
            self.saving.catch_up(state)
            raise

    # --- evaluation --------------------------------------------------------------------------------------

    def _evaluate(self) -> EvaluationReport:
        """Measure the weights of this step on the images that steer, and keep them if they are the best so far."""
        report = self._measured(steering.split_of(self.settings), self.engine.evaluate)
        if report.top1 > self.state.best:
            self.state.best, self.state.best_step = report.top1, self.state.step
            self.saving.save_best(self.state)
        self.report, self.evaluated_step = report, self.state.step
        return report

    def _measured(self, split: str, evaluate: Callable[[], EvaluationReport]) -> EvaluationReport:
        """An evaluation of this step's weights, written down and told."""
        began, step, per_epoch = time.perf_counter(), self.state.step, self.engine.steps_per_epoch
        report = evaluate()
        epoch = step / per_epoch if step % per_epoch else step // per_epoch
        self.log.evaluation(step, epoch, split, report, self._last_rate, time.perf_counter() - began)
        return report

    @property
    def _last_rate(self) -> float:
        """Of the last step; by its schedule where a checkpoint of an older program doesn't say."""
        return self.engine.learning_rate(self.state.step - 1) if self.state.rate is None else self.state.rate

    def _say_why_it_ends(self) -> None:
        state = self.state
        if state.step < self.last_step:
            epoch, patience = state.step // self.engine.steps_per_epoch, self.settings.patience
            self.engine.say(
                f"stopped early after epoch {epoch}: the best accuracy on the {steering.split_of(self.settings)} "
                f"images, {state.best:.2%} at step {state.best_step}, is --patience {patience} epoch(s) old"
            )

    def _measure_the_end(self) -> None:
        """The last rows, of steps that no row has told of yet, and evaluations of the last step's weights."""
        if self.state.sums.examples:
            self._write_train_row(self.state.step)
        if self.evaluated_step != self.state.step:
            best_step = self.state.best_step
            self._evaluate()  # in the middle of an epoch: nothing that a plateau counts
            if self.state.best_step != best_step:
                self.saving.forget()
        if self.settings.validation is not None:
            self.report = self._measured("test", self.engine.evaluate_test)

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
            f"reached {report.top1:.2%} on {report.examples} test images after {self.state.step} steps (best "
            f"{self.state.best:.2%}{where}, step {self.state.best_step}); the run lies in {path}"
        )
