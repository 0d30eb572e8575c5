"""What the kinds of normalisation share: a scale and an offset for what was standardised, and how they go wrong."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import farthest, within
from parity.kinds.kind import BIAS, Weight
from parity.kinds.layer import Layer, Mistake, Recorded, setting

AFFINE = (Weight("weight", "scale"), BIAS)
STATISTICS = (
    Weight("running_mean", "mean", collection="batch_stats"),
    Weight("running_var", "var", collection="batch_stats"),
)

# What libraries have for a default, and what people write: PyTorch 1e-5, Flax 1e-6, Keras 1e-3, BERT 1e-12.
_EPSILONS = (1e-5, 1e-6, 1e-3, 1e-12, 1e-8, 1e-7, 1e-4, 1e-2, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Normalization(Layer):
    """(x - mean) / sqrt(variance + eps) * weight + bias, over some axes.

    Attributes:
        eps: added to the variance.
        axes: over which the statistics are taken.
        channel: axis of weight and bias, counted from the end where they lie along several.
        centred: whether the mean is subtracted; without it the variance is the mean of squares.
        outside: whether eps is added to the deviation instead.
        unbiased: whether the variance is divided by one less than the number of values.
        squared: whether x is divided by the variance itself.
        offset_by_one: whether the scale is 1 + weight.
        untrained: whether mean and variance are 0 and 1, what running statistics begin with.
    """

    eps: float
    axes: tuple[int, ...]
    channel: int | None = None
    centred: bool = True
    outside: bool = False
    unbiased: bool = False
    squared: bool = False
    offset_by_one: bool = False
    untrained: bool = False

    constants: ClassVar[tuple[str, ...]] = ("eps",)

    @property
    def mixes_examples(self) -> bool:
        """Whether statistics are taken over examples."""
        return 0 in self.axes

    def forward(self) -> NDArray:
        """Standardised, scaled and moved."""
        x = self.standardised(self.x)
        scale, offset = self.weights.get("weight"), self.weights.get("bias")
        if scale is not None:
            x = x * self._along(scale + 1 if self.offset_by_one else scale)
        return x if offset is None else x + self._along(offset)

    def standardised(self, x: NDArray) -> NDArray:
        """(x - mean) / sqrt(variance + eps)."""
        mean, variance = (0.0, np.ones(())) if self.untrained else self.statistics(x)
        if self.squared:
            return (x - mean) / (variance + self.eps)
        deviation = np.sqrt(variance) + self.eps if self.outside else np.sqrt(variance + self.eps)
        return (x - mean) / deviation

    def input_gradient(self, g: NDArray) -> NDArray:
        """Without what changes neither mean nor deviation."""
        scale = self.weights.get("weight")
        g = g if scale is None else g * self._along(scale)
        y = self.standardised(self.x)
        rest = g - y * (g * y).mean(self.axes, keepdims=True)
        if self.centred:
            rest = rest - g.mean(self.axes, keepdims=True)
        return rest / self.deviation(self.x)

    def deviation(self, x: NDArray) -> NDArray:
        """What values are divided by."""
        return np.sqrt(self.statistics(x)[1] + self.eps)

    def weight_gradient(self, g: NDArray, name: str) -> NDArray | None:
        """Sums over all that a weight is applied to."""
        shape = self.weights[name].shape if name in self.weights else None
        if name not in ("weight", "bias") or shape is None:
            return None
        terms = g * self.standardised(self.x) if name == "weight" else g
        if self.channel is None:
            return terms.sum(tuple(range(terms.ndim - len(shape))))
        return terms.sum(tuple(axis for axis in range(terms.ndim) if axis != self.channel))

    def statistics(self, x: NDArray) -> tuple[NDArray | float, NDArray]:
        """Mean and variance, such that they broadcast."""
        mean = x.mean(self.axes, keepdims=True) if self.centred else 0.0
        variance = ((x - mean) ** 2).mean(self.axes, keepdims=True)
        if self.unbiased:
            count = int(np.prod([x.shape[axis] for axis in self.axes]))
            variance = variance * count / max(count - 1, 1)
        return mean, variance

    def own_mistakes(self) -> Iterator[Mistake]:
        """Epsilon first: libraries' defaults differ."""
        for eps in _EPSILONS:
            if eps != self.eps:
                yield setting("epsilon", f"epsilon is {eps:g}, not {self.eps:g}", eps=eps)
        places = ("the variance", "the deviation")
        text = f"epsilon is added to {places[not self.outside]}, not to {places[self.outside]}"
        yield setting("epsilon_outside", text, outside=not self.outside)
        if "weight" in self.weights:
            yield Mistake("scale_missing", "the scale is not applied", lambda p: p.without("weight"))
            text = "the scale is the weight itself" if self.offset_by_one else "the scale is one more than the weight"
            yield setting("scale_from_one", text, offset_by_one=not self.offset_by_one)
        if "bias" in self.weights:
            yield Mistake("bias_missing", "the offset is not added", lambda p: p.without("bias"))
        if {"weight", "bias"} <= set(self.weights):
            yield Mistake("scale_bias_exchanged", "scale and offset are exchanged", _exchanged("weight", "bias"))
        number = "the number of values" if self.unbiased else "one less than the number of values"
        yield setting("variance_unbiased", f"the variance is divided by {number}", unbiased=not self.unbiased)
        if self.centred:
            yield setting("mean_kept", "the mean is not subtracted", centred=False)
        else:
            yield setting("mean_subtracted", "the mean is subtracted", centred=True)
        text = "nothing is normalised: mean and variance are 0 and 1, what running statistics begin with"
        yield setting("statistics_untrained", text, untrained=True)
        yield setting("divided_by_variance", "values are divided by the variance, not by its root", squared=True)
        yield from self.axes_mistakes()

    def axes_mistakes(self) -> Iterator[Mistake]:
        """Statistics over other axes."""
        last = self.x.ndim - 1
        for axes in ((last,), tuple(range(1, last + 1)), (1,), tuple(range(last)), tuple(range(2, last + 1))):
            if axes and axes != self.axes:
                words = " and ".join(map(str, axes))
                yield setting("normalized_axes", f"statistics are taken over axis {words}, not {self.axes}", axes=axes)

    def _along(self, values: NDArray) -> NDArray:
        if self.channel is None:
            return values
        return values.reshape(-1, *[1] * (self.x.ndim - self.channel - 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class WithRunningStatistics(Normalization):
    """One whose mean and variance are weights: what batch normalisation does in evaluation.

    Attributes:
        of_the_batch: whether the input's own are taken instead.
    """

    of_the_batch: bool = False

    @property
    def mixes_examples(self) -> bool:
        """Only with the batch's own."""
        return self.of_the_batch

    def statistics(self, x: NDArray) -> tuple[NDArray | float, NDArray]:
        """The running ones."""
        if self.of_the_batch:
            return super().statistics(x)
        mean = self._along(self.weights["running_mean"]) if self.centred else 0.0
        return mean, self._along(self.weights["running_var"])

    def input_gradient(self, g: NDArray) -> NDArray:
        """The statistics are no functions of the input."""
        scale = self.weights.get("weight")
        return (g if scale is None else g * self._along(scale)) / self.deviation(self.x)

    def own_mistakes(self) -> Iterator[Mistake]:
        """Those of all, and of the statistics."""
        yield from super().own_mistakes()
        text = "the batch's own statistics are taken, as in training"
        yield setting("batch_statistics", text, of_the_batch=True)
        exchanged = _exchanged("running_mean", "running_var")
        yield Mistake("statistics_exchanged", "running mean and variance are exchanged", exchanged)

    def axes_mistakes(self) -> Iterator[Mistake]:
        """The axes play no part."""
        yield from ()


def _exchanged(one: str, other: str) -> Any:
    def apply(p: Layer) -> Layer | None:
        if not {one, other} <= set(p.weights) or p.weights[one].shape != p.weights[other].shape:
            return None
        return p.with_weights(**{one: p.weights[other], other: p.weights[one]})

    return apply


def _ungrouped(axes: tuple[int, ...]) -> Any:
    def apply(p: Layer) -> Layer | None:
        if not isinstance(p, Grouped):
            return None
        return Normalization(x=p.x, weights=p.weights, after=p.after, eps=p.eps, axes=axes, channel=1)

    return apply


def affine(recorded: Recorded) -> dict[str, NDArray]:
    """A layer's `weight` and `bias`, as far as it has them."""
    return {name: recorded.weights[name] for name in ("weight", "bias") if name in recorded.weights}


def guessed(
    recorded: Recorded, weights: Mapping[str, NDArray], observed: NDArray, tolerance: float
) -> Normalization | None:
    """What a class of someone's own computes, if it is a normalisation of the last axis or of the channels.

    Args:
        recorded: its call, with the weights that the layer is to have.
        weights: the class's own, with which it gave what was observed.
        observed: its result.
        tolerance: largest difference from that which counts as none.
    """
    x = recorded.x
    if x.shape != observed.shape or x.ndim < 2 or not {*weights} <= {"weight", "bias"}:
        return None
    numbers = [v for v in recorded.settings.values() if isinstance(v, float) and 0 < v < 0.1]
    for eps, axis in itertools.product(dict.fromkeys([*numbers, *_EPSILONS]), (x.ndim - 1, 1)):
        if any(w.shape != x.shape[axis : axis + 1] for w in weights.values()):
            continue
        for centred, unbiased, outside, more in itertools.product((True, False), repeat=4):
            layer = Normalization(
                x=x,
                weights=weights,
                eps=eps,
                axes=(axis,),
                channel=axis,
                centred=centred,
                unbiased=unbiased,
                outside=outside,
                offset_by_one=more,
            )
            few = layer.first_example()
            if within(farthest(few.compute(), observed[:1]), tolerance) and within(
                farthest(layer.compute(), observed), tolerance
            ):
                return replace(layer, weights=recorded.weights)
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouped(Normalization):
    """One whose statistics are taken over groups of neighbouring channels and all positions.

    Attributes:
        groups: how many.
        interleaved: whether channel c belongs to group c modulo `groups`.
    """

    groups: int
    interleaved: bool = False

    def standardised(self, x: NDArray) -> NDArray:
        """Group by group."""
        batch, channels, size = len(x), x.shape[1], x.shape[1] // self.groups
        order = np.arange(channels)
        if self.interleaved:
            order = order.reshape(size, self.groups).T.ravel()
        parts = x[:, order].reshape(batch, self.groups, -1)
        # The same computation on groups of values: their last axis.
        whole = Normalization.standardised(replace(self, x=parts, axes=(2,)), parts).reshape(x.shape)
        return whole[:, np.argsort(order)]

    def input_gradient(self, g: NDArray) -> NDArray:
        """Group by group."""
        scale = self.weights.get("weight")
        g = g if scale is None else g * self._along(scale)
        parts, of_parts = (array.reshape(len(array), self.groups, -1) for array in (self.x, g))
        alone = Normalization(x=parts, eps=self.eps, axes=(2,))
        return alone.input_gradient(of_parts).reshape(g.shape)

    def axes_mistakes(self) -> Iterator[Mistake]:
        """Other groups, or none."""
        channels = self.x.shape[1]
        likely = (32, 1, channels, channels // max(self.groups, 1), 8, 16, 4, 2)
        for groups in dict.fromkeys((*likely, *range(3, channels // 2 + 1))):
            if groups and groups != self.groups and channels % groups == 0:
                yield setting("groups", f"there are {groups} groups, not {self.groups}", groups=groups)
        text = "channels are dealt out to the groups in turn"
        yield setting("groups_interleaved", text, interleaved=True)
        others = tuple(axis for axis in range(self.x.ndim) if axis != 1)
        for axes, words in (
            ((1,), "the channels of each position, as in layer normalisation"),
            (others, "the batch and all positions of a channel, as in batch normalisation"),
        ):
            yield Mistake("normalized_axes", f"statistics are taken over {words}", _ungrouped(axes))
