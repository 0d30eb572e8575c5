"""A leaf's parameters and statistics between PyTorch and Flax, as its kind says: names, and layouts.

| what | PyTorch | Flax |
| --- | --- | --- |
| convolution kernel | O I H W | H W I O |
| dense kernel | out in | in out |
| rows of a dense kernel after flattening a map | C H W | H W C |
| dense kernel with several axes | out in | in heads dim, or heads dim out |
| kernel of an unshared (local) convolution | H' W' O I H W | H' W' H W I O |

Only NumPy is used: these are moves of values, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from parity.kinds import layouts, registry
from parity.kinds.kind import Shape, Shapes
from parity.kinds.layouts import Layout

Variables = dict[str, dict[str, NDArray]]


def weights_to_flax(
    kind: str, state: Mapping[str, NDArray], layout: Layout | None = None, shapes: Shapes | None = None
) -> Variables:
    """A leaf's PyTorch parameters and statistics as Flax variables.

    Args:
        kind: name of the leaf's kind.
        state: arrays by PyTorch name.
        layout: of a dense layer's input, which orders the kernel's rows.
        shapes: that the Flax leaf wants, by Flax name, where they are known; see `fits`.

    Returns:
        {"params": {...}, "batch_stats": {...}} with what there is: views, not copies, where strides can do it.
    """
    variables: Variables = {}
    for name, array in state.items():
        weight = registry.named(kind).weight(name)
        variables.setdefault(weight.collection, {})[weight.flax] = to_flax(kind, name, array, layout, shapes)
    return variables


def to_flax(
    kind: str, name: str, array: NDArray, layout: Layout | None = None, shapes: Shapes | None = None
) -> NDArray:
    """One parameter or statistic of PyTorch's name `name`, or its gradient, in Flax's layout; see `weights_to_flax`."""
    moved = registry.named(kind).weight(name).to_flax(array, layout)
    wanted = (shapes or {}).get(flax_name(kind, name), moved.shape)
    return moved.reshape(wanted) if wanted != moved.shape and fits(kind, wanted, moved.shape) else moved


def to_torch(
    kind: str, name: str, array: NDArray, layout: Layout | None = None, shape: Sequence[int] | None = None
) -> NDArray:
    """The inverse of `to_flax`; `name` is PyTorch's as well, and `shape` that of PyTorch's parameter, if known."""
    if shape is not None:
        joined = flax_shapes(kind, {name: shape})[flax_name(kind, name)]
        array = array.reshape(joined) if fits(kind, array.shape, joined) else array
    return registry.named(kind).weight(name).to_torch(array, layout)


def fits(kind: str, flax: Shape, torch: Shape) -> bool:
    """Whether a weight of PyTorch's, `torch` in Flax's layout, is one of the shape `flax`.

    The shapes are the same, or the kind's Flax leaves may split axes, and `flax` does: (8, 2, 3) is (8, 6).
    """
    return flax == torch or (registry.named(kind).splits_axes and layouts.splits(flax, torch))


def flax_name(kind: str, torch_name: str) -> str:
    """Flax's name of a PyTorch parameter or statistic."""
    return registry.named(kind).weight(torch_name).flax


def torch_name(kind: str, flax_name: str) -> str:
    """PyTorch's name of a Flax parameter or statistic; the same where the kind declares none."""
    return next((w.torch for w in registry.named(kind).weights if w.flax == flax_name), flax_name)


def flax_shapes(kind: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """The shapes that a leaf's parameters and statistics have in Flax, by Flax name."""
    found = {}
    for name, shape in shapes.items():
        array = np.broadcast_to(np.float32(0), shape)  # a shape without memory
        found[flax_name(kind, name)] = tuple(to_flax(kind, name, array).shape)
    return found
