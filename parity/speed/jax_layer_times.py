"""Time by layer of `jax_alexnet`, each compiled alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_alexnet import devices
from jax_alexnet import layer_specs as specs
from jax_alexnet import variants as v
from jax_alexnet.model import layer_module
from parity.speed.timing import least
from parity.speed.workload import Workload


def layer_times(workload: Workload) -> list[dict[str, Any]]:
    """Seconds `forward` and `backward` of each `layer`, the least of several."""
    dtype = devices.set_precision(workload.precision)
    options = devices.compiler_options(jax.default_backend())
    variant = v.VARIANTS[workload.model]
    rng = np.random.default_rng(0)
    shape = workload.batch_size, workload.image_size, workload.image_size, 3
    x = jnp.asarray(rng.standard_normal(shape, np.float32), dtype)
    found = []
    for row in variant.layers:
        if isinstance(row, specs.Dropout):
            continue
        module = layer_module(row, variant.classes)
        params = jax.jit(module.init)(jax.random.key(0), x[:1])
        forward = jax.jit(module.apply, compiler_options=options)
        y = forward(params, x)

        def pull_back(params: Any, x: Any, g: Any, module: Any = module) -> Any:
            return jax.vjp(lambda p, x: module.apply(p, x), params, x)[1](g)

        backward = jax.jit(pull_back, compiler_options=options)
        wait = jax.block_until_ready
        seconds = least(lambda f=forward, p=params, x=x: f(p, x), wait)
        # A custom gradient may need the forward pass again: it is part of what the layer costs backward.
        both = least(lambda f=backward, p=params, x=x, y=y: f(p, x, y), wait)
        found.append({"layer": row.name, "forward": seconds, "backward": both})
        x = y
    return found
