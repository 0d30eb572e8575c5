"""Everything a run needs before its first step, built from complete settings: data, network, optimizer."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.data.batches import Batch, batches, steps_in_epoch
from alexnet_io.data.image_statistics import training_statistics
from alexnet_io.data.sources import DataSet, open_for
from alexnet_io.run import batch_parts, length, statistics_file, steering
from alexnet_io.run.fine_tuning import frozen_layers
from alexnet_io.run.progress import now_and_then
from torch_ref import augment
from torch_ref.alexnet import build
from torch_ref.dropout_masks import DropoutMasks
from torch_ref.initialization import initialize
from torch_ref.network import Network, layers_with_weights
from torch_ref.optim import build_optimizer, freeze
from torch_ref.processes import Processes, set_precision
from torch_ref.resolved_settings import schedule_of
from torch_ref.schedules import Plateau, Schedule, plateau
from torch_ref.starting_weights import StartingWeights
from torch_ref.starting_weights import read as read_starting_weights
from torch_ref.step_memory import step_memory


@dataclass
class Setup:
    """What training and its evaluations share.

    Attributes:
        settings: the run's.
        group: the run's processes.
        data: the data set.
        network: the bare network.
        trained: the network, wrapped so that processes share their gradients.
        optimizer: of the network's parameters.
        masks: of its dropout.
        draw: (step, place in the global batch of the first example, examples, height and width of the stored images)
            to the augmentation's random choices; replaceable, as `masks.draw` is.
        schedule: of the learning rate.
        plateau: the counter, where the schedule is one.
        arrays: the normalisation's, as the run's directory keeps them.
        statistics: the same on the device, and `zero`, whose dtype is the input's.
        start: the weights from elsewhere that the network was begun with; None where they are all fresh, and in a run
            that goes on.
        average: the weights' moving average, where the run has one.
        warmup: steps in which the learning rate rises.
    """

    settings: CompleteSettings
    group: Processes
    data: DataSet
    network: nn.Module
    trained: nn.Module
    optimizer: Optimizer
    masks: DropoutMasks
    draw: Callable[[int, int, int, tuple[int, int]], augment.Draws]
    schedule: Schedule
    plateau: ReduceLROnPlateau | None
    arrays: dict[str, np.ndarray]
    statistics: dict[str, Tensor]
    start: StartingWeights | None = None
    average: AveragedModel | None = None
    warmup: int = 0

    @property
    def evaluated(self) -> "Setup":
        """The same with what is evaluated and kept as the best: the network, or its average where the run has one."""
        return self if self.average is None else replace(self, network=self.average.module)

    @property
    def batch_size(self) -> int:
        """Examples in a step, over all processes."""
        return self.settings.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps that cover the training set, the short last one included."""
        return steps_in_epoch(len(self.data.train), self.batch_size)

    @property
    def headline(self) -> str:
        """What is about to run, in a line."""
        settings, data, group = self.settings, self.data, self.group
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        return (
            f"{settings.model}, {parameters:,} parameters, recipe {settings.recipe}, {settings.precision}; "
            f"{steering.counts(data)} in {len(data.class_names)} classes at "
            f"{settings.image_size} pixels; batches of {self.batch_size} on {group.count} {group.device.type} device(s)"
        )

    def real_examples(self, step: int) -> int:
        """Examples of the global batch of `step` that aren't there to fill it up."""
        return min(self.batch_size, len(self.data.train) - step % self.steps_per_epoch * self.batch_size)

    def order(self, step: int) -> Iterator[Batch]:
        """This process's share of the batches that are left of the epoch in which `step` lies."""
        return batches(
            self.data.train,
            batch_size=self.batch_size,
            seed=self.settings.seed,
            epoch=step // self.steps_per_epoch,
            shuffle=True,
            start_step=step % self.steps_per_epoch,
            process_index=self.group.rank,
            process_count=self.group.count,
            loader="threads",
        )


def prepare(settings: CompleteSettings, group: Processes) -> Setup:
    """Open the data and build the network.

    Raises:
        UserError: an image size the network can't take, a batch that can't fit into memory, data that can't be used; in
            all processes alike.
    """
    dtype = set_precision(settings.precision)

    def open_and_measure() -> tuple[DataSet, dict[str, np.ndarray]]:
        data = open_for(settings, step=memory)
        if not augment.needs_statistics(settings):
            return data, augment.statistics_for(settings, None)
        if settings.resume and settings.output is not None:  # those of the run's beginning
            return data, statistics_file.read(settings.output)
        return data, augment.statistics_for(settings, training_statistics(data.train, now_and_then()))

    def network_for(classes: int) -> Network:
        return build(
            settings.model,
            classes,
            settings.image_size,
            span_columns=settings.span_columns,
            dropout=settings.dropout,
            ablate=settings.ablate,
        )

    batch_parts.refuse_uneven(settings, group.count)
    with torch.device("meta"):  # refuses an image size before data are read for it
        memory = step_memory(network_for(2), settings, group)
    data, arrays = group.first_then_others(open_and_measure)
    per_epoch = steps_in_epoch(len(data.train), settings.batch_size)
    warmup, schedule = length.warmup_steps(settings, per_epoch), schedule_of(settings, per_epoch)
    network = network_for(len(data.class_names))
    initialize(network, settings.weight_init, seed=settings.seed)
    start = (
        None
        if settings.init_from is None or settings.resume
        else read_starting_weights(settings, data.class_names, network)
    )
    network.to(group.device, dtype)
    if start is not None:
        start.put_into(network)
    freeze(network, frozen_layers(settings, layers_with_weights(network)))
    optimizer = build_optimizer(network, settings)
    # Before anything hooks into the network that is trained: the average is a copy of it.
    average = None if settings.ema is None else AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
    return Setup(
        settings=settings,
        group=group,
        data=data,
        network=network,
        trained=group.mean_gradients_equal(network),
        optimizer=optimizer,
        masks=DropoutMasks(network, settings.seed),
        draw=functools.partial(augment.draw, settings),
        schedule=schedule,
        plateau=plateau(schedule, optimizer) if isinstance(schedule, Plateau) else None,
        arrays=arrays,
        statistics={
            name: torch.from_numpy(value).to(group.device).to(dtype)
            for name, value in {**arrays, "zero": np.zeros((), np.float32)}.items()
        },
        start=start,
        average=average,
        warmup=warmup,
    )
