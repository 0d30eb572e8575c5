"""Instance normalisation: over all positions of each channel of each example; Flax's has its own class."""

from __future__ import annotations

from parity.kinds.kind import Kind, Shapes
from parity.kinds.layer import Layer, Recorded
from parity.kinds.normalization import AFFINE, Normalization, affine


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return class_name == "InstanceNorm" and ("scale" in shapes or "bias" in shapes)


def _layer(recorded: Recorded) -> Layer | None:
    if "eps" not in recorded.settings or recorded.settings.get("track_running_stats"):
        return None
    axes = tuple(range(2, recorded.x.ndim))
    return Normalization(x=recorded.x, weights=affine(recorded), eps=recorded.settings["eps"], axes=axes, channel=1)


KIND = Kind(
    name="instance_norm",
    torch_classes=("instancenorm._InstanceNorm",),
    weights=AFFINE,
    in_flax=_in_flax,
    layer=_layer,
)
