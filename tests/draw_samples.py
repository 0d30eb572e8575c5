"""Draws in bulk, made by the product's own functions from the seed as a training run does, for `test_draws.py`."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray
from tiny import QUICKLY, SIDE, TABLE, TorchNetwork, complete_settings

from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet import augment as jax_augment
from jax_alexnet.model import AlexNet
from jax_alexnet.recipes import resolve
from jax_alexnet.run_setup import Setup, prepare
from jax_alexnet.steps import step_keys
from torch_ref import augment as torch_augment
from torch_ref.dropout_masks import DropoutMasks
from torch_ref.layers import Dropout

SIZE, STORED = 24, (32, 32)  # squares: one number taken for top and left differs modulo two sizes
PLACES = 32 - 24 + 1  # where a crop may begin, in each direction
SETTINGS = complete_settings(image_size=SIZE, normalize="half", crop=True, flip=True, color_noise=True)
AT_ONCE = 2048  # examples for which JAX draws in one call


class Draws(NamedTuple):
    """What the examples of many steps are given: arrays [seed, step, place]; of the noise, [..., component]."""

    top: NDArray
    left: NDArray
    flip: NDArray
    noise: NDArray


class Framework(Protocol):
    """One framework's draws for all seeds and steps, and the places `first` to `first + count` of each batch."""

    def draws(self, seeds: Sequence[int], steps: Sequence[int], count: int, first: int = 0) -> Draws:
        """Crops of `SIZE` from images of `STORED`, flips and colour noise."""
        ...

    def masks(
        self, seeds: Sequence[int], steps: Sequence[int], count: int, first: int = 0
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """True where the two dropout layers keep: [seed, step, place, three axes of pixels], [..., unit]."""
        ...


class Jax:
    """The main framework, in the precision in which it trains by default."""

    @functools.cached_property
    def _setup(self) -> Setup:
        settings = TrainSettings(model="cifar_18pct", data="synthetic:classes=2,train=4,test=2", batch_size=8)
        wide = jax.config.read("jax_enable_x64")
        try:
            return prepare(resolve(settings))
        finally:
            jax.config.update("jax_enable_x64", wide)
            jax.config.update("jax_default_matmul_precision", None)

    def run_key(self, seed: int) -> jax.Array:
        """The key that a run with `--seed` gives to its steps."""
        return dataclasses.replace(self._setup, settings=dataclasses.replace(self._setup.settings, seed=seed)).key

    def draws(self, seeds: Sequence[int], steps: Sequence[int], count: int, first: int = 0) -> Draws:
        """See `Framework`."""
        with jax.enable_x64(False):
            top, left, flip, noise = self._at_once(_jax_draws, seeds, steps, first + np.arange(count))
        return Draws(top, left, flip, noise)

    def masks(
        self, seeds: Sequence[int], steps: Sequence[int], count: int, first: int = 0
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """See `Framework`."""
        with jax.enable_x64(False):
            one, two = self._at_once(_jax_masks, seeds, steps, first + np.arange(count))
        return one, two

    def _at_once(self, function: Any, seeds: Sequence[int], steps: Sequence[int], places: NDArray) -> list[NDArray]:
        """`function` of every run's key, step and place, so many at a time that it is compiled once."""
        runs = jnp.stack([self.run_key(seed) for seed in seeds])
        count = len(seeds) * len(steps) * len(places)
        which = np.resize(np.arange(count), -(-count // AT_ONCE) * AT_ONCE)
        run, step, place = np.unravel_index(which, (len(seeds), len(steps), len(places)))
        numbers = np.array(steps, np.int32)[step], places[place].astype(np.int32)
        parts = [
            jax.device_get(function(runs[run[part]], *(some[part] for some in numbers)))
            for start in range(0, len(which), AT_ONCE)
            for part in [slice(start, start + AT_ONCE)]
        ]
        shape = len(seeds), len(steps), len(places)
        return [np.concatenate(some)[:count].reshape(*shape, *some[0].shape[2:]) for some in zip(*parts, strict=True)]


@functools.partial(jax.jit, compiler_options=QUICKLY)
def _jax_draws(runs: jax.Array, steps: jax.Array, places: jax.Array) -> jax_augment.Draws:
    augmentation = jax_augment.Augmentation.of(SETTINGS)
    return jax.vmap(
        lambda run, step, place: jax_augment.draw(step_keys(run, step)[0], place[None], augmentation, STORED)
    )(runs, steps, places)


@functools.partial(jax.jit, compiler_options=QUICKLY)
def _jax_masks(runs: jax.Array, steps: jax.Array, places: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the network's dropout layers keep of ones and of hidden units that are all positive."""
    model, ones = AlexNet(TABLE), jnp.ones((1, SIDE, SIDE, 3))
    params = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), jax.eval_shape(model.init, jax.random.key(0), ones)
    )

    def one(run: jax.Array, step: jax.Array, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = {"dropout": step_keys(run, step)[1]}
        seen: Any = model.apply(params, ones, train=True, capture=True, first_example=place, rngs=keys)[1]
        return seen["drop1"] > 0, seen["drop2"] > 0

    return jax.vmap(one)(runs, steps, places)


class Torch:
    """The reference."""

    def draws(self, seeds: Sequence[int], steps: Sequence[int], count: int, first: int = 0) -> Draws:
        """See `Framework`."""
        settings = [dataclasses.replace(SETTINGS, seed=seed) for seed in seeds]
        drawn = [torch_augment.draw(one, step, first, count, STORED) for one in settings for step in steps]
        return Draws(
            *(np.stack(some).reshape(len(seeds), len(steps), *some[0].shape) for some in zip(*drawn, strict=True))
        )

    def masks(
        self, seeds: Sequence[int], steps: Sequence[int], count: int, first: int = 0
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """See `Framework`."""
        kept: list[tuple[NDArray, NDArray]] = []
        for seed in seeds:
            network = TorchNetwork().train()
            masks = DropoutMasks(network, seed)
            for step in steps:
                masks.at(step, first)
                network(torch.ones(count, 3, SIDE, SIDE))
                kept.append((_mask(network.drop1), _mask(network.drop2)))
        one, two = (np.stack(some).reshape(len(seeds), len(steps), *some[0].shape) for some in zip(*kept, strict=True))
        return one, two


def _mask(layer: Dropout) -> NDArray[np.bool_]:
    assert layer.mask is not None
    return layer.mask.numpy()
