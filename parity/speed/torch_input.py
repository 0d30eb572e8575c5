"""`torch_ref` reading and training, to be timed."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterable

import torch

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.data.batches import Batch
from parity.speed.input_side import Side
from torch_ref import augment, resolved_settings
from torch_ref import run_setup as setup
from torch_ref.engine import TorchEngine
from torch_ref.processes import Processes, choose_device


class Torch(Side):
    """`torch_ref`: the host cuts the crops out of each batch."""

    loader = "threads"

    def device(self) -> str:
        """What trains."""
        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"

    @functools.cached_property
    def _complete(self) -> CompleteSettings:
        return resolved_settings.resolve(self.settings())

    def use(self, batch: Batch, step: int) -> None:
        """Draw and cut crops, some of them mirrored."""
        count, shape = len(batch.images), batch.images.shape
        draws = augment.draw(self._complete, step, 0, count, (shape[1], shape[2]))
        augment.cut(batch.images, draws, self.workload.image_size)

    def start(self) -> dict[str, float]:
        """Build the training and run a first step."""
        torch.set_num_threads(self.workload.threads)
        self.setup = setup.prepare(self._complete, Processes(0, 1, choose_device("1")))
        self.there = next(self.batches(1, 0))
        began = time.perf_counter()
        self.steps(None, 1)
        return {"compile_seconds": time.perf_counter() - began}

    def steps(self, batches: Iterable[Batch] | None, steps: int) -> None:
        """As a run's epoch does them; the batch that is there is in the host's memory, and cropped anew each time."""
        self.setup.data = self.epoch if batches is not None else self.images(steps)
        engine = TorchEngine(self.setup, None)
        for step, batch in enumerate(itertools.repeat(self.there, steps) if batches is None else batches):
            engine.fetch(engine.train(batch, step, engine.learning_rate(step)))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
