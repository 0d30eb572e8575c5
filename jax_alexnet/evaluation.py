"""Evaluation of a split: every example once, whatever the batch size and the number of devices."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_io.data.batches import Batch, batches
from alexnet_io.data.sources import Split
from alexnet_io.run.crops import View, averaged, cut
from alexnet_io.run.evaluation import Evaluation, EvaluationReport
from alexnet_io.run.mistakes import Observer
from jax_alexnet import steps
from jax_alexnet.parallel.distributed import Processes
from jax_alexnet.parallel.layout import mesh_share

EVALUATION_BATCH = 128


class Evaluable(Protocol):
    """What a run in progress and a finished one have in common."""

    @property
    def class_names(self) -> list[str]:
        """Names of the logits, in order."""
        ...

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        ...

    @property
    def eval_step(self) -> Any:
        """Compiled (params, batch, statistics) -> (logits, losses)."""
        ...

    @property
    def params(self) -> Any:
        """Weights on the devices."""
        ...

    @property
    def statistics(self) -> dict[str, Any]:
        """The normalisation's arrays on the devices."""
        ...


def evaluate_split(
    network: Evaluable,
    split: Split,
    batch_size: int | None = None,
    views: Sequence[View] = (),
    image_size: int = 0,
    observe: Observer | None = None,
) -> EvaluationReport:
    """Top-1, top-5, loss and per-class accuracy over every image of `split`.

    Args:
        network: weights and compiled step.
        split: the images.
        batch_size: images a step, rounded up to a multiple of the devices; 128 by default, or all where they are fewer.
        views: crops whose probabilities are averaged; the central crop alone by default.
        image_size: side of these crops.
        observe: called with the logits of each batch, of this process.
    """
    counts = Evaluation(network.class_names)
    devices = network.mesh.devices.size
    size = -(-(batch_size or min(EVALUATION_BATCH, len(split))) // devices) * devices
    step, pending = network.eval_step, None
    index, count = mesh_share(network.mesh)

    def count_in(done: tuple[list[jax.Array], Batch]) -> None:
        found, batch = _of_views(done[0]), done[1]
        counts.add(found, batch.labels, batch.weights)
        if observe is not None:
            observe(found, batch, split)

    for batch in batches(split, batch_size=size, process_index=index, process_count=count):
        logits = []
        for images in [cut(batch.images, view, image_size) for view in views] or [batch.images]:
            on_devices = steps.split(steps.DeviceBatch(images, batch.labels, batch.weights), network.mesh)
            logits.append(step(network.params, on_devices, network.statistics)[0])
        if pending:
            count_in(pending)
        pending = (logits, batch)
    if pending:
        count_in(pending)
    return _over_processes(counts, index).report()


def _of_views(logits: Sequence[jax.Array]) -> np.ndarray:
    """This process's logits: of the one view, or of the mean of the views' probabilities."""
    rows = [own_rows(each) for each in logits]
    return rows[0] if len(rows) == 1 else averaged(rows)


def own_rows(array: jax.Array) -> np.ndarray:
    """The rows that this process's devices hold, each once."""
    if array.is_fully_addressable:
        return np.asarray(array)
    by_start = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(by_start[start]) for start in sorted(by_start)])


def _over_processes(counts: Evaluation, share: int) -> Evaluation:
    """The counts of all processes; of those that evaluated the same images, the first one's."""
    processes = Processes(jax.process_index(), jax.process_count())
    if processes.count == 1:
        return counts
    shares = processes.gather(np.array(share)).tolist()
    everyone = {name: processes.gather(array) for name, array in counts.to_arrays().items()}
    total = Evaluation(counts.class_names)
    for i in sorted(shares.index(part) for part in set(shares)):
        total.merge(Evaluation.from_arrays(counts.class_names, {name: arrays[i] for name, arrays in everyone.items()}))
    return total
