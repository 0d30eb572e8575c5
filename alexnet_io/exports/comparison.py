"""Whether an export computes what its source does: on a few pictures, in float32, before it is put in place."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet_io.errors import FailedRun

LIMIT = 1e-5  # of the largest logit: some roundings of sums of 9,216 terms in float32
PICTURES = 4


def pictures(side: int) -> NDArray[np.uint8]:
    """What is looked at: noise, a ramp from dark to bright, black and white; (4, side, side, 3)."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    colours = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]), axis=-1)
    return np.stack([noise, colours, np.zeros_like(noise), np.full_like(noise, 255)])


@dataclass(frozen=True)
class Comparison:
    """How far an export's logits are from its source's.

    Attributes:
        error: the largest difference, in units of the source's largest logit.
        by: what computed the export's.
    """

    error: float
    by: str

    def line(self) -> str:
        """For people."""
        return (
            f"on {PICTURES} pictures in float32, by {self.by}: the largest error is {self.error:.1e} of the largest "
            f"logit (limit {LIMIT:g})"
        )


def compare(source: NDArray[np.floating], export: NDArray[np.floating], by: str, shown: str) -> Comparison:
    """Hold an export's logits to its source's, both (pictures, classes).

    Args:
        source: of the network that is exported.
        export: of the export, on the same pictures.
        by: what computed these.
        shown: the export, for people.

    Raises:
        FailedRun: they differ by more than rounding, or are no numbers.
    """
    if source.shape != export.shape:
        raise FailedRun(f"{shown} gives {export.shape}, and its source {source.shape}: it was not put in place")
    wide = np.asarray(source, np.float64)
    largest = float(np.max(np.abs(wide)))
    difference = float(np.max(np.abs(np.asarray(export, np.float64) - wide)))
    error = difference / largest if largest else difference
    if not np.isfinite(largest) or not error <= LIMIT:  # not a number is no error that can be borne
        raise FailedRun(
            f"{shown}: by {by} the export differs from its source by {error:.1e} of the largest logit, {largest:.3g}; "
            f"at most {LIMIT:g} can be rounding. It was not put in place"
        )
    return Comparison(error, by)


def compare_program(
    source: NDArray[np.floating],
    run: Callable[[NDArray[np.floating]], NDArray[np.floating]],
    images: NDArray[np.floating],
    by: str,
    shown: str,
) -> Comparison:
    """Hold a program to its source: on all pictures, and on one, since batches may have any size.

    Args:
        source: logits of all pictures.
        run: the program: logits of images.
        images: the pictures, as the program takes them.
        by: what runs it.
        shown: the export, for people.

    Raises:
        FailedRun: see `compare`.
    """
    together, alone = run(images), run(images[:1])
    compare(source[:1], alone, by, shown)
    return compare(source, together, by, shown)
