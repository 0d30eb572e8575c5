"""`jax_alexnet` reading and training, to be timed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from alexnet_io.data.batches import Batch
from jax_alexnet import recipes
from jax_alexnet import run_setup as setup
from parity.speed.input_side import Side
from parity.speed.workload import LEARNING_RATE


class Jax(Side):
    """`jax_alexnet`: whole stored images go to the device, which crops and flips them inside the step."""

    loader = "grain"

    def device(self) -> str:
        """What trains."""
        return jax.devices()[0].device_kind

    def start(self) -> dict[str, float]:
        """Build the training and run a first step."""
        self.setup = setup.prepare(recipes.resolve(self.settings()))
        self.state = self.setup.new_state()
        self.there = jax.block_until_ready(self.setup.on_devices(next(self.batches(1, 0))))
        began = time.perf_counter()
        self.steps(None, 1)
        return {"compile_seconds": time.perf_counter() - began}

    def steps(self, batches: Iterable[Batch] | None, steps: int) -> None:
        """As a run's epoch does them: each step's metrics are fetched once the next one is under way."""
        setup, pending = self.setup, None
        ready = itertools.repeat(self.there, steps) if batches is None else map(setup.on_devices, batches)
        rate, key = jnp.float32(LEARNING_RATE), setup.key
        for batch in ready:
            self.state, metrics = setup.train_step(self.state, batch, rate, key, setup.statistics)
            if pending is not None:
                jax.device_get(pending)
            pending = metrics
        jax.block_until_ready((self.state, pending))
