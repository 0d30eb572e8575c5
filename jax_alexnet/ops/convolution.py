"""Convolutions on NHWC maps: grouped, with cuda-convnet's implied zeros, and with unshared kernels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jax_alexnet.ops import xla_convolution as xla
from jax_alexnet.ops.cpu import calibration, kernel_gradient, minimal_filters, onednn, winograd
from jax_alexnet.ops.cpu.onednn import CpuForm
from jax_alexnet.ops.multilinear import Form, leave_open
from jax_alexnet.ops.xla_convolution import Geometry
from jax_alexnet.shapes import window_count

# Columns of the products for kernels' gradients: with fewer, such as the 3 of images, XLA's convolution is faster.
LEAST_COLUMNS = 32

# Windows from so many weights a side on are large.
LARGE_WINDOW = 5

# Terms of a float32 sum that oneDNN may add up: it adds in sequence, which PyTorch's newer one doesn't with more, and
# rounding errors would be three times PyTorch's (1,728 terms). In gradients the order is free.
MOST_TERMS = 1200


def conv(
    x: Array, kernel: Array, *, stride: int, padding: int, groups: int, ceil: bool = False, cpu: CpuForm = "auto"
) -> Array:
    """Cross-correlation of maps with shared kernels.

    Args:
        x: maps (batch, height, width, channels).
        kernel: (window, window, channels / groups, features).
        stride: step in pixels.
        padding: zeros on all four sides.
        groups: consecutive channels and features that see only each other.
        ceil: 1 + ceil((n + 2p - k) / s) positions a side, as cuda-convnet: zeros follow at the bottom and right.
        cpu: who computes it on CPUs. auto is the fastest of those that fit; onednn and winograd where they fit, and
            xla otherwise. See `_form`.

    Returns:
        Maps (batch, height', width', features) in the dtype of `x`.
    """
    _, height, width, _ = x.shape
    window, edges = kernel.shape[0], []
    for n in (height, width):
        reach = (window_count(n, window, stride, padding, ceil) - 1) * stride + window
        edges.append((padding, max(padding, reach - n - padding) if ceil else padding))
    return leave_open(_forms(Geometry(window, stride, tuple(edges), groups, cpu), (height, width)), 2, x, kernel)


def _forms(geometry: Geometry, sides: tuple[int, int]) -> tuple[Form, ...]:
    """By place: maps, kernels, and the maps after them. Elsewhere than on CPUs by XLA, on GPUs in forms for cuDNN.

    Args:
        geometry: see `Geometry`.
        sides: height and width of the maps.
    """
    return (
        Form(partial(_maps_on_cpus, geometry, sides), partial(xla.maps, geometry, sides)),
        Form(partial(_kernels_on_cpus, geometry), partial(xla.kernels, geometry)),
        Form(partial(_on_cpus, geometry), partial(xla.convolve, geometry)),
    )


def _on_cpus(geometry: Geometry, x: Array, kernel: Array) -> Array:
    return by(_form(geometry, x, kernel.shape[3]), geometry, x, kernel)


def by(form: str, geometry: Geometry, x: Array, kernel: Array) -> Array:
    """The convolution in one of the forms that fit."""
    match form:
        case "onednn":
            return onednn.convolve(x, kernel, stride=geometry.stride, edges=geometry.edges, groups=geometry.groups)
        case "winograd":
            return _by_groups(geometry, partial(winograd.convolve, edges=geometry.edges), x, kernel)
    return _by_groups(geometry, partial(xla.plain, geometry.alone), x, kernel)


# Both by XLA one group at a time: its grouped convolution leaves its fast path in the backward pass (12 times slower).


def _maps_on_cpus(geometry: Geometry, sides: tuple[int, int], kernel: Array, gradient: Array) -> Array:
    back = geometry.backward
    if back is None or not _chosen(geometry, gradient):
        return _by_groups(geometry, partial(xla.plain_maps, geometry.alone, sides), kernel, gradient)
    turned = jnp.concatenate([part.swapaxes(2, 3) for (part,) in _split(geometry, kernel[::-1, ::-1])], axis=-1)
    return _on_cpus(back, gradient, turned)


def _kernels_on_cpus(geometry: Geometry, x: Array, gradient: Array) -> Array:
    return kernels_by(_kernel_form(geometry, x, gradient), geometry, x, gradient)


def kernels_by(form: str, geometry: Geometry, x: Array, gradient: Array) -> Array:
    """The kernel's gradient in one of the forms that fit."""
    place = {"window": geometry.window, "stride": geometry.stride, "edges": geometry.edges}
    match form:
        case "convolution":
            function = partial(kernel_gradient.by_convolution, **place)
        case "products":
            function = partial(kernel_gradient.by_products, **place)
        case "onednn products":
            function = partial(kernel_gradient.by_onednn_products, **place)
        case _:
            function = partial(xla.plain_kernels, geometry.alone)
    return _by_groups(geometry, function, x, gradient).astype(x.dtype)


def _kernel_form(geometry: Geometry, x: Array, gradient: Array) -> str:
    """Who computes a kernel's gradient on CPUs: without a measurement oneDNN's convolution, or else products."""
    forms = kernel_forms_that_fit(geometry, x)
    usual = next(form for form in ("convolution", "products", "xla") if form in forms)
    if usual == "products" and geometry.stride**2 * x.shape[3] // geometry.groups < LEAST_COLUMNS:
        usual = "xla"
    return _fastest("kernel's gradient", usual, forms, geometry, x, gradient)


def kernel_forms_that_fit(geometry: Geometry, x: Array) -> list[str]:
    """Forms of a kernel's gradient, that which needs the least memory and compilation first."""
    forms = ["xla"]
    if _chosen(geometry, x):
        forms += ["products"]
        if onednn.usable(x.dtype, geometry.cpu):
            # In float32 XLA's products are as fast as oneDNN's.
            forms += ["onednn products"] * (x.dtype == jnp.bfloat16) + ["convolution"]
    return forms


def _chosen(geometry: Geometry, x: Array) -> bool:
    """Whether anything but XLA's convolutions may compute it. float64 is there to be exact: its sums stay plain."""
    return geometry.cpu != "xla" and x.dtype in (jnp.float32, jnp.bfloat16)


def _form(geometry: Geometry, x: Array, features: int) -> str:
    """Who computes a convolution on CPUs.

    Without a measurement Winograd's filters in float32, where they spare enough; else, and in bfloat16, for which
    oneDNN uses the processor's own products, oneDNN. docs/performance.md has the measurements.
    """
    forms = forms_that_fit(geometry, x, features)
    # oneDNN takes groups as they lie; for the filters they would be cut apart and joined.
    filters = "winograd" in forms and ("onednn" not in forms or (x.dtype == jnp.float32 and geometry.groups == 1))
    usual = "winograd" if filters else "onednn" if "onednn" in forms else "xla"
    sides = zip(x.shape[1:3], geometry.edges, strict=True)
    places = [(n + sum(edge) - geometry.window) // geometry.stride + 1 for n, edge in sides]
    after = jax.ShapeDtypeStruct((x.shape[0], *places, features), x.dtype)
    return _fastest("convolution", usual, forms, geometry, x, after)


def forms_that_fit(geometry: Geometry, x: Array, features: int) -> list[str]:
    """Forms of a convolution, that which needs the least memory and compilation first."""
    forms = ["xla"]
    if _chosen(geometry, x):
        terms = geometry.window**2 * x.shape[3] // geometry.groups
        many = x.dtype == jnp.float32 and terms > MOST_TERMS and not geometry.gradient
        if onednn.usable(x.dtype, geometry.cpu) and not (many and geometry.cpu == "auto"):
            forms.insert(0, "onednn")
        if geometry.cpu != "onednn" and _spares_enough(geometry, x, features):
            forms.append("winograd")
    return forms


def kind(geometry: Geometry, channels: int) -> str:
    """What decides which form is the fastest: where it is timed, it is timed for each of these."""
    if channels // geometry.groups < xla.FEW_CHANNELS:
        return "images"
    return "large windows" if geometry.window >= LARGE_WINDOW else "small windows"


def _fastest(task: str, usual: str, forms: list[str], geometry: Geometry, x: Array, after: Any) -> str:
    """The usual form, or where it is left open and there is enough to compute, the fastest on this machine.

    Args:
        task: what is computed.
        usual: see `calibration.fastest`; likewise forms.
        forms: see `usual`.
        geometry: of the convolution.
        x: its maps.
        after: the maps after it, or their shape.
    """
    channels = x.shape[3]
    operations = 2 * after.size * geometry.window**2 * channels // geometry.groups
    if geometry.cpu != "auto" or operations < calibration.LEAST_OPERATIONS or jax.default_backend() != "cpu":
        return usual
    return calibration.fastest(f"{task} of {kind(geometry, channels)}", x.dtype.name, usual, forms)


def _spares_enough(geometry: Geometry, x: Array, features: int) -> bool:
    """Whether Winograd's filters gain: a window that they have, enough products, and two of five spared.

    With fewer than 4 images making the kernels' tiles costs more than the products save; with few channels making
    the maps' does. Tiles that reach over small maps' edges spare little.
    """
    if geometry.stride != 1 or geometry.window not in minimal_filters.WINDOWS:
        return False
    enough = x.shape[0] >= 4 and min(x.shape[3], features) // geometry.groups >= 96
    return enough and winograd.spared(geometry.window, geometry.edges, (x.shape[1], x.shape[2])) >= 0.4


def _split(geometry: Geometry, *arrays: Array) -> list[tuple[Array, ...]]:
    """By group, its part of each array's last axis."""
    return list(zip(*(jnp.split(array, geometry.groups, axis=-1) for array in arrays), strict=True))


def _by_groups(geometry: Geometry, function: Callable[..., Array], *arrays: Array) -> Array:
    return jnp.concatenate([function(*part) for part in _split(geometry, *arrays)], axis=-1)


def local_conv(x: Array, kernel: Array, *, padding: int) -> Array:
    """Convolution with stride 1 whose kernels differ from position to position (cuda-convnet's `local`).

    Args:
        x: maps (batch, height, width, channels).
        kernel: (height', width', window, window, channels, features), one kernel for each output position.
        padding: zeros on all four sides.

    Returns:
        Maps (batch, height', width', features).
    """
    height, width, window, _, channels, features = kernel.shape
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    pixels = [padded[:, i : i + height, j : j + width] for i in range(window) for j in range(window)]
    patches = jnp.concatenate(pixels, axis=-1)
    flat = kernel.reshape(height, width, window * window * channels, features)
    return leave_open(_PATCHES_BY_KERNELS, 2, patches, flat)


def _summed(subscripts: str, x: Array, y: Array) -> Array:
    return jnp.einsum(subscripts, x, y)


def _summed_in_float32(subscripts: str, x: Array, y: Array) -> Array:
    """Of bfloat16, some versions of XLA would round each partial sum on CPUs, too."""
    wide = np.promote_types(x.dtype, np.float32)
    return jnp.einsum(subscripts, x.astype(wide), y.astype(wide)).astype(x.dtype)


# Patches (n, h, w, k), kernels (h, w, k, f) and maps (n, h, w, f), each from the other two.
_PATCHES_BY_KERNELS = tuple(
    Form(partial(_summed_in_float32, subscripts), partial(_summed, subscripts))
    for subscripts in ("hwkf,nhwf->nhwk", "nhwk,nhwf->hwkf", "nhwk,hwkf->nhwf")
)
