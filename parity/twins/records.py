"""What is recorded of a training program while it runs, in PyTorch's names and layouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_io.run.engine import Sums
from alexnet_io.run.evaluation import EvaluationReport
from alexnet_io.run.metrics import MetricsRow

Arrays = dict[str, NDArray[Any]]
WHOLE = 2**16  # values of an array that are kept; of larger ones as many are kept, spread evenly, and two sums


@dataclass
class StepRecord:
    """One training step.

    Attributes:
        number: from 1.
        ids: place in the training set of each example; -1 where a row only fills the batch up.
        labels: of each example.
        weights: 1, or 0 where a row only fills the batch up.
        images: uint8 (batch, height, width, 3), as stored.
        rate: learning rate.
        input: (batch, 3, height, width), what the network saw; None where it wasn't watched.
        sums: of losses and hits; None where the run was killed before it asked.
        parameters: after the step.
        slots: the optimizer's memories after the step.
        averages: of the parameters after the step, where the run keeps them.
    """

    number: int
    ids: NDArray[np.int64]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]
    images: NDArray[np.uint8]
    rate: float
    input: NDArray[np.float64] | None = None
    sums: Sums | None = None
    parameters: Arrays = field(default_factory=dict)
    slots: Arrays = field(default_factory=dict)
    averages: Arrays = field(default_factory=dict)


@dataclass
class Record:
    """One side of a twin run.

    Attributes:
        side: jax_alexnet or torch_ref.
        settings: completed by that side's recipes, as plain values.
        per_epoch: steps of an epoch.
        first_parameters: before the first step of this process.
        steps: in order.
        evaluations: of the images that steer the run, by the step whose weights were evaluated.
        tests: of the test images, where others steer it.
        plateaus: what the plateau's counter was after each epoch's test error, by step.
        best: (step, top-1) of the weights that were kept as the best, in order.
        code: exit code; None after a kill.
        said: what the program printed.
        rows: of its metrics file.
        kept: weights in the run's directory at the end: of its newest checkpoint, and the best.
        template: shapes of JAX's weights, by which its checkpoints are read.
        kept_steps: the steps after which they were saved.
    """

    side: str
    settings: dict[str, Any] = field(default_factory=dict)
    per_epoch: int = 1
    first_parameters: Arrays = field(default_factory=dict)
    steps: list[StepRecord] = field(default_factory=list)
    evaluations: dict[int, EvaluationReport] = field(default_factory=dict)
    tests: dict[int, EvaluationReport] = field(default_factory=dict)
    plateaus: dict[int, dict[str, float]] = field(default_factory=dict)
    best: list[tuple[int, float]] = field(default_factory=list)
    code: int | None = None
    said: str = ""
    rows: list[MetricsRow] = field(default_factory=list)
    template: Any = None
    kept: dict[str, Arrays] = field(default_factory=dict)
    kept_steps: dict[str, int] = field(default_factory=dict)


def part_of(arrays: Arrays) -> Arrays:
    """Copies that fit into memory many times over: whole arrays, or of large ones a part and two sums."""
    return {name: _part(np.asarray(array)) for name, array in arrays.items()}


def _part(array: NDArray[Any]) -> NDArray[Any]:
    if array.size <= WHOLE:
        return array.copy()
    flat = array.reshape(-1)
    chosen = flat[:: -(-flat.size // WHOLE)]
    return np.concatenate([chosen, [flat.sum() / flat.size, np.sqrt(np.mean(flat * flat))]])
