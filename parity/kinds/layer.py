"""One layer as a computation of its own, in NumPy and float64: the third witness, and what mistakes are made on.

A third implementation, so that neither framework's own code decides what its bug looks like. Arrays lie as in PyTorch:
maps N C H W, kernels O I H W. Whole-array arithmetic, fast enough for full-size layers.

A `Layer` holds what determines a result: input, weights, settings. A `Mistake` is a function from one layer to another,
so that mistakes combine, and `Layer.compute` says what any of them leads to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Change = Callable[[NDArray], NDArray]
Settings = Mapping[str, Any]  # plain values, as a record in JSON holds them: numbers, strings, lists of them


@dataclass(frozen=True)
class Recorded:
    """One call of a PyTorch layer as it was recorded; arrays in float64.

    Attributes:
        class_name: of the module, or of the nearest base that a kind knows.
        settings: its plain attributes, as JSON holds them.
        x: its first input.
        weights: parameters and statistics by PyTorch's name.
        map_shape: (C, H, W) of the map that was flattened into the rows of x, if one was.
        mask: of dropout, True where kept, if it was injected.
        more: its other inputs.
    """

    class_name: str
    settings: Settings
    x: NDArray
    weights: Mapping[str, NDArray] = field(default_factory=dict)
    map_shape: tuple[int, ...] | None = None
    mask: NDArray | None = None
    more: tuple[NDArray, ...] = ()


class Mistake(NamedTuple):
    """One way to get a layer wrong.

    Attributes:
        key: short name, for scores and JSON.
        text: what it is, to follow "PyTorch:" or "JAX:".
        apply: from a layer to the layer with the mistake; None where it can't be made.
    """

    key: str
    text: str
    apply: Callable[[Layer], Layer | None]


class WrongGradient(NamedTuple):
    """One way to get a gradient wrong: short name, what it is, and the gradient that it gives."""

    key: str
    text: str
    gradient: NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer(ABC):
    """What determines the result of one call of a layer.

    Attributes:
        x: the input.
        weights: by PyTorch's name; what a layer does without isn't there.
        after: what happens to the result afterwards: nothing, but for some mistakes.
    """

    x: NDArray
    weights: Mapping[str, NDArray] = field(default_factory=dict)
    after: tuple[Change, ...] = ()

    constants: ClassVar[tuple[str, ...]] = ()
    """Settings that are numbers which a side may have rounded."""
    mistaken_biases: ClassVar[bool] = False
    """Whether its mistakes are looked for in weights that are called biases, too."""

    @abstractmethod
    def forward(self) -> NDArray:
        """The layer's result, without what happens to it afterwards."""

    def input_gradient(self, g: NDArray) -> NDArray | None:
        """Gradient with respect to the input, in closed form, from the result's; None if none is written out."""
        return None

    def weight_gradient(self, g: NDArray, name: str) -> NDArray | None:
        """Likewise with respect to the weight of PyTorch's name `name`."""
        return None

    def own_mistakes(self) -> Iterator[Mistake]:
        """The mistakes that people make when they port this kind of layer, likeliest first."""
        yield from ()

    def gradient_mistakes(self, g: NDArray) -> Iterator[WrongGradient]:
        """The mistakes that gradients of this kind suffer from."""
        yield from ()

    def weight_gradient_mistakes(self, g: NDArray, name: str) -> Iterator[WrongGradient]:
        """Likewise those of the gradient with respect to a weight."""
        yield from ()

    @property
    def may_be_left_out(self) -> bool:
        """Whether a layer left out is a mistake beside the kind's own."""
        return True

    @property
    def may_get_a_relu(self) -> bool:
        """Whether a ReLU too many is a mistake that would show in the result alone."""
        return True

    @property
    def mixes_examples(self) -> bool:
        """Whether an example's result follows from the others, too."""
        return False

    def measured(self, observed: NDArray) -> Iterator[Mistake]:
        """Mistakes with something that only what was observed can tell (which values were dropped, say)."""
        yield from ()

    def offset(self) -> NDArray | None:
        """What the bias adds to the result, so that it broadcasts; None without a bias."""
        return None

    def first_example(self) -> Self:
        """The layer on the first example alone."""
        return replace(self, x=self.x[:1])

    def few_outputs(self, outputs: int) -> tuple[Self, NDArray] | None:
        """The layer with some of its `outputs` outputs only, and which; None if it can't be had for less work."""
        return None

    def compute(self) -> NDArray:
        """The result that all this leads to; a mistake may well lead to infinities."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            y = self.forward()
            for change in self.after:
                y = change(y)
        return y

    def mistakes(self) -> Iterator[Mistake]:
        """The mistakes to try on this layer: its kind's own, then those that any layer may suffer."""
        yield from self.own_mistakes()
        if self.may_be_left_out:
            yield Mistake("missing", "the layer passes its input on", lambda p: Function.of(p, lambda x: x))
        if self.may_get_a_relu:
            yield afterwards("relu_added", "a ReLU is applied to the result", lambda y: np.maximum(y, 0))
        if self.x.ndim == 4:
            text = "the result's rows and columns are exchanged"
            yield afterwards("map_transposed", text, lambda y: y.swapaxes(2, 3))
            text = "the input's rows and columns are exchanged"
            yield Mistake("input_transposed", text, lambda p: replace(p, x=p.x.swapaxes(2, 3)))
            yield afterwards("map_flipped", "the result is mirrored", lambda y: y[..., ::-1])

    def changed(self, **values: Any) -> Self | None:
        """The layer with other settings; None if it has none of such a name."""
        known = {each.name for each in fields(self)}
        return replace(self, **values) if known.issuperset(values) else None

    def with_weights(self, **weights: NDArray) -> Self:
        """The layer with some weights replaced."""
        return replace(self, weights={**self.weights, **weights})

    def without(self, name: str) -> Self:
        """The layer without one of its weights."""
        return replace(self, weights={key: value for key, value in self.weights.items() if key != name})

    def mapped(self, change: Change, names: Iterable[str]) -> Self:
        """The layer with its input (`x`), weights or constants of these names changed."""
        layer = self
        for name in names:
            if name == "x":
                layer = replace(layer, x=change(layer.x))
            elif name in layer.weights:
                layer = layer.with_weights(**{name: change(layer.weights[name])})
            else:
                layer = replace(layer, **{name: float(change(np.asarray(getattr(layer, name))))})
        return layer


@dataclass(frozen=True, kw_only=True, eq=False)
class Function(Layer):
    """A function of the input, put in a layer's place by some mistakes."""

    function: Change

    @classmethod
    def of(cls, layer: Layer, function: Change) -> Function:
        """`function` in the place of `layer`."""
        return cls(x=layer.x, after=layer.after, function=function)

    def forward(self) -> NDArray:
        """The function's value."""
        return self.function(self.x)


def setting(key: str, text: str, **values: Any) -> Mistake:
    """The mistake of other settings."""
    return Mistake(key, text, lambda p: p.changed(**values))


def afterwards(key: str, text: str, change: Change) -> Mistake:
    """The mistake of something done to the result."""
    return Mistake(key, text, lambda p: then(p, change))


def then(layer: Layer, change: Change) -> Layer:
    """The layer with something done to its result."""
    return replace(layer, after=(*layer.after, change))


def reordered_input(key: str, text: str, order: NDArray) -> Mistake:
    """The mistake of input channels in another order."""
    return Mistake(key, text, lambda p: replace(p, x=p.x[:, order]))


def pair(value: Any) -> tuple[int, int]:
    """Height and width from a setting that is one number for both, or a list."""
    return (int(value[0]), int(value[1])) if isinstance(value, (list, tuple)) else (int(value), int(value))


def sizes(value: Any, count: int) -> tuple[int, ...]:
    """So many sizes from a setting that is one number for all, or a list of one or of all."""
    found = tuple(map(int, value)) if isinstance(value, (list, tuple)) else (int(value),)
    return found * count if len(found) == 1 else found
