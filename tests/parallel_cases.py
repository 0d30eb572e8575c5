"""Small networks with the structure of the real ones, trained for a few steps under a layout."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tiny import QUICKLY

from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet import augment, steps
from jax_alexnet import layer_specs as specs
from jax_alexnet import variants as v
from jax_alexnet.model import AlexNet
from jax_alexnet.optim import make_optimizer
from jax_alexnet.parallel import Layout, choose_layout
from jax_alexnet.recipes import choose_variant, resolve
from jax_alexnet.shapes import smallest_image_size

CLASSES, BATCH, REAL = 10, 16, 13
DEVICE_COUNTS = (1, 2, 4, 8)
# The smallest images, a little larger for some so that the pooled maps have more than one position.
SIDES = {"cifar_18pct": 16, "cifar_13pct": 12, "cifar_11pct": 12, "cifar_80sec": 16}


def narrow(variant: specs.Variant, channels: int = 8, units: int = 64) -> specs.Variant:
    """The same layers, groups and columns with an eighth of the channels and a sixty-fourth of the units."""

    def one(row: specs.Layer) -> specs.Layer:
        if isinstance(row, specs.Conv):
            return replace(row, features=row.features // channels)
        if isinstance(row, specs.Dense) and row.features:
            return replace(row, features=max(row.features // units, 8))  # as many as devices
        return row

    return replace(variant, layers=tuple(map(one, variant.layers)))


def table(name: str) -> specs.Variant:
    """The variant, narrowed."""
    return narrow(v.VARIANTS[name])


def layout_of(scheme: str, variant: specs.Variant, devices: int, group: int | None = None) -> Layout:
    assert len(jax.devices()) >= 8
    return choose_layout(scheme, variant, jax.devices()[:devices], group)


class Case:
    """A network, its optimizer and augmentation, and one batch whose last rows only fill it up."""

    def __init__(self, variant: specs.Variant, side: int | None = None, optimizer: str = "paper") -> None:
        self.variant = variant
        side = side or SIDES.get(variant.name) or smallest_image_size(variant)
        cifar = variant.name.startswith("cifar")
        self.settings = resolve(
            TrainSettings(
                model=variant.name, recipe="paper", optimizer=optimizer, image_size=side, stored_size=side + 4,
                batch_size=BATCH, precision="float64", normalize="half", schedule="constant", crop=True, flip=True,
                color_noise=False,
            )
        )  # fmt: skip
        assert choose_variant(self.settings).name == variant.name
        self.model = AlexNet(variant, CLASSES, "pytorch", None if cifar else 0.5, jnp.float64, jnp.float64)
        init = jax.jit(self.model.init, compiler_options=QUICKLY)
        self.params = init(jax.random.key(0), jnp.zeros((1, side, side, 3)))["params"]
        self.optimizer = make_optimizer(self.settings, variant, self.params)
        self.augmentation = augment.Augmentation.of(self.settings)
        rng = np.random.default_rng(2012)
        self.batch = steps.DeviceBatch(
            rng.integers(0, 256, (BATCH, side + 4, side + 4, 3), dtype=np.uint8),
            rng.integers(0, CLASSES, BATCH).astype(np.int32),
            (np.arange(BATCH) < REAL).astype(np.float32),
        )

    def fresh(self) -> steps.TrainState:
        params = jax.tree.map(jnp.array, self.params)
        return steps.TrainState(jnp.int32(0), params, self.optimizer.init(params))

    def train(self, layout: Layout, count: int = 5, rate: float = 0.05, key: int = 3) -> tuple[Any, steps.Metrics]:
        """The whole state, and the last step's metrics, after `count` steps."""
        step = steps.make_train_step(self.model, self.optimizer, self.augmentation, layout)
        state, metrics = layout.place(self.fresh()), None
        for _ in range(count):
            batch = steps.split(self.batch, layout.mesh)
            state, metrics = step(state, batch, jnp.float64(rate), jax.random.key(key), {})
        assert metrics is not None
        return jax.tree.map(np.asarray, state), jax.tree.map(float, metrics)


def largest_difference(a: Any, b: Any) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)))
