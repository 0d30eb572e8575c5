"""The one place where layouts are converted between PyTorch (channels first) and Flax (channels last).

| what | PyTorch | Flax |
| --- | --- | --- |
| images and maps | N C H W | N H W C |
| convolution kernel | O I H W | H W I O |
| dense kernel | out in | in out |
| rows of a dense kernel after flattening a map | C H W | H W C |
| kernel of an unshared (local) convolution | H' W' O I H W | H' W' H W I O |

Only NumPy is used: these are moves of values, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import difference

# Parameters and statistics, PyTorch's name to (collection, Flax's name); `weight` depends on the kind.
_NAMES = {
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
_WEIGHT = {
    "conv": "kernel",
    "dense": "kernel",
    "local_conv": "kernel",
    "batch_norm": "scale",
    "layer_norm": "scale",
    "group_norm": "scale",
    "embedding": "embedding",
}


@dataclass(frozen=True)
class Layout:
    """How one reference activation lies in the candidate's array.

    Attributes:
        moved: whether the channel axis moves from second to last.
        map_shape: (C, H, W) of the map whose flattening the reference holds, if the rows follow H, W, C.
        shape: shape in the candidate, where it keeps the map unflattened; None if as moved.
    """

    moved: bool = False
    map_shape: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None

    def to_flax(self, array: NDArray) -> NDArray:
        """A reference activation as the candidate holds it."""
        if self.map_shape is not None:
            array = channels_last(array.reshape(array.shape[0], *self.map_shape))
            array = array.reshape(self.shape or (array.shape[0], -1))
        elif self.moved:
            array = channels_last(array)
        return array if self.shape is None else array.reshape(self.shape)

    def to_torch(self, array: NDArray) -> NDArray:
        """A candidate activation as the reference holds it."""
        if self.map_shape is not None:
            channels, *spatial = self.map_shape
            return channels_first(array.reshape(array.shape[0], *spatial, channels)).reshape(array.shape[0], -1)
        return channels_first(array) if self.moved else array


def channels_last(array: NDArray) -> NDArray:
    """N C ... to N ... C."""
    return np.moveaxis(array, 1, -1)


def channels_first(array: NDArray) -> NDArray:
    """N ... C to N C ...."""
    return np.moveaxis(array, -1, 1)


def candidates(reference: tuple[int, ...], flax: tuple[int, ...], map_shape: tuple[int, ...] | None) -> list[Layout]:
    """Ways in which an array of shape `reference` in PyTorch may be the array of shape `flax`.

    Args:
        reference: shape in the reference.
        flax: shape in the candidate.
        map_shape: (C, H, W) of the map that the reference flattened into rows of this array, if it did.

    Returns:
        The likeliest first; empty if the shapes can't hold the same values.
    """
    found: list[Layout] = []
    if map_shape is not None and math.prod(reference) == math.prod(flax) and len(reference) == 2:
        unflattened = (reference[0], *map_shape[1:], map_shape[0])
        if flax in (reference, unflattened):
            found.append(Layout(map_shape=map_shape, shape=flax))
    if len(reference) >= 3 and flax == (reference[0], *reference[2:], reference[1]):
        found.append(Layout(moved=True))
    if flax == reference:
        found.append(Layout())
    if len(reference) == 2 and len(flax) == 4 and not found and math.prod(reference) == math.prod(flax):
        found.append(Layout(map_shape=(flax[3], flax[1], flax[2]), shape=flax))
    return found


def weights_to_flax(
    kind: str, state: dict[str, NDArray], layout: Layout | None = None
) -> dict[str, dict[str, NDArray]]:
    """A leaf's PyTorch parameters and statistics as Flax variables.

    Args:
        kind: of the leaf, see `parity.kinds.torch_leaves.kind_of`.
        state: arrays by PyTorch name.
        layout: of a dense layer's input, which orders the kernel's rows.

    Returns:
        {"params": {...}, "batch_stats": {...}} with what there is: views, not copies, where strides can do it.
    """
    variables: dict[str, dict[str, NDArray]] = {}
    for name, array in state.items():
        if name == "weight" and kind in _WEIGHT:
            collection, flax_name = "params", _WEIGHT[kind]
            array = kernel_to_flax(kind, array, layout)
        else:
            collection, flax_name = _NAMES.get(name, ("params", name))
        variables.setdefault(collection, {})[flax_name] = array
    return variables


def kernel_to_flax(kind: str, weight: NDArray, layout: Layout | None = None) -> NDArray:
    """One PyTorch `weight` as Flax's kernel, scale or embedding."""
    if kind == "conv":
        return np.moveaxis(weight, (0, 1), (-1, -2))
    if kind == "local_conv":
        return weight.transpose(0, 1, 4, 5, 3, 2)
    if kind == "dense":
        if layout is not None and layout.map_shape is not None:
            channels, *spatial = layout.map_shape
            weight = channels_last(weight.reshape(weight.shape[0], channels, *spatial)).reshape(weight.shape)
        return weight.T
    return weight


def kernel_to_torch(kind: str, kernel: NDArray, layout: Layout | None = None) -> NDArray:
    """The inverse of `kernel_to_flax`."""
    if kind == "conv":
        return np.moveaxis(kernel, (-1, -2), (0, 1))
    if kind == "local_conv":
        return kernel.transpose(0, 1, 5, 4, 2, 3)
    if kind == "dense":
        weight = kernel.T
        if layout is not None and layout.map_shape is not None:
            channels, *spatial = layout.map_shape
            weight = channels_first(weight.reshape(weight.shape[0], *spatial, channels)).reshape(weight.shape)
        return weight
    return kernel


def flax_name(kind: str, torch_name: str) -> str:
    """Flax's name of a PyTorch parameter or statistic."""
    if torch_name == "weight" and kind in _WEIGHT:
        return _WEIGHT[kind]
    return _NAMES.get(torch_name, ("params", torch_name))[1]


def flax_shapes(kind: str, shapes: dict[str, list[int]]) -> dict[str, tuple[int, ...]]:
    """The shapes that a leaf's parameters and statistics have in Flax, by Flax name."""
    found = {}
    for name, shape in shapes.items():
        array = np.broadcast_to(np.float32(0), shape)  # a shape without memory
        moved = kernel_to_flax(kind, array) if name == "weight" and kind in _WEIGHT else array
        found[flax_name(kind, name)] = tuple(moved.shape)
    return found


def align(reference: NDArray, flax: NDArray, map_shape: tuple[int, ...] | None) -> Layout | None:
    """The layout in which the candidate's array lies: by its shape, and by its values where shapes fit twice.

    Args:
        reference: the reference's values.
        flax: the candidate's.
        map_shape: (C, H, W) of the map that the reference flattened into rows of this array, if it did.

    Returns:
        None if the shapes can't hold the same values.
    """
    fits = candidates(reference.shape, flax.shape, map_shape)
    if len(fits) < 2:
        return fits[0] if fits else None
    differences = [difference(f.to_flax(reference), flax) for f in fits]
    # Where something isn't finite, the number of such places decides, then the rest.
    return fits[min(range(len(fits)), key=lambda i: _farness(differences[i]))]


def _farness(apart: NDArray) -> tuple[int, float]:
    infinite = np.isinf(apart)
    return int(infinite.sum()), float(np.max(apart, initial=0.0, where=~infinite))
