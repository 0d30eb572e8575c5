"""The same networks as a Flax user would write them at first: no custom gradients, no compiler options, one `jit`.

`nn.Conv` with `feature_group_count`, `nn.max_pool`, LRN as a window sum and a power, autodiff throughout; data-parallel
with `shard_map` and one `pmean`. It is what the repository's own step is measured against, and has its weights' names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from alexnet_io.errors import UserError
from jax_alexnet import layer_specs as specs
from jax_alexnet.shapes import window_count
from jax_alexnet.steps import DeviceBatch, TrainState, Tree


class PlainAlexNet(nn.Module):
    """A network of `variants` without anything that makes it faster.

    Args:
        variant: its table.
        classes: number of logits.
        dtype: of activations; weights are float32.
        dropout: whether training drops anything.
    """

    variant: specs.Variant
    classes: int
    dtype: jnp.dtype | type = jnp.float32
    dropout: bool = True

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False, **_: Any) -> Array:
        """Logits (batch, classes) of images (batch, height, width, 3)."""
        x = images.astype(self.dtype)
        for row in self.variant.layers:
            x = self._layer(row, x, train)
        return x

    def _layer(self, row: specs.Layer, x: Array, train: bool) -> Array:
        match row:
            case specs.Conv():
                edges = _edges(x, row.window, row.stride, row.padding, row.ceil)
                return nn.Conv(
                    row.features,
                    (row.window, row.window),
                    row.stride,
                    edges,
                    feature_group_count=row.groups,
                    dtype=self.dtype,
                    name=row.name,
                )(x)
            case specs.Dense():
                return nn.Dense(row.features or self.classes, dtype=self.dtype, name=row.name)(x.reshape(len(x), -1))
            case specs.Relu():
                return nn.relu(x)
            case specs.Dropout():
                return nn.Dropout(row.rate, deterministic=not (train and self.dropout))(x)
            case specs.LRN():
                return _lrn(x, row)
            case specs.Pool(kind="max"):
                window = (row.window, row.window)
                edges = _edges(x, row.window, row.stride, 0, row.ceil)
                return nn.max_pool(x, window, (row.stride, row.stride), edges)  # type: ignore[arg-type]
            case specs.AdaptivePool() if x.shape[1:3] == (row.size, row.size):
                return x
        raise UserError(
            f"{self.variant.name} has no plain form: {row.name} is not in Flax's box; use --style tuned, or one of the "
            "ImageNet networks at their own image size (cuda_convnet_2012 has a norm of its own)"
        )


def _edges(x: Array, window: int, stride: int, padding: int, ceil: bool) -> list[tuple[int, int]]:
    found = []
    for n in x.shape[1:3]:
        reach = (window_count(n, window, stride, padding, ceil) - 1) * stride + window
        found.append((padding, max(padding, reach - n - padding) if ceil else padding))
    return found


def _lrn(x: Array, row: specs.LRN) -> Array:
    scale = row.alpha / row.size if row.divide_by_size else row.alpha
    parts = []
    for part in jnp.split(x, row.columns, axis=-1):
        before = row.size // 2
        padding = ((0, 0), (0, 0), (0, 0), (before, row.size - 1 - before))
        total = lax.reduce_window(jnp.square(part), 0.0, lax.add, (1, 1, 1, row.size), (1, 1, 1, 1), padding)
        parts.append(part / (row.k + scale * total) ** row.beta)
    return jnp.concatenate(parts, axis=-1) if row.columns > 1 else parts[0]


def plain_train_step(
    model: PlainAlexNet, optimizer: optax.GradientTransformationExtraArgs, mesh: Mesh
) -> Callable[..., tuple[TrainState, Array]]:
    """Compiled (state, batch, learning_rate, key, statistics) -> (state, loss), as `steps.make_train_step` takes it."""

    def step(
        state: TrainState, batch: DeviceBatch, learning_rate: Array, key: Array, statistics: Tree
    ) -> tuple[TrainState, Array]:
        images = batch.images.astype(model.dtype) / 127.5 - 1

        def loss_of(params: Tree) -> Array:
            dropout = jax.random.fold_in(jax.random.fold_in(key, state.step), lax.axis_index("data"))
            logits: Any = model.apply({"params": params}, images, train=True, rngs={"dropout": dropout})
            losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), batch.labels)
            return lax.pmean(jnp.mean(losses), "data")

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, learning_rate=learning_rate)
        return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state), loss

    return jax.jit(
        jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data"), P(), P(), P()), out_specs=(P(), P())),
        donate_argnums=0,
    )


def plain_eval_step(
    model: PlainAlexNet, mesh: Mesh
) -> Callable[[Tree, DeviceBatch, Tree], tuple[Array, Array | np.ndarray]]:
    """Compiled (params, batch, statistics) -> (logits, labels), as `steps.make_eval_step` takes it."""

    def step(params: Tree, batch: DeviceBatch, statistics: Tree) -> tuple[Array, Array | np.ndarray]:
        logits: Any = model.apply({"params": params}, batch.images.astype(model.dtype) / 127.5 - 1)
        return logits.astype(jnp.float32), batch.labels

    sharded = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data"), P()), out_specs=(P("data"), P("data")))
    return jax.jit(sharded)
