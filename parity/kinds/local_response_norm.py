"""Local response normalisation: over neighbouring channels, or over neighbouring positions of the same map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from parity.kinds.kind import Kind
from parity.kinds.layer import Layer, Mistake, Recorded, WrongGradient, setting


@dataclass(frozen=True, kw_only=True, eq=False)
class ResponseNorm(Layer):
    """x (k + alpha / n sum of squares)^-beta, as in the AlexNet paper, section 3.3, but over `size` values.

    Attributes:
        size: channels, or rows and columns, that a window holds.
        alpha: see above; likewise beta and k.
        divide_by_size: whether alpha is divided by the window's channels; within a map it is by its positions.
        even: where a window of even size looks farther: `left` or `right`.
        columns: groups of channels that windows don't cross.
        within_map: whether windows lie in one map, and not across channels.
    """

    size: int
    alpha: float
    beta: float
    k: float
    divide_by_size: bool = True
    even: str = "left"
    columns: int = 1
    within_map: bool = False

    constants: ClassVar[tuple[str, ...]] = ("alpha", "beta", "k")

    def forward(self) -> NDArray:
        """The input over the power of its neighbourhood."""
        return self.x * self._base() ** -self.beta

    @property
    def _scale(self) -> float:
        if self.within_map:
            return self.alpha / self.size**2
        return self.alpha / self.size if self.divide_by_size else self.alpha

    def _base(self) -> NDArray:
        """The base of the power: k plus the scaled sum of squares."""
        return self.k + self._scale * self._sums(self.x**2)

    def _sums(self, values: NDArray, mirrored: bool = False) -> NDArray:
        """The sum over each window, or over those windows that hold a value."""
        size = self.size
        before, after = (size // 2, (size - 1) // 2) if self.even == "left" else ((size - 1) // 2, size // 2)
        if mirrored:
            before, after = after, before
        if self.within_map:
            return _window_sum(_window_sum(values, 2, before, after), 3, before, after)
        examples, channels, *spatial = values.shape
        split = values.reshape(examples, self.columns, channels // self.columns, *spatial)
        return _window_sum(split, 2, before, after).reshape(values.shape)

    def input_gradient(self, g: NDArray) -> NDArray:
        """g_i s_i^-b - 2 a b x_i sum_{j: i in W(j)} g_j x_j s_j^(-b-1)."""
        return self._gradient(g)

    def _gradient(self, g: NDArray, *, cross: float = 1.0, power: float = 1.0, mirrored: bool = True) -> NDArray:
        base = self._base()
        crossed = self._sums(g * self.x * base ** (-self.beta - power), mirrored)
        return g * base**-self.beta - cross * 2 * self._scale * self.beta * self.x * crossed

    def gradient_mistakes(self, g: NDArray) -> Iterator[WrongGradient]:
        """In the term by which a value's neighbours depend on it."""
        key, text = "gradient_cross_term", "the term that crosses channels is missing"
        yield WrongGradient(key, text, self._gradient(g, cross=0.0))
        yield WrongGradient(key, "the crossing term has the wrong sign", self._gradient(g, cross=-1.0))
        text = "the crossing term lacks its factor 2"
        yield WrongGradient("gradient_factor_two", text, self._gradient(g, cross=0.5))
        yield WrongGradient("gradient_beta", "the crossing term lacks beta", self._gradient(g, cross=1 / self.beta))
        text = "the crossing term has the power -beta for -beta - 1"
        yield WrongGradient("gradient_power", text, self._gradient(g, power=0.0))
        yield WrongGradient("gradient_window", "the window isn't mirrored", self._gradient(g, mirrored=False))
        for factor in (self.size, 1 / self.size, self.size**2, 1 / self.size**2):
            text = "alpha is divided otherwise than forward"
            yield WrongGradient("gradient_alpha", text, self._gradient(g, cross=factor))

    def own_mistakes(self) -> Iterator[Mistake]:
        """What alpha is divided by, constants, the window's size and side, and over what it runs."""
        yield from self._within_map_mistakes() if self.within_map else self._across_mistakes()

    def _across_mistakes(self) -> Iterator[Mistake]:
        size, alpha, divided = self.size, self.alpha, self.divide_by_size
        text = f"alpha is {'not ' if divided else ''}divided by the window"
        yield setting("lrn_alpha", text, divide_by_size=not divided)
        yield from self._other_constants(ks=(1.0, 2.0, 0.0, 1e-5), betas=(0.5, 0.75, 1.0, 0.25))
        if size % 2 == 0:
            other = "right" if self.even == "left" else "left"
            yield setting("lrn_side", f"the even window looks {other}", even=other)
        yield from self._other_sizes()
        for columns in (1, 2, 3, 4):
            if columns != self.columns and self.x.shape[1] % columns == 0:
                text = f"windows stay inside {columns} column(s), not {self.columns}"
                yield setting("lrn_columns", text, columns=columns)
        for factor in (10.0, 0.1, 100.0, 0.01, float(size) ** 2, 1 / float(size) ** 2):
            yield setting("lrn_alpha", f"alpha is {alpha * factor:g}, not {alpha:g}", alpha=alpha * factor)
        text = "the window runs over positions of one map, not over channels"
        yield setting("lrn_within_map", text, within_map=True)

    def _other_sizes(self) -> Iterator[Mistake]:
        size, key = self.size, "lrn_size"
        for value, name in (
            (2 * size + 1, "the radius is taken as the size"),
            (size // 2, "the size is taken as the radius"),
        ):
            if value >= 1:
                text = f"the window is {value} channels, not {size}: {name}"
                yield setting(key, text, size=value)
                yield setting(key, f"{text}, alpha as before", size=value, alpha=self._scale, divide_by_size=False)
        for value in (size - 1, size + 1, size - 2, size + 2, size + 4, 2 * size):
            if value >= 1:
                for even in ("left", "right") if value % 2 == 0 else ("left",):
                    text = f"the window is {value} channels, not {size}"
                    yield setting(key, text, size=value, even=even)
                    as_before = {"alpha": self._scale, "divide_by_size": False}
                    yield setting(key, f"{text}, alpha as before", size=value, even=even, **as_before)

    def _within_map_mistakes(self) -> Iterator[Mistake]:
        size, alpha = self.size, self.alpha
        for factor, text in ((size, "the window's side"), (size**2, "nothing")):
            yield setting("lrn_alpha", f"alpha is divided by {text}, not by the window's area", alpha=alpha * factor)
        yield from self._other_constants(ks=(0.0, 1.0, 2.0), betas=(0.5, 0.75, 1.0))
        for value in (2 * size + 1, size - 1, size + 1, size - 2, size + 2):
            if value >= 1:
                text = f"the window is {value}x{value}, not {size}x{size}"
                yield setting("lrn_size", text, size=value)
                as_before = alpha * value**2 / size**2
                yield setting("lrn_size", f"{text}, alpha as before", size=value, alpha=as_before)
        text = "the window runs over channels, not over positions"
        usual = {"divide_by_size": True, "columns": 1, "even": "left"}
        yield setting("lrn_across_maps", text, within_map=False, **usual)

    def _other_constants(self, ks: tuple[float, ...], betas: tuple[float, ...]) -> Iterator[Mistake]:
        for value in ks:
            if value != self.k:
                yield setting("lrn_k", f"k is {value:g}, not {self.k:g}", k=value)
        for value in betas:
            if value != self.beta:
                yield setting("lrn_beta", f"beta is {value:g}, not {self.beta:g}", beta=value)


def _window_sum(x: NDArray, axis: int, before: int, after: int) -> NDArray:
    """Sum over [i - before, i + after] along an axis, nothing beyond the ends."""
    edges = [(0, 0)] * x.ndim
    edges[axis] = (before, after)
    return sliding_window_view(np.pad(x, edges), before + after + 1, axis=axis).sum(-1)


def _layer(recorded: Recorded) -> Layer | None:
    within = recorded.class_name == "SpatialResponseNorm"
    wanted = ("size", "alpha", "beta", "k")
    given = {name: recorded.settings[name] for name in wanted if name in recorded.settings}
    if len(given) < len(wanted):
        return None  # a class of this name with other settings
    more = () if within else ("divide_by_size", "even", "columns")
    given |= {name: recorded.settings[name] for name in more if name in recorded.settings}
    return ResponseNorm(x=recorded.x, within_map=within, **given)


KIND = Kind(
    name="local_response_norm",
    torch_classes=("normalization.LocalResponseNorm",),
    own_classes=("SpatialResponseNorm",),
    layer=_layer,
)
