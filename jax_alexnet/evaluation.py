"""Evaluation of a split: every example once, whatever the batch size and the number of devices."""

from typing import Any, Protocol

import numpy as np
from jax.sharding import Mesh

from alexnet_io.batches import batches
from alexnet_io.evaluation import Evaluation, EvaluationReport
from alexnet_io.sources import Split
from jax_alexnet import steps


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


def evaluate_split(network: Evaluable, split: Split, batch_size: int | None = None) -> EvaluationReport:
    """Top-1, top-5, loss and per-class accuracy over the central crop of every image of `split`.

    Args:
        network: weights and compiled step.
        split: the images.
        batch_size: images a step, rounded up to a multiple of the devices; 128 by default.
    """
    counts = Evaluation(network.class_names)
    devices = network.mesh.devices.size
    size = -(-(batch_size or 128) // devices) * devices
    step, pending = network.eval_step, None
    for batch in batches(split, batch_size=size):
        on_devices = steps.split(steps.Batch(batch.images, batch.labels, batch.weights), network.mesh)
        logits, _ = step(network.params, on_devices, network.statistics)
        if pending:
            counts.add(np.asarray(pending[0]), pending[1].labels, pending[1].weights)
        pending = (logits, batch)
    if pending:
        counts.add(np.asarray(pending[0]), pending[1].labels, pending[1].weights)
    return counts.report()
