"""The random choices of JAX's training step, drawn from its keys by the rule that its documentation states.

Written out here rather than asked of `jax_alexnet.augment`: what the step makes of its keys is under test.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen
from jax import Array
from torch import Tensor, nn

from alexnet_io.command_line.complete_settings import CompleteSettings
from jax_alexnet import layers
from parity.alexnet import flattened
from torch_ref.augment import Draws
from torch_ref.layers import Dropout


class JaxDraws:
    """Crops, flips, colour noise and dropout masks for the PyTorch side.

    Args:
        settings: the run's.
        network: PyTorch's, whose dropout layers are numbered as they come.
        image_size: height and width of its input.
    """

    def __init__(self, settings: CompleteSettings, network: nn.Module, image_size: tuple[int, int]) -> None:
        self._settings, self._network, self._image_size = settings, network, image_size
        self._root = jax.random.fold_in(jax.random.key(settings.seed), 1)
        self._names = [name for name, module in network.named_modules() if isinstance(module, Dropout)]
        self._masks: dict[tuple[str, tuple[int, ...]], Callable[[Array, int], Array]] = {}

    def augmentation(self, step: int, first_place: int, count: int, stored: tuple[int, int]) -> Draws:
        """See `torch_ref.run_setup.Setup.draw`."""
        settings, size = self._settings, self._settings.image_size
        key, _ = self._keys(step)
        places = jnp.arange(first_place, first_place + count)
        top, left, flip, noise = (np.asarray(drawn) for drawn in _draw(key, places, stored, size))
        centre = [np.full(count, round((side - size) / 2)) for side in stored]
        return Draws(
            top if settings.crop else centre[0],
            left if settings.crop else centre[1],
            flip if settings.flip else np.zeros(count, np.bool_),
            # The step draws colour noise in single precision whatever it computes in.
            noise.astype(np.float32) if settings.color_noise else np.zeros((count, 3)),
        )

    def mask(self, step: int, first_place: int, number: int, rate: float, x: Tensor) -> Tensor:
        """See `torch_ref.dropout_masks.DropoutMasks.draw`."""
        name, layout = self._names[number], flattened.dropped_map(self._network, self._names[number], self._image_size)
        shape = tuple(x.shape)
        if layout is not None and layout.map_shape is not None:
            channels, *spatial = layout.map_shape
            shape = (shape[0], *spatial, channels)
        if (name, shape) not in self._masks:
            self._masks[name, shape] = _mask_of(name, rate, shape)
        mask = np.asarray(self._masks[name, shape](self._keys(step)[1], first_place))
        mask = mask if layout is None else layout.to_torch(mask)
        return torch.from_numpy(np.ascontiguousarray(mask)).reshape(x.shape)

    def _keys(self, step: int) -> tuple[Array, Array]:
        augment, dropout = jax.random.split(jax.random.fold_in(self._root, step))
        return augment, dropout


def _draw(key: Array, places: Array, stored: tuple[int, int], size: int) -> tuple[Array, ...]:
    def one(place: Array) -> tuple[Array, ...]:
        rows, columns, mirror, colour = jax.random.split(jax.random.fold_in(key, place), 4)
        top = jax.random.randint(rows, (), 0, stored[0] - size + 1)
        left = jax.random.randint(columns, (), 0, stored[1] - size + 1)
        return top, left, jax.random.bernoulli(mirror), 0.1 * jax.random.normal(colour, (3,))

    return jax.vmap(one)(places)


def _mask_of(name: str, rate: float, shape: tuple[int, ...]) -> Callable[[Array, int], Array]:
    """What JAX's dropout layer of that name lets through of ones: its key follows its name in the network."""

    class Alone(linen.Module):
        @linen.compact
        def __call__(self, first_place: int) -> Array:
            ones = jnp.ones(shape)
            return layers.Dropout(rate, name=name)(ones, train=True, first_example=first_place) != 0

    return jax.jit(lambda key, first_place: Alone().apply({}, first_place, rngs={"dropout": key}))
