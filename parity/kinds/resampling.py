"""Resizing of maps: nearest neighbours and weighted ones, as PyTorch's Upsample and interpolate do it.

Pixel i of m looks at the place (i + 1/2) n / m - 1/2 of n pixels, or with aligned corners at i (n - 1) / (m - 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kind import Kind, Operation
from parity.kinds.layer import Layer, Mistake, Recorded, Settings, setting, sizes

_METHODS = {"nearest": "the nearest pixel", "linear": "weighted neighbours (linear)", "cubic": "cubic weights"}
_CENTRES = {
    "half": "pixels' centres",
    "corners": "aligned corners",
    "edges": "pixels' upper left corners",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampling(Layer):
    """A product with a matrix along each direction of a map (N, C, ...).

    Attributes:
        size: of the result, a direction each.
        method: a key of `_METHODS`.
        centres: what lies at whole numbers, a key of `_CENTRES`.
        sharpness: of cubic weights: -0.75 in PyTorch, -0.5 in JAX.
        renormalised: whether weights beyond the edge are left out, and the others add up to 1 again, as in JAX; else
            they are the edge's.
        smoothed: whether weights are as much wider as a side shrinks (antialiasing), those beyond the edge left out.
    """

    size: tuple[int, ...]
    method: str
    centres: str = "half"
    sharpness: float = -0.75
    renormalised: bool = False
    smoothed: bool = False

    def forward(self) -> NDArray:
        """Direction by direction."""
        x = self.x
        for axis, m in enumerate(self.size, 2):
            x = np.moveaxis(np.moveaxis(x, axis, -1) @ self._weights(x.shape[axis], m).T, -1, axis)
        return x

    def input_gradient(self, g: NDArray) -> NDArray:
        """With the transposed matrices."""
        for axis, m in enumerate(self.size, 2):
            g = np.moveaxis(np.moveaxis(g, axis, -1) @ self._weights(self.x.shape[axis], m), -1, axis)
        return g

    def _weights(self, n: int, m: int) -> NDArray:
        """(m, n): what each pixel of the result takes of each pixel of the map."""
        i, found = np.arange(m), np.zeros((m, n))
        if self.centres == "corners":
            place = i * (n - 1) / max(m - 1, 1)
        else:
            place = (i + 0.5) * n / m - 0.5 if self.centres == "half" else i * n / m
        if self.method == "nearest":
            # In exact whole numbers, where a quotient may round over an edge.
            whole = {"half": (2 * i + 1) * n // (2 * m), "edges": i * n // m, "corners": np.rint(place).astype(int)}
            found[i, np.clip(whole[self.centres], 0, n - 1)] = 1
            return found
        if self.smoothed:
            distance = np.abs(place[:, None] - np.arange(n)) / max(n / m, 1.0)
            found = np.maximum(1 - distance, 0.0) if self.method == "linear" else _cubic(distance, self.sharpness)
            return found / found.sum(1, keepdims=True)
        if self.method == "linear":
            place = np.clip(place, 0, n - 1)
        first = np.floor(place).astype(int)
        offsets = (0, 1) if self.method == "linear" else (-1, 0, 1, 2)
        for offset in offsets:
            distance = np.abs(place - (first + offset))
            share = 1 - distance if self.method == "linear" else _cubic(distance, self.sharpness)
            seen = first + offset
            share = np.where((seen < 0) | (seen >= n), 0.0, share) if self.renormalised else share
            np.add.at(found, (i, np.clip(seen, 0, n - 1)), share)
        return found / found.sum(1, keepdims=True) if self.renormalised else found

    def own_mistakes(self) -> Iterator[Mistake]:
        """Other weights, other places."""
        for method, words in _METHODS.items():
            for centres, at in _CENTRES.items():
                if (method, centres) == (self.method, self.centres):
                    continue
                text = f"resized with {words} by {at}, not {_METHODS[self.method]} by {_CENTRES[self.centres]}"
                key = "align_corners" if method == self.method else "resize_method"
                yield setting(key, text, method=method, centres=centres)
                if method == "cubic":
                    text = f"{text}, with JAX's sharpness -0.5 and edges"
                    jaxs = {"sharpness": -0.5, "renormalised": True}
                    yield setting(key, text, method=method, centres=centres, **jaxs)
        if self.method == "cubic":
            text = "cubic weights' sharpness is -0.5, not -0.75"
            yield setting("cubic_sharpness", text, sharpness=-0.5)
            text = f"{text}, and beyond the edge stands nothing"
            yield setting("cubic_sharpness", text, sharpness=-0.5, renormalised=True)


def in_other_ways(x: NDArray, size: tuple[int, ...]) -> Iterator[tuple[str, str, NDArray]]:
    """What code between layers may do instead of its own resizing of a map: cause, words and result of each way."""

    def by(method: str, centres: str = "half", **more: Any) -> NDArray:
        return Resampling(x=x, size=size, method=method, centres=centres, **more).forward()

    for centres, where in (("edges", ""), ("half", ", places counted from their centres")):
        yield "resize_nearest", f"pixels are repeated, not interpolated{where}", by("nearest", centres)
    for centres, where in (("half", "pixels' centres"), ("corners", "corners")):
        yield "resize_linear", f"interpolation is linear, with {where} aligned", by("linear", centres)
        for sharpness in (-0.75, -0.5):
            text = f"interpolation is cubic (a = {sharpness}), with {where} aligned"
            yield "resize_cubic", text, by("cubic", centres, sharpness=sharpness)
    yield "resize_smoothed", "what shrinks is smoothed first (antialiased)", by("linear", smoothed=True)
    text = "interpolation is cubic as Keys has it, weights beyond the edge left out"
    yield "resize_cubic", text, by("cubic", sharpness=-0.5, smoothed=True)


def _cubic(distance: NDArray, a: float) -> NDArray:
    """Keys' kernel, https://doi.org/10.1109/TASSP.1981.1163711."""
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


_TORCH = {"nearest": ("nearest", "edges"), "nearest-exact": ("nearest", "half"), "bicubic": ("cubic", "half")}
_TORCH |= dict.fromkeys(("linear", "bilinear", "trilinear"), ("linear", "half"))


def _layer(recorded: Recorded) -> Layer | None:
    get, count = recorded.settings.get, recorded.x.ndim - 2
    mode = get("mode", "nearest")
    if mode not in _TORCH or count < 1:
        return None
    if get("size") is not None:
        size = sizes(get("size"), count)
    elif get("scale_factor") is not None:
        given = get("scale_factor")
        factors = list(given) if isinstance(given, (list, tuple)) else [given] * count
        size = tuple(math.floor(n * factor) for n, factor in zip(recorded.x.shape[2:], factors, strict=True))
    else:
        return None
    if len(size) != count or min(size) < 1:
        return None
    method, centres = _TORCH[mode]
    centres = "corners" if get("align_corners") and method != "nearest" else centres
    return Resampling(x=recorded.x, size=size, method=method, centres=centres)


def _settings(mode: str) -> Any:
    def settings(args: list[Any]) -> Settings | None:
        """Sizes are whole numbers in a list, factors others; a truth value is `align_corners`."""
        lists = [a for a in args if isinstance(a, list) and a]
        whole = next((a for a in lists if all(isinstance(v, int) for v in a)), None)
        factors = next((a for a in lists if all(isinstance(v, float) for v in a)), None)
        aligned = next((a for a in args if isinstance(a, bool)), False)
        return {"mode": mode, "size": whole, "scale_factor": factors, "align_corners": aligned}

    return settings


_NAMES = {
    **{f"upsample_nearest{n}d": "nearest" for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": "nearest-exact" for n in (1, 2, 3)},
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "bilinear",
    "upsample_trilinear3d": "trilinear",
    "upsample_bicubic2d": "bicubic",
}

KIND = Kind(
    name="resampling",
    torch_classes=("upsampling.Upsample",),
    layer=_layer,
    operations={name: Operation("resizing", "Upsample", _settings(mode)) for name, mode in _NAMES.items()},
)
