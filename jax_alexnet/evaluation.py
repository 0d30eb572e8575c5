"""Evaluation of a split: every example once, whatever the batch size and the number of devices."""

from typing import Any

import numpy as np

from alexnet_io.batches import batches
from alexnet_io.evaluation import Evaluation, EvaluationReport
from alexnet_io.sources import Split
from jax_alexnet.setup import Setup


def evaluate_split(setup: Setup, params: Any, split: Split, batch_size: int | None = None) -> EvaluationReport:
    """Top-1, top-5, loss and per-class accuracy over the central crop of every image of `split`."""
    counts = Evaluation(list(setup.data.class_names))
    pending = None
    for batch in batches(split, batch_size=batch_size or setup.evaluation_batch):
        logits, _ = setup.eval_step(params, setup.on_devices(batch), setup.statistics)
        if pending:
            counts.add(np.asarray(pending[0]), pending[1].labels, pending[1].weights)
        pending = (logits, batch)
    if pending:
        counts.add(np.asarray(pending[0]), pending[1].labels, pending[1].weights)
    return counts.report()
