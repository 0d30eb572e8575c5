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
    ndim, shape = recorded.x.ndim, tuple(recorded.settings["normalized_shape"])
    axes, channel = tuple(range(ndim - len(shape), ndim)), None
    if recorded.x.shape[ndim - len(shape) :] != shape:
        # A class of someone's own, which turns maps so that their channels come last.
        if ndim < 3 or recorded.x.shape[1:2] != shape:
            return None
        axes, channel = (1,), 1
    eps = recorded.settings["eps"]
    return Normalization(x=recorded.x, weights=affine(recorded), eps=eps, axes=axes, channel=channel)


KIND = Kind(
    name="layer_norm", torch_classes=("normalization.LayerNorm",), weights=AFFINE, in_flax=_in_flax, layer=_layer
)
