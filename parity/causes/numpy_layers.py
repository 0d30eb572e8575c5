"""PyTorch's layers as operations, in NumPy: for models that are run again as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.numpy_table import Arguments, CannotRun, operation
from parity.kinds import registry
from parity.kinds.layer import Recorded


@operation("convolution", "_convolution")
def _convolution(a: Arguments) -> NDArray:
    x, weight, bias = a["input"], a["weight"], a.get("bias")
    flat = x.ndim == 3
    if a.get("transposed") or x.ndim not in (3, 4):
        raise CannotRun("this convolution isn't written out")

    def both(values: Any, rest: int) -> list[int]:
        return [rest, *values] if flat else list(values)

    settings = {
        "stride": both(a["stride"], 1), "padding": both(a["padding"], 0), "dilation": both(a["dilation"], 1),
        "groups": a["groups"], "padding_mode": "zeros", "kernel_size": both(weight.shape[2:], 1),
    }  # fmt: skip
    weights = {"weight": weight[:, :, None] if flat else weight} | ({} if bias is None else {"bias": bias})
    layer = registry.layer(Recorded("Conv2d", settings, x[:, :, None] if flat else x, weights))
    if layer is None:
        raise CannotRun("this convolution isn't written out")
    y = layer.compute()
    return y[:, :, 0] if flat else y


@operation("native_batch_norm", "_native_batch_norm_legit_no_training", "batch_norm")
def _batch_norm(a: Arguments) -> list[NDArray]:
    if a.get("training"):
        raise CannotRun("a norm of the batch")
    x = a["input"]
    shape = [1, -1] + [1] * (x.ndim - 2)
    y = (x - a["running_mean"].reshape(shape)) / np.sqrt(a["running_var"].reshape(shape) + a["eps"])
    for name, change in (("weight", np.multiply), ("bias", np.add)):
        if a.get(name) is not None:
            y = change(y, a[name].reshape(shape))
    return [y, np.zeros(0), np.zeros(0)]


@operation("native_group_norm")
def _group_norm(a: Arguments) -> list[NDArray]:
    x = a["input"]
    grouped = x.reshape(x.shape[0], a["group"], -1)
    y = grouped - grouped.mean(-1, keepdims=True)
    y = (y / np.sqrt(grouped.var(-1, keepdims=True) + a["eps"])).reshape(x.shape)
    shape = [1, -1] + [1] * (x.ndim - 2)
    for name, change in (("weight", np.multiply), ("bias", np.add)):
        if a.get(name) is not None:
            y = change(y, a[name].reshape(shape))
    return [y, np.zeros(0), np.zeros(0)]
