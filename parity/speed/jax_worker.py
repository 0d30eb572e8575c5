"""Times JAX: `tuned` is this repository's own training step, `plain` the obvious Linen module."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from parity.speed import processes
from parity.speed.workload import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Workload


def main(arguments: list[str]) -> None:
    """Build the workload, then serve."""
    workload = Workload(**json.loads(arguments[0]))
    processes.claim_output()
    processes.pin(workload.threads)
    import jax

    job = Job(workload, Path(arguments[1]))
    if workload.mode == "train":
        logits = job.logits()
    began = time.perf_counter()
    job.run(1)
    seconds = time.perf_counter() - began
    if workload.mode == "infer":  # whose step the logits come from: it is compiled by now, and was timed
        logits = job.logits()
    facts = {
        "compile_seconds": seconds,
        "logits": logits,
        "versions": {"jax": jax.__version__, "jaxlib": jax.lib.__version__},
        "device": jax.devices()[0].device_kind,
        "flags": job.flags,
        "count": len(job.mesh.devices.flat),
    }
    actions = {"run": job.timed, "ceilings": job.ceilings, "peak": job.peak, "trace": job.trace}
    processes.serve(facts, actions)


class Job:
    """The compiled step with its state on the devices."""

    def __init__(self, workload: Workload, weights: Path) -> None:
        import jax
        import numpy as np

        from alexnet_io.train_settings import TrainSettings
        from jax_alexnet import augment, devices, optim, recipes, setup, steps
        from jax_alexnet import weights as stored
        from jax_alexnet.variants import VARIANTS

        self.workload = workload
        settings = recipes.resolve(TrainSettings(
            model=workload.model, data="synthetic", image_size=workload.image_size, stored_size=workload.image_size,
            batch_size=workload.batch_size, precision=workload.precision, optimizer="sgd", momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY, learning_rate=LEARNING_RATE, normalize="half", crop=False, flip=False,
            color_noise=False, recipe="blog",
        ))  # fmt: skip
        dtype = devices.set_precision(workload.precision)
        chosen = devices.choose_devices(str(workload.devices))
        self.mesh = devices.data_mesh(chosen)
        variant = VARIANTS[workload.model]
        params, classes = stored.load(weights, workload.model)
        params = jax.tree.map(np.asarray, params)
        augmentation = augment.Augmentation.of(settings)
        if workload.style == "tuned":
            model: Any = setup.make_model(settings, classes, dtype)
        else:
            from parity.speed.plain_jax import PlainAlexNet

            model = PlainAlexNet(variant, classes, dtype)
        optimizer = optim.make_optimizer(settings, variant, params)
        rng = np.random.default_rng(0)
        shape = workload.batch_size, workload.image_size, workload.image_size, 3
        host = steps.Batch(
            rng.integers(0, 256, shape, np.uint8), rng.integers(0, classes, shape[0]).astype(np.int32),
            np.ones(shape[0], np.float32),
        )  # fmt: skip
        self.batch = steps.split(host, self.mesh)
        self.statistics: dict[str, Any] = {}
        self.params = steps.replicate(params, self.mesh)
        self.key = jax.random.key(0)
        if workload.style == "tuned":
            self.evaluate = steps.make_eval_step(model, augmentation, self.mesh)
            self.flags = {"compiler_options": devices.compiler_options(chosen[0].platform)}
        else:
            from parity.speed.plain_jax import plain_eval_step

            self.evaluate = plain_eval_step(model, self.mesh)
            self.flags = {}
        self.state: Any = None
        if workload.mode == "train":
            if workload.style == "tuned":
                self.step = steps.make_train_step(model, optimizer, augmentation, self.mesh)
            else:
                from parity.speed.plain_jax import plain_train_step

                self.step = plain_train_step(model, optimizer, self.mesh)
            state = steps.TrainState(jax.numpy.int32(0), params, optimizer.init(params))
            self.state = steps.replicate(state, self.mesh)

    def logits(self) -> list[list[float]]:
        """Of the first images, in evaluation mode, with the shared weights."""
        import numpy as np

        return np.asarray(self.evaluate(self.params, self.batch, self.statistics)[0][:4], np.float64).tolist()

    def run(self, steps: int) -> None:
        """Whole steps; returns when the device is done."""
        import jax
        import numpy as np

        if self.state is None:
            jax.block_until_ready([self.evaluate(self.params, self.batch, self.statistics) for _ in range(steps)])
            return
        for _ in range(steps):
            self.state, metrics = self.step(
                self.state, self.batch, np.float32(LEARNING_RATE), self.key, self.statistics
            )
        jax.block_until_ready((self.state, metrics))

    def timed(self, steps: int) -> dict[str, float]:
        """Seconds of so many steps."""
        began = time.perf_counter()
        self.run(steps)
        return {"seconds": time.perf_counter() - began}

    def trace(self, directory: str) -> dict[str, str]:
        """Three steps under the profiler, for TensorBoard or Perfetto."""
        import jax

        with jax.profiler.trace(directory):
            self.run(3)
        return {"directory": directory}

    def ceilings(self) -> dict[str, float]:
        """A large matrix product in the precision, and a copy; the best of five, on all devices' cores."""
        import jax
        import jax.numpy as jnp

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
    import jax

    found = []
    for _ in range(6):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        found.append(time.perf_counter() - began)
    return min(found[1:])


if __name__ == "__main__":
    processes.told(main)
