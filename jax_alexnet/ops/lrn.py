"""Local response normalisation in every convention, and its same-map relative, with closed-form gradients."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from alexnet_io.errors import UserError
from jax_alexnet.ops.multilinear import everywhere, leave_open


class Window(NamedTuple):
    """Static settings of one normalisation: along which axes, how far the window reaches, and s = k + scale * sum.

    With several `columns`, windows run along the last axis and end where their column does.
    """

    axes: tuple[int, ...]
    before: int
    after: int
    scale: float
    beta: float
    k: float
    columns: int = 1


def local_response_norm(
    x: Array,
    *,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    divide_by_size: bool = True,
    even: Literal["left", "right"] = "left",
    columns: int = 1,
) -> Array:
    """Divide each value by (k + a * sum of squares over neighbouring channels) ** beta.

    y_i = x_i / (k + a * sum_{j in W(i)} x_j^2)^beta, with channels outside the map left out of the sum.

    Conventions, which agree on the formula and differ in a and W:
        paper, section 3.3:  a = alpha (`divide_by_size=False`), window of `size` channels around i.
        PyTorch, cuda-convnet, Caffe, ONNX: a = alpha / size (`divide_by_size=True`).
        TensorFlow: a = alpha, `size = 2 * depth_radius + 1`.
        Even sizes: PyTorch and cuda-convnet look left, W(i) = [i - size//2, i + (size-1)//2] (`even="left"`);
        ONNX looks right, W(i) = [i - (size-1)//2, i + size//2] (`even="right"`).

    Sums are of shifted squares, never differences of cumulative sums, so small values keep their precision
    beside large ones. float16 and bfloat16 inputs are computed in float32, where 300^2 does not overflow.

    Args:
        x: activations, channels last: (..., channels), any floating dtype.
        size: channels in the window, at least 1; may exceed the number of channels.
        alpha: weight of the squares.
        beta: exponent.
        k: the constant under the power.
        divide_by_size: whether alpha is divided by `size`.
        even: the side on which a window of even size has one more channel.
        columns: groups of consecutive channels whose windows never meet (2 in the two-column networks).

    Returns:
        An array of the shape and dtype of `x`.

    Raises:
        UserError: a setting is out of range, or the channels don't divide into `columns`.
    """
    settings = {"size": size, "alpha": alpha, "beta": beta, "k": k, "divide_by_size": divide_by_size}
    return _normalize(window_across_channels(x.shape[-1], **settings, even=even, columns=columns), x)


def window_across_channels(
    channels: int,
    *,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    divide_by_size: bool,
    even: str = "left",
    columns: int = 1,
) -> Window:
    """The window of `local_response_norm`'s settings over so many channels; the same errors."""
    if size < 1:
        raise UserError(f"size is {size}: the LRN window must hold at least 1 channel")
    if even not in ("left", "right"):
        raise UserError(f"even is {even!r}: choose 'left' (PyTorch, cuda-convnet) or 'right' (ONNX)")
    if columns < 1 or channels % columns:
        raise UserError(f"columns is {columns}: {channels} channels don't divide into that many columns")
    short, long = (size - 1) // 2, size // 2
    before, after = (long, short) if even == "left" else (short, long)
    scale = alpha / size if divide_by_size else alpha
    return Window((-1,), before, after, float(scale), float(beta), float(k), columns)


def spatial_response_norm(x: Array, *, size: int, alpha: float, beta: float, k: float = 1.0) -> Array:
    """Response normalisation over a `size` x `size` square of positions within each channel.

    y = x / (k + alpha / size^2 * sum over the square of x^2)^beta; positions outside the map are left out.
    This is cuda-convnet's `rnorm` layer (its `cmrnorm` is `local_response_norm`). In the 2012 code's network
    145 the base k is taken as 1: that kernel was not released, so the value is unverified.

    Args:
        x: activations (batch, height, width, channels), any floating dtype.
        size: side of the square in positions; even squares look up and left.
        alpha: weight of the squares, divided by size^2.
        beta: exponent.
        k: the constant under the power.

    Returns:
        An array of the shape and dtype of `x`.
    """
    if size < 1:
        raise UserError(f"size is {size}: the window must hold at least 1 position")
    window = Window((-3, -2), size // 2, (size - 1) // 2, alpha / size**2, float(beta), float(k))
    return _normalize(window, x)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _normalize(window: Window, x: Array) -> Array:
    return _by_platform(window, value, value, x)


@_normalize.defjvp
def _normalize_tangent(window: Window, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # Only x is kept: computing s again costs less than reading it back from memory.
    return _normalize(window, *primals), linearized(window, *primals, *tangents)


def linearized(window: Window, x: Array, tangent: Array) -> Array:
    """The norm's derivative at `x` along `tangent`, both (..., channels); its transpose is the gradient."""
    forms = (_gradient, _gradient_in_few_bytes), (_tangent, _tangent)
    places = [everywhere(partial(_by_platform, window, *form)) for form in forms]
    return leave_open(places, 1, tangent, given=[x])


def _by_platform(window: Window, form: Callable[..., Array], on_gpus: Callable[..., Array], *maps: Array) -> Array:
    if window.columns == 1 and form is on_gpus:
        return form(window, *maps)
    apart = partial(_columns_apart, form, window)
    return lax.platform_dependent(*maps, cuda=partial(on_gpus, window), default=apart)


def _columns_apart(form: Callable[..., Array], window: Window, *maps: Array) -> Array:
    """`form` of maps whose columns lie along an axis of their own, where windows can't meet: the norm on CPUs.

    On GPUs the columns stay together, and `_window_sum` leaves out what windows would see of their neighbours. Apart,
    the two terms of the gradient come to share a float32 map by way of memory: a bfloat16 step of `two_column` would
    move 7.1 GB instead of 6.2.
    """
    if window.columns == 1:
        return form(window, *maps)
    shape = maps[0].shape
    apart = (*shape[:-1], window.columns, shape[-1] // window.columns)
    return form(window._replace(columns=1), *(x.reshape(apart) for x in maps)).reshape(shape)


def value(window: Window, x: Array) -> Array:
    """The normalised maps, all columns in one array."""
    wide = _widened(x)
    return (wide * _power(_base(window, wide), -window.beta)).astype(x.dtype)


def _tangent(window: Window, x: Array, tangent: Array) -> Array:
    # dy_i = t_i s_i^-b - 2 a b x_i s_i^(-b-1) * sum_{j in W(i)} x_j t_j, the transpose of `_gradient`.
    wide, t = _widened(x), _widened(tangent)
    base = _base(window, wide)
    power = _power(base, -window.beta)
    crossed = power * (wide / base) * _window_sum(window, wide * t)
    return (t * power - (2 * window.scale * window.beta) * crossed).astype(x.dtype)


def _gradient(window: Window, x: Array, gradient: Array) -> Array:
    # dL/dx_i = g_i s_i^-b - 2 a b x_i * sum_{j: i in W(j)} g_j x_j s_j^(-b-1)
    wide, g = _widened(x), _widened(gradient)
    base = _base(window, wide)
    scaled = g * _power(base, -window.beta)
    crossed = _window_sum(_mirrored(window), scaled * (wide / base))
    # Written as a product of small factors: wide * crossed stays finite where wide^2 would not.
    return (scaled - (2 * window.scale * window.beta) * wide * crossed).astype(x.dtype)


def _gradient_in_few_bytes(window: Window, x: Array, gradient: Array) -> Array:
    """The same gradient for GPUs, whose time is that of the bytes read and written, and whose arithmetic is free.

    The base is summed from the other end: XLA would see the same sum in both passes and carry it from one to the
    other, in float32, by way of memory. What is summed by neighbours lies in memory once, where the window is so
    wide that XLA would put it there in float32: in the dtype of `x`, one more rounding of what is rounded to it in
    the end. In the program of a bfloat16 step of `two_column` this is 6.2 GB instead of 8.1.
    """
    wide, g = _widened(x), _widened(gradient)
    base = window.k + _window_sum(window, (window.scale * wide) * wide, backwards=True)
    scaled = g * _power(base, -window.beta)
    terms = scaled * (wide / base)
    if window.before + window.after > 1:
        terms = _widened(lax.optimization_barrier(terms.astype(x.dtype)))
    crossed = _window_sum(_mirrored(window), terms)
    return (scaled - (2 * window.scale * window.beta) * wide * crossed).astype(x.dtype)


def _widened(x: Array) -> Array:
    return x.astype(jnp.float32) if x.dtype in (jnp.float16, jnp.bfloat16) else x


def _base(window: Window, x: Array) -> Array:
    # scale goes in before the second factor, so that x^2 alone never overflows.
    return window.k + _window_sum(window, (window.scale * x) * x)


def _mirrored(window: Window) -> Window:
    """Of all j whose window holds i: i is in W(j) exactly when j is in the mirrored window of i."""
    return window._replace(before=window.after, after=window.before)


def _window_sum(window: Window, values: Array, *, backwards: bool = False) -> Array:
    """Sum of `values` over [i - before, i + after] along each axis of the window; nothing beyond its column's ends."""
    for axis in window.axes:
        length = values.shape[axis]
        before, after = (min(reach, length // window.columns - 1) for reach in (window.before, window.after))
        padding = [(0, 0, 0)] * values.ndim
        padding[axis] = (before, after, 0)
        padded = lax.pad(values, jnp.zeros((), values.dtype), padding)
        first, *others = (
            _own_column(window, shift, lax.slice_in_dim(padded, before + shift, before + shift + length, axis=axis))
            for shift in range(-before, after + 1)[:: -1 if backwards else 1]
        )
        values = sum(others, start=first)
    return values


def _own_column(window: Window, shift: int, neighbours: Array) -> Array:
    """What lies `shift` channels further, without what lies there in another column."""
    if window.columns == 1 or shift == 0:
        return neighbours
    width = neighbours.shape[-1] // window.columns
    there = np.arange(width) + shift
    return jnp.where(np.tile((there >= 0) & (there < width), window.columns), neighbours, 0)


def _power(base: Array, exponent: float) -> Array:
    """Raise the base to `exponent`; the exponents in use avoid the slow general power."""
    if exponent == -0.75:
        root = lax.rsqrt(base)
        return root * lax.sqrt(root)
    if exponent == -0.5:
        return lax.rsqrt(base)
    if exponent == -1.0:
        return 1 / base
    return base**exponent
