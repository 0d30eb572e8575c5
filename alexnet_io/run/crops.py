"""Evaluation over several crops of each image, whose probabilities are averaged, as the papers report it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.errors import UserError

OF_NINE = ("cifar_13pct", "cifar_11pct")


@dataclass(frozen=True)
class View:
    """A crop: its first row and column in the stored image, and whether it is mirrored left to right."""

    top: int
    left: int
    flip: bool = False


def views(crops: int, settings: CompleteSettings) -> tuple[View, ...]:
    """The crops of a protocol; none for the central crop, which evaluation takes by itself.

    Args:
        crops: 1, 9 or 10; see `evaluate_settings.PROTOCOLS`.
        settings: of the network: which it is, what it sees, and what that is cut from.

    Raises:
        UserError: the network has another protocol, or its images leave no room for different crops.
    """
    if crops == 1:
        return ()
    if crops == 9 and settings.model not in OF_NINE:
        raise UserError(
            f"--crops 9 is cuda-convnet's test of {' and '.join(OF_NINE)}, and this is {settings.model}: take "
            "--crops 10 or 1"
        )
    room, needed = settings.stored_size - settings.image_size, 2 if crops == 9 else 1
    if room < needed:
        raise UserError(
            f"--crops {crops} needs images at least {needed} pixel{'s' if needed > 1 else ''} larger than the "
            f"{settings.image_size} that the network sees, and this one's are stored at {settings.stored_size}: take "
            "--crops 1, or train with --crop or a larger --stored-size"
        )
    middle = round(room / 2)
    if crops == 9:
        return tuple(View(top, left) for top in (0, middle, room) for left in (0, middle, room))
    places = [(0, 0), (0, room), (room, 0), (room, room), (middle, middle)]
    return tuple(View(top, left, flip) for flip in (False, True) for top, left in places)


def cut(images: NDArray[np.uint8], view: View, size: int) -> NDArray[np.uint8]:
    """One crop of each image.

    Args:
        images: (n, height, width, 3), as stored.
        view: which.
        size: side of the crop.

    Returns:
        (n, size, size, 3).
    """
    crop = images[:, view.top : view.top + size, view.left : view.left + size]
    return np.ascontiguousarray(crop[:, :, ::-1] if view.flip else crop)


def averaged(logits: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Logits of the mean of the probabilities: (n, classes), from one such array a view."""
    total: NDArray[np.float64] | float = 0.0
    for each in logits:
        scores = np.asarray(each, np.float64)
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        total = total + exponentials / exponentials.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):  # a probability that is 0 in float64
        return np.log(total / len(logits))
