"""Batch normalisation, with the running statistics of evaluation, or with the batch's own where there are none."""

from __future__ import annotations

from parity.kinds.kind import Kind, Shapes
from parity.kinds.layer import Layer, Recorded
from parity.kinds.normalization import AFFINE, STATISTICS, Normalization, WithRunningStatistics


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return "mean" in shapes and "var" in shapes


def _layer(recorded: Recorded) -> Layer | None:
    if "eps" not in recorded.settings or recorded.x.ndim < 2:
        return None
    others = tuple(axis for axis in range(recorded.x.ndim) if axis != 1)
    if "running_var" not in recorded.weights:
        eps = recorded.settings["eps"]
        return Normalization(x=recorded.x, weights=recorded.weights, eps=eps, axes=others, channel=1)
    return WithRunningStatistics(
        x=recorded.x, weights=recorded.weights, eps=recorded.settings["eps"], axes=others, channel=1
    )


KIND = Kind(
    name="batch_norm",
    torch_classes=("batchnorm._BatchNorm",),
    weights=(*AFFINE, *STATISTICS),
    in_flax=_in_flax,
    layer=_layer,
)
