"""One training step and one evaluation step, pure functions compiled over a mesh of devices.

How the devices share the work is a `Layout` of `jax_alexnet.parallel`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_io.command_line.complete_settings import CompleteSettings
from jax_alexnet import augment
from jax_alexnet.devices import compiler_options
from jax_alexnet.layer_specs import Dense
from jax_alexnet.model import AlexNet
from jax_alexnet.ops.cross_entropy import cross_entropy, rank, smoothed_cross_entropy
from jax_alexnet.parallel import data_parallel
from jax_alexnet.parallel.layout import Layout, batch_axes, batch_spec
from jax_alexnet.variants import VARIANTS

Tree = Any


class TrainState(NamedTuple):
    """All that a step changes."""

    step: Array  # int32: steps done
    params: Tree
    opt_state: Tree
    average: Tree = ()  # of the weights, as `StepOptions.ema` has it; nothing without one


class DeviceBatch(NamedTuple):
    """A global batch as a compiled step takes it; rows of weight 0 only fill it up."""

    images: Array | np.ndarray  # uint8 (batch, height, width, 3)
    labels: Array | np.ndarray  # int32 (batch,)
    weights: Array | np.ndarray  # float32 (batch,)


class Metrics(NamedTuple):
    """Sums over the batch's real examples."""

    loss: Array
    top1: Array
    top5: Array
    examples: Array


@dataclass(frozen=True)
class StepOptions:
    """What a step does beyond the plain one; static, so that a compiled step can close over it.

    Attributes:
        label_smoothing: share of each label that is spread evenly over all classes.
        parts: of a device's images, worked on one after the other.
        ema: decay of the weights' moving average; None without one.
    """

    label_smoothing: float = 0.0
    parts: int = 1
    ema: float | None = None

    @classmethod
    def of(cls, settings: CompleteSettings) -> "StepOptions":
        """What a run's settings say."""
        return cls(settings.label_smoothing, settings.accumulate, settings.ema)


def step_keys(key: Array, step: Array | int) -> tuple[Array, Array]:
    """The keys of augmentation and of dropout in the step after `step` others, from the run's key.

    They depend on nothing else, so that a resumed run goes on drawing what it would have drawn.
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, step))
    return augment_key, dropout_key


def make_train_step(
    model: AlexNet,
    optimizer: optax.GradientTransformationExtraArgs,
    augmentation: augment.Augmentation,
    where: Mesh | Layout,
    options: StepOptions = StepOptions(),
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Compiled (state, batch, learning_rate, key, statistics) -> (state, metrics).

    `where` says how devices share the batch, the weights and the optimizer's state: a layout, or a mesh for data
    parallelism over its axes. Whatever it is, the gradient is that of the mean loss over the batch's real examples:
    each device sums its examples' shares, in parts if `options` say so, and one reduction in the parameters' dtype adds
    the sums. `key` is the run's, see `step_keys`; the state's buffers are donated.
    """
    layout = _layout(where, model)
    mesh, own_model = layout.mesh, model.clone(variant=layout.table)
    # XLA would carry out a reduction over one device as a copy of every gradient.
    axes = batch_axes(mesh) if mesh.size > 1 else ()

    def local_step(state: TrainState, batch: DeviceBatch, learning_rate: Array, key: Array, statistics: Tree):
        here = batch.images.shape[0]
        first = jax.lax.axis_index(axes) * here if axes else 0
        augment_key, dropout_key = step_keys(key, state.step)
        examples = jnp.sum(batch.weights)
        examples = jax.lax.psum(examples, axes) if axes else examples

        def share_of_loss(params: Tree, part: DeviceBatch, number: Array | int) -> tuple[Array, Metrics]:
            count = part.images.shape[0]
            first_here = first + number * count
            places = first_here + jnp.arange(count, dtype=jnp.int32)
            draws = augment.draw(augment_key, places, augmentation, part.images.shape[1:3])
            images = augment.apply(part.images, draws, augmentation, statistics)
            logits = own_model.apply(
                {"params": params}, images, train=True, first_example=first_here, rngs={"dropout": dropout_key}
            )
            metrics = measure(logits, part, options.label_smoothing)
            # The batch's mean, not its sum: dividing here costs nothing, dividing the gradients a pass over them.
            return metrics.loss / examples.astype(metrics.loss.dtype), metrics

        # In plain data parallelism: `jax.grad`, summed over the devices, and `optimizer.update`, alike on each of them.
        grads, metrics = layout.grad(share_of_loss, state.params, batch, options.parts)
        params, opt_state = layout.update(optimizer, grads, state.opt_state, state.params, learning_rate=learning_rate)
        average = () if options.ema is None else moved_average(params, state.average, options.ema)
        return TrainState(state.step + 1, params, opt_state, average), metrics

    def train_step(state: TrainState, batch: DeviceBatch, learning_rate: Array, key: Array, statistics: Tree):
        specs = layout.specs(state)
        sharded = jax.shard_map(
            local_step, mesh=mesh, in_specs=(specs, batch_spec(mesh), P(), P(), P()), out_specs=(specs, P())
        )
        return sharded(state, batch, learning_rate, key, statistics)

    compiled_with = compiler_options(mesh.devices.flat[0].platform)
    return jax.jit(train_step, donate_argnums=0, compiler_options=compiled_with)


def moved_average(params: Tree, average: Tree, decay: float) -> Tree:
    """The exponential moving average of weights after one more step; it begins with the weights of the beginning.

    Where a weight is what its average is, as frozen ones are, the average stays exactly that.
    """
    moved = optax.incremental_update(params, average, 1 - decay)
    return jax.tree.map(lambda new, old, both: jnp.where(new == old, old, both), params, average, moved)


def fresh_state(params: Tree, optimizer: optax.GradientTransformationExtraArgs, options: StepOptions) -> TrainState:
    """The state before the first step, whole, from the weights to begin with."""
    # A copy: the buffers of a state are given to the next step, each but once.
    average = () if options.ema is None else jax.tree.map(jnp.copy, params)
    return TrainState(jnp.asarray(0, jnp.int32), params, optimizer.init(params), average)


def state_shapes(
    model: AlexNet,
    optimizer: optax.GradientTransformationExtraArgs,
    image_size: int,
    options: StepOptions = StepOptions(),
) -> TrainState:
    """The shapes of a training state of the whole network, without allocating anything."""

    def fresh() -> TrainState:
        image = jnp.zeros((1, image_size, image_size, 3), model.dtype)
        return fresh_state(model.init(jax.random.key(0), image)["params"], optimizer, options)

    return jax.eval_shape(fresh)


def _layout(where: Mesh | Layout, model: AlexNet) -> Layout:
    if isinstance(where, Layout):
        return where
    return data_parallel.on_mesh(VARIANTS[model.variant] if isinstance(model.variant, str) else model.variant, where)


def make_eval_step(
    model: AlexNet, augmentation: augment.Augmentation, where: Mesh | Layout
) -> Callable[[Tree, DeviceBatch, Tree], tuple[Array, Array]]:
    """Compiled (params, batch, statistics) -> (logits (batch, classes) float32, loss of each example (batch,))."""
    layout = _layout(where, model)
    mesh, own_model = layout.mesh, model.clone(variant=layout.table)

    def local_step(params: Tree, batch: DeviceBatch, statistics: Tree) -> tuple[Array, Array]:
        images = augment.apply(batch.images, None, augmentation.for_evaluation, statistics)
        logits = own_model.apply({"params": params}, images, train=False)
        wide = _wide(logits)
        return wide, cross_entropy(wide, batch.labels)

    def eval_step(params: Tree, batch: DeviceBatch, statistics: Tree) -> tuple[Array, Array]:
        rows = batch_spec(mesh)
        specs = (layout.specs(params), rows, P())
        sharded = jax.shard_map(local_step, mesh=mesh, in_specs=specs, out_specs=(rows, rows))
        return sharded(params, batch, statistics)

    return jax.jit(eval_step, compiler_options=compiler_options(mesh.devices.flat[0].platform))


def make_feature_step(
    model: AlexNet, augmentation: augment.Augmentation, mesh: Mesh, layer: str
) -> Callable[[Tree, DeviceBatch, Tree], Array]:
    """Compiled (params, batch, statistics) -> what `layer` puts out for each image (batch, ...), at least float32."""

    def local_step(params: Tree, batch: DeviceBatch, statistics: Tree) -> Array:
        images = augment.apply(batch.images, None, augmentation.for_evaluation, statistics)
        _, activations = model.apply({"params": params}, images, train=False, capture=True)
        return _wide(activations[layer])

    def feature_step(params: Tree, batch: DeviceBatch, statistics: Tree) -> Array:
        rows = batch_spec(mesh)
        return jax.shard_map(local_step, mesh=mesh, in_specs=(P(), rows, P()), out_specs=rows)(
            params, batch, statistics
        )

    return jax.jit(feature_step, compiler_options=compiler_options(mesh.devices.flat[0].platform))


def in_compute_dtype(params: Tree, model: AlexNet) -> Tree:
    """The weights as the model's activations are: what evaluation would make of them in each step, made once.

    In bfloat16 that spares half of the time of a single image.
    """
    return jax.tree.map(lambda leaf: leaf.astype(model.dtype), params)


def for_inference(model: AlexNet, params: Tree) -> tuple[AlexNet, Tree]:
    """The network and its weights laid out for inference: as the activations are, and on CPUs each unit's together.

    Of the weights of fully connected layers inference reads each once for a few examples, so that how they lie decides
    how long a single image takes.

    Args:
        model: with kernels of fully connected layers (inputs, features).
        params: its weights {layer: {"kernel", "bias"}}.
    """
    cast = in_compute_dtype(params, model)
    if jax.default_backend() != "cpu":
        return model, cast
    variant = VARIANTS[model.variant] if isinstance(model.variant, str) else model.variant
    dense = {row.name for row in variant.layers if isinstance(row, Dense)}
    turned = {
        name: layer | {"kernel": jnp.asarray(layer["kernel"]).T} if name in dense else layer
        for name, layer in cast.items()
    }
    return model.clone(units_first=True), turned


def measure(logits: Any, batch: DeviceBatch, label_smoothing: float = 0.0) -> Metrics:
    """Sums of cross-entropy, top-1 and top-5 hits over the real examples of `batch`.

    The cross-entropy is with labels that are smoothed, where they are: what is trained on.

    Rows of weight 0 leave no trace, in the gradient neither, whatever their labels are and whether or not their logits
    are numbers. A real example whose label isn't a class makes the loss NaN and is never a hit. For ties see `rank`.
    """
    real = jnp.asarray(batch.weights) > 0
    # Nothing of the others is looked at: what is no number would stay so in a product with 0, and in its gradient.
    wide = jnp.where(real[:, None], _wide(logits), 0)
    labels = jnp.where(real, batch.labels, 0)
    weights = batch.weights.astype(wide.dtype)
    before = rank(wide, labels)
    loss_of = partial(smoothed_cross_entropy, smoothing=label_smoothing) if label_smoothing else cross_entropy
    return Metrics(
        loss=jnp.sum(weights * loss_of(wide, labels)),
        top1=jnp.sum(weights * (before < 1).astype(wide.dtype)),
        top5=jnp.sum(weights * (before < 5).astype(wide.dtype)),
        examples=jnp.sum(weights),
    )


def _wide(logits: Any) -> Array:
    return logits.astype(np.promote_types(logits.dtype, np.float32))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """`tree` on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def split(batch: DeviceBatch, mesh: Mesh) -> DeviceBatch:
    """`batch`, NumPy arrays of this process's rows, spread over the devices that have different images."""
    sharding = NamedSharding(mesh, batch_spec(mesh))
    if not mesh.is_multi_process:
        return jax.device_put(batch, sharding)  # all at once: each call costs as much as a small step
    return DeviceBatch(*(jax.make_array_from_process_local_data(sharding, leaf) for leaf in batch))
