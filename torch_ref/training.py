"""What `python -m torch_ref.train` does with completed settings: a plain training loop, on one device or under DDP."""

import contextlib
import math
import signal
import time
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_io import plots
from alexnet_io.batches import Batch, batches, steps_in_epoch
from alexnet_io.errors import UserError
from alexnet_io.evaluation import Evaluation, EvaluationReport
from alexnet_io.image_statistics import training_statistics
from alexnet_io.metrics import MetricsRow, MetricsWriter, read_metrics
from alexnet_io.progress import Progress
from alexnet_io.run_directory import RunDirectory, new_default_directory
from alexnet_io.settings import as_yaml
from alexnet_io.sources import DataSet, Split, open_source
from alexnet_io.train_settings import TrainSettings, plain
from torch_ref import augment, checkpoint
from torch_ref.alexnet import build
from torch_ref.completion import recipe_of, schedule_of
from torch_ref.initialization import initialize
from torch_ref.layers import Dropout
from torch_ref.optim import build_optimizer, set_learning_rate
from torch_ref.processes import Processes, processes, set_precision
from torch_ref.schedules import Plateau, learning_rate, plateau

EVALUATION_BATCH = 128
STATISTICS, WEIGHTS = "statistics.safetensors", "best/weights.safetensors"


def train(settings: TrainSettings) -> int:
    """Run completed settings; returns the exit code (0, or 128 + the signal that stopped it).

    Raises:
        UserError: something the user can mend; what was saved stays.
    """
    with processes(settings.devices, settings.batch_size or 1) as group:
        trainer = Trainer(settings, group)
        group.say(trainer.headline)
        if settings.dry_run:
            batch = next(iter(trainer.order()))
            sums = trainer.train_step(batch)
            group.say(f"dry run: one step built and run, loss {sums[0] / sums[3]:.4f}; nothing written")
            return 0
        if not group.first:
            return trainer.run(None)
        where = settings.output or new_default_directory(settings.model, settings.data)
        with RunDirectory(where, resume=settings.resume) as directory:
            if not settings.resume:
                trainer.describe(directory)
            return trainer.run(directory)


class Trainer:
    """Data, network, optimizer, and how far they have come.

    Args:
        settings: completed.
        group: the run's processes.
    """

    def __init__(self, settings: TrainSettings, group: Processes) -> None:
        self.settings, self.group = settings, group
        dtype = set_precision(settings.precision)
        with group.first_one_first():
            self.data = _open_data(settings, group)
            measured = training_statistics(self.data.train) if augment.needs_statistics(settings) else None
        self.arrays = augment.statistics_for(settings, measured)
        self.statistics = {
            name: torch.from_numpy(value).to(group.device).to(dtype)
            for name, value in {**self.arrays, "zero": np.zeros((), np.float32)}.items()
        }
        self.network, self.generator = _network(settings, len(self.data.class_names), group.device, dtype)
        self.trained = group.mean_gradients_equal(self.network)
        self.optimizer = build_optimizer(self.network, recipe_of(settings))
        self.schedule = schedule_of(settings)
        self.plateau = plateau(self.schedule, self.optimizer) if isinstance(self.schedule, Plateau) else None
        self.batch_size, self.steps_per_epoch = (
            settings.batch_size or 1,
            steps_in_epoch(len(self.data.train), settings.batch_size or 1),
        )
        total = (settings.epochs or 1) * self.steps_per_epoch
        self.last_step = min(total, settings.steps or total)
        self.step, self.rate = 0, settings.learning_rate or 0.0
        self.best, self.best_step, self.saved_step, self.saved_at = -1.0, 0, -1, time.monotonic()
        self.sums = [0.0] * 4  # loss, top-1, top-5, examples since the last row
        self.stop_signal = 0
        self.report: EvaluationReport | None = None

    @property
    def headline(self) -> str:
        """What is about to run, in a line."""
        settings, data, group = self.settings, self.data, self.group
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return (
            f"{settings.model}, {parameters:,} parameters, recipe {settings.recipe}, {settings.precision}; "
            f"{len(data.train):,} training and {len(data.test):,} test images in {len(data.class_names)} classes at "
            f"{settings.image_size} pixels; batches of {self.batch_size} on {group.count} {group.device.type} device(s)"
        )

    def describe(self, directory: RunDirectory) -> None:
        """Write what the run is, and the normalisation's arrays."""
        settings = self.settings
        directory.describe(
            model=settings.model,
            class_names=list(self.data.class_names),
            normalisation={"normalize": settings.normalize},
            settings=plain(settings),
            settings_yaml=as_yaml(settings),
            framework="torch_ref",
        )
        if self.arrays:
            from safetensors.numpy import save_file

            save_file(self.arrays, directory.path / STATISTICS)

    def order(self) -> Any:
        """This process's share of the batches that are left of the epoch."""
        return batches(
            self.data.train,
            batch_size=self.batch_size,
            seed=self.settings.seed,
            epoch=self.step // self.steps_per_epoch,
            shuffle=True,
            start_step=self.step % self.steps_per_epoch,
            process_index=self.group.rank,
            process_count=self.group.count,
            loader="threads",
        )

    # --- one step ------------------------------------------------------------------------------------------

    def train_step(self, batch: Batch) -> list[float]:
        """Update the weights with one global batch, of which this process has its share.

        Returns:
            Over all processes: summed loss, top-1 and top-5 hits, examples, and whether a signal came.
        """
        settings, count = self.settings, len(batch.labels)
        if self.plateau is None:
            epoch = self.step // self.steps_per_epoch
            self.rate = learning_rate(self.schedule, settings.learning_rate or 0.0, epoch=epoch, step=self.step)
            set_learning_rate(self.optimizer, self.rate)
        key = np.random.SeedSequence([settings.seed, self.step, self.group.rank]).generate_state(1, np.uint64)
        self.generator.manual_seed(int(key[0] >> np.uint64(1)))
        stored = batch.images.shape[1], batch.images.shape[2]
        draws = augment.draw(settings, self.step, self.group.rank * count, count, stored)
        labels = torch.from_numpy(batch.labels).long().to(self.group.device)
        weights = torch.from_numpy(batch.weights).to(self.group.device).to(self.statistics["zero"].dtype)

        self.trained.train()
        self.optimizer.zero_grad()
        losses, logits = self._losses(self.trained, augment.network_input(batch.images, draws, settings,
                                                                           self.statistics), labels)  # fmt: skip
        total = (losses * weights).sum()
        # DDP averages the processes' gradients; times their number over the real examples of the whole batch, that
        # is the gradient of the mean loss over these.
        (total * (self.group.count / self._real_examples())).backward()
        self.optimizer.step()
        hits = _hits(logits.detach(), labels)
        found = [total.detach(), *((hit * weights).sum() for hit in hits), weights.sum()]
        return self.group.add_up([*(float(value) for value in found), float(self.stop_signal)])

    def _losses(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each example, and the logits; both at least float32."""
        half = self.settings.precision == "bfloat16"
        with torch.autocast(self.group.device.type, torch.bfloat16) if half else contextlib.nullcontext():
            logits = network(images)
        logits = logits.float() if half else logits
        return F.cross_entropy(logits, labels, reduction="none"), logits

    def _real_examples(self) -> int:
        done = self.step % self.steps_per_epoch * self.batch_size
        return min(self.batch_size, len(self.data.train) - done)

    # --- the run -------------------------------------------------------------------------------------------

    def run(self, directory: RunDirectory | None) -> int:
        """Train to the end or to a signal; `directory` is None in all processes but the first."""
        self.directory = directory
        if self.settings.resume:
            self._restore()
        stopped = 0
        with contextlib.ExitStack() as stack:
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, number, signal.signal(number, self._note_signal))
            self.writer = self.progress = None
            if directory is not None:
                resume_step = self.step if self.settings.resume else None
                self.writer = stack.enter_context(
                    MetricsWriter(directory.path, resume_step=resume_step, tensorboard=self.settings.tensorboard)
                )
                self.progress = stack.enter_context(Progress(self.last_step, start=self.step))
            while self.step < self.last_step and not stopped:
                stopped = self._one_epoch()
            if self.saved_step != self.step:
                self._save()
        if stopped:
            if self.directory is not None:
                print(f"stopped by signal {stopped} after step {self.step}; go on with --resume --output "
                      f"{self.directory.path}", flush=True)  # fmt: skip
            return 128 + stopped
        self._finish()
        return 0

    def _note_signal(self, number: int, _: FrameType | None) -> None:
        if self.stop_signal:  # a second one ends at once
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.stop_signal = number

    def _one_epoch(self) -> int:
        """Train to the end of the epoch; returns the signal that ended it before, or 0."""
        clock, images, stopped = time.perf_counter(), 0.0, 0
        self.report = None
        for batch in self.order():
            sums = self.train_step(batch)
            self.step += 1
            if not math.isfinite(sums[0]):
                raise UserError(
                    f"the loss became {sums[0]} at step {self.step}. The last finite checkpoint is kept: go on from "
                    "it with a smaller --learning-rate in a new run"
                )
            self.sums = [before + now for before, now in zip(self.sums, sums[:4], strict=True)]
            images += sums[3]
            speed = images / max(time.perf_counter() - clock, 1e-9)
            fraction = self.step / self.steps_per_epoch
            if self.progress is not None:
                self.progress.update(self.step, epoch=fraction, loss=sums[0] / sums[3], top1=sums[1] / sums[3],
                                     images_per_second=speed)  # fmt: skip
            if self.step % self.settings.log_every == 0 or self.step % self.steps_per_epoch == 0:
                loss, top1, top5, examples = self.sums
                row = MetricsRow(self.step, fraction, "train", loss / examples, top1 / examples, top5 / examples,
                                 self.rate, speed)  # fmt: skip
                if self.writer is not None:
                    self.writer.write(row)
                self.sums, clock, images = [0.0] * 4, time.perf_counter(), 0.0
            if sums[4] and self.step < self.last_step:
                # Other processes may have had the signal when this one had not; they all stop after the same step.
                stopped = int(max(self.group.gather(self.stop_signal)))
                break
            if self.step % self.steps_per_epoch and self._save_is_due():
                self._save()
            if self.step >= self.last_step:
                break
        if self.step % self.steps_per_epoch == 0:
            self._end_of_epoch(self.step // self.steps_per_epoch)
        return stopped

    def _end_of_epoch(self, epoch: int) -> None:
        last = self.step >= self.last_step
        if epoch % self.settings.evaluate_every and not last and self.plateau is None:
            return
        started = time.perf_counter()
        report = self.report = self.evaluate(self.data.test)
        speed = report.examples / max(time.perf_counter() - started, 1e-9)
        rate = self.rate
        if self.plateau is not None:
            self.plateau.step(1 - report.top1)
            self.rate = float(self.optimizer.param_groups[0]["lr"])  # conv1's weights: no multiplier
        improved = report.top1 > self.best
        if improved:
            self.best, self.best_step = report.top1, self.step
        if self.directory is not None and self.writer is not None and self.progress is not None:
            self.writer.write(MetricsRow(self.step, epoch, "test", report.loss, report.top1, report.top5, rate, speed))
            self.progress.message(
                f"epoch {epoch}: test loss {report.loss:.4f}, accuracy {report.top1:.2%} of {report.examples}"
            )
            if improved:
                checkpoint.save_weights(
                    self.directory.path / WEIGHTS, self.network, model=self.settings.model,
                    image_size=self.settings.image_size or 0, step=self.step, top1=report.top1,
                )  # fmt: skip
        if last or self._save_is_due():
            self._save()

    @torch.no_grad()
    def evaluate(self, split: Split) -> EvaluationReport:
        """Count every image of `split` once, over all processes."""
        counts, count = Evaluation(self.data.class_names), self.group.count
        self.network.eval()
        for batch in batches(split, batch_size=-(-EVALUATION_BATCH // count) * count, loader="threads",
                             process_index=self.group.rank, process_count=count):  # fmt: skip
            images = augment.network_input(batch.images, None, self.settings, self.statistics)
            labels = torch.from_numpy(batch.labels).long().to(self.group.device)
            counts.add(self._losses(self.network, images, labels)[1].cpu().numpy(), batch.labels, batch.weights)
        whole = Evaluation(self.data.class_names)
        for arrays in self.group.gather(counts.to_arrays()):
            whole.merge(Evaluation.from_arrays(self.data.class_names, arrays))
        return whole.report()

    # --- checkpoints and the end ---------------------------------------------------------------------------

    def _save_is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds

    def _save(self) -> None:
        self.saved_step, self.saved_at = self.step, time.monotonic()
        if self.directory is None:
            return
        if not all(bool(torch.isfinite(value).all()) for value in self.network.state_dict().values()):
            raise UserError(f"the weights are no longer finite after step {self.step}: use a smaller --learning-rate")
        content = {
            "model": self.settings.model,
            "class_names": list(self.data.class_names),
            "state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": self.plateau.state_dict() if self.plateau else None,
            "progress": {"best": self.best, "best_step": self.best_step, "sums": self.sums, "rate": self.rate},
        }
        checkpoint.save(self.directory.checkpoints, self.step, content)

    def _restore(self) -> None:
        content = None
        if self.directory is not None:
            content = checkpoint.load_newest(self.directory.checkpoints, strict=self.settings.strict_resume)
        content = self.group.from_first(content)
        if content is None:
            self.group.say("no checkpoint was finished: the run starts from its first step")
            return
        if content["class_names"] != list(self.data.class_names):
            raise UserError("the data has other classes than the run's checkpoint: pass the run's own --data")
        self.network.load_state_dict(content["state_dict"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.plateau is not None:
            self.plateau.load_state_dict(content["plateau"])
        self.step = self.saved_step = content["step"]
        for name, value in content["progress"].items():
            setattr(self, name, value)
        self.group.say(f"resumed after step {self.step}")

    def _finish(self) -> None:
        report = self.report or self.evaluate(self.data.test)
        if self.directory is None:
            return
        path = self.directory.path
        kernel = self.network.get_parameter("conv1.weight").detach().float().cpu().numpy()
        plots.draw_curves(read_metrics(path), path / "curves.png")
        plots.draw_filters(kernel.transpose(2, 3, 1, 0), path / "filters.png")
        plots.draw_confusion(report.confusion, list(report.per_class), path / "confusion.png")
        print(
            f"reached {report.top1:.2%} on {report.examples} test images after {self.step} steps (best "
            f"{max(self.best, report.top1):.2%}, step {self.best_step or self.step}); the run lies in {path}",
            flush=True,
        )


def _open_data(settings: TrainSettings, group: Processes) -> DataSet:
    data = open_source(
        settings.data,
        image_size=settings.stored_size,
        data_dir=settings.data_dir,
        cache_dir=settings.cache_dir,
        holdout=settings.holdout,
        download=settings.download,
        seed=settings.seed,
        max_bad=settings.max_bad_images,
    )
    for note in data.notes:
        group.say(note)
    return data


def _network(
    settings: TrainSettings, classes: int, device: torch.device, dtype: torch.dtype
) -> tuple[nn.Module, torch.Generator]:
    """The network with its first weights, and the generator of its dropout."""
    network = build(
        settings.model, classes, settings.image_size, span_columns=settings.span_columns, dropout=settings.dropout
    )
    initialize(network, settings.weight_init or "variant", seed=settings.seed)
    generator = torch.Generator(device)
    for layer in network.modules():
        if isinstance(layer, Dropout):
            layer.generator = generator
    return network.to(device).to(dtype), generator


def _hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each example's class is the likeliest, and whether among the five likeliest."""
    own = logits.gather(1, labels[:, None])
    before = (logits > own).sum(dim=1)
    return (before < 1).to(logits.dtype), (before < 5).to(logits.dtype)
