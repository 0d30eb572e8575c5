"""Optimizers as optax chains whose learning rate is an argument of each update.

The rate comes in from outside because a plateau schedule knows it only after an evaluation. Weight decay is
always coupled: it joins the gradient before momentum or Adam see it, as in PyTorch and in the paper.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.run.fine_tuning import frozen_layers
from jax_alexnet.layer_specs import Variant
from jax_alexnet.variants import layers_with_weights

Tree = Any


class Velocity(NamedTuple):
    """The paper's momentum variable, one array for each parameter."""

    velocity: Tree


def paper_momentum(momentum: float, decay: Tree, factors: Tree) -> optax.GradientTransformationExtraArgs:
    """The update v <- m v - lr d w - lr g; w <- w + v, with the learning rate inside the velocity [P section 5].

    PyTorch and optax keep it outside, v <- m v + g; w <- w - lr v, which is the same only while lr is constant.

    Args:
        momentum: m, 0.9 in the paper.
        decay: d for each parameter, a tree of floats; 0.0005 in the paper.
        factors: what multiplies `learning_rate` for each parameter, a tree of floats.
    """

    def init(params: Tree) -> Velocity:
        return Velocity(jax.tree.map(jax.numpy.zeros_like, params))

    def update(grads: Tree, state: Velocity, params: Tree = None, *, learning_rate: Array, **_: Any):
        def one(g: Array, v: Array, w: Array, d: float, factor: float) -> Array:
            rate = (learning_rate * factor).astype(w.dtype)
            return momentum * v - rate * (g + d * w)

        velocity = jax.tree.map(one, grads, state.velocity, params, decay, factors)
        return velocity, Velocity(velocity)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _no_state(params: Tree) -> optax.EmptyState:
    return optax.EmptyState()


def add_decay(decay: Tree) -> optax.GradientTransformation:
    """Adds d w to the gradient, with a d for each parameter."""

    def update(grads: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        return jax.tree.map(lambda g, w, d: g + d * w if d else g, grads, params, decay), state

    return optax.GradientTransformation(_no_state, update)  # pyright: ignore[reportArgumentType]


def descend(factors: Tree) -> optax.GradientTransformationExtraArgs:
    """Multiplies by minus the learning rate that comes with the update, times each parameter's factor."""

    def update(updates: Tree, state: optax.EmptyState, params: Tree = None, *, learning_rate: Array, **_: Any):
        def one(u: Array, factor: float) -> Array:
            return -(learning_rate * factor).astype(u.dtype) * u

        return jax.tree.map(one, updates, factors), state

    return optax.GradientTransformationExtraArgs(_no_state, update)  # pyright: ignore[reportArgumentType]


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """optax's, of the whole gradient also where each device has its part of it.

    A gradient whose norm over all parameters is `limit` or more is scaled to that norm exactly. (PyTorch's
    `clip_grad_norm_` divides by the norm plus 1e-6, which leaves a little less.)
    """
    alone = optax.clip_by_global_norm(limit)

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        # Inside a step an array varies over the axes of the mesh that divide it, once gradients are added up.
        by_axes: dict[frozenset[str], list[Array]] = {}
        for leaf in jax.tree.leaves(updates):
            by_axes.setdefault(frozenset(jax.typeof(leaf).mat.varying), []).append(jnp.sum(jnp.square(leaf)))
        if not any(by_axes):
            return alone.update(updates, state, params)
        squares = [jax.lax.psum(sum(each), tuple(axes)) if axes else sum(each) for axes, each in by_axes.items()]
        norm = jnp.sqrt(sum(squares))
        return jax.tree.map(lambda g: jnp.where(norm < limit, g, g / norm * limit), updates), state

    return optax.GradientTransformation(alone.init, update)


def _mixing(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same where JAX is told to mix no dtypes (`jax_numpy_dtype_promotion`): optax's Adam raises by an integer."""

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return transformation.update(updates, state, params)

    return optax.GradientTransformation(transformation.init, update)


def make_optimizer(settings: CompleteSettings, variant: Variant, params: Tree) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a run; `update` takes `learning_rate`, a scalar array.

    Args:
        settings: the run's; the layers that it freezes get no update and have no memories.
        variant: its per-layer weight decay applies where the recipe is `cifar`.
        params: the tree {layer: {"kernel", "bias"}} or its shapes.
    """
    by_layer = dict(variant.weight_decay) if settings.recipe == "cifar" else {}
    layers = layers_with_weights(variant)
    frozen = frozen_layers(settings, layers)

    def decay_of(layer: str, kind: str) -> float:
        return 0.0 if kind == "bias" and not settings.decay_biases else by_layer.get(layer, settings.weight_decay)

    def factor_of(layer: str, kind: str) -> float:
        factor = settings.bias_learning_rate_factor if kind == "bias" else 1.0
        return factor * settings.new_layer_learning_rate_factor if layer == layers[-1] else factor

    def of_each(value: Callable[[str, str], float]) -> Tree:
        """A value for each parameter that learns, in the tree that optax hands to what it masks."""

        def one(path: tuple[Any, ...], _: Any) -> Any:
            layer, kind = (entry.key for entry in path[-2:])
            return optax.MaskedNode() if layer in frozen else value(layer, kind)

        return jax.tree_util.tree_map_with_path(one, params)

    decay, factors = of_each(decay_of), of_each(factor_of)
    # The gradient's norm, before decay joins it, and of what learns alone.
    clip = [] if settings.clip_norm is None else [clip_by_global_norm(settings.clip_norm)]
    if settings.optimizer == "paper":
        rule = paper_momentum(settings.momentum, decay, factors)
        learning = optax.with_extra_args_support(optax.chain(*clip, rule)) if clip else rule
    else:
        middle = _mixing(optax.scale_by_adam()) if settings.optimizer == "adam" else optax.trace(settings.momentum)
        learning = optax.with_extra_args_support(optax.chain(*clip, add_decay(decay), middle, descend(factors)))
    if not frozen:
        return learning
    labels = {
        layer: dict.fromkeys(leaves, "frozen" if layer in frozen else "learning") for layer, leaves in params.items()
    }
    return optax.partition({"learning": learning, "frozen": optax.set_to_zero()}, labels)
