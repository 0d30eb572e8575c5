"""What the harness has to be told of one kind of layer: the type that every kind's file fills in.

The files import neither framework, since each side may run in an environment without the other's: PyTorch's and Flax's
classes are known by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from parity.kinds.layer import Layer, Recorded, Settings
from parity.kinds.layouts import Layout

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Moved = Callable[[NDArray, "Layout | None"], NDArray]


def _as_it_is(array: NDArray, layout: Layout | None) -> NDArray:
    return array


class Difference(NamedTuple):
    """What two layers' shapes say about them: a short name, as of a mistake, and words."""

    key: str
    text: str


@dataclass(frozen=True)
class Weight:
    """A parameter or statistic: its name and its layout on both sides.

    Attributes:
        torch: PyTorch's name.
        flax: Flax's name.
        collection: of Flax's variables, in which it lies.
        to_flax: moves the values, bit for bit, from PyTorch's layout to Flax's, views where strides can do it; the
            second argument is the layout of the layer's input, which may order rows.
        to_torch: the inverse.
    """

    torch: str
    flax: str
    collection: str = "params"
    to_flax: Moved = _as_it_is
    to_torch: Moved = _as_it_is


BIAS = Weight("bias", "bias")


@dataclass(frozen=True)
class Operation:
    """An ATen operation that computes what a layer does, where code between layers calls it.

    Attributes:
        title: for people.
        class_name: of the layer.
        settings: of the layer, from the plain arguments that were recorded; None where they don't tell.
    """

    title: str
    class_name: str
    settings: Callable[[list[Any]], Settings | None] = lambda args: {}


@dataclass(frozen=True)
class Kind:
    """One kind of layer.

    Attributes:
        name: short name, in reports; layers without parameters are `plain` there.
        torch_classes: PyTorch's classes, as `module.Class` under `torch.nn.modules`; a subclass is one, too.
        own_classes: names of classes that PyTorch doesn't have, but models do, which compute the same as this kind.
        weights: parameters and statistics; none for layers without.
        in_torch: whether a PyTorch module of no known class is of this kind, by the shapes of its parameters.
        in_flax: whether a Flax leaf is, by the name of its class and the shapes of its variables.
        inputs_follow_map: whether its number of inputs is that of a flattened map, so that a mistake before the layer
            shows in its weights' shapes; the last axis in Flax are its outputs.
        splits_axes: whether a Flax leaf's weights may have several axes in a row where PyTorch's have one.
        recurrent: whether it is a recurrent layer, see `parity.kinds.recurrence`: its arrays lie alike on both sides.
        linear: whether it is linear in its input and in its weights: then its bound is that of a sum of products.
        terms: of a linear layer with these settings, products that it sums for one output, without the bias; None to
            count them by running the layer on ones.
        gradient_terms: likewise terms of one element of each gradient, from the settings and the result's shape: by
            parameter name, and `input`.
        layer: the layer that was recorded, in NumPy, with the mistakes that people make; None where it isn't written
            out (for such settings, say).
        operations: ATen operations that compute the same, by name.
        shape_differences: what the shapes of Flax's and PyTorch's kernels, in Flax's layout, say when they differ.
    """

    name: str
    torch_classes: tuple[str, ...] = ()
    own_classes: tuple[str, ...] = ()
    weights: tuple[Weight, ...] = ()
    in_torch: Callable[[Shapes], bool] = lambda shapes: False
    in_flax: Callable[[str, Shapes], bool] = lambda class_name, shapes: False
    inputs_follow_map: bool = False
    splits_axes: bool = False
    recurrent: bool = False
    linear: bool = False
    terms: Callable[[Settings], int] | None = None
    gradient_terms: Callable[[Settings, Shape], dict[str, int]] | None = None
    layer: Callable[[Recorded], Layer | None] = lambda recorded: None
    operations: Mapping[str, Operation] = field(default_factory=dict)
    shape_differences: Callable[[Shape, Shape], list[Difference]] | None = None

    @property
    def class_names(self) -> frozenset[str]:
        """Names of its classes, without modules."""
        return frozenset({*(name.rpartition(".")[2] for name in self.torch_classes), *self.own_classes})

    def weight(self, torch_name: str) -> Weight:
        """Its weight of this PyTorch name; one that isn't declared keeps its name and layout."""
        return next((w for w in self.weights if w.torch == torch_name), Weight(torch_name, torch_name))
