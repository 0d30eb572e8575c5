"""Time by layer, forward and backward, of one framework: `python -m parity.speed.layer_times FRAMEWORK WORKLOAD`.

Each layer runs alone on the input that it has in the network, compiled as it would be there as far as a layer alone can
be: what is fused across layers in a whole step is not seen here, so the sum is more than a step takes. It shows where
the time goes, not how much a step costs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from parity.speed import processes
from parity.speed.workload import Workload

REPEATS = 5


def main(arguments: list[str]) -> None:
    """Print one JSON object: seconds by layer, `forward` and `backward`, the least of five."""
    workload = Workload(**json.loads(arguments[1]))
    processes.claim_output()
    processes.pin(workload.threads)
    times = {"jax": _jax, "torch": _torch}[arguments[0]](workload)
    processes.serve({"layers": times}, {})


def _least(function: Callable[[], Any], wait: Callable[[Any], Any]) -> float:
    wait(function())
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        wait(function())
        found.append(time.perf_counter() - began)
    return min(found)


def _jax(workload: Workload) -> list[dict[str, Any]]:
    import jax
    import numpy as np

    from jax_alexnet import devices
    from jax_alexnet import variants as v
    from jax_alexnet.model import layer_module

    dtype = devices.set_precision(workload.precision)
    options = devices.compiler_options(jax.default_backend())
    variant = v.VARIANTS[workload.model]
    rng = np.random.default_rng(0)
    shape = workload.batch_size, workload.image_size, workload.image_size, 3
    x = jax.numpy.asarray(rng.standard_normal(shape, np.float32), dtype)
    found = []
    for row in variant.layers:
        if isinstance(row, v.Dropout):
            continue
        module = layer_module(row, variant.classes)
        params = jax.jit(module.init)(jax.random.key(0), x[:1])
        forward = jax.jit(module.apply, compiler_options=options)
        y = forward(params, x)

        def pull_back(params: Any, x: Any, g: Any, module: Any = module) -> Any:
            return jax.vjp(lambda p, x: module.apply(p, x), params, x)[1](g)

        backward = jax.jit(pull_back, compiler_options=options)
        wait = jax.block_until_ready
        seconds = _least(lambda f=forward, p=params, x=x: f(p, x), wait)
        # A custom gradient may need the forward pass again: it is part of what the layer costs backward.
        both = _least(lambda f=backward, p=params, x=x, y=y: f(p, x, y), wait)
        found.append({"layer": row.name, "forward": seconds, "backward": both})
        x = y
    return found


def _torch(workload: Workload) -> list[dict[str, Any]]:
    import contextlib

    import torch

    from parity.speed import torch_forms

    torch.set_num_threads(workload.threads)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    form = workload.form or torch_forms.TUNED_FORM
    classes = 1000
    network = torch_forms.network(workload.model, classes, workload.image_size, workload.style).to(device)
    network, layout = torch_forms.arranged(network, form)
    shape = workload.batch_size, 3, workload.image_size, workload.image_size
    x = torch.randn(shape, device=device).contiguous(memory_format=layout)
    half = workload.precision == "bfloat16"
    found = []

    def wait(_: Any) -> None:
        if gpu:
            torch.cuda.synchronize()

    for name, child in network.named_children():
        if isinstance(child, torch.nn.Dropout):
            continue
        if isinstance(child, torch.nn.Linear) and x.ndim > 2:
            x = x.flatten(1)
        run = torch_forms.compiled(child, form, gpu)

        def forward(run: Any = run, x: Any = x) -> Any:
            with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
                return run(x)

        with torch.no_grad():
            seconds = _least(forward, wait)
        x.requires_grad_()
        y = forward()
        wanted, cotangent = [x, *child.parameters()], torch.ones_like(y)

        def both(forward: Any = forward, wanted: Any = wanted, cotangent: Any = cotangent) -> Any:
            return torch.autograd.grad(forward(), wanted, cotangent)

        found.append({"layer": name, "forward": seconds, "backward": max(_least(both, wait) - seconds, 0.0)})
        x = y.detach()
    return found


if __name__ == "__main__":
    processes.told(main)
