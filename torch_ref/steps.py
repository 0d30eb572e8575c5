"""One training step over all processes, and evaluation over all of them."""

import contextlib
import signal
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.data.batches import Batch, batches
from alexnet_io.data.sources import Split
from alexnet_io.run.crops import View, averaged, cut
from alexnet_io.run.engine import Sums
from alexnet_io.run.evaluation import Evaluation, EvaluationReport
from alexnet_io.run.mistakes import Observer
from torch_ref import augment
from torch_ref.optim import at_rate, clip_gradients, set_learning_rate
from torch_ref.processes import Processes
from torch_ref.run_setup import Setup

EVALUATION_BATCH = 128


class Votes(NamedTuple):
    """How many processes want what; counts, because a step adds up what its processes bring."""

    interrupt: float = 0.0  # to stop by SIGINT
    terminate: float = 0.0  # to stop by SIGTERM
    save: float = 0.0

    @classmethod
    def of(cls, stop: int, save: bool) -> "Votes":
        """One process's: the signal it received, or 0, and whether a checkpoint is due."""
        return cls(float(stop == signal.SIGINT), float(stop == signal.SIGTERM), float(save))

    @property
    def stop(self) -> int:
        """The signal that all stop by, or 0."""
        if self.terminate:
            return int(signal.SIGTERM)
        return int(signal.SIGINT) if self.interrupt else 0


class StepSums(NamedTuple):
    """What a step brings back from all processes."""

    sums: Sums
    votes: Votes

    @classmethod
    def of(cls, found: Tensor) -> "StepSums":
        """Of what `train_step` returned, when its device is done."""
        values = found.tolist()
        return cls(Sums(*values[:4]), Votes(*values[4:]))


def train_step(setup: Setup, batch: Batch, step: int, rate: float, votes: Votes | None = None) -> Tensor:
    """Update the weights with one global batch, of which this process has its share.

    Args:
        setup: the run's.
        batch: this process's share.
        step: steps done before this one.
        rate: learning rate of the weights; a plateau's own is in the optimizer, and stays there.
        votes: what this process wants.

    Returns:
        What `StepSums.of` reads, float64 (7,): on the device, for which nobody has waited.
    """
    settings, size = setup.settings, len(batch.labels) // setup.settings.accumulate
    setup.trained.train()
    setup.optimizer.zero_grad()
    found = torch.zeros(4, dtype=torch.float64, device=setup.group.device)
    for start in range(0, len(batch.labels), size):
        last = start + size == len(batch.labels)
        # DDP adds the processes' gradients up in a backward pass: in the last one, those of all parts.
        trained = setup.trained
        several = isinstance(trained, nn.parallel.DistributedDataParallel)
        with trained.no_sync() if several and not last else contextlib.nullcontext():
            found += _add_gradients(setup, batch, step, slice(start, start + size))
    if settings.clip_norm is not None:
        clip_gradients(setup.network, settings.clip_norm)
    if setup.plateau is None:
        set_learning_rate(setup.optimizer, rate)
    with at_rate(setup.optimizer, rate) if setup.plateau is not None else contextlib.nullcontext():
        setup.optimizer.step()
    wishes = torch.tensor(votes or Votes(), dtype=torch.float64, device=setup.group.device)
    return setup.group.add_up(torch.cat([found, wishes]))


def _add_gradients(setup: Setup, batch: Batch, step: int, rows: slice) -> Tensor:
    """Add the gradient of these rows' share of the batch's mean loss; returns the sums (4,) float64 that `Sums` has."""
    settings, device = setup.settings, setup.group.device
    pixels, count = batch.images[rows], rows.stop - rows.start
    first_place = setup.group.rank * len(batch.labels) + rows.start
    setup.masks.at(step, first_place)
    draws = setup.draw(step, first_place, count, (pixels.shape[1], pixels.shape[2]))
    images = augment.network_input(pixels, draws, settings, setup.statistics)
    labels = torch.from_numpy(batch.labels[rows]).long().to(device)
    weights = torch.from_numpy(batch.weights[rows]).to(device).to(images.dtype)
    logits, labels = _of_real_examples(_logits(setup, setup.trained, images), labels, weights)
    total = (_losses(logits, labels, settings.label_smoothing) * weights).sum()
    # DDP averages the processes' gradients; times their number over the real examples of the whole batch, that is
    # the gradient of the mean loss over these.
    (total * (setup.group.count / setup.real_examples(step))).backward()
    hits = [(hit * weights).sum() for hit in _hits(logits.detach(), labels)]
    return torch.stack([value.to(torch.float64) for value in (total.detach(), *hits, weights.sum())])


class Evaluable(Protocol):
    """What a run in progress and a trained network have in common."""

    @property
    def settings(self) -> CompleteSettings:
        """Which decide what the network sees and computes."""
        ...

    @property
    def group(self) -> Processes:
        """The processes that share the images."""
        ...

    @property
    def data(self) -> Any:
        """The data set; its classes are named as the logits are."""
        ...

    @property
    def network(self) -> nn.Module:
        """The bare network."""
        ...

    @property
    def statistics(self) -> dict[str, Tensor]:
        """See `augment.network_input`."""
        ...


@torch.no_grad()
def evaluate(
    setup: Evaluable,
    split: Split,
    views: Sequence[View] = (),
    batch_size: int | None = None,
    observe: Observer | None = None,
) -> EvaluationReport:
    """Top-1, top-5, loss and per-class accuracy over every image of `split` once, over all processes.

    Args:
        setup: a run's, or a trained network.
        split: the images.
        views: crops whose probabilities are averaged; the central crop alone by default.
        batch_size: images at a time, rounded up to a multiple of the processes.
        observe: called with the logits of each batch, of this process.
    """
    group, names, side = setup.group, setup.data.class_names, setup.settings.image_size
    counts, whole = Evaluation(names), Evaluation(names)
    setup.network.eval()
    size = -(-(batch_size or EVALUATION_BATCH) // group.count) * group.count
    for batch in batches(split, batch_size=size, loader="threads", process_index=group.rank, process_count=group.count):
        logits = []
        for crops in [cut(batch.images, view, side) for view in views] or [batch.images]:
            images = augment.network_input(crops, None, setup.settings, setup.statistics)
            logits.append(_logits(setup, setup.network, images).cpu().numpy())
        found = averaged(logits) if views else logits[0]
        counts.add(found, batch.labels, batch.weights)
        if observe is not None:
            observe(found, batch, split)
    for arrays in group.gather(counts.to_arrays()):
        whole.merge(Evaluation.from_arrays(names, arrays))
    return whole.report()


def _logits(setup: Evaluable, network: nn.Module, images: Tensor) -> Tensor:
    """(batch, classes), at least float32."""
    half = setup.settings.precision == "bfloat16"
    with torch.autocast(images.device.type, torch.bfloat16) if half else contextlib.nullcontext():
        logits = network(images)
    return logits.float() if half else logits


def _of_real_examples(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels with zeros in the rows of weight 0, which thus leave no trace in sums or gradients.

    Multiplied by 0, what is no number would stay so, and a label that isn't a class would be an error.
    """
    real = weights > 0
    return torch.where(real[:, None], logits, 0), torch.where(real, labels, 0)


def _is_class(logits: Tensor, labels: Tensor) -> Tensor:
    return (labels >= 0) & (labels < logits.shape[1])


def _losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each example (batch,); NaN where the label isn't a class, even one that means 'ignore'.

    Of each label the share `smoothing` is spread evenly over all classes.
    """
    there = _is_class(logits, labels)
    losses = F.cross_entropy(logits, torch.where(there, labels, 0), reduction="none", label_smoothing=smoothing)
    return torch.where(there, losses, torch.nan)


def _hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each example's class is the likeliest, and whether among the five likeliest.

    Of equal logits the first comes first, and NaN before all numbers. A label that isn't a class is no hit.
    """
    there = _is_class(logits, labels)
    labels = torch.where(there, labels, 0)[:, None]
    own = logits.gather(1, labels)
    after = (logits < own) | ((logits == own) & (torch.arange(logits.shape[1], device=logits.device) >= labels))
    before = (~after).sum(dim=1)
    there = there & ~own[:, 0].isnan()
    return (there & (before < 1)).to(logits.dtype), (there & (before < 5)).to(logits.dtype)
