"""Batch normalisation, with the running statistics of evaluation."""

from __future__ import annotations

from parity.kinds.kind import Kind, Shapes
from parity.kinds.normalization import AFFINE, STATISTICS


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return "mean" in shapes and "var" in shapes


KIND = Kind(
    name="batch_norm",
    torch_classes=("batchnorm._BatchNorm",),
    weights=(*AFFINE, *STATISTICS),
    in_flax=_in_flax,
)
