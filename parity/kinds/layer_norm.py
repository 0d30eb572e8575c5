"""Layer normalisation: over the last axes of each example."""

from __future__ import annotations

from parity.kinds.kind import Kind, Shapes
from parity.kinds.layer import Layer, Recorded
from parity.kinds.normalization import AFFINE, Normalization, affine


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return class_name == "LayerNorm" and ("scale" in shapes or "bias" in shapes)


def _layer(recorded: Recorded) -> Layer | None:
    if "eps" not in recorded.settings or "normalized_shape" not in recorded.settings:
        return None
    ndim = recorded.x.ndim
    axes = tuple(range(ndim - len(recorded.settings["normalized_shape"]), ndim))
    return Normalization(x=recorded.x, weights=affine(recorded), eps=recorded.settings["eps"], axes=axes)


KIND = Kind(
    name="layer_norm", torch_classes=("normalization.LayerNorm",), weights=AFFINE, in_flax=_in_flax, layer=_layer
)
