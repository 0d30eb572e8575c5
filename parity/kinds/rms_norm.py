"""Root-mean-square normalisation: layer normalisation without a mean and without an offset.

https://arxiv.org/abs/1910.07467
"""

from __future__ import annotations

import numpy as np

from parity.kinds.kind import Kind, Shapes
from parity.kinds.layer import Layer, Recorded
from parity.kinds.normalization import AFFINE, Normalization, affine


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return class_name == "RMSNorm" and "scale" in shapes


def _layer(recorded: Recorded) -> Layer | None:
    if "normalized_shape" not in recorded.settings:
        return None
    ndim, eps = recorded.x.ndim, recorded.settings.get("eps")  # without one PyTorch takes the dtype's
    axes = tuple(range(ndim - len(recorded.settings["normalized_shape"]), ndim))
    eps = float(np.finfo(np.float64).eps) if eps is None else eps
    return Normalization(x=recorded.x, weights=affine(recorded), eps=eps, axes=axes, centred=False)


KIND = Kind(name="rms_norm", torch_classes=("normalization.RMSNorm",), weights=AFFINE, in_flax=_in_flax, layer=_layer)
