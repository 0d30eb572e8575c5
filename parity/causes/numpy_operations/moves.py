"""PyTorch's operations that make, move, select and repeat values, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.numpy_operations.table import OPERATIONS, Arguments, CannotRun, axes_of, operation, typed


@operation("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy")
def _view(a: Arguments) -> NDArray:
    size = a.get("size", a.get("shape"))
    if not isinstance(size, list):
        raise CannotRun("a view of another format")
    if -1 not in size and math.prod(size) != a["self"].size:  # a mistake before it changed the map's size
        size = [*size[:-1], -1]
    return np.reshape(a["self"], size)


@operation("flatten")
def _flatten(a: Arguments) -> NDArray:
    x, first, last = a["self"], a.get("start_dim", 0), a.get("end_dim", -1)
    first, last = first % x.ndim, last % x.ndim
    return x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])


@operation("expand")
def _expand(a: Arguments) -> NDArray:
    size, shape = list(a["size"]), a["self"].shape
    for i in range(1, len(shape) + 1):
        if size[-i] == -1:
            size[-i] = shape[-i]
    return np.broadcast_to(a["self"], size)


@operation("slice")
def _slice(a: Arguments) -> NDArray:
    place = slice(a.get("start"), a.get("end"), a.get("step", 1))
    return a["self"][(slice(None),) * (a.get("dim", 0) % a["self"].ndim) + (place,)]


@operation("squeeze", "squeeze_copy")
def _squeeze(a: Arguments) -> NDArray:
    x = a["self"]
    dims = axes_of(a.get("dim"))
    dims = tuple(range(x.ndim)) if dims is None else tuple(d % x.ndim for d in dims)
    return np.squeeze(x, tuple(d for d in dims if x.shape[d] == 1))


@operation("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def _split(a: Arguments) -> list[NDArray]:
    x, dim = a["self"], a.get("dim", 0)
    sizes: Any = a["split_size"] if "split_size" in a else a["split_sizes"]
    ends = np.cumsum(sizes)[:-1] if isinstance(sizes, list) else range(sizes, x.shape[dim], sizes)
    return np.split(x, list(ends), dim)


@operation("chunk", "unsafe_chunk")
def _chunk(a: Arguments) -> list[NDArray]:
    size = -(-a["self"].shape[a.get("dim", 0)] // a["chunks"])
    return _split({"self": a["self"], "split_size": size, "dim": a.get("dim", 0)})


@operation("unbind")
def _unbind(a: Arguments) -> list[NDArray]:
    return list(np.moveaxis(a["self"], a.get("dim", 0), 0))


@operation("index")
def _index(a: Arguments) -> NDArray:
    return a["self"][tuple(slice(None) if i is None else i for i in a["indices"])]


@operation("constant_pad_nd")
def _pad(a: Arguments) -> NDArray:
    return _padded(a["self"], a["pad"], a.get("value") or 0.0)


def _padded(x: NDArray, pad: list[int], value: float | None, mode: str = "constant") -> NDArray:
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2) + [tuple(pad[i : i + 2]) for i in range(len(pad) - 2, -1, -2)]
    for axis, pair in enumerate(pairs):
        if min(pair) < 0:
            cut = slice(max(-pair[0], 0), x.shape[axis] - max(-pair[1], 0))
            x = x[(slice(None),) * axis + (cut,)]
    pairs = [(max(before, 0), max(after, 0)) for before, after in pairs]
    return np.pad(x, pairs, constant_values=value) if mode == "constant" else np.pad(x, pairs, mode=mode)  # type: ignore[call-overload]


for _n in (1, 2, 3):
    OPERATIONS[f"reflection_pad{_n}d"] = lambda a: _padded(a["self"], a["padding"], None, "reflect")
    OPERATIONS[f"replication_pad{_n}d"] = lambda a: _padded(a["self"], a["padding"], None, "edge")


@operation("pixel_shuffle")
def _shuffle(a: Arguments) -> NDArray:
    x, r = a["self"], a["upscale_factor"]
    *lead, c, h, w = x.shape
    x = np.moveaxis(x.reshape(*lead, c // (r * r), r, r, h, w), (-4, -3), (-3, -1))
    return x.reshape(*lead, c // (r * r), h * r, w * r)


@operation("pixel_unshuffle")
def _unshuffle(a: Arguments) -> NDArray:
    x, r = a["self"], a["downscale_factor"]
    *lead, c, h, w = x.shape
    x = np.moveaxis(x.reshape(*lead, c, h // r, r, w // r, r), (-3, -1), (-4, -3))
    return x.reshape(*lead, c * r * r, h // r, w // r)


@operation("repeat_interleave")
def _repeat_interleave(a: Arguments) -> NDArray:
    if a.get("dim") is None:
        return np.repeat(a["self"].ravel(), a["repeats"])
    return np.repeat(a["self"], a["repeats"], a["dim"])


@operation("repeat")
def _repeat(a: Arguments) -> NDArray:
    return np.tile(a["self"], a["repeats"])


@operation("roll")
def _roll(a: Arguments) -> NDArray:
    return np.roll(a["self"], tuple(a["shifts"]), tuple(a["dims"]))


@operation("unfold")
def _unfold(a: Arguments) -> NDArray:
    windows = np.lib.stride_tricks.sliding_window_view(a["self"], a["size"], a["dimension"])
    return _slice({"self": windows, "dim": a["dimension"], "step": a["step"]})


@operation("im2col")
def _im2col(a: Arguments) -> NDArray:
    (kh, kw), (sh, sw), (dh, dw) = a["kernel_size"], a["stride"], a["dilation"]
    (ph, pw), x = a["padding"], a["self"]
    x = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(ph, ph), (pw, pw)])
    windows = np.lib.stride_tricks.sliding_window_view(x, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(-2, -1))
    windows = windows[..., ::sh, ::sw, ::dh, ::dw]
    lead = windows.ndim - 4
    moved = windows.transpose(*range(lead), lead + 2, lead + 3, lead, lead + 1)
    return moved.reshape(*x.shape[:-3], x.shape[-3] * kh * kw, -1)


def _scattered(a: Arguments) -> tuple[NDArray, tuple[NDArray, ...], Any]:
    """A copy of what is written to, the places there, and what comes there."""
    made, index = np.array(a["self"]), a["index"]
    source: Any = a["src"] if "src" in a else a["value"]
    places = list(np.indices(index.shape))
    places[a["dim"] % made.ndim] = index
    return made, tuple(places), source[tuple(slice(n) for n in index.shape)] if np.ndim(source) else source


@operation("scatter")
def _scatter(a: Arguments) -> NDArray:
    made, places, source = _scattered(a)
    if a.get("reduce") is not None:
        {"add": np.add, "multiply": np.multiply}[a["reduce"]].at(made, places, source)
    else:
        made[places] = source
    return made


@operation("scatter_add")
def _scatter_add(a: Arguments) -> NDArray:
    made, places, source = _scattered(a)
    np.add.at(made, places, source)
    return made


@operation("scatter_reduce")
def _scatter_reduce(a: Arguments) -> NDArray:
    functions = {"sum": np.add, "prod": np.multiply, "amax": np.maximum, "amin": np.minimum}
    if not a.get("include_self", True) or a["reduce"] not in functions:
        raise CannotRun(f"scatter_reduce by {a['reduce']}")
    made, places, source = _scattered(a)
    functions[a["reduce"]].at(made, places, source)
    return made


@operation("index_add")
def _index_add(a: Arguments) -> NDArray:
    made = np.array(a["self"])
    moved = np.moveaxis(made, a["dim"], 0)
    np.add.at(moved, a["index"], a.get("alpha", 1) * np.moveaxis(a["source"], a["dim"], 0))
    return made


@operation("index_put")
def _index_put(a: Arguments) -> NDArray:
    made = np.array(a["self"])
    places: Any = tuple(slice(None) if i is None else i for i in a["indices"])
    if a.get("accumulate", False):
        np.add.at(made, places, a["values"])
    else:
        made[places] = a["values"]
    return made


@operation("sort")
def _sort(a: Arguments) -> list[NDArray]:
    """Equal values stay in their order, as with `stable`; elsewhere PyTorch chooses any."""
    x, dim = a["self"], a.get("dim", -1)
    order = np.argsort(-x if a.get("descending", False) else x, axis=dim, kind="stable")
    return [np.take_along_axis(x, order, dim), order]


def _triangle(cut: Callable[..., NDArray]) -> Callable[[Arguments], NDArray]:
    return lambda a: cut(a["self"], a.get("diagonal", 0))


OPERATIONS |= {
    "permute": lambda a: np.transpose(a["self"], a["dims"]),
    "transpose": lambda a: np.swapaxes(a["self"], a["dim0"], a["dim1"]),
    "t": lambda a: a["self"].T,
    "unsqueeze": lambda a: np.expand_dims(a["self"], a["dim"]),
    "unflatten": lambda a: a["self"].reshape(
        *a["self"].shape[: a["dim"] % a["self"].ndim], *a["sizes"], *a["self"].shape[a["dim"] % a["self"].ndim + 1 :]
    ),
    "cat": lambda a: np.concatenate(a["tensors"], a.get("dim", 0)),
    "stack": lambda a: np.stack(a["tensors"], a.get("dim", 0)),
    "index_select": lambda a: np.take(a["self"], a["index"], a["dim"]),
    "gather": lambda a: np.take_along_axis(a["self"], a["index"], a["dim"]),
    "embedding": lambda a: a["weight"][a["indices"]],
    "flip": lambda a: np.flip(a["self"], tuple(a["dims"])),
    "tril": _triangle(np.tril),
    "triu": _triangle(np.triu),
    "copy": lambda a: np.broadcast_to(a["src"], a["self"].shape),
    "masked_fill": lambda a: np.where(a["mask"], a["value"], a["self"]),
    "where": lambda a: np.where(a["condition"], a["self"], a["other"]),
}
for _name in ("clone", "detach", "alias", "contiguous", "lift_fresh", "positive"):
    OPERATIONS[_name] = lambda a: a["self"]


def _selected(a: Arguments) -> NDArray:
    return a["self"][(slice(None),) * (a["dim"] % a["self"].ndim) + (a["index"],)]


OPERATIONS["select"] = _selected


OPERATIONS["_to_copy"] = lambda a: typed(a["self"], a.get("dtype"))

# What is made from numbers.
OPERATIONS |= {
    "arange": lambda a: typed(np.arange(a.get("start") or 0, a["end"], a.get("step") or 1), a.get("dtype")),
    "full": lambda a: np.full(a["size"], a["fill_value"]),
    "zeros": lambda a: typed(np.zeros(a["size"]), a.get("dtype")),
    "ones": lambda a: typed(np.ones(a["size"]), a.get("dtype")),
    "new_zeros": lambda a: typed(np.zeros(a["size"]), a.get("dtype")),
    "new_ones": lambda a: typed(np.ones(a["size"]), a.get("dtype")),
    "new_full": lambda a: np.full(a["size"], a["fill_value"]),
    "zeros_like": lambda a: typed(np.zeros_like(a["self"]), a.get("dtype")),
    "ones_like": lambda a: typed(np.ones_like(a["self"]), a.get("dtype")),
    "full_like": lambda a: np.full(a["self"].shape, a["fill_value"]),
    "scalar_tensor": lambda a: np.asarray(a["s"]),
    "fill": lambda a: np.full(a["self"].shape, a["value"]),
    "zero": lambda a: np.zeros_like(a["self"]),
    "empty": lambda a: np.zeros(a["size"]),
    "empty_like": lambda a: np.zeros_like(a["self"]),
    "new_empty": lambda a: np.zeros(a["size"]),
}
