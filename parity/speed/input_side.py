"""Reading and training, as one framework does them, to be timed: what both have in common."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator

import numpy as np

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.batches import Batch, batches
from alexnet_io.data.sources.dataset import DataSet
from parity.speed import processes
from parity.speed.workload import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Workload


class Side:
    """One framework's reading and training; `loader` is what drives its reading."""

    loader = ""

    def __init__(self, workload: Workload, stored: int, data: DataSet) -> None:
        self.workload, self.stored, self.data = workload, stored, data
        for place in range(len(data.train)):  # warm: every page of the store has been read
            data.train.read([place])

    def read(self, steps: int, seed: int) -> dict[str, float]:
        """Seconds that so many batches take on the host."""
        began = time.perf_counter()
        for i, batch in enumerate(self.batches(steps, seed)):
            self.use(batch, i)
        return {"seconds": time.perf_counter() - began}

    def use(self, batch: Batch, step: int) -> None:
        """What the host does with a batch besides reading it."""

    def train(self, steps: int, seed: int, cached: bool) -> dict[str, float]:
        """Seconds of so many training steps, on batches out of the store or on one that is there already."""
        began = time.perf_counter()
        self.steps(self.batches(steps, seed) if cached else None, steps)
        return {"seconds": time.perf_counter() - began}

    def peak(self) -> dict[str, int]:
        """Most memory that the process held."""
        return {"bytes": processes.process_peak()}

    def device(self) -> str:
        """What trains."""
        raise NotImplementedError

    def start(self) -> dict[str, float]:
        """Build the training and run a first step."""
        raise NotImplementedError

    def steps(self, batches: Iterable[Batch] | None, steps: int) -> None:
        """Train on the batches, or on the one that is there; returns when the device is done."""
        raise NotImplementedError

    def batches(self, steps: int, seed: int) -> Iterator[Batch]:
        """As training's order of an epoch has them, shuffled and read ahead; exactly so many."""
        self.epoch = self.images(steps)
        return batches(
            self.epoch.train, batch_size=self.workload.batch_size, seed=seed, shuffle=True, loader=self.loader
        )

    def images(self, steps: int) -> DataSet:
        """A training set of exactly so many batches: nothing is read ahead that isn't used."""
        count = steps * self.workload.batch_size
        split = self.data.train.subset(np.arange(count) % len(self.data.train))
        return dataclasses.replace(self.data, train=split)

    def settings(self) -> TrainSettings:
        """Of a training run: random crops and flips, no statistics needed."""
        w = self.workload
        return TrainSettings(
            model=w.model,
            data=f"synthetic:classes={len(self.data.class_names)},train={w.batch_size},test=1",
            image_size=w.image_size,
            stored_size=self.stored,
            batch_size=w.batch_size,
            precision=w.precision,
            devices=str(w.devices),
            optimizer="sgd",
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
            learning_rate=LEARNING_RATE,
            schedule="constant",
            normalize="half",
            crop=True,
            flip=True,
            color_noise=False,
            recipe="blog",
        )
