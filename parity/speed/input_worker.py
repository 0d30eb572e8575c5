"""Reads, decodes and trains for `input_rates`: `python -m parity.speed.input_worker SIDE WORKLOAD SOURCE`.

SIDE is `files` (decoding and filling, without a framework), `jax` or `torch`.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.batches import Batch, batches
from alexnet_io.data.sources.dataset import DataSet
from parity.speed import input_data, processes
from parity.speed.workload import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Workload


def main(arguments: list[str]) -> None:
    """Open the images, then serve."""
    side, workload, source = arguments[0], json.loads(arguments[1]), input_data.Source(**json.loads(arguments[2]))
    stored = workload.pop("stored_size")
    processes.claim_output()
    job: Any
    if side == "files":
        job = Files(source, stored)
        processes.serve({"files": len(job.files), "bytes": sum(map(len, job.blobs))}, {"time": job.time})
        return
    processes.pin(workload["threads"])
    job = {"jax": Jax, "torch": Torch}[side](Workload(**workload), stored, input_data.open_store(source))
    actions = {"read": job.read, "start": job.start, "train": job.train, "peak": job.peak}
    processes.serve({"images": len(job.data.train), "loader": _found(job.loader), "device": job.device()}, actions)


def _found(loader: str) -> str:
    """What reads the batches: plain threads read the same ones where grain isn't installed."""
    try:
        __import__(loader if loader == "grain" else "threading")
    except ImportError:
        return "threads"
    return loader


class Files:
    """Encoded files: decoded from memory, or into a cache."""

    def __init__(self, source: input_data.Source, stored: int) -> None:
        from alexnet_io.data.decoding import Resizing

        self.files = input_data.encoded(source)
        self.blobs = [self.files.read(i) for i in range(len(self.files))]
        self.resizing = Resizing(stored, stored, stored)

    def time(self, what: str, images: int, cores: int = 1) -> dict[str, float]:
        """Seconds that so many images take to `decode`, to `prepare` (decode and resize) or to `fill` a cache with."""
        processes.pin(cores)
        if what == "fill":
            return self._fill(images, cores)
        work = {"decode": _decode, "prepare": self._prepare}[what]
        began = time.perf_counter()
        for data in itertools.islice(itertools.cycle(self.blobs), images):
            work(data)
        return {"seconds": time.perf_counter() - began}

    def _prepare(self, data: bytes) -> None:
        from alexnet_io.data.decoding import prepare

        prepare(data, "image", self.resizing)

    def _fill(self, images: int, cores: int) -> dict[str, float]:
        from alexnet_io.data.cache import prepare_images

        files = input_data.repeated(self.files, images)
        with tempfile.TemporaryDirectory(prefix="filling-") as folder:
            began = time.perf_counter()
            prepare_images(files, self.resizing, Path(folder), threads=cores, max_bad=images)
            return {"seconds": time.perf_counter() - began}


def _decode(data: bytes) -> None:
    """Pillow alone, to RGB pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if image.mode != "RGB":
            image.convert("RGB")


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


class Jax(Side):
    """`jax_alexnet`: whole stored images go to the device, which crops and flips them inside the step."""

    loader = "grain"

    def device(self) -> str:
        """What trains."""
        import jax

        return jax.devices()[0].device_kind

    def start(self) -> dict[str, float]:
        """Build the training and run a first step."""
        import jax

        from jax_alexnet import recipes, setup

        self.setup = setup.prepare(recipes.resolve(self.settings()))
        self.state = self.setup.new_state()
        self.there = jax.block_until_ready(self.setup.on_devices(next(self.batches(1, 0))))
        began = time.perf_counter()
        self.steps(None, 1)
        return {"compile_seconds": time.perf_counter() - began}

    def steps(self, batches: Iterable[Batch] | None, steps: int) -> None:
        """As a run's epoch does them: each step's metrics are fetched once the next one is under way."""
        import jax
        import jax.numpy as jnp

        setup, pending = self.setup, None
        ready = itertools.repeat(self.there, steps) if batches is None else map(setup.on_devices, batches)
        rate, key = jnp.float32(LEARNING_RATE), setup.key
        for batch in ready:
            self.state, metrics = setup.train_step(self.state, batch, rate, key, setup.statistics)
            if pending is not None:
                jax.device_get(pending)
            pending = metrics
        jax.block_until_ready((self.state, pending))


class Torch(Side):
    """`torch_ref`: the host cuts the crops out of each batch."""

    loader = "threads"

    def device(self) -> str:
        """What trains."""
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"

    @functools.cached_property
    def _complete(self) -> CompleteSettings:
        from torch_ref import completion

        return completion.resolve(self.settings())

    def use(self, batch: Batch, step: int) -> None:
        """Draw and cut crops, some of them mirrored."""
        from torch_ref import augment

        count, shape = len(batch.images), batch.images.shape
        draws = augment.draw(self._complete, step, 0, count, (shape[1], shape[2]))
        augment.cut(batch.images, draws, self.workload.image_size)

    def start(self) -> dict[str, float]:
        """Build the training and run a first step."""
        import torch

        from torch_ref import setup
        from torch_ref.processes import Processes, choose_device

        torch.set_num_threads(self.workload.threads)
        self.setup = setup.prepare(self._complete, Processes(0, 1, choose_device("1")))
        self.there = next(self.batches(1, 0))
        began = time.perf_counter()
        self.steps(None, 1)
        return {"compile_seconds": time.perf_counter() - began}

    def steps(self, batches: Iterable[Batch] | None, steps: int) -> None:
        """As a run's epoch does them; the batch that is there is in the host's memory, and cropped anew each time."""
        import torch

        from torch_ref.engine import TorchEngine

        self.setup.data = self.epoch if batches is not None else self.images(steps)
        engine = TorchEngine(self.setup, None)
        for step, batch in enumerate(itertools.repeat(self.there, steps) if batches is None else batches):
            engine.fetch(engine.train(batch, step, engine.learning_rate(step)))
        if torch.cuda.is_available():
            torch.cuda.synchronize()


if __name__ == "__main__":
    processes.told(main)
