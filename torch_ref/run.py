"""A run in progress: epochs, metrics, evaluations, checkpoints, and the pictures at the end."""

import contextlib
import math
import time
from dataclasses import dataclass, field

import torch

from alexnet_io import plots
from alexnet_io.errors import UserError
from alexnet_io.evaluation import EvaluationReport
from alexnet_io.flat_loss import watched
from alexnet_io.metrics import MetricsRow, MetricsWriter, read_metrics
from alexnet_io.progress import Progress
from alexnet_io.run_directory import RunDirectory
from alexnet_io.signals import Signals
from torch_ref import checkpoint
from torch_ref.setup import Setup
from torch_ref.steps import evaluate, train_step

WEIGHTS = "best/weights.safetensors"


@dataclass
class Run:
    """The state of a run in one process.

    Args:
        setup: the run's.
        directory: where process 0 writes; None in the others.
        signals: what asks the run to stop.
    """

    setup: Setup
    directory: RunDirectory | None
    signals: Signals
    step: int = 0
    best: float = -1.0
    best_step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)  # loss, top-1, top-5, examples since the last row
    flat_since: int | None = None
    report: EvaluationReport | None = None
    saved_step: int = -1
    saved_at: float = field(default_factory=time.monotonic)
    writer: MetricsWriter | None = None
    progress: Progress | None = None

    @property
    def last_step(self) -> int:
        """The step after which the run is over."""
        settings = self.setup.settings
        total = (settings.epochs or 1) * self.setup.steps_per_epoch
        return min(total, settings.steps or total)

    @property
    def rate(self) -> float:
        """The learning rate of the weights: conv1's, which have no multiplier."""
        return float(self.setup.optimizer.param_groups[0]["lr"])

    def go(self) -> int:
        """Train to the end or to a signal; returns the exit code."""
        settings, stopped = self.setup.settings, 0
        if settings.resume:
            self._restore()
        with contextlib.ExitStack() as stack:
            if self.directory is not None:
                resume_step = self.step if settings.resume else None
                writer = MetricsWriter(self.directory.path, resume_step=resume_step, tensorboard=settings.tensorboard)
                self.writer = stack.enter_context(writer)
                self.progress = stack.enter_context(Progress(self.last_step, start=self.step))
            while self.step < self.last_step and not stopped:
                stopped = self._one_epoch()
            if self.saved_step != self.step:
                self._save()
        if stopped:
            where = self.directory.path if self.directory else ""
            self.setup.group.say(
                f"stopped by signal {stopped} after step {self.step}; go on with --resume --output {where}"
            )
            return 128 + stopped
        self._finish()
        return 0

    def _one_epoch(self) -> int:
        """Train to the end of the epoch; returns the signal that ended it before, or 0."""
        self.clock, self.timed_images, stopped = time.perf_counter(), 0.0, 0
        self.report = None
        for batch in self.setup.order(self.step):
            sums = train_step(self.setup, batch, self.step, self.signals.received)
            self.step += 1
            self._account(sums)
            if sums[4] and self.step < self.last_step:
                # Other processes may have had the signal when this one had not; they all stop after the same step.
                stopped = int(max(self.setup.group.gather(self.signals.received)))
                break
            if self.step >= self.last_step:
                break
            if self.step % self.setup.steps_per_epoch and self._save_is_due():
                self._save()
        if self.step % self.setup.steps_per_epoch == 0:
            self._end_of_epoch(self.step // self.setup.steps_per_epoch)
        return stopped

    def _account(self, sums: list[float]) -> None:
        """Count one finished step; stop the run if its loss is not finite."""
        if not math.isfinite(sums[0]):
            self.setup.group.fail(
                f"the loss became {sums[0]} at step {self.step}. The last finite checkpoint is kept: go on from it "
                "with a smaller --learning-rate in a new run"
            )
        self.sums = [before + now for before, now in zip(self.sums, sums[:4], strict=True)]
        self.timed_images += sums[3]
        speed = self.timed_images / max(time.perf_counter() - self.clock, 1e-9)
        per_epoch = self.setup.steps_per_epoch
        if self.progress is not None:
            self.progress.update(self.step, epoch=self.step / per_epoch, loss=sums[0] / sums[3],
                                 top1=sums[1] / sums[3], images_per_second=speed)  # fmt: skip
        classes = len(self.setup.data.class_names)
        self.flat_since, warning = watched(self.flat_since, self.step, sums[0] / sums[3], classes)
        if warning and self.progress is not None:
            self.progress.message(warning)
        if self.step % self.setup.settings.log_every == 0 or self.step % per_epoch == 0:
            loss, top1, top5, examples = self.sums
            self._write("train", self.step / per_epoch, (loss / examples, top1 / examples, top5 / examples), speed)
            self.sums, self.clock, self.timed_images = [0.0] * 4, time.perf_counter(), 0.0

    def _write(self, split: str, epoch: float, values: tuple[float, float, float], speed: float) -> None:
        if self.writer is not None:
            self.writer.write(MetricsRow(self.step, epoch, split, *values, self.rate, speed))

    def _end_of_epoch(self, epoch: int) -> None:
        last, plateau = self.step >= self.last_step, self.setup.plateau
        if epoch % self.setup.settings.evaluate_every and not last and plateau is None:
            return
        started = time.perf_counter()
        report = self.report = evaluate(self.setup, self.setup.data.test)
        speed = report.examples / max(time.perf_counter() - started, 1e-9)
        self._write("test", epoch, (report.loss, report.top1, report.top5), speed)
        if self.progress is not None:
            self.progress.message(
                f"epoch {epoch}: test loss {report.loss:.4f}, accuracy {report.top1:.2%} of {report.examples}"
            )
        if plateau is not None:
            plateau.step(1 - report.top1)
        if report.top1 > self.best:
            self.best, self.best_step = report.top1, self.step
            self._save_best()
        if last or self._save_is_due():
            self._save()

    # --- checkpoints -------------------------------------------------------------------------------------

    def _save_is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.setup.settings.checkpoint_seconds

    def _check_finite(self) -> None:
        if not all(bool(torch.isfinite(value).all()) for value in self.setup.network.state_dict().values()):
            self.setup.group.fail(
                f"the weights are no longer finite after step {self.step}; they are not saved, and the last finite "
                "checkpoint is kept: use a smaller --learning-rate"
            )

    def _save_best(self) -> None:
        """Weights alone: all that evaluation needs."""
        self._check_finite()
        settings = self.setup.settings
        if self.directory is not None:
            checkpoint.save_weights(self.directory.path / WEIGHTS, self.setup.network, model=settings.model,
                                    image_size=settings.image_size or 0, step=self.step, top1=self.best)  # fmt: skip

    def _save(self) -> None:
        self._check_finite()
        self.saved_step, self.saved_at = self.step, time.monotonic()
        if self.directory is None:
            return
        names = ("best", "best_step", "sums", "flat_since")
        content = {
            "model": self.setup.settings.model,
            "class_names": list(self.setup.data.class_names),
            "state_dict": self.setup.network.state_dict(),
            "optimizer": self.setup.optimizer.state_dict(),
            "plateau": self.setup.plateau.state_dict() if self.setup.plateau else None,
            "progress": {name: getattr(self, name) for name in names},
        }
        checkpoint.save(self.directory.checkpoints, self.step, content)

    def _restore(self) -> None:
        setup, content, wrong = self.setup, None, None
        try:
            if self.directory is not None:
                strict = setup.settings.strict_resume
                content = checkpoint.load_newest(self.directory.checkpoints, strict=strict)
        except UserError as error:
            wrong = str(error)
        content, wrong = setup.group.from_first((content, wrong))
        if content is not None and content["class_names"] != list(setup.data.class_names):
            wrong = "the data has other classes than the run's checkpoint: pass the run's own --data"
        if wrong:
            setup.group.fail(wrong)
        if content is None:
            setup.group.say("no checkpoint was finished: the run starts from its first step")
            return
        setup.network.load_state_dict(content["state_dict"])
        setup.optimizer.load_state_dict(content["optimizer"])
        if setup.plateau is not None:
            setup.plateau.load_state_dict(content["plateau"])
        self.step = self.saved_step = content["step"]
        for name, value in content["progress"].items():
            setattr(self, name, value)
        if self.directory is not None:
            print(f"resumed after step {self.step} from {self.directory.checkpoints}", flush=True)

    # --- the end -----------------------------------------------------------------------------------------

    def _finish(self) -> None:
        report = self.report or evaluate(self.setup, self.setup.data.test)
        if self.directory is None:
            return
        path = self.directory.path
        kernel = self.setup.network.get_parameter("conv1.weight").detach().float().cpu().numpy()
        plots.draw_curves(read_metrics(path), path / "curves.png")
        plots.draw_filters(kernel.transpose(2, 3, 1, 0), path / "filters.png")
        plots.draw_confusion(report.confusion, list(report.per_class), path / "confusion.png")
        print(
            f"reached {report.top1:.2%} on {report.examples} test images after {self.step} steps (best "
            f"{max(self.best, report.top1):.2%}, step {self.best_step or self.step}); the run lies in {path}",
            flush=True,
        )
