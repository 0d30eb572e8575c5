"""What may be wrong with a layer: for each kind, the mistakes people make when they port one.

A layer is a dictionary of what determines its result (input `x`, `weight`, `bias`, settings), a mistake is a
function from such a dictionary to another. So mistakes combine, and `compute` says what any of them leads to.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.kinds import numpy_ops as ops

Parts = dict[str, Any]

_KNOWN = {
    "Conv2d", "CeilConv2d", "LocalConv2d", "Linear", "MaxPool2d", "AvgPool2d", "ClippedAvgPool2d", "AdaptiveAvgPool2d",
    "LocalResponseNorm", "SpatialResponseNorm", "ReLU", "Dropout",
}  # fmt: skip


@dataclass(frozen=True)
class Mistake:
    """One way to get a layer wrong.

    Attributes:
        key: short name, for scores and JSON.
        text: what it is, to follow "PyTorch:" or "JAX:".
        apply: from a layer's parts to those of the layer with the mistake; None where it can't be made.
    """

    key: str
    text: str
    apply: Callable[[Parts], Parts | None]


def known_class(bases: list[str]) -> str:
    """The first of a class and its bases, by name, that `parts_of` may know; the class itself if none."""
    return next((name for name in bases if name in _KNOWN), bases[0])


def parts_of(class_name: str, settings: dict[str, Any], x: NDArray, weights: dict[str, NDArray]) -> Parts | None:
    """A recorded PyTorch layer as parts with its operation under `op`; None if its class isn't known."""
    parts: Parts = {"x": x, "weight": weights.get("weight"), "bias": weights.get("bias")}
    get = settings.get
    match class_name:
        case "Conv2d" | "CeilConv2d" if x.ndim == 4 and _pair(get("dilation", 1)) == (1, 1):
            pads = tuple((p, p) for p in _pair(get("padding", 0)))
            return parts | {
                "op": "conv", "stride": _pair(get("stride", 1)), "pads": pads, "groups": get("groups", 1),
                "ceil": class_name == "CeilConv2d",
            }  # fmt: skip
        case "LocalConv2d":
            pads = tuple((p, p) for p in _pair(get("padding", 0)))
            return parts | {"op": "local_conv", "stride": _pair(get("stride", 1)), "pads": pads}
        case "Linear":
            return parts | {"op": "dense"}
        case "MaxPool2d" | "ClippedAvgPool2d" | "AvgPool2d" if _pair(get("dilation", 1)) == (1, 1):
            pads = tuple((p, p) for p in _pair(get("padding", 0)))
            kernel = _pair(get("kernel_size"))
            return parts | {
                "op": "max_pool" if class_name == "MaxPool2d" else "average_pool",
                "kernel": kernel, "stride": _pair(get("stride") or kernel), "pads": pads, "fill": -np.inf,
                "ceil": get("ceil_mode", class_name == "ClippedAvgPool2d"),
                "clipped": class_name == "ClippedAvgPool2d",
            }  # fmt: skip
        case "AdaptiveAvgPool2d":
            return parts | {"op": "adaptive", "size": _pair(get("output_size"))}
        case "LocalResponseNorm":
            names = ("size", "alpha", "beta", "k", "divide_by_size", "even", "columns")
            defaults = {"divide_by_size": True, "even": "left", "columns": 1}
            return parts | {"op": "lrn"} | {n: settings.get(n, defaults.get(n)) for n in names}
        case "SpatialResponseNorm":
            return parts | {"op": "spatial"} | {n: get(n) for n in ("size", "alpha", "beta", "k")}
        case "ReLU":
            return parts | {"op": "relu"}
        case "Dropout":
            return parts | {"op": "dropout", "rate": get("rate", get("p", 0.5)), "mask": None}
    return None


def compute(parts: Parts) -> NDArray:
    """The result that these parts lead to; a mistake may well lead to infinities."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return _computed(parts)


def _computed(p: Parts) -> NDArray:
    x = p["x"]
    match p["op"]:
        case "conv":
            settings = {n: p[n] for n in ("stride", "pads", "groups", "ceil")}
            y = ops.conv2d(x, p["weight"], p["bias"], **settings)
        case "local_conv":
            y = ops.local_conv2d(x, p["weight"], p["bias"], stride=p["stride"], pads=p["pads"])
        case "dense":
            y = ops.dense(x, p["weight"], p["bias"])
        case "max_pool":
            y = ops.max_pool(x, p["kernel"], p["stride"], p["pads"], p["ceil"], p["fill"])
        case "average_pool":
            y = ops.average_pool(x, p["kernel"], p["stride"], p["pads"], p["ceil"], p["clipped"])
        case "adaptive":
            y = ops.adaptive_average_pool(x, p["size"])
        case "lrn":
            names = ("size", "alpha", "beta", "k", "divide_by_size", "even", "columns")
            y = ops.response_norm(x, **{n: p[n] for n in names})
        case "spatial":
            y = ops.spatial_norm(x, **{n: p[n] for n in ("size", "alpha", "beta", "k")}, even=p.get("even", "left"))
        case "relu":
            y = np.maximum(x, 0)
        case "dropout":
            y = x if p["mask"] is None else np.where(p["mask"], x / (1 - p["rate"]), 0.0)
        case "function":
            y = p["function"](x)
        case other:
            raise ValueError(other)
    for change in p.get("after", ()):
        y = change(y)
    return y


def mistakes(parts: Parts) -> Iterator[Mistake]:
    """The mistakes to try on a layer, likeliest first."""
    by_kind: dict[str, Callable[[Parts], Iterator[Mistake]]] = {
        "conv": _conv, "local_conv": _local_conv, "dense": _dense, "max_pool": _pool, "average_pool": _pool,
        "adaptive": _adaptive, "lrn": _lrn, "spatial": _spatial, "relu": _relu, "dropout": _dropout,
    }  # fmt: skip
    yield from by_kind[parts["op"]](parts)
    yield from _any(parts)


def _set(key: str, text: str, **values: Any) -> Mistake:
    return Mistake(key, text, lambda p: p | values)


def _weight(key: str, text: str, change: Callable[[NDArray, Parts], NDArray | None]) -> Mistake:
    def apply(p: Parts) -> Parts | None:
        changed = change(p["weight"], p)
        return None if changed is None or changed.shape != p["weight"].shape else p | {"weight": changed}

    return Mistake(key, text, apply)


def _bias(parts: Parts) -> Iterator[Mistake]:
    if parts["bias"] is None:
        return
    yield _set("bias_missing", "the bias is not added", bias=None)
    yield _scaled_bias("bias_sign", "the bias is subtracted", -1)
    yield _scaled_bias("bias_twice", "the bias is added twice", 2)


def _scaled_bias(key: str, text: str, factor: int) -> Mistake:
    # Another mistake may have left the bias out before.
    return Mistake(key, text, lambda p: None if p["bias"] is None else p | {"bias": factor * p["bias"]})


def _conv(parts: Parts) -> Iterator[Mistake]:
    yield _weight("kernel_hw_exchanged", "height and width of the kernel are exchanged", lambda w, p: w.swapaxes(2, 3))
    yield _weight(
        "kernel_flipped", "the kernel is flipped (convolution for cross-correlation)", lambda w, p: w[..., ::-1, ::-1]
    )
    yield _weight("kernel_flipped_h", "the kernel is flipped from top to bottom", lambda w, p: w[..., ::-1, :])
    yield _weight("kernel_flipped_w", "the kernel is flipped from left to right", lambda w, p: w[..., ::-1])
    yield _weight("kernel_io_exchanged", "input and output channels of the kernel are exchanged", _io_exchanged)
    yield _weight(
        "kernel_io_hw_exchanged", "the kernel is transposed whole (channels, and height with width)",
        lambda w, p: None if (t := _io_exchanged(w, p)) is None else t.swapaxes(2, 3),
    )  # fmt: skip
    yield _weight("kernel_reshaped", "the kernel is reshaped where it should be transposed", _reshaped)
    yield from _groups(parts)
    yield _weight(
        "channels_reversed", "the input channels come in reverse order (BGR for RGB)", lambda w, p: w[:, ::-1]
    )
    yield from _bias(parts)
    yield from _geometry(parts)


def _io_exchanged(w: NDArray, p: Parts) -> NDArray | None:
    halves = np.split(w, p.get("groups", 1), axis=0)
    return np.concatenate([h.swapaxes(0, 1) for h in halves]) if halves[0].shape[0] == w.shape[1] else None


def _reshaped(w: NDArray, p: Parts) -> NDArray:
    outputs, inputs, height, width = w.shape
    return w.reshape(height, width, inputs, outputs).transpose(3, 2, 0, 1)


def _groups(parts: Parts) -> Iterator[Mistake]:
    groups = parts["groups"]
    if groups == 1:
        return
    outputs, inputs = parts["weight"].shape[0], parts["x"].shape[1]
    exchanged = np.roll(np.arange(outputs), outputs // groups)
    text = "the groups' kernels are exchanged"
    yield _weight("groups_exchanged", text, lambda w, p: w[exchanged])
    yield Mistake("groups_exchanged", f"{text}, biases too", lambda p: _reordered(p, exchanged))
    yield _input(
        "groups_exchanged", "the groups see each other's input channels", np.roll(np.arange(inputs), inputs // groups)
    )
    for name, direction in (("interleaved", 1), ("de-interleaved", 0)):
        order = _interleaved(outputs, groups, direction)
        text = f"the groups' output channels are {name}"
        yield _weight("groups_interleaved", f"{text} in the kernel", lambda w, p, order=order: w[order])
        yield Mistake("groups_interleaved", text, lambda p, order=order: _reordered(p, order))
        coming = _interleaved(inputs, groups, direction)
        text = f"the groups' input channels are {name}"
        yield _input("groups_interleaved", text, coming)
        for outer in (0, 1):
            leaving = _interleaved(outputs, groups, outer)
            yield Mistake(
                "groups_interleaved", f"{text}, and so are the outputs",
                lambda p, a=coming, b=leaving: _after(p | {"x": p["x"][:, a]}, lambda y: y[:, b]),
            )  # fmt: skip


def _interleaved(count: int, groups: int, direction: int) -> NDArray:
    shape = (groups, count // groups) if direction else (count // groups, groups)
    return np.arange(count).reshape(shape).T.ravel()


def _reordered(p: Parts, order: NDArray) -> Parts:
    return p | {"weight": p["weight"][order], "bias": None if p["bias"] is None else p["bias"][order]}


def _input(key: str, text: str, order: NDArray) -> Mistake:
    return Mistake(key, text, lambda p: p | {"x": p["x"][:, order]})


def _geometry(parts: Parts) -> Iterator[Mistake]:
    """Padding, stride and rounding of a sliding window."""
    kernel = parts["kernel"] if "kernel" in parts else parts["weight"].shape[-2:]
    pads, stride = parts["pads"], parts["stride"]
    same = []
    for n, k, s in zip(parts["x"].shape[2:], kernel, stride, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        same.append((total // 2, total - total // 2))
    if parts.get("ceil"):
        yield Mistake("padding_side", "the implied zeros stand at the top and left", _mirrored)
    if "ceil" in parts:
        name = "down" if parts["ceil"] else "up"
        yield _set("ceil_mode", f"the number of windows is rounded {name}", ceil=not parts["ceil"])
    # With stride 1, SAME is padding by half the window, which is tried below.
    if stride != (1, 1):
        yield _set("padding_same", f"padding is SAME {tuple(same)}, not {pads}", pads=tuple(same), ceil=False)
    smaller = [s - 1 for s in stride]
    for steps in ([1, 1], smaller, [s + 1 for s in stride], [2, 2], [3, 3], [4, 4]):
        if min(steps) >= 1 and tuple(steps) != stride:
            yield _set("stride", f"the stride is {tuple(steps)}, not {stride}", stride=tuple(steps))
    top = pads[0][0]
    # A pool padded by more than half its window would look at nothing but padding.
    most = kernel[0] // 2 if "kernel" in parts else kernel[0]
    for p in dict.fromkeys((0, top - 1, top + 1, top + 2, (kernel[0] - 1) // 2)):
        if 0 <= p <= most and p != top:
            yield _set("padding", f"padding is {p}, not {top}", pads=((p, p), (p, p)))
    for low, high in (
        (top, top + 1),
        (top + 1, top),
        (top - 1, top + 1),
        (top + 1, top - 1),
        (0, 2 * top),
        (2 * top, 0),
    ):
        if min(low, high) >= 0 and max(low, high) <= most and low != high:
            yield _set("padding_side", f"padding is {low} before and {high} after, not {top}", pads=((low, high),) * 2)


def _mirrored(p: Parts) -> Parts:
    kernel = p["kernel"] if "kernel" in p else p["weight"].shape[-2:]
    pads = []
    for axis, n in enumerate(p["x"].shape[2:]):
        low, high = p["pads"][axis]
        count = ops.windows_along(n + low + high, kernel[axis], p["stride"][axis], True)
        over = max((count - 1) * p["stride"][axis] + kernel[axis] - n - low - high, 0)
        pads.append((low + over, high))
    return p | {"pads": tuple(pads), "ceil": False}


def _exchanged(p: Parts, *names: str) -> Parts | None:
    if any(p[name] is None for name in names):
        return None
    return p | {name: p[name].swapaxes(0, 1) for name in names}


def _local_conv(parts: Parts) -> Iterator[Mistake]:
    height, width = parts["weight"].shape[:2]
    yield _weight("kernel_hw_exchanged", "height and width of the kernels are exchanged", lambda w, p: w.swapaxes(4, 5))
    yield _weight(
        "positions_exchanged", "rows and columns of the positions are exchanged", lambda w, p: w.swapaxes(0, 1)
    )
    if height == width:
        text = "rows and columns of the positions are exchanged, in the biases too"
        yield Mistake("positions_exchanged", text, lambda p: _exchanged(p, "weight", "bias"))
        text = "rows and columns of the biases' positions are exchanged"
        yield Mistake("bias_positions_exchanged", text, lambda p: _exchanged(p, "bias"))
    yield _weight("kernel_flipped", "the kernels are flipped", lambda w, p: w[..., ::-1, ::-1])
    yield _weight("positions_flipped", "the positions are flipped", lambda w, p: w[::-1, ::-1])
    yield _weight("kernel_io_exchanged", "input and output channels are exchanged", lambda w, p: w.swapaxes(2, 3))
    yield _weight(
        "weights_shared", "every position has the first one's kernel", lambda w, p: np.broadcast_to(w[:1, :1], w.shape)
    )
    yield _weight(
        "patches_order", "patches are read channel last for channel first",
        lambda w, p: w.transpose(0, 1, 2, 4, 5, 3).reshape(w.shape),
    )  # fmt: skip
    yield _weight(
        "patches_order", "patches are read channel first for channel last",
        lambda w, p: w.reshape(*w.shape[:3], *w.shape[4:], w.shape[3]).transpose(0, 1, 2, 5, 3, 4),
    )  # fmt: skip
    yield from _bias(parts)
    yield from _geometry(parts)


def _dense(parts: Parts) -> Iterator[Mistake]:
    if parts.get("map_shape"):
        shape = parts["map_shape"]
        for order in itertools.permutations(range(3)):
            if order == (0, 1, 2):
                continue
            name = "".join("CHW"[axis] for axis in order)
            index = np.arange(np.prod(shape)).reshape(shape).transpose(order).ravel()
            key = "fc_order" if order == (1, 2, 0) else f"fc_order_{name.lower()}"
            yield _input(key, f"the map is flattened in {name} order, the weights' rows are in CHW order", index)
            yield _input(
                key, f"the weights' rows are in {name} order, the map is flattened in CHW order", np.argsort(index)
            )
    yield _weight("kernel_transposed", "the square kernel is not transposed", lambda w, p: w.T)
    yield _weight(
        "kernel_reshaped",
        "the kernel is reshaped where it should be transposed",
        lambda w, p: w.reshape(w.shape[::-1]).T,
    )
    yield from _bias(parts)
    yield _weight("inputs_reversed", "the inputs come in reverse order", lambda w, p: w[:, ::-1])
    yield _weight("outputs_reversed", "the outputs come in reverse order", lambda w, p: w[::-1])


def _pool(parts: Parts) -> Iterator[Mistake]:
    kernel, name = parts["kernel"], parts["op"]
    yield from _geometry(parts)
    for side in (kernel[0] - 1, kernel[0] + 1, kernel[0] + 2):
        if side >= 1:
            yield _set("pool_size", f"the window is {side}x{side}, not {kernel[0]}x{kernel[1]}", kernel=(side, side))
    other = "average_pool" if name == "max_pool" else "max_pool"
    yield _set(
        "pool_kind", f"the pool is {'an average' if name == 'max_pool' else 'a maximum'}", op=other, clipped=True
    )
    if name == "max_pool":
        yield _set("pool_zero_padding", "beyond the edge stand zeros, not -inf", fill=0.0)
        for p in (1, kernel[0] // 2):
            yield _set("pool_zero_padding", f"padded by {p} zeros", fill=0.0, pads=((p, p), (p, p)))
    else:
        text = "full" if parts["clipped"] else "clipped"
        yield _set("pool_area", f"sums are divided by the {text} area of the window", clipped=not parts["clipped"])


def _adaptive(parts: Parts) -> Iterator[Mistake]:
    height, width = parts["size"]
    for size in ((height - 1, width - 1), (height + 1, width + 1), (1, 1)):
        yield _set("pool_size", f"the output is {size}, not {parts['size']}", size=size)
    yield Mistake(
        "adaptive_missing",
        "the map is not pooled to the fixed size",
        lambda p: p | {"op": "function", "function": lambda x: x},
    )

    def cropped(p: Parts) -> Parts:
        steps = [n // m for n, m in zip(p["x"].shape[2:], p["size"], strict=True)]
        if min(steps) < 1:
            return p
        kernel = tuple(n - (m - 1) * s for n, m, s in zip(p["x"].shape[2:], p["size"], steps, strict=True))
        return p | {
            "op": "average_pool",
            "kernel": kernel,
            "stride": tuple(steps),
            "pads": ((0, 0), (0, 0)),
            "ceil": False,
            "clipped": False,
        }

    yield Mistake("adaptive_windows", "equal windows with a fixed stride are averaged", cropped)


def _lrn(parts: Parts) -> Iterator[Mistake]:
    size, k, beta = parts["size"], parts["k"], parts["beta"]
    divided = parts["divide_by_size"]
    yield _set(
        "lrn_alpha", f"alpha is {'not ' if divided else ''}divided by the window", divide_by_size=not divided
    )  # fmt: skip
    for value in dict.fromkeys((1.0, 2.0, 0.0, 1e-5)):
        if value != k:
            yield _set("lrn_k", f"k is {value:g}, not {k:g}", k=value)
    for value in (0.5, 0.75, 1.0, 0.25):
        if value != beta:
            yield _set("lrn_beta", f"beta is {value:g}, not {beta:g}", beta=value)
    if size % 2 == 0:
        other = "right" if parts["even"] == "left" else "left"
        yield _set("lrn_side", f"the even window looks {other}", even=other)
    scale = parts["alpha"] / size if divided else parts["alpha"]
    for value, name in (
        (2 * size + 1, "the radius is taken as the size"),
        (size // 2, "the size is taken as the radius"),
    ):
        if value >= 1:
            text = f"the window is {value} channels, not {size}: {name}"
            yield _set("lrn_size", text, size=value)
            yield _set("lrn_size", f"{text}, alpha as before", size=value, alpha=scale, divide_by_size=False)
    for value in (size - 1, size + 1, size - 2, size + 2, size + 4, 2 * size):
        if value >= 1:
            for even in ("left", "right") if value % 2 == 0 else ("left",):
                text = f"the window is {value} channels, not {size}"
                yield _set("lrn_size", text, size=value, even=even)
                yield _set(
                    "lrn_size", f"{text}, alpha as before", size=value, even=even, alpha=scale, divide_by_size=False
                )
    for columns in (1, 2, 3, 4):
        if columns != parts["columns"] and parts["x"].shape[1] % columns == 0:
            yield _set(
                "lrn_columns", f"windows stay inside {columns} column(s), not {parts['columns']}", columns=columns
            )
    for factor in (10.0, 0.1, 100.0, 0.01, float(size) ** 2, 1 / float(size) ** 2):
        yield _set(
            "lrn_alpha", f"alpha is {parts['alpha'] * factor:g}, not {parts['alpha']:g}", alpha=parts["alpha"] * factor
        )
    yield _set("lrn_within_map", "the window runs over positions of one map, not over channels", op="spatial")


def _spatial(parts: Parts) -> Iterator[Mistake]:
    size, alpha = parts["size"], parts["alpha"]
    for factor, text in ((size, "the window's side"), (size**2, "nothing")):
        yield _set("lrn_alpha", f"alpha is divided by {text}, not by the window's area", alpha=alpha * factor)
    for value in (0.0, 1.0, 2.0):
        if value != parts["k"]:
            yield _set("lrn_k", f"k is {value:g}, not {parts['k']:g}", k=value)
    for value in (0.5, 0.75, 1.0):
        if value != parts["beta"]:
            yield _set("lrn_beta", f"beta is {value:g}, not {parts['beta']:g}", beta=value)
    for value in (2 * size + 1, size - 1, size + 1, size - 2, size + 2):
        if value >= 1:
            text = f"the window is {value}x{value}, not {size}x{size}"
            yield _set("lrn_size", text, size=value)
            yield _set("lrn_size", f"{text}, alpha as before", size=value, alpha=alpha * value**2 / size**2)
    yield _set(
        "lrn_across_maps",
        "the window runs over channels, not over positions",
        op="lrn",
        divide_by_size=True,
        columns=1,
        even="left",
    )


def _relu(parts: Parts) -> Iterator[Mistake]:
    def act(key: str, text: str, function: Callable[[NDArray], NDArray]) -> Mistake:
        return _set(key, text, op="function", function=function)

    yield act("relu_missing", "negative values pass", lambda x: x)
    yield act("relu_leaky", "negative values pass with slope 0.01", lambda x: np.where(x > 0, x, 0.01 * x))
    yield act("relu_abs", "negative values change sign", np.abs)
    yield act("relu_six", "values are capped at 6", lambda x: np.clip(x, 0, 6))
    yield act("relu_tanh", "tanh stands for ReLU", np.tanh)


def _dropout(parts: Parts) -> Iterator[Mistake]:
    rate = parts["rate"]
    yield Mistake("dropout_unscaled", "kept values are not scaled", lambda p: _after(p, lambda y: y * (1 - rate)))
    yield Mistake("dropout_scaled_twice", "kept values are scaled twice", lambda p: _after(p, lambda y: y / (1 - rate)))
    if 0 < rate < 1 and rate != 0.5:
        text = "the rate is taken for the probability of keeping"
        yield Mistake("dropout_rate", text, lambda p: _after(p, lambda y: y * (1 - rate) / rate))
    yield Mistake("dropout_missing", "nothing is dropped", lambda p: p | {"mask": None})
    if parts["mask"] is not None:
        yield Mistake("dropout_mask", "what should be kept is dropped", lambda p: p | {"mask": ~p["mask"]})


def _any(parts: Parts) -> Iterator[Mistake]:
    """Mistakes that any layer may suffer."""
    if parts["op"] not in ("relu", "dropout"):
        yield _set("missing", "the layer passes its input on", op="function", function=lambda x: x)
    if parts["op"] not in ("relu", "max_pool"):
        yield Mistake("relu_added", "a ReLU is applied to the result", lambda p: _after(p, lambda y: np.maximum(y, 0)))
    if parts["x"].ndim == 4:
        yield Mistake(
            "map_transposed",
            "the result's rows and columns are exchanged",
            lambda p: _after(p, lambda y: y.swapaxes(2, 3)),
        )
        yield Mistake(
            "input_transposed", "the input's rows and columns are exchanged", lambda p: p | {"x": p["x"].swapaxes(2, 3)}
        )
        yield Mistake("map_flipped", "the result is mirrored", lambda p: _after(p, lambda y: y[..., ::-1]))


def _after(p: Parts, change: Callable[[NDArray], NDArray]) -> Parts:
    return p | {"after": (*p.get("after", ()), change)}


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[1])) if isinstance(value, (list, tuple)) else (int(value), int(value))
