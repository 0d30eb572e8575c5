"""`python -m jax_alexnet.ops.cpu.stopwatch DTYPE SECONDS [DIRECTORY]`: how long does each form of a convolution take?

A process of its own, started by `calibration`, since one program can't compute while another is being traced. Each task
is one of AlexNet's convolutions with a batch that takes some tens of milliseconds; its forms are timed in turns, and
the fastest of each form's rounds counts, which other work on the machine disturbs least. The last line on standard
output is the answer, as JSON: {task: {form: seconds}}.
"""

import json
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jax_alexnet import devices
from jax_alexnet.ops import convolution
from jax_alexnet.ops.cpu import proof
from jax_alexnet.ops.pooling import max_pool

IMAGES = 32
ROUNDS = 5


class Layer(NamedTuple):
    """A convolution of `IMAGES` square maps, which 3x3 max pooling makes of larger ones where they are `pooled`.

    In a program XLA may compute pooling anew in the order in which a form reads the maps: that is part of its time.
    """

    geometry: convolution.Geometry
    side: int
    channels: int
    features: int
    pooled: bool

    def operands(self, dtype: jnp.dtype) -> tuple[Array, Array, Array]:
        """Maps before pooling, kernels and gradients of the maps after them, drawn."""
        window, stride, ((low, high), _), *_ = self.geometry
        after = (self.side + low + high - window) // stride + 1
        before = 2 * self.side + 1 if self.pooled else self.side
        shapes = (
            (IMAGES, before, before, self.channels),
            (window, window, self.channels, self.features),
            (IMAGES, after, after, self.features),
        )
        keys = jax.random.split(jax.random.key(0), len(shapes))
        x, kernel, gradient = (jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True))
        return x, kernel, gradient

    def maps(self, x: Array) -> Array:
        """What the convolution sees."""
        return max_pool(x, window=3, stride=2) if self.pooled else x


def _geometry(window: int, stride: int, padding: int) -> convolution.Geometry:
    return convolution.Geometry(window, stride, ((padding, padding), (padding, padding)), 1, "auto")


# One for each kind that `convolution.kind` tells apart: conv1, conv2 and conv3 of the paper's network in one column.
LAYERS = (
    Layer(_geometry(11, 4, 0), 227, 3, 96, pooled=False),
    Layer(_geometry(5, 1, 2), 27, 96, 256, pooled=True),
    Layer(_geometry(3, 1, 1), 13, 256, 384, pooled=True),
)


def main() -> None:
    """Time everything, and print it."""
    dtype, seconds, directory, *_ = *sys.argv[1:], ""
    signal.alarm(max(1, int(float(seconds))))  # whoever waits for the answer may be gone by then
    proof.keep_in(Path(directory) if directory else None)
    print(json.dumps({task: found for layer in LAYERS for task, found in times(layer, jnp.dtype(dtype)).items()}))


def times(layer: Layer, dtype: jnp.dtype) -> dict[str, dict[str, float]]:
    """Seconds of the convolution and of its kernel's gradient, by task and form."""
    x, kernel, gradient = layer.operands(dtype)
    geometry = layer.geometry
    maps: Any = jax.eval_shape(layer.maps, x)

    def by(form: str, x: Array, kernel: Array) -> Array:
        return convolution.by(form, geometry, layer.maps(x), kernel)

    def kernels_by(form: str, x: Array, gradient: Array) -> Array:
        return convolution.kernels_by(form, geometry, layer.maps(x), gradient)

    forward = {
        form: partial(_compiled(partial(by, form), x, kernel), x, kernel)
        for form in convolution.forms_that_fit(geometry._replace(gradient=True), maps, layer.features)
    }
    backward = {
        form: partial(_compiled(partial(kernels_by, form), x, gradient), x, gradient)
        for form in convolution.kernel_forms_that_fit(geometry, maps)
    }
    kind = convolution.kind(geometry, layer.channels)
    return {f"convolution of {kind}": _timed(forward), f"kernel's gradient of {kind}": _timed(backward)}


def _compiled(function: Callable[..., Array], *arrays: Array) -> Callable[..., Array]:
    return jax.jit(function, compiler_options=devices.compiler_options("cpu")).lower(*arrays).compile()


def _timed(calls: dict[str, Callable[[], Array]]) -> dict[str, float]:
    for call in calls.values():
        jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {form: [] for form in calls}
    for _ in range(ROUNDS):
        for form, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            seconds[form].append(time.perf_counter() - began)
    return {form: min(rounds) for form, rounds in seconds.items()}


if __name__ == "__main__":
    main()
