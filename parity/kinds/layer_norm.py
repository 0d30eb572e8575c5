"""Layer normalisation."""

from __future__ import annotations

from parity.kinds.kind import Kind, Shapes
from parity.kinds.normalization import AFFINE


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return class_name == "LayerNorm" and ("scale" in shapes or "bias" in shapes)


KIND = Kind(name="layer_norm", torch_classes=("normalization.LayerNorm",), weights=AFFINE, in_flax=_in_flax)
