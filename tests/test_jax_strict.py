"""Steps traced under JAX's strictest settings: arrays of different ranks or dtypes never meet unsaid."""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.train_settings import (
    MODELS,
    NORMALIZATIONS,
    OPTIMIZERS,
    PRECISIONS,
    RECIPES,
    TrainSettings,
)
from jax_alexnet import augment, steps
from jax_alexnet.devices import set_precision
from jax_alexnet.model import AlexNet
from jax_alexnet.optim import make_optimizer
from jax_alexnet.parallel import choose_layout
from jax_alexnet.recipes import choose_variant, resolve

BATCH, STORED = 8, 232


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


class _Measured:
    mean_image = np.zeros((STORED, STORED, 3))
    mean, std, eigenvalues, eigenvectors = np.ones(3), np.ones(3), np.ones(3), np.eye(3)


def assert_traces(settings: CompleteSettings, devices: int) -> None:
    dtype = set_precision(settings.precision)
    wide = jnp.dtype(jnp.float64) if settings.precision == "float64" else jnp.dtype(jnp.float32)
    variant, augmentation = choose_variant(settings), augment.Augmentation.of(settings)
    model = AlexNet(variant, 8, "variant", settings.dropout, dtype, wide)
    layout = choose_layout(settings.parallel, variant, jax.devices()[:devices], None)
    image = jax.ShapeDtypeStruct((1, augmentation.image_size, augmentation.image_size, 3), dtype)
    params: Any = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    optimizer = make_optimizer(settings, variant, params)
    state = steps.state_shapes(model, optimizer, augmentation.image_size)
    pixels = np.zeros((BATCH, STORED, STORED, 3), np.uint8)
    batch = steps.DeviceBatch(pixels, np.zeros(BATCH, np.int32), np.ones(BATCH, np.float32))
    statistics = augment.statistics_for(augmentation, _Measured)
    train_step = steps.make_train_step(model, optimizer, augmentation, layout)
    jax.eval_shape(train_step, state, batch, jnp.asarray(0.1), jax.random.key(0), statistics)
    evaluate = steps.make_eval_step(model, augmentation, layout)
    weights = jax.eval_shape(lambda params: steps.in_compute_dtype(params, model), state.params)
    jax.eval_shape(evaluate, weights, batch, statistics)


MIXED = list(zip(MODELS, cycle(RECIPES), cycle(NORMALIZATIONS), cycle(OPTIMIZERS), cycle(PRECISIONS), strict=False))
# Every recipe, normalization, optimizer and precision comes in the first six, and local layers in another.
SOON = [*MIXED[:6], *(case for case in MIXED[6:] if case[0] == "cifar_13pct")]


def test_the_first_cases_leave_no_setting_out() -> None:
    for place, every in enumerate((RECIPES, NORMALIZATIONS, OPTIMIZERS, PRECISIONS), start=1):
        assert {case[place] for case in SOON} == {*every}


@pytest.mark.parametrize(
    ("model", "recipe", "normalize", "optimizer", "precision"),
    [case if case in SOON else pytest.param(*case, marks=(pytest.mark.slow, pytest.mark.matrix)) for case in MIXED],
)
def test_networks_recipes_and_inputs(model: str, recipe: str, normalize: str, optimizer: str, precision: str) -> None:
    settings = TrainSettings(model=model, recipe=recipe, normalize=normalize, optimizer=optimizer, precision=precision)
    random = {"crop": True, "flip": True, "color_noise": True, "weight_decay": 1e-3, "momentum": 0.9}
    assert_traces(resolve(TrainSettings(**{**vars(settings), **random, "batch_size": BATCH, "stored_size": STORED})), 1)


@pytest.mark.parametrize(
    ("model", "parallel", "devices", "precision"),
    [
        ("cifar_18pct", "data", 8, "float64"),
        ("cifar_18pct", "zero", 8, "bfloat16"),
        ("two_column", "columns", 4, "bfloat16"),
        ("two_column", "hybrid", 4, "float64"),
    ],
)
def test_schemes(model: str, parallel: str, devices: int, precision: str) -> None:
    words: dict[str, Any] = {"model": model, "parallel": parallel, "batch_size": BATCH, "stored_size": STORED}
    assert_traces(resolve(TrainSettings(precision=precision, **words)), devices)
