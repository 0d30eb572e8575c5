"""Time by layer of `torch_ref`, each in the form that is timed as a whole."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from parity.speed import torch_forms
from parity.speed.timing import least
from parity.speed.workload import TUNED_FORM, Workload


def layer_times(workload: Workload) -> list[dict[str, Any]]:
    """Seconds `forward` and `backward` of each `layer`, the least of several."""
    torch.set_num_threads(workload.threads)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    form = workload.form or TUNED_FORM
    classes = 1000
    network = torch_forms.network(workload.model, classes, workload.image_size, form).to(device)
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
            seconds = least(forward, wait)
        x.requires_grad_()
        y = forward()
        wanted, cotangent = [x, *child.parameters()], torch.ones_like(y)

        def both(forward: Any = forward, wanted: Any = wanted, cotangent: Any = cotangent) -> Any:
            return torch.autograd.grad(forward(), wanted, cotangent)

        found.append({"layer": name, "forward": seconds, "backward": max(least(both, wait) - seconds, 0.0)})
        x = y.detach()
    return found
