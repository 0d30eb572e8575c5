"""The mistakes of an evaluation of which the network was surest, kept while it goes on."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from alexnet_io.data.batches import Batch
from alexnet_io.data.sources.dataset import Split

# Called with each batch of an evaluation: logits (n, classes), the batch, and the split that it is from.
Observer = Callable[[ArrayLike, Batch, Split], None]

_SMALL, _LARGEST = 96, 192  # sides in pixels: up to the first a picture is kept as it is, and none is shown larger


@dataclass(frozen=True)
class Mistake:
    """A picture that was taken for another class.

    Attributes:
        place: of the picture in its split.
        name: of the picture, for people.
        picture: uint8 (height, width, 3), as it is stored.
        truth: its class.
        guess: the likeliest one.
        probability: of the guess.
        of_truth: the probability of the class that it is.
    """

    place: int
    name: str
    picture: NDArray[np.uint8]
    truth: int
    guess: int
    probability: float
    of_truth: float

    def encoded(self) -> bytes:
        """The picture as a PNG; a larger one as a JPEG of at most `_LARGEST` pixels a side."""
        image, file = Image.fromarray(self.picture), io.BytesIO()
        if max(image.size) <= _SMALL:
            image.save(file, "PNG")
        else:
            image.thumbnail((_LARGEST, _LARGEST))
            image.save(file, "JPEG", quality=85)
        return file.getvalue()


class WorstMistakes:
    """An `Observer` that keeps the wrong guesses of highest probability.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: list[Mistake] = []

    @property
    def found(self) -> list[Mistake]:
        """The surest first; of equally sure ones the first in the split."""
        return list(self._found)

    def __call__(self, logits: ArrayLike, batch: Batch, split: Split) -> None:
        """Look at a batch; rows of weight 0 are passed over."""
        scores, labels = np.asarray(logits, np.float64), np.asarray(batch.labels)
        with np.errstate(invalid="ignore"):  # infinite logits have no probabilities, and none is kept of them
            exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares = exponentials / exponentials.sum(axis=1, keepdims=True)
        guesses, rows = scores.argmax(axis=1), np.arange(len(scores))
        sure = np.where((batch.weights > 0) & (guesses != labels), shares[rows, guesses], -1.0)
        for row in np.argsort(-sure, kind="stable")[: self._most]:
            if sure[row] < 0 or np.isnan(sure[row]):
                break
            place, guess, truth = int(batch.ids[row]), int(guesses[row]), int(labels[row])
            self._found.append(
                Mistake(
                    place,
                    split.names[place],
                    np.array(batch.images[row]),
                    truth,
                    guess,
                    float(sure[row]),
                    float(shares[row, truth]),
                )
            )
        self._found = sorted(self._found, key=lambda each: (-each.probability, each.place))[: self._most]
