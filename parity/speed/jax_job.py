"""A step of JAX to be timed: `tuned` is this repository's own training step, `plain` the obvious Linen module."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet import augment, devices, optim, recipes, steps
from jax_alexnet import run_setup as setup
from jax_alexnet.files import weight_homes as stored_weights
from jax_alexnet.variants import VARIANTS
from parity.speed import checks, processes
from parity.speed.plain_jax import PlainAlexNet, plain_eval_step, plain_train_step
from parity.speed.workload import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Workload


class Job:
    """The compiled step with its state on the devices."""

    def __init__(self, workload: Workload, weights: Path) -> None:
        self.workload = workload
        self.settings = recipes.resolve(
            TrainSettings(
                model=workload.model,
                data="synthetic",
                image_size=workload.image_size,
                stored_size=workload.image_size,
                batch_size=workload.batch_size,
                precision=workload.precision,
                optimizer="sgd",
                momentum=MOMENTUM,
                weight_decay=WEIGHT_DECAY,
                learning_rate=LEARNING_RATE,
                normalize="half",
                crop=False,
                flip=False,
                color_noise=False,
                recipe="blog",
            )
        )
        self.dtype = devices.set_precision(workload.precision)
        chosen = devices.choose_devices(str(workload.devices))
        self.mesh = devices.data_mesh(chosen)
        self.variant = VARIANTS[workload.model]
        params = stored_weights.to_flax(checks.read_weights(weights), self.variant, workload.image_size)
        self.classes = len(params[self.variant.layers[-1].name]["bias"])
        self.augmentation = augment.Augmentation.of(self.settings)
        self.optimizer = optim.make_optimizer(self.settings, self.variant, params)
        rng = np.random.default_rng(0)
        shape = workload.batch_size, workload.image_size, workload.image_size, 3
        host = steps.DeviceBatch(
            rng.integers(0, 256, shape, np.uint8),
            rng.integers(0, self.classes, shape[0]).astype(np.int32),
            np.ones(shape[0], np.float32),
        )
        self.batch = steps.split(host, self.mesh)
        self.statistics: dict[str, Any] = {}
        self.params = steps.replicate(params, self.mesh)
        self.key = jax.random.key(0)
        tuned = workload.style == "tuned"
        self.flags = {"compiler_options": devices.compiler_options(chosen[0].platform)} if tuned else {}
        self.laid_out = tuned and workload.mode == "infer"
        if self.laid_out:
            _, self.params = steps.for_inference(self._model(dropout=False), self.params)
        self.evaluate = self._eval_step()
        self.state: Any = None
        if workload.mode == "train":
            self.step = self._train_step(dropout=True)
            self.state = self._fresh_state()

    def _model(self, dropout: bool) -> Any:
        if self.workload.style == "tuned":
            settings = self.settings if dropout else replace(self.settings, dropout=0.0)
            return setup.make_model(settings, self.classes, self.dtype)
        return PlainAlexNet(self.variant, self.classes, self.dtype, dropout)

    def _train_step(self, dropout: bool) -> Any:
        model = self._model(dropout)
        if self.workload.style == "tuned":
            return steps.make_train_step(model, self.optimizer, self.augmentation, self.mesh)
        return plain_train_step(model, self.optimizer, self.mesh)

    def _eval_step(self) -> Any:
        model = self._model(dropout=True)
        if self.workload.style == "tuned":
            return steps.make_eval_step(model.clone(units_first=self.laid_out), self.augmentation, self.mesh)
        return plain_eval_step(model, self.mesh)

    def _fresh_state(self) -> Any:
        params = jax.device_get(self.params)
        return steps.replicate(steps.TrainState(jnp.int32(0), params, self.optimizer.init(params)), self.mesh)

    def _arguments(self, state: Any) -> tuple[Any, ...]:
        return state, self.batch, np.float32(LEARNING_RATE), self.key, self.statistics

    def check(self, file: str) -> dict[str, str]:
        """Write `logits` of the first images and, in training, the velocities after one step from the weights."""
        logits = self.evaluate(self.params, self.batch, self.statistics)[0][: checks.IMAGES]
        found: dict[str, Any] = {checks.LOGITS: np.asarray(logits, np.float32)}
        if self.workload.mode == "train":
            state = self._train_step(dropout=False)(*self._arguments(self._fresh_state()))[0]
            velocities: Any = optax.tree_utils.tree_get(state.opt_state, "trace")
            found |= stored_weights.to_torch(velocities, self.variant, self.workload.image_size)
        np.savez(file, **found)
        return {"file": file}

    def bytes_a_step(self) -> float | None:
        """What a step's program reads and writes on all devices, as XLA counts it; None where it doesn't count."""
        try:  # compiled already: this only asks for it
            moved = (self._lowered().compile().cost_analysis() or {}).get("bytes accessed")
        except (NotImplementedError, RuntimeError):
            return None
        return None if moved is None else float(moved) * self.mesh.devices.size

    def program(self) -> str:
        """The text of what XLA compiled."""
        return self._lowered().compile().as_text()

    def _lowered(self) -> Any:
        if self.state is None:
            return self.evaluate.lower(self.params, self.batch, self.statistics)
        return self.step.lower(*self._arguments(self.state))

    def run(self, steps: int) -> None:
        """Whole steps; returns when the device is done."""
        if self.state is None:
            jax.block_until_ready([self.evaluate(self.params, self.batch, self.statistics) for _ in range(steps)])
            return
        for _ in range(steps):
            self.state, metrics = self.step(*self._arguments(self.state))
        jax.block_until_ready((self.state, metrics))

    def timed(self, steps: int) -> dict[str, float]:
        """Seconds of so many steps."""
        began = time.perf_counter()
        self.run(steps)
        return {"seconds": time.perf_counter() - began}

    def trace(self, directory: str) -> dict[str, str]:
        """Three steps under the profiler, for TensorBoard or Perfetto."""
        with jax.profiler.trace(directory):
            self.run(3)
        return {"directory": directory}

    def ceilings(self) -> dict[str, float]:
        """A large matrix product in the precision, and a copy; the best of five, on all devices' cores."""
        gpu = jax.default_backend() != "cpu"
        side = 8192 if gpu else 2048
        dtype = jnp.bfloat16 if self.workload.precision == "bfloat16" else jnp.float32
        a = jnp.ones((side, side), dtype)
        product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32).astype(dtype))
        long = jnp.ones((1 << (28 if gpu else 25),), jnp.float32)
        copied = jax.jit(lambda x: x + 1)
        seconds = [_best(product, a, a), _best(copied, long)]
        return {"flops": 2.0 * side**3 / seconds[0], "bytes_per_second": 2.0 * long.nbytes / seconds[1]}

    def peak(self) -> dict[str, int]:
        """Of the device that held most, or of the process."""
        held = [device.memory_stats() or {} for device in self.mesh.devices.flat]
        return {"bytes": max((h.get("peak_bytes_in_use", 0) for h in held), default=0) or processes.process_peak()}


def _best(function: Any, *arguments: Any) -> float:
    found = []
    for _ in range(6):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        found.append(time.perf_counter() - began)
    return min(found[1:])
