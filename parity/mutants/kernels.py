"""Planted bugs in kernels and biases: layouts, groups, channels, signs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from parity.mutants.mutant import (
    SMALL,
    Mutant,
    in_weights,
)


def kernel_mutants() -> Iterator[Mutant]:
    """Layouts of kernels, groups and flattened maps; a bias left out."""
    caffe = partial(in_weights, model="caffe_alexnet", size=SMALL)
    swapped = lambda w: w.swapaxes(2, 3)  # noqa: E731
    yield from caffe(
        8, "kernel-hw", "kernel height and width exchanged", layer="conv1", causes="kernel_hw_exchanged", change=swapped
    )
    flipped = lambda w: w[..., ::-1, ::-1]  # noqa: E731
    yield from caffe(9, "kernel-flipped", "kernel flipped", layer="conv1", causes="kernel_flipped", change=flipped)
    yield from in_weights(
        10,
        "kernel-io",
        "input and output channels exchanged",
        "one_weird_trick_lrn",
        SMALL,
        "conv5",
        "kernel_io_exchanged",
        lambda w: w.swapaxes(0, 1),
    )

    def interleaved(w: NDArray) -> NDArray:
        return w[np.arange(len(w)).reshape(2, -1).T.ravel()]

    yield from caffe(
        11, "groups-interleaved", "groups interleaved", layer="conv2", causes="groups_interleaved", change=interleaved
    )
    halves = lambda w: np.roll(w, len(w) // 2, axis=0)  # noqa: E731
    yield from caffe(
        12,
        "groups-exchanged",
        "the two groups' kernels exchanged",
        layer="conv2",
        causes="groups_exchanged",
        change=halves,
    )

    def rows_as_hwc(w: NDArray) -> NDArray:
        return w.reshape(len(w), 256, 2, 2).transpose(0, 2, 3, 1).reshape(w.shape)

    yield from caffe(13, "fc-order", "fc6 reads HWC for CHW", layer="fc6", causes="fc_order", change=rows_as_hwc)
    yield from caffe(
        14,
        "fc-transposed",
        "square fc kernel not transposed",
        layer="fc7",
        causes="kernel_transposed",
        change=lambda w: w.T,
    )
    yield from caffe(
        15, "bias-missing", "a bias missing", layer="conv3", causes="bias_missing", change=np.zeros_like, part="bias"
    )


def channel_mutants() -> Iterator[Mutant]:
    """Channels in another order, scaled weights, a single wrong weight, local layers."""

    def two_swapped(w: NDArray) -> NDArray:
        order = np.arange(len(w))
        order[[3, 17]] = order[[17, 3]]
        return w[order]

    def one_changed(w: NDArray) -> NDArray:
        w = w.copy()
        w[5, 1, 0, 2] *= -1
        return w

    caffe = partial(in_weights, model="caffe_alexnet", size=SMALL)
    yield from caffe(
        40, "channel-swapped", "two channels swapped", layer="conv3", causes="channels_permuted", change=two_swapped
    )
    yield from caffe(41, "scaled", "weights scaled by 1.01", layer="conv4", causes="scaled", change=lambda w: w * 1.01)
    yield from caffe(
        42, "one-weight", "one weight with the wrong sign", layer="conv5", causes="weight_differs", change=one_changed
    )
    yield from caffe(
        43,
        "bgr",
        "conv1 reads BGR",
        layer="conv1",
        causes=("channels_reversed", "channels_permuted"),
        change=lambda w: w[:, ::-1],
    )
    yield from in_weights(
        44,
        "local-transposed",
        "local layer's kernels transposed",
        "cifar_13pct",
        None,
        "local3",
        "kernel_hw_exchanged",
        lambda w: w.swapaxes(4, 5),
    )
    yield from in_weights(
        45,
        "local-positions",
        "local layer's positions transposed",
        "cifar_11pct",
        None,
        "local4",
        "positions_exchanged",
        lambda w: w.swapaxes(0, 1),
    )
