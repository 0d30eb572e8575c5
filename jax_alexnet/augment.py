"""From stored uint8 images to the network's input, inside the compiled step: crop, flip, colour noise, normalise.

Random numbers come from a key folded by step and by each example's place in the global batch, so that they
differ between steps, devices and examples, and don't depend on how many devices share the batch.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alexnet_io.command_line.complete_settings import CompleteSettings

# Mean and standard deviation of ImageNet's training set on the 0..1 scale, as torchvision uses them [TV].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Draws(NamedTuple):
    """One batch's random choices, so that another framework can be given the same."""

    top: Array  # (batch,) int32: first row of the crop
    left: Array  # (batch,) int32: first column
    flip: Array  # (batch,) bool: mirror left and right
    noise: Array  # (batch, 3) float32: the paper's alpha, one for each principal component


@dataclass(frozen=True)
class Augmentation:
    """What happens to images; static, so that a compiled step can close over it."""

    image_size: int
    normalize: str
    crop: bool = False
    flip: bool = False
    color_noise: bool = False

    @classmethod
    def of(cls, settings: CompleteSettings) -> "Augmentation":
        """What a run's settings say."""
        return cls(settings.image_size, settings.normalize, settings.crop, settings.flip, settings.color_noise)

    @property
    def for_evaluation(self) -> "Augmentation":
        """The same input without randomness: the central crop."""
        return Augmentation(self.image_size, self.normalize)


def draw(key: Array, places: Array, augmentation: Augmentation, stored: tuple[int, ...]) -> Draws:
    """Random choices for the examples at `places` in the global batch.

    Args:
        key: of this step.
        places: (batch,) int32.
        augmentation: what is random; the rest is central and unflipped.
        stored: height and width of the stored images in pixels.
    """

    def one(place: Array) -> tuple[Array, ...]:
        keys = jax.random.split(jax.random.fold_in(key, place), 4)
        free = [n - augmentation.image_size + 1 for n in stored]
        top, left = (jax.random.randint(k, (), 0, n) for k, n in zip(keys[:2], free, strict=True))
        return top, left, jax.random.bernoulli(keys[2]), 0.1 * jax.random.normal(keys[3], (3,))

    top, left, flip, noise = jax.vmap(one)(places)
    if not augmentation.crop:
        centre = central(stored, augmentation.image_size)
        top, left = jnp.full_like(top, centre[0]), jnp.full_like(left, centre[1])
    if not augmentation.flip:
        flip = jnp.zeros_like(flip)
    if not augmentation.color_noise:
        noise = jnp.zeros_like(noise)
    return Draws(top, left, flip, noise.astype(jnp.float32))


def central(stored: tuple[int, ...], size: int) -> tuple[int, int]:
    """First row and column of the central crop, rounded as torchvision's CenterCrop does."""
    top, left = (round((n - size) / 2) for n in stored)
    return top, left


def apply(
    images: Array | np.ndarray, draws: Draws | None, augmentation: Augmentation, statistics: dict[str, Any]
) -> Array:
    """The network's input.

    Args:
        images: uint8 (batch, height, width, 3) as stored.
        draws: random choices; None for the central crop of evaluation.
        augmentation: crop size and normalisation.
        statistics: of the training set, from `statistics_for`.

    Returns:
        float32 (batch, size, size, 3); float64 if 64-bit types are on.
    """
    size = augmentation.image_size
    images = jnp.asarray(images)
    stored = images.shape[1:3]
    centre = central(stored, size)
    if draws is None or not augmentation.crop:
        images = images[:, centre[0] : centre[0] + size, centre[1] : centre[1] + size]
    else:
        cut = jax.vmap(lambda image, top, left: jax.lax.dynamic_slice(image, (top, left, 0), (size, size, 3)))
        images = cut(images, draws.top, draws.left)
    if draws is not None and augmentation.flip:
        images = jnp.where(draws.flip[:, None, None, None], images[:, :, ::-1], images)
    pixels = images.astype(jnp.float64 if jax.config.read("jax_enable_x64") else jnp.float32)
    if draws is not None and augmentation.color_noise:
        # Section 4.1: add [p1, p2, p3] [alpha_i lambda_i] to every pixel of an image. lambda belongs to pixels on
        # the 0..1 scale; on the 0..255 scale it would drown the image.
        # Written out rather than as a matrix product, which rounds differently for other batch sizes.
        amounts = draws.noise.astype(pixels.dtype) * statistics["eigenvalues"].astype(pixels.dtype)[None] * 255
        components = statistics["eigenvectors"].astype(pixels.dtype).T
        for i in range(3):
            pixels = pixels + (amounts[:, i, None] * components[i][None])[:, None, None, :]
    return normalized(pixels, augmentation.normalize, statistics)


def normalized(pixels: Array, normalize: str, statistics: dict[str, Any]) -> Array:
    """Pixels of the 0..255 scale (batch, height, width, 3), normalised as `--normalize` says."""
    if normalize == "half":
        return (pixels / 255 - 0.5) / 0.5
    if normalize == "unit":
        return pixels / 255
    if normalize == "imagenet":
        return (pixels / 255 - _like(pixels, IMAGENET_MEAN)) / _like(pixels, IMAGENET_STD)
    # The 2012 code subtracts the mean image's central crop from every crop [S].
    if normalize == "mean_image":
        return pixels - _like(pixels, statistics["mean_image"])
    centred = pixels - _like(pixels, statistics["mean"])
    return centred if normalize == "channel_mean" else centred / _like(pixels, statistics["std"])


def _like(pixels: Array, values: Any) -> Array:
    """Values for the last axes of `pixels`, in their dtype and with as many axes."""
    values = jnp.asarray(values, pixels.dtype)
    return values.reshape((1,) * (pixels.ndim - values.ndim) + values.shape)


def statistics_for(augmentation: Augmentation, measured: Any) -> dict[str, np.ndarray]:
    """What `apply` needs of a training set's statistics, as float32 arrays.

    Args:
        augmentation: decides what is needed.
        measured: has `mean_image` (height, width, 3), `mean`, `std` (3,), `eigenvalues` (3,) and `eigenvectors`
            (3, 3; one a column) of pixels on the 0..255 scale; None where nothing is needed.
    """
    needed: dict[str, np.ndarray] = {}
    if augmentation.normalize == "mean_image":
        whole = np.asarray(measured.mean_image, np.float32)
        top, left = central(whole.shape[:2], augmentation.image_size)
        needed["mean_image"] = whole[top : top + augmentation.image_size, left : left + augmentation.image_size]
    if augmentation.normalize in ("channel_mean", "channel"):
        needed["mean"] = np.asarray(measured.mean, np.float32)
        needed["std"] = np.asarray(measured.std, np.float32)
    if augmentation.color_noise:
        needed["eigenvalues"] = np.asarray(measured.eigenvalues / 255**2, np.float32)
        needed["eigenvectors"] = np.asarray(measured.eigenvectors, np.float32)
    return needed


def needs_statistics(augmentation: Augmentation) -> bool:
    """Whether the training set has to be read once before training."""
    return augmentation.color_noise or augmentation.normalize in ("mean_image", "channel_mean", "channel")
