"""One training step and one evaluation step, pure functions compiled over a mesh of devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_alexnet import augment
from jax_alexnet.devices import compiler_options
from jax_alexnet.model import AlexNet

Tree = Any


class TrainState(NamedTuple):
    """All that a step changes."""

    step: Array  # int32: steps done
    params: Tree
    opt_state: Tree


class Batch(NamedTuple):
    """A global batch; rows of weight 0 only fill it up."""

    images: Array | np.ndarray  # uint8 (batch, height, width, 3)
    labels: Array | np.ndarray  # int32 (batch,)
    weights: Array | np.ndarray  # float32 (batch,)


class Metrics(NamedTuple):
    """Sums over the batch's real examples."""

    loss: Array
    top1: Array
    top5: Array
    examples: Array


def make_train_step(
    model: AlexNet,
    optimizer: optax.GradientTransformationExtraArgs,
    augmentation: augment.Augmentation,
    mesh: Mesh,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Compiled (state, batch, learning_rate, key, statistics) -> (state, metrics).

    The batch is split over the mesh's `data` axis; parameters and optimizer state are replicated. The gradient
    is that of the mean loss over the batch's real examples, whatever their split: each device sums its examples'
    shares, and one float32 reduction adds the sums. `key` is folded by the step; the state's buffers are donated.
    """
    several = mesh.size > 1

    def summed(tree: Tree) -> Tree:
        # XLA would carry out a reduction over one device as a copy of every gradient.
        return jax.lax.psum(tree, "data") if several else tree

    def local_step(state: TrainState, batch: Batch, learning_rate: Array, key: Array, statistics: Tree):
        here = batch.images.shape[0]
        first = jax.lax.axis_index("data") * here if several else 0
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
        places = first + jnp.arange(here)
        draws = augment.draw(augment_key, places, augmentation, batch.images.shape[1:3])
        images = augment.apply(batch.images, draws, augmentation, statistics)

        examples = summed(jnp.sum(batch.weights))

        def share_of_loss(params: Tree) -> tuple[Array, Metrics]:
            logits = model.apply(
                {"params": params}, images, train=True, first_example=first, rngs={"dropout": dropout_key}
            )
            metrics = measure(logits, batch)
            # The batch's mean, not its sum: dividing here costs nothing, dividing the gradients a pass over them.
            return metrics.loss / examples.astype(metrics.loss.dtype), metrics

        # Parameters marked as differing between devices keep autodiff from reducing by itself, layer by layer
        # and in the compute dtype; the one sum below is in the parameters' own dtype.
        params = state.params
        if several:
            params = jax.tree.map(lambda leaf: jax.lax.pcast(leaf, "data", to="varying"), params)
        grads, metrics = summed(jax.grad(share_of_loss, has_aux=True)(params))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, learning_rate=learning_rate)
        return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state), metrics

    share = P("data") if several else P()
    sharded = jax.shard_map(local_step, mesh=mesh, in_specs=(P(), share, P(), P(), P()), out_specs=(P(), P()))
    options = compiler_options(mesh.devices.flat[0].platform)
    return jax.jit(sharded, donate_argnums=0, compiler_options=options)


def make_eval_step(
    model: AlexNet, augmentation: augment.Augmentation, mesh: Mesh
) -> Callable[[Tree, Batch, Tree], tuple[Array, Array]]:
    """Compiled (params, batch, statistics) -> (logits (batch, classes) float32, loss of each example (batch,))."""

    def local_step(params: Tree, batch: Batch, statistics: Tree) -> tuple[Array, Array]:
        images = augment.apply(batch.images, None, augmentation.for_evaluation, statistics)
        logits = model.apply({"params": params}, images, train=False)
        wide = _wide(logits)
        return wide, optax.softmax_cross_entropy_with_integer_labels(wide, batch.labels)

    sharded = jax.shard_map(local_step, mesh=mesh, in_specs=(P(), P("data"), P()), out_specs=(P("data"), P("data")))
    return jax.jit(sharded, compiler_options=compiler_options(mesh.devices.flat[0].platform))


def measure(logits: Any, batch: Batch) -> Metrics:
    """Sums of cross-entropy, top-1 and top-5 hits over the real examples of `batch`.

    A class counts as above the right one if its logit is larger, or equal with a smaller index, so that ties
    are broken as a stable sort would.
    """
    wide = _wide(logits)
    weights = batch.weights.astype(wide.dtype)
    losses = optax.softmax_cross_entropy_with_integer_labels(wide, batch.labels)
    right = jnp.take_along_axis(wide, batch.labels[:, None], axis=1)
    earlier = jnp.arange(wide.shape[1])[None] < batch.labels[:, None]
    rank = jnp.sum((wide > right) | ((wide == right) & earlier), axis=1)
    return Metrics(
        loss=jnp.sum(weights * losses),
        top1=jnp.sum(weights * (rank < 1)),
        top5=jnp.sum(weights * (rank < 5)),
        examples=jnp.sum(weights),
    )


def _wide(logits: Any) -> Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """`tree` on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def split(batch: Batch, mesh: Mesh) -> Batch:
    """`batch`, NumPy arrays of this process's rows, spread over the mesh's `data` axis."""
    sharding = NamedSharding(mesh, P("data"))
    return Batch(*(jax.make_array_from_process_local_data(sharding, leaf) for leaf in batch))
