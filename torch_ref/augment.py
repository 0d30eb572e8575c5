"""From stored uint8 images to the network's input: crop, flip, colour noise, normalise.

Each example's random choices are numbers of a stream that seed and step choose, at its place in the global batch, so
that they don't depend on how many processes share the batch.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alexnet_io.command_line.complete_settings import CompleteSettings
from torch_ref.splitmix64 import shifted, splitmix64

_NUMBERS = 6  # that an example's choices take: row, column, mirror, three of colour noise
PCA_NOISE = 0.1  # paper, section 4.1: standard deviation of alpha
# torchvision's documentation of its ImageNet weights, on the 0..1 scale.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Draws(NamedTuple):
    """One batch's random choices.

    Attributes:
        top: int (N,), first row of each crop.
        left: int (N,), first column.
        flip: bool (N,), mirrored left to right.
        noise: float64 (N, 3), the paper's alpha for each principal component.
    """

    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray
    noise: np.ndarray


def central(stored: tuple[int, int], size: int) -> tuple[int, int]:
    """First row and column of the central crop, rounded as torchvision's CenterCrop does."""
    return round((stored[0] - size) / 2), round((stored[1] - size) / 2)


def draw(settings: CompleteSettings, step: int, first_place: int, count: int, stored: tuple[int, int]) -> Draws:
    """Random choices of one step; what the settings leave out is central, unflipped and without noise.

    Args:
        settings: the run's.
        step: steps done before this one.
        first_place: place in the global batch of the first of `count` examples.
        count: examples.
        stored: height and width of the stored images.
    """
    size = settings.image_size
    centre = central(stored, size)
    draws = Draws(np.full(count, centre[0]), np.full(count, centre[1]), np.zeros(count, np.bool_), np.zeros((count, 3)))
    if not (settings.crop or settings.flip or settings.color_noise):
        return draws
    # The 2 keeps the key apart from those of the dropout masks, and of the order of examples.
    key = np.random.SeedSequence([settings.seed, step, 2]).generate_state(1, np.uint64)
    numbers = splitmix64(int(key[0]), first_place * _NUMBERS, count * _NUMBERS).reshape(count, _NUMBERS)
    shares = (shifted(numbers, 12).to(torch.float64) + 0.5) / 2**52  # in (0, 1), exact
    # All are drawn whatever is used: turning one off leaves the others as they were.
    if settings.crop:
        draws.top[:], draws.left[:] = (shares[:, :2] * (torch.tensor(stored) - size + 1)).floor().T
    if settings.flip:
        draws.flip[:] = shares[:, 2] >= 0.5
    if settings.color_noise:
        draws.noise[:] = PCA_NOISE * torch.special.ndtri(shares[:, 3:])
    return draws


def cut(images: np.ndarray, draws: Draws | None, size: int) -> np.ndarray:
    """Crops, some of them mirrored.

    Args:
        images: uint8 (N, height, width, 3) as stored.
        draws: None for the central crop of evaluation.
        size: side of the crops.

    Returns:
        uint8 (N, size, size, 3).
    """
    if draws is None:
        top, left = central((images.shape[1], images.shape[2]), size)
        return images[:, top : top + size, left : left + size]
    crops = np.empty((len(images), size, size, 3), np.uint8)
    for crop, image, top, left, flip in zip(crops, images, draws.top, draws.left, draws.flip, strict=True):
        part = image[top : top + size, left : left + size]
        crop[...] = part[:, ::-1] if flip else part
    return crops


def network_input(
    images: np.ndarray, draws: Draws | None, settings: CompleteSettings, statistics: dict[str, Tensor]
) -> Tensor:
    """What the network sees.

    Args:
        images: uint8 (N, height, width, 3) as stored.
        draws: None in evaluation.
        settings: the run's.
        statistics: from `statistics_for`, on the device, in the dtype of the result; must hold `zero`.

    Returns:
        Normalised images (N, 3, size, size).
    """
    like = statistics["zero"]
    crops = cut(images, draws, settings.image_size)
    pixels = torch.from_numpy(np.ascontiguousarray(crops)).to(like.device).to(like.dtype)
    if draws is not None and settings.color_noise:
        # Section 4.1: [p1 p2 p3] [alpha_i lambda_i] is added to every pixel, lambda being of the 0..1 scale.
        alpha = torch.from_numpy(draws.noise).to(like.device).to(like.dtype)
        colour = (statistics["eigenvectors"] * (alpha * statistics["eigenvalues"] * 255)[:, None, :]).sum(dim=2)
        pixels = pixels + colour[:, None, None, :]
    return normalized(pixels, settings.normalize, statistics).permute(0, 3, 1, 2).contiguous()


def normalized(pixels: Tensor, normalize: str, statistics: dict[str, Tensor]) -> Tensor:
    """Pixels (N, H, W, 3) of the 0..255 scale, normalised as `--normalize` says."""
    match normalize:
        case "half":
            return (pixels / 255 - 0.5) / 0.5
        case "unit":
            return pixels / 255
        case "imagenet":
            return (pixels / 255 - pixels.new_tensor(IMAGENET_MEAN)) / pixels.new_tensor(IMAGENET_STD)
        case "mean_image":
            return pixels - statistics["mean_image"]
        case "channel_mean":
            return pixels - statistics["mean"]
    return (pixels - statistics["mean"]) / statistics["std"]


def needs_statistics(settings: CompleteSettings) -> bool:
    """Whether the training set has to be read once before training."""
    return settings.color_noise or settings.normalize in ("mean_image", "channel_mean", "channel")


def statistics_for(settings: CompleteSettings, measured: Any) -> dict[str, np.ndarray]:
    """What `network_input` needs of a training set's statistics, as float32 arrays.

    Args:
        settings: the run's.
        measured: `alexnet_io.data.image_statistics.TrainingStatistics`, or None where nothing is needed.
    """
    needed: dict[str, np.ndarray] = {}
    if settings.normalize == "mean_image":
        # The 2012 code subtracts the mean image's central part from every crop.
        whole, size = measured.mean_image, settings.image_size
        needed["mean_image"] = cut(whole[None], None, size)[0]
    if settings.normalize in ("channel_mean", "channel"):
        needed["mean"], needed["std"] = measured.mean, measured.std
    if settings.color_noise:
        needed["eigenvalues"], needed["eigenvectors"] = measured.eigenvalues / 255**2, measured.eigenvectors
    return {name: np.ascontiguousarray(value, np.float32) for name, value in needed.items()}
