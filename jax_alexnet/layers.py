"""The layers with weights or randomness as thin Flax modules over `ops`, each built from its variant's row."""

from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_io.errors import UserError
from jax_alexnet import layer_specs as specs
from jax_alexnet.initialization import initializers
from jax_alexnet.ops import convolution, dense, lrn, pooled_norm, pooling
from jax_alexnet.ops.bias import add_bias
from jax_alexnet.ops.cpu.onednn import CpuForm
from jax_alexnet.ops.relu import relu
from jax_alexnet.shapes import window_count


class _Weighted(nn.Module):
    """A layer with `kernel` and `bias`, kept in `param_dtype` and computed in the dtype of the input."""

    layer: specs.Layer
    weight_init: str = "variant"
    param_dtype: jnp.dtype = jnp.float32
    cpu_convolution: CpuForm = "auto"

    def weights(self, x: Array, kernel_shape: tuple[int, ...], bias_shape: tuple[int, ...], fan_in: int):
        """The kernel cast to the dtype of `x`, and the bias as stored; their shapes must be those asked for."""
        if self.has_variable("params", "kernel"):
            stored = self.get_variable("params", "kernel").shape
            if stored != kernel_shape:
                name = self.layer.name
                raise UserError(
                    f"{name} has a kernel of shape {tuple(stored)}, but its input of shape {x.shape} needs "
                    f"{kernel_shape}: the weights were made for another image size or another number of classes"
                )
        kernel_init, bias_init = initializers(self.layer, self.weight_init, fan_in)  # type: ignore[arg-type]
        kernel = self.param("kernel", kernel_init, kernel_shape, self.param_dtype)
        bias = self.param("bias", bias_init, bias_shape, self.param_dtype)
        return kernel.astype(x.dtype), bias


class Conv(_Weighted):
    """Shared convolution (batch, height, width, channels) -> (batch, height', width', features)."""

    layer: specs.Conv

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Convolve and add the bias."""
        row = self.layer
        inputs = x.shape[-1] // row.groups
        shape = (row.window, row.window, inputs, row.features)
        kernel, bias = self.weights(x, shape, (row.features,), row.window**2 * inputs)
        out = convolution.conv(
            x,
            kernel,
            stride=row.stride,
            padding=row.padding,
            groups=row.groups,
            ceil=row.ceil,
            cpu=self.cpu_convolution,
        )
        return add_bias(out, bias, self.cpu_convolution)


class LocalConv(_Weighted):
    """Unshared convolution: a kernel and a bias for each output position."""

    layer: specs.LocalConv

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Apply each position's own kernel and add its bias."""
        row = self.layer
        inputs = x.shape[-1]
        place = tuple(window_count(n, row.window, 1, row.padding) for n in x.shape[1:3])
        shape = (*place, row.window, row.window, inputs, row.features)
        kernel, bias = self.weights(x, shape, (*place, row.features), row.window**2 * inputs)
        return add_bias(convolution.local_conv(x, kernel, padding=row.padding), bias, self.cpu_convolution)


class Dense(_Weighted):
    """Fully connected layer on the flattened map; rows of the kernel follow height, width, channel.

    With `units_first` its columns do: the kernel is (features, inputs), which `dense.multiply_by_units` reads.
    """

    layer: specs.Dense
    features: int = 0
    units_first: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Flatten (batch, ...) to (batch, inputs), multiply and add the bias."""
        inputs = prod(x.shape[1:])
        shape = (self.features, inputs) if self.units_first else (inputs, self.features)
        kernel, bias = self.weights(x, shape, (self.features,), inputs)
        multiply = dense.multiply_by_units if self.units_first else dense.multiply
        out = multiply(x.reshape(x.shape[0], inputs), kernel, self.cpu_convolution)
        if self.layer.sum_over:
            # Each device has multiplied its part of the inputs; it gets back the sums for its own images.
            wide = out.astype(np.promote_types(out.dtype, np.float32))
            out = jax.lax.psum_scatter(wide, self.layer.sum_over, scatter_dimension=0, tiled=True)
        return add_bias(out, bias, self.cpu_convolution)


class Dropout(nn.Module):
    """Inverted dropout whose mask depends on the key and each example's place in the global batch alone.

    So the masks are the same however many devices share the batch, and differ between examples, layers and
    steps.
    """

    rate: float
    part_along: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None, first_example: Array | int = 0):
        """Zero a share `rate` of `x` (batch, ...) and divide the rest by 1 - rate; identity in evaluation.

        Args:
            x: activations, examples first.
            train: whether to drop at all.
            mask: bool array of the shape of `x`, True where kept; drawn from the `dropout` stream if None.
            first_example: place of x[0] in the global batch.
        """
        if not train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        if mask is None:
            key = self.make_rng("dropout")
            places = jnp.asarray(first_example, jnp.int32) + jnp.arange(x.shape[0], dtype=jnp.int32)
            keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(places)
            shape, axis = x.shape[1:], self.part_along
            if axis:
                shape = (*shape[:-1], shape[-1] * jax.lax.axis_size(axis))
            mask = jax.vmap(lambda key: jax.random.bernoulli(key, keep, shape))(keys)
            if axis:
                # The mask of all units, as one device would draw it, and of that this device's part.
                start = jax.lax.axis_index(axis) * x.shape[-1]
                mask = jax.lax.dynamic_slice_in_dim(mask, start, x.shape[-1], -1)
        elif mask.shape != x.shape:
            raise UserError(f"the dropout mask has shape {mask.shape}; it must be that of the input, {x.shape}")
        return jnp.where(mask, x / keep, jnp.zeros((), x.dtype))


def exchange(row: specs.Exchange, x: Array, first_example: Array | int) -> tuple[Array, Array | int]:
    """What a device holds after an exchange along `row.axis`, and the place of its first example in the batch."""
    to = "invarying" if row.whole else "varying"
    gathered = jax.lax.all_gather(x, row.axis, axis=0 if row.kind == "examples" else -1, tiled=True, to=to)
    if row.kind == "examples":
        first_example = first_example - jax.lax.axis_index(row.axis) * x.shape[0]
    return gathered, first_example


class Relu(nn.Module):
    """max(x, 0); the gradient at 0 is 0, as in PyTorch."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Element by element."""
        return relu(x)


class Tanh(nn.Module):
    """tanh(x)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Element by element."""
        return nn.tanh(x)


class Norm(nn.Module):
    """Response normalisation across channels or across positions."""

    layer: specs.LRN | specs.SpatialNorm

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalise maps (batch, height, width, channels)."""
        return _normalize(self.layer, x)


class Pool(nn.Module):
    """Max, average or adaptive average pooling."""

    layer: specs.Pool | specs.AdaptivePool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Pool maps (batch, height, width, channels)."""
        return _pool(self.layer, x)


def normalize_and_pool(norm: specs.LRN, pool: specs.Pool, x: Array) -> Array:
    """`Norm` and the max-`Pool` behind it: on GPUs in one pass, so that normalised maps never lie in memory."""

    def apart(x: Array) -> Array:
        with jax.named_scope(norm.name):
            normalized = _normalize(norm, x)
        with jax.named_scope(pool.name):
            return _pool(pool, normalized)

    def together(x: Array) -> Array:
        with jax.named_scope(pool.name):
            window = lrn.window_across_channels(x.shape[-1], **_settings(norm))
            return pooled_norm.max_pool_of_norm(x, window, pool.window, pool.stride, ceil=pool.ceil)

    return jax.lax.platform_dependent(x, cuda=together, default=apart)


def _settings(row: specs.LRN) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("size", "alpha", "beta", "k", "divide_by_size", "columns")}


def _normalize(row: specs.LRN | specs.SpatialNorm, x: Array) -> Array:
    if isinstance(row, specs.SpatialNorm):
        return lrn.spatial_response_norm(x, size=row.size, alpha=row.alpha, beta=row.beta, k=row.k)
    return lrn.local_response_norm(x, **_settings(row))


def _pool(row: specs.Pool | specs.AdaptivePool, x: Array) -> Array:
    if isinstance(row, specs.AdaptivePool):
        return pooling.adaptive_average_pool(x, (row.size, row.size))
    pool = pooling.max_pool if row.kind == "max" else pooling.average_pool
    return pool(x, row.window, row.stride, ceil=row.ceil)
