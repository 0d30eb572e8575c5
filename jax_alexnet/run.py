"""A run in progress: epochs, metrics, evaluations, checkpoints, and the pictures at the end."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from alexnet_io.batches import Batch as HostBatch
from alexnet_io.batches import batches
from alexnet_io.errors import UserError
from alexnet_io.evaluation import EvaluationReport
from alexnet_io.flat_loss import watched
from alexnet_io.metrics import MetricsRow
from alexnet_io.run_directory import CHECKPOINTS, RunDirectory
from alexnet_io.signals import Signals
from jax_alexnet import checkpoint, pictures, steps
from jax_alexnet.evaluation import evaluate_split
from jax_alexnet.run_files import Agreement, RunFiles
from jax_alexnet.schedules import learning_rate, plateau_for
from jax_alexnet.setup import Setup


def order(setup: Setup, epoch: int, start_step: int) -> Iterator[HostBatch]:
    """Batches of an epoch from its step `start_step` on, in the order that seed and epoch decide."""
    settings = setup.settings
    return batches(
        setup.data.train,
        batch_size=setup.batch_size,
        seed=settings.seed,
        epoch=epoch,
        shuffle=True,
        start_step=start_step,
        process_index=setup.share[0],
        process_count=setup.share[1],
    )


@dataclass
class _Sums:
    """Training metrics since the last row, in float64 and in the order of the steps."""

    loss: float = 0.0
    top1: float = 0.0
    top5: float = 0.0
    examples: float = 0.0

    def add(self, metrics: steps.Metrics) -> None:
        for name in ("loss", "top1", "top5", "examples"):
            setattr(self, name, getattr(self, name) + float(getattr(metrics, name)))


@dataclass
class Run:
    """The state of a run on the host; `directory` is None in all processes but the first."""

    setup: Setup
    directory: RunDirectory | None
    signals: Signals
    epoch: int = 0
    step: int = 0
    best: float = -math.inf
    best_step: int = 0
    sums: _Sums = field(default_factory=_Sums)
    last_report: EvaluationReport | None = None
    saved_at: float = field(default_factory=time.monotonic)
    flat_since: int | None = None
    stopped: int = 0  # the signal after which all processes stop
    save_is_due: bool = False

    def go(self) -> int:
        """Train to the end or to a signal."""
        settings = self.setup.settings
        self.plateau = plateau_for(settings)
        state = self._restored() if settings.resume else self.setup.new_state()
        epochs = settings.epochs or 1
        self.agreement = Agreement(self.setup.mesh, self.setup.processes.count)
        with RunFiles(
            self.directory,
            resume_step=self.step if settings.resume else None,
            tensorboard=settings.tensorboard,
            last_step=self._last_step(epochs),
            start=self.step,
        ) as self.files:
            while self.epoch < epochs and not self._finished() and not self.stopped:
                state = self._one_epoch(state)
            if self.stopped or self.saved_step != self.step:
                self._save(state)
            self.files.saver.wait()
            self.files.best_saver.wait()
        if self.stopped:
            where = self.directory.path if self.directory else ""
            self.setup.processes.say(
                f"stopped by signal {self.stopped} after step {self.step}; go on with --resume --output {where}"
            )
            return 128 + self.stopped
        self._finish(state)
        return 0

    def _one_epoch(self, state: steps.TrainState) -> steps.TrainState:
        per_epoch = self.setup.steps_per_epoch
        self.clock, self.timed_images = time.perf_counter(), 0
        pending: tuple[steps.Metrics, HostBatch, float] | None = None
        for batch in order(self.setup, self.epoch, self.step - self.epoch * per_epoch):
            rate = learning_rate(self.setup.settings, self.epoch, self.step, self.plateau)
            state, metrics = self.setup.train_step(
                state, self.setup.on_devices(batch), jnp.asarray(rate), self.setup.key, self.setup.statistics
            )
            # The numbers of the step before are fetched only now, so that the device never waits for the host.
            if pending:
                self._account(*pending)
            pending = (metrics, batch, rate)
            self.stopped, self.save_is_due = self.agreement.exchange(self.signals.received, self._time_to_save())
            if self.stopped or self._finished(ahead=1) or self.save_is_due:
                self._account(*pending)
                pending = None
                if self.stopped or self._finished():
                    break
                self._save(state)
        if pending:
            self._account(*pending)
        if self.step >= (self.epoch + 1) * per_epoch:
            self.epoch += 1
            self._end_of_epoch(state)
        return state

    def _account(self, metrics: steps.Metrics, batch: HostBatch, rate: float) -> None:
        """Count one finished step; stop the run if its loss is not finite."""
        metrics = jax.device_get(metrics)
        self.step += 1
        loss = float(metrics.loss) / float(metrics.examples)
        if not math.isfinite(loss):
            ids = batch.ids[batch.weights > 0][:8].tolist()
            raise UserError(
                f"the loss became {loss} at step {self.step} (images {ids}...). The last finite checkpoint is "
                f"kept in {self._kept}: go on from it with a smaller --learning-rate in a new run"
            )
        self.flat_since, warning = watched(self.flat_since, self.step, loss, len(self.setup.data.class_names))
        if warning:
            self.files.progress.message(warning)
        self.sums.add(metrics)
        self.timed_images += int(metrics.examples)
        speed = self.timed_images / max(time.perf_counter() - self.clock, 1e-9)
        fraction = self.step / self.setup.steps_per_epoch
        accuracy = float(metrics.top1) / float(metrics.examples)
        self.files.progress.update(self.step, epoch=fraction, loss=loss, top1=accuracy, images_per_second=speed)
        if self.step % self.setup.settings.log_every == 0 or self.step % self.setup.steps_per_epoch == 0:
            sums, self.sums = self.sums, _Sums()
            n = sums.examples
            self.files.writer.write(
                MetricsRow(self.step, fraction, "train", sums.loss / n, sums.top1 / n, sums.top5 / n, rate, speed)
            )
            self.clock, self.timed_images = time.perf_counter(), 0

    def _end_of_epoch(self, state: steps.TrainState) -> None:
        settings = self.setup.settings
        last = self.epoch >= (settings.epochs or 1) or self._finished()
        if self.epoch % settings.evaluate_every and not last and settings.schedule != "plateau":
            return
        started = time.perf_counter()
        report = evaluate_split(self.setup.evaluable(state.params), self.setup.data.test)
        self.last_report = report
        speed = report.examples / max(time.perf_counter() - started, 1e-9)
        rate = learning_rate(settings, max(self.epoch - 1, 0), self.step - 1, self.plateau)
        self.files.writer.write(
            MetricsRow(self.step, self.epoch, "test", report.loss, report.top1, report.top5, rate, speed)
        )
        self.files.progress.message(
            f"epoch {self.epoch}: test loss {report.loss:.4f}, accuracy {report.top1:.2%} of {report.examples}"
        )
        if self.plateau is not None:
            self.plateau.update(1 - report.top1)
        if report.top1 > self.best:
            self.best, self.best_step = report.top1, self.step
            # Weights alone: a third of the state, and all that evaluation and prediction need.
            self._check_finite(state)
            weights = {"params": self.setup.layout.whole(state.params)}
            self.files.best_saver.save(self.step, weights, self._metadata(), metric=report.top1)
        alone = self.setup.processes.count == 1
        if last or (self._time_to_save() if alone else self.save_is_due):
            self._save(state)

    def _finished(self, ahead: int = 0) -> bool:
        limit = self.setup.settings.steps
        return limit is not None and self.step + ahead >= limit

    def _time_to_save(self) -> bool:
        return time.monotonic() - self.saved_at >= self.setup.settings.checkpoint_seconds

    def _last_step(self, epochs: int) -> int:
        total = epochs * self.setup.steps_per_epoch
        return min(total, self.setup.settings.steps or total)

    # --- checkpoints -------------------------------------------------------------------------------------

    saved_step: int = -1

    @property
    def _kept(self) -> str:
        return str(self.directory.checkpoints) if self.directory else "the run's directory"

    def _check_finite(self, state: steps.TrainState) -> None:
        if not bool(_all_finite(state.params)):
            raise UserError(
                f"the weights are no longer finite after step {self.step}; they are not saved, and the last finite "
                f"checkpoint is kept in {self._kept}: use a smaller --learning-rate"
            )

    def _save(self, state: steps.TrainState) -> None:
        self._check_finite(state)
        self.files.saver.save(self.step, self.setup.layout.whole(state)._asdict(), self._metadata())
        self.saved_step, self.saved_at, self.save_is_due = self.step, time.monotonic(), False

    def _metadata(self) -> dict[str, Any]:
        return {
            **identity(self.setup),
            "epoch": self.epoch,
            "best": self.best if math.isfinite(self.best) else None,
            "best_step": self.best_step,
            "plateau": self.plateau.state() if self.plateau else None,
            "sums": vars(self.sums),
            "flat_since": self.flat_since,
        }

    def _restored(self) -> steps.TrainState:
        found = self._newest()
        if found is None:
            self.setup.processes.say("no checkpoint was finished: the run starts from its first step")
            return self.setup.new_state()
        facts = found.metadata
        self.step, self.epoch = found.step, facts["epoch"]
        self.best = -math.inf if facts["best"] is None else facts["best"]
        self.best_step, self.flat_since = facts["best_step"], facts["flat_since"]
        self.sums = _Sums(**facts["sums"])
        self.saved_step = found.step
        if self.plateau is not None:
            self.plateau.restore(facts["plateau"])
        self.setup.processes.say(f"resumed after step {found.step} from {found.path}")
        return self.setup.layout.place(steps.TrainState(**found.state))

    def _newest(self) -> checkpoint.Restored[dict[str, Any]] | None:
        """The newest intact checkpoint: the first process finds it, the others read the same."""
        setup, found = self.setup, None
        template, expected = setup.state_shapes()._asdict(), identity(setup)
        if self.directory is not None:
            found = checkpoint.restore_newest(
                self.directory.checkpoints, template, expected=expected, strict=setup.settings.strict_resume
            )
        step = setup.processes.from_first(-1 if found is None else found.step)
        if self.directory is None and step >= 0:
            assert setup.settings.output is not None
            path = setup.settings.output / CHECKPOINTS / f"step_{step:08d}"
            found = checkpoint.restore(path, template, expected=expected)
        return found

    # --- the end -----------------------------------------------------------------------------------------

    def _finish(self, state: steps.TrainState) -> None:
        report = self.last_report or evaluate_split(self.setup.evaluable(state.params), self.setup.data.test)
        params = self.setup.layout.whole(state.params)
        if self.directory is None:
            return
        pictures.draw(self.directory.path, params, report)
        best = max(self.best, report.top1)
        self.setup.processes.say(
            f"reached {report.top1:.2%} on {report.examples} test images after {self.step} steps (best {best:.2%}, "
            f"step {self.best_step or self.step}); the run lies in {self.directory.path}"
        )


@jax.jit
def _all_finite(params: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))


def identity(setup: Setup) -> dict[str, Any]:
    """What a checkpoint must share with the run that restores it."""
    settings = setup.settings
    return {
        "model": settings.model,
        "classes": len(setup.data.class_names),
        "class_names": list(setup.data.class_names),
        "optimizer": settings.optimizer,
        "image_size": settings.image_size,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "precision": settings.precision,
        "span_columns": settings.span_columns,
    }
