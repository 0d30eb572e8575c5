"""Group normalisation: over groups of channels and all positions of each example."""

from __future__ import annotations

from parity.kinds.kind import Kind, Shapes
from parity.kinds.layer import Layer, Recorded
from parity.kinds.normalization import AFFINE, Grouped, affine


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return class_name == "GroupNorm" and ("scale" in shapes or "bias" in shapes)


def _layer(recorded: Recorded) -> Layer | None:
    if "eps" not in recorded.settings or "num_groups" not in recorded.settings:
        return None
    return Grouped(
        x=recorded.x,
        weights=affine(recorded),
        eps=recorded.settings["eps"],
        axes=tuple(range(2, recorded.x.ndim)),
        channel=1,
        groups=recorded.settings["num_groups"],
    )


KIND = Kind(
    name="group_norm", torch_classes=("normalization.GroupNorm",), weights=AFFINE, in_flax=_in_flax, layer=_layer
)
