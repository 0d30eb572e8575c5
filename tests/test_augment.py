"""From stored images to the network's input, in both frameworks, against the same written out in float64 NumPy."""

import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import facts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import QUICKLY, complete_settings

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.train_settings import NORMALIZATIONS
from jax_alexnet import augment as jax_augment
from torch_ref import augment as torch_augment

COUNT, STORED, SIZE = 4, (12, 9), 6
# Largest and smallest offsets, and others; mirrored and not.
TOP, LEFT, FLIP = np.array([6, 0, 3, 1]), np.array([3, 0, 1, 2]), np.array([True, False, True, False])
NOISE = np.array([[0.1, -0.2, 0.05], [0.0, 0.0, 0.0], [-0.25, 0.125, 0.3], [0.0, 0.5, 0.0]])
MEASURED = SimpleNamespace(
    mean_image=np.random.default_rng(7).uniform(90, 160, (*STORED, 3)),
    mean=np.array([125.3, 123.0, 113.9]),
    std=np.array([63.0, 62.1, 66.7]),
    eigenvalues=np.array([0.2, 0.02, 0.004]) * 255**2,
    eigenvectors=np.linalg.qr(np.arange(9.0).reshape(3, 3) + np.eye(3))[0],
)
CHOICES = ("crop", "flip", "color_noise")


class Drawn(NamedTuple):
    """What both frameworks' draws have, as NumPy arrays."""

    top: NDArray
    left: NDArray
    flip: NDArray
    noise: NDArray


def jax_input(images: NDArray, draws: Drawn | None, settings: CompleteSettings) -> NDArray:
    augmentation = jax_augment.Augmentation.of(settings)
    statistics = {k: jnp.asarray(x) for k, x in jax_augment.statistics_for(augmentation, MEASURED).items()}
    given = None if draws is None else jax_augment.Draws(*map(jnp.asarray, draws))
    return np.asarray(jax_augment.apply(images, given, augmentation, statistics))


def torch_input(images: NDArray, draws: Drawn | None, settings: CompleteSettings) -> NDArray:
    arrays = {"zero": np.zeros(()), **torch_augment.statistics_for(settings, MEASURED)}
    statistics = {name: torch.tensor(value).double() for name, value in arrays.items()}
    given = None if draws is None else torch_augment.Draws(*draws)
    found = torch_augment.network_input(images, given, settings, statistics)
    assert found.is_contiguous()
    return found.permute(0, 2, 3, 1).numpy()


INPUTS = {"jax": jax_input, "torch": torch_input}


def settings_of(normalize: str = "half", *without: str) -> CompleteSettings:
    crop, flip, color_noise = (choice not in without for choice in CHOICES)
    return complete_settings(image_size=SIZE, normalize=normalize, crop=crop, flip=flip, color_noise=color_noise)


def expected(images: NDArray, draws: Drawn, normalize: str) -> NDArray:
    """One example after the other."""
    crops = []
    for image, top, left, flip, noise in zip(images, *draws, strict=True):
        crop = image[top : top + SIZE, left : left + SIZE].astype(np.float64)
        crop = crop[:, ::-1] if flip else crop
        # Section 4.1 of the paper: [p1 p2 p3] [a1 l1, a2 l2, a3 l3], for pixels on the scale from 0 to 1.
        crops.append(crop + 255 * (MEASURED.eigenvectors @ (noise * MEASURED.eigenvalues / 255**2)))
    pixels = np.stack(crops)
    return {
        "half": pixels / 127.5 - 1,
        "unit": pixels / 255,
        "imagenet": (pixels / 255 - facts.IMAGENET_MEAN) / facts.IMAGENET_STD,
        "mean_image": pixels - MEASURED.mean_image[3:9, 2:8],  # 3 of 1.5 is rounded to the even side, as by torchvision
        "channel_mean": pixels - MEASURED.mean,
        "channel": (pixels - MEASURED.mean) / MEASURED.std,
    }[normalize]


CENTRAL = Drawn(np.full(COUNT, 3), np.full(COUNT, 2), np.zeros(COUNT, bool), np.zeros((COUNT, 3)))
DRAWN = Drawn(TOP, LEFT, FLIP, NOISE)


@pytest.fixture
def images(rng: np.random.Generator) -> NDArray:
    return rng.integers(0, 256, (COUNT, *STORED, 3), np.uint8)


@pytest.mark.parametrize("framework", INPUTS)
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_training_and_evaluation_input(framework: str, normalize: str, images: NDArray) -> None:
    found = INPUTS[framework](images, DRAWN, settings_of(normalize))
    # The statistics are kept in float32.
    np.testing.assert_allclose(found, expected(images, DRAWN, normalize), rtol=0, atol=2e-5)
    central = INPUTS[framework](images, None, settings_of(normalize))
    np.testing.assert_allclose(central, expected(images, CENTRAL, normalize), rtol=0, atol=2e-5)


@pytest.mark.parametrize("framework", INPUTS)
@pytest.mark.parametrize("left_out", CHOICES)
def test_what_the_settings_leave_out_is_not_done(framework: str, left_out: str, images: NDArray) -> None:
    """In JAX also if it was drawn; the reference's draws are central, unflipped and without noise then."""
    settings = settings_of("half", left_out)
    kept = {
        "crop": DRAWN._replace(top=CENTRAL.top, left=CENTRAL.left),
        "flip": DRAWN._replace(flip=CENTRAL.flip),
        "color_noise": DRAWN._replace(noise=CENTRAL.noise),
    }[left_out]
    found = INPUTS[framework](images, DRAWN if framework == "jax" else kept, settings)
    np.testing.assert_allclose(found, expected(images, kept, "half"), rtol=0, atol=1e-6)


# What is drawn


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICKLY)
def _jax_draws(augmentation: jax_augment.Augmentation, stored: tuple[int, int]) -> jax_augment.Draws:
    return jax_augment.draw(jax.random.key(5), jnp.arange(64), augmentation, stored)


def jax_draws(settings: CompleteSettings, stored: tuple[int, int]) -> Drawn:
    drawn = _jax_draws(jax_augment.Augmentation.of(settings), stored)
    assert drawn.noise.dtype == np.float32
    return Drawn(*map(np.asarray, drawn))


def torch_draws(settings: CompleteSettings, stored: tuple[int, int]) -> Drawn:
    return Drawn(*torch_augment.draw(settings, 5, 0, 64, stored))


DRAWS = {"jax": jax_draws, "torch": torch_draws}


@pytest.mark.parametrize("framework", DRAWS)
def test_each_choice_can_be_left_out_without_changing_the_others(framework: str) -> None:
    everything = DRAWS[framework](settings_of(), STORED)
    # Crops of 6 from 12x9: rows 0 to 6, columns 0 to 3.
    assert (everything.top.min(), everything.top.max()) == (0, 6)
    assert (everything.left.min(), everything.left.max()) == (0, 3)
    assert 0 < everything.flip.sum() < 64
    assert (everything.noise != 0).all()
    assert everything.noise.shape == (64, 3)
    still = everything._replace(top=np.full(64, 3), left=np.full(64, 2)), everything._replace(flip=np.zeros(64, bool))
    changed = dict(zip(CHOICES, (*still, everything._replace(noise=np.zeros((64, 3)))), strict=True))
    for left_out, wanted in changed.items():
        for found, other in zip(DRAWS[framework](settings_of("half", left_out), STORED), wanted, strict=True):
            np.testing.assert_array_equal(found, other)
    nothing = DRAWS[framework](settings_of("half", *CHOICES), STORED)
    assert not nothing.flip.any()
    assert not nothing.noise.any()
    assert (nothing.top == 3).all()
    assert (nothing.left == 2).all()


@pytest.mark.parametrize("module", [jax_augment, torch_augment])
@pytest.mark.parametrize(
    ("stored", "size", "place"),
    [
        ((256, 256), 224, (16, 16)),
        ((256, 256), 227, (14, 14)),
        ((32, 28), 24, (4, 2)),
        ((7, 8), 6, (0, 1)),
        ((9, 11), 6, (2, 2)),
        ((13, 6), 6, (4, 0)),
    ],
)
def test_central_crops_are_torchvisions(
    module: Any, stored: tuple[int, int], size: int, place: tuple[int, int]
) -> None:
    """`int(round((image_height - crop_height) / 2.0))`: halves go to the even side."""
    assert module.central(stored, size) == place


# Normalisation


@pytest.mark.parametrize("framework", INPUTS)
def test_torchvisions_normalisation_of_black_and_white(framework: str) -> None:
    """https://github.com/pytorch/vision/issues/2950: the inputs that black and white images give."""
    images = np.array([0, 255], np.uint8)[:, None, None, None] * np.ones((2, SIZE, SIZE, 3), np.uint8)
    found = INPUTS[framework](images, None, settings_of("imagenet"))
    np.testing.assert_allclose(found[0, 0, 0], facts.NORMALISED_BLACK, atol=5e-5)
    np.testing.assert_allclose(found[1, 0, 0], facts.NORMALISED_WHITE, atol=5e-5)


def test_which_settings_need_the_training_set_to_be_read() -> None:
    for normalize in NORMALIZATIONS:
        for noise in (False, True):
            settings = settings_of(normalize, *([] if noise else ["color_noise"]))
            augmentation = jax_augment.Augmentation.of(settings)
            needed = {"mean_image": {"mean_image"}, "channel_mean": {"mean", "std"}, "channel": {"mean", "std"}}
            names = needed.get(normalize, set()) | ({"eigenvalues", "eigenvectors"} if noise else set())
            arrays = (
                jax_augment.statistics_for(augmentation, MEASURED),
                torch_augment.statistics_for(settings, MEASURED),
            )
            for found in arrays:
                assert set(found) == names
                assert {array.dtype for array in found.values()} <= {np.dtype(np.float32)}
            for name in names:
                np.testing.assert_array_equal(arrays[0][name], arrays[1][name])
            assert jax_augment.needs_statistics(augmentation) == bool(names)
            assert torch_augment.needs_statistics(settings) == bool(names)


def test_evaluation_has_no_randomness_but_the_same_normalisation() -> None:
    training = jax_augment.Augmentation(SIZE, "channel", crop=True, flip=True, color_noise=True)
    assert jax_augment.Augmentation.of(settings_of("channel")) == training
    assert training.for_evaluation == jax_augment.Augmentation(SIZE, "channel", False, False, False)
    bare = complete_settings(image_size=SIZE, normalize="half")
    assert jax_augment.Augmentation.of(bare) == jax_augment.Augmentation(SIZE, "half", False, False, False)


def test_input_is_float64_only_where_64_bits_are_on(images: NDArray) -> None:
    for wide in (True, False):
        with jax.enable_x64(wide):
            for normalize in NORMALIZATIONS:
                found = jax_input(images, DRAWN, settings_of(normalize))
                assert found.dtype == (np.float64 if wide else np.float32)
