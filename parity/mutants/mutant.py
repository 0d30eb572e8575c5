"""One planted bug, and the short ways to write one down.

The numbers are those of the table in docs/parity.md; 35 and up are bugs of other kinds. Every mutant says which
layers it may be seen at first and which causes would be right; `parity.mutants.trials` judges the harness by that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from numpy.typing import NDArray
from torch import nn

from parity.alexnet.pairs import Pair
from parity.mutants import planting

Plant = Callable[[Pair], AbstractContextManager[Pair]]


@dataclass(frozen=True)
class Mutant:
    """One bug on one side.

    Attributes:
        id: number, name and side.
        number: row of the table.
        title: what is wrong.
        side: `jax` or `torch`.
        model: network that it is planted into.
        image_size: that both sides are built for; small sizes are as good as large ones.
        stage: `layers`, `grads`, `masks` (training mode with shared dropout masks), `steps` or `data`.
        layers: where it may be seen first.
        causes: short names of causes that are right.
        plant: gives the mutated pair; inside the context for patches of code.
        dtype: of the comparison.
        equivalent: whether it changes nothing in this setting, which has to be shown.
        needs: what it takes to see it and a CPU lacks, if anything.
    """

    id: str
    number: int
    title: str
    side: str
    model: str
    image_size: tuple[int, int] | None
    stage: str
    layers: tuple[str, ...]
    causes: tuple[str, ...]
    plant: Plant
    dtype: str = "float64"
    equivalent: bool = False
    needs: str = ""


SMALL = (71, 95)  # 16x22 maps after conv1: even, so that ceil-mode pools overhang, and not square


def on_both_sides(
    number: int,
    name: str,
    title: str,
    model: str,
    size: Any,
    layers: Any,
    causes: Any,
    *,
    jax: Callable[[Pair], Pair] | Plant,
    torch: Callable[[Pair], Pair] | Plant,
    stage: str = "layers",
    **more: Any,
) -> Iterator[Mutant]:
    """The bug twice: planted into JAX by `jax`, into PyTorch by `torch`."""
    for side, change in (("jax", jax), ("torch", torch)):
        yield Mutant(
            f"{number:02d}-{name}-{side}",
            number,
            title,
            side,
            model,
            size,
            stage,
            as_tuple(layers),
            as_tuple(causes),
            as_plant(change),
            **more,
        )


def as_plant(change: Any) -> Plant:
    """A function that returns the changed pair, or a context that gives it, as the latter."""

    def plant(pair: Pair) -> AbstractContextManager[Pair]:
        result = change(pair)
        return nullcontext(result) if isinstance(result, Pair) else result

    return plant


def as_tuple(value: Any) -> tuple[str, ...]:
    """One name as a tuple of one."""
    return (value,) if isinstance(value, str) else tuple(value)


def jax_row(name: str, **settings: Any) -> Callable[[Pair], Pair]:
    """Other settings in one row of the JAX table."""
    return lambda pair: planting.jax_row(pair, name, **settings)


def torch_attributes(name: str, **settings: Any) -> Callable[[Pair], Pair]:
    """Other attributes of one PyTorch layer."""
    return lambda pair: planting.torch_settings(pair, name, **settings)


def patch(owner: str, name: str, value: Any) -> Plant:
    """Replace a function of `jax_alexnet` while the mutant runs; `owner` is the module that looks it up."""

    @contextmanager
    def plant(pair: Pair) -> Iterator[Pair]:
        module = import_module(owner)
        changed = value(getattr(module, name))
        with planting.patched(module, name, changed):
            yield pair

    return plant


def in_weights(
    number: int,
    name: str,
    title: str,
    model: str,
    size: Any,
    layer: str,
    causes: Any,
    change: Callable[[NDArray], NDArray],
    part: str = "weight",
) -> Iterator[Mutant]:
    """A change of one layer's weights (or of its bias, see `part`), in PyTorch's layout, on either side."""
    yield from on_both_sides(
        number,
        name,
        title,
        model,
        size,
        layer,
        causes,
        jax=lambda pair: planting.jax_weight(pair, layer, change, part),
        torch=lambda pair: planting.torch_weight(pair, layer, change, part),
    )


def turned_into(module_class: type[nn.Module]) -> Callable[[nn.Module], None]:
    """Make a PyTorch layer an instance of another class, in place."""

    def change(child: nn.Module) -> None:
        child.__class__ = module_class

    return change
