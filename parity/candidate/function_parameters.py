"""The parameters of a function, as a tree, and which of PyTorch's each of them is.

They must hold PyTorch's values, in whatever layout: that is how they are paired.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import difference
from parity.errors import CannotCompare
from parity.mapping import trees
from parity.mapping.mapping import Mapping
from parity.mapping.tensors import Tensor

Move = Callable[[NDArray], NDArray]
# What PyTorch calls `weight` has other names elsewhere.
_SAME = {"kernel": "weight", "scale": "weight", "embedding": "weight", "w": "weight", "b": "bias", "gamma": "weight"}
_SAME |= {"beta": "bias", "mean": "running_mean", "var": "running_var"}


@dataclass(frozen=True)
class Parameter:
    """One leaf of the tree and its partner.

    Attributes:
        name: its path in the tree.
        torch_name: of the PyTorch parameter or buffer.
        move: from PyTorch's layout to the tree's.
        given: by a mapping: then it may be the sum of several.
    """

    name: str
    torch_name: str
    move: Move
    given: Tensor | None = None

    def value(self, state: dict[str, NDArray]) -> NDArray:
        """PyTorch's, in the tree's layout."""
        return self.move(state[self.torch_name]) if self.given is None else self.given.converted(state)

    @property
    def torch_names(self) -> list[str]:
        """Of all that it is made of."""
        return [self.torch_name] if self.given is None else [source.torch for source in self.given.sources]


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, joined with `/`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def pair(ours: dict[str, Any], theirs: dict[str, NDArray], given: dict[str, str] | None) -> Iterator[Parameter]:
    """Each leaf's partner: the one that was named, that of the same name, or the only one with the same values.

    Raises:
        CannotCompare: a leaf has none, or several; or a name is unknown.
    """
    given = given or {}
    for name, torch_name in given.items():
        if name not in ours or torch_name not in theirs:
            known = ", ".join(ours if name not in ours else theirs)
            wrong = name if name not in ours else torch_name
            raise CannotCompare(f"mapping names {wrong!r}, which isn't among {known}")
    names = {_plain(name): name for name in theirs}
    for name, leaf in ours.items():
        values = np.asarray(leaf, np.float64)
        partner = given.get(name) or names.get(_plain(name))
        found = [partner] if partner else [n for n, array in theirs.items() if _holds(array, values)]
        if not found:
            found = [n for n, array in theirs.items() if any(True for _ in moves(array.shape, values.shape))]
        if len(found) > 1:  # with the same values, or of the same shape: the whole may be wrapped on either side
            tails = [n for n in found if f".{_plain(n)}".endswith(f".{_plain(name)}")]
            found = tails if len(tails) == 1 else found
        if len(found) != 1:
            fits = f"could be {', '.join(found)}" if found else f"has no partner among {', '.join(theirs)}"
            raise CannotCompare(f"{name} {values.shape} {fits}: say which with mapping={{{name!r}: 'torch.name'}}")
        fitting = list(moves(theirs[found[0]].shape, values.shape, flipped=True))
        if not fitting:
            shapes = f"{values.shape} and {theirs[found[0]].shape}"
            raise CannotCompare(f"{name} and PyTorch's {found[0]} have the shapes {shapes}")
        reference = theirs[found[0]].astype(np.float64)
        best = min(fitting, key=lambda move: float(np.max(difference(move(reference), values), initial=0.0)))
        yield Parameter(name, found[0], best)


def with_stacks(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """Arrays by PyTorch's names, and those of a list's items once more as one, under the name with a star for numbers.

    JAX stacks the parameters of layers that it scans over: `blocks.0.weight`, `blocks.1.weight` are `blocks.*.weight`.
    """
    groups: dict[str, list[str]] = {}
    for name in arrays:
        for match in re.finditer(r"(?<![^.])\d+(?![^.])", name):
            groups.setdefault(f"{name[: match.start()]}*{name[match.end() :]}", []).append(name)
    stacks = {}
    for star, names in groups.items():
        if len(names) > 1 and len({arrays[name].shape for name in names}) == 1:
            first, _, last = star.partition("*")
            names.sort(key=lambda name: int(name[len(first) : len(name) - len(last)]))
            stacks[star] = np.stack([arrays[name] for name in names])
    return {**arrays, **stacks}


def by_mapping(ours: dict[str, Any], theirs: dict[str, NDArray], mapping: Mapping) -> list[Parameter]:
    """The pairs of a mapping.

    Raises:
        CannotConvert: it is another model's.
    """
    mapping.check(trees.FUNCTION, {path: tuple(leaf.shape) for path, leaf in ours.items()})
    theirs |= mapping.complete(theirs)
    return [Parameter(x.jax, x.sources[0].torch, x.sources[0].moved, x) for x in mapping.tensors]


def moves(reference: tuple[int, ...], wanted: tuple[int, ...], flipped: bool = False) -> Iterator[Move]:
    """Ways to lay an array of one shape out in another: axes exchanged, then joined or divided.

    Args:
        reference: shape of the array.
        wanted: the other one.
        flipped: kernels of PyTorch's mirrored, too, as transposed convolutions are written in JAX.
    """
    if int(np.prod(reference)) != int(np.prod(wanted)):
        return
    rank = len(reference)
    kernel = (*range(2, rank), 1, 0)  # O I ... to ... I O
    stacked = (0, *range(3, rank), 2, 1)  # the same of several, one after the other
    orders = dict.fromkeys(
        [tuple(range(rank)), kernel, stacked, *(itertools.permutations(range(rank)) if rank < 5 else ())]
    )
    for order in orders:
        if len(order) == rank and (rank != len(wanted) or tuple(reference[i] for i in order) == wanted):
            yield lambda array, order=order: array.transpose(order).reshape(wanted)
            if rank > 2 and flipped:
                yield lambda array, order=order: _flipped(array).transpose(order).reshape(wanted)


def _holds(array: NDArray, values: NDArray) -> bool:
    reference = array.astype(np.float64)
    return any(np.array_equal(move(reference), values) for move in moves(array.shape, values.shape, flipped=True))


def _flipped(kernel: NDArray) -> NDArray:
    """A kernel of PyTorch's mirrored in all its directions, which lie behind its channels."""
    return np.flip(kernel, tuple(range(2, kernel.ndim)))


def _plain(name: str) -> str:
    *above, last = name.replace("/", ".").replace("_", ".").lower().replace(".*", "").split(".")
    return ".".join([*above, _SAME.get(last, last)])


def left_out(parameters: list[Parameter], model: Any) -> list[str]:
    """PyTorch's parameters that no leaf of the tree is paired with."""
    paired = {name for parameter in parameters for name in parameter.torch_names}
    starred = [re.compile(r"\d+".join(map(re.escape, name.split("*")))) for name in paired if "*" in name]
    rest = [
        name
        for name, _ in model.named_parameters()
        if name not in paired and not any(star.fullmatch(name) for star in starred)
    ]
    return [f"PyTorch's {', '.join(rest)}: nothing in the tree is paired with them"] if rest else []
