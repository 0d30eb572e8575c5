"""One leaf of JAX's state, and the tensors of PyTorch's that it is made of.

ml_dtypes is imported for bfloat16 alone: weights of PyTorch's are converted without JAX.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import CannotConvert
from parity.mapping import operations
from parity.mapping.operations import Operation, Pad, Shape, numbers

KEPT = "kept"
DTYPES = (KEPT, "float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Source:
    """A tensor of PyTorch's on its way into a leaf.

    Attributes:
        torch: its name in the state dict.
        torch_shape: its shape there.
        operations: what happens to it.
    """

    torch: str
    torch_shape: Shape
    operations: tuple[Operation, ...]

    @property
    def shape(self) -> Shape:
        """What becomes of its shape; raises ValueError where the operations don't fit it."""
        return operations.shapes(self.operations, self.torch_shape)[-1]

    @property
    def padded(self) -> bool:
        """Whether it is a part of the leaf, beside others that are added."""
        return any(isinstance(each, Pad) for each in self.operations)

    @property
    def size(self) -> int:
        """Of its values how many go into the leaf."""
        return math.prod(operations.shapes(operations.taken(self.operations), self.torch_shape)[-1])

    def moved(self, array: NDArray) -> NDArray:
        """Its values as the leaf holds them."""
        return operations.apply(self.operations, array)

    def put(self, array: NDArray, whole: NDArray) -> None:
        """Write a leaf's values back into PyTorch's tensor, which lies in row order, or into their part of it."""
        taken = operations.taken(self.operations)
        moves, part = self.operations[len(taken) :], operations.apply(taken, whole)
        before = operations.shapes(moves, part.shape)
        for operation, shape in reversed(list(zip(moves, before, strict=False))):
            array = operation.undo(array, shape)
        part[...] = array

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        listed = [operation.to_json() for operation in self.operations]
        return {"torch": self.torch, "torch_shape": list(self.torch_shape), "operations": listed}


@dataclass(frozen=True)
class Tensor:
    """One leaf of JAX's state.

    Attributes:
        jax: its path; with the collection first for Linen.
        jax_shape: its shape.
        sources: what it is the sum of; almost always one tensor.
        dtype: that it is brought into, or `kept` as PyTorch's is.
    """

    jax: str
    jax_shape: Shape
    sources: tuple[Source, ...]
    dtype: str = KEPT

    def converted(self, state: Mapping[str, NDArray]) -> NDArray:
        """Its values from PyTorch's: an array of its own, in row order."""
        first, *others = self.sources
        array = first.moved(state[first.torch])
        for source in others:
            array = array + source.moved(state[source.torch])
        return np.array(array, dtype=None if self.dtype == KEPT else dtype(self.dtype), order="C")

    def to_json(self) -> dict[str, Any]:
        """As the file holds it: further tensors that are added are the last operation."""
        first, *others = self.sources
        plain = first.to_json()
        if others:
            plain["operations"].append({"sum": [source.to_json() for source in others]})
        listed = plain.pop("operations")
        return plain | {"jax": self.jax, "jax_shape": list(self.jax_shape), "dtype": self.dtype, "operations": listed}

    @classmethod
    def from_json(cls, content: Any) -> Tensor:
        """The inverse of `to_json`.

        Raises:
            CannotConvert: a part is missing, unknown or of the wrong kind, or the shapes don't lead to each other.
        """
        keys = ("torch", "torch_shape", "jax", "jax_shape", "dtype", "operations")
        if not isinstance(content, dict) or {*content} != {*keys}:
            raise CannotConvert(
                f"an entry of `tensors` needs {', '.join(keys)}, and no more; this has {_said(content)}"
            )
        path = content["jax"]
        try:
            if not isinstance(path, str):
                raise ValueError(f"jax {path!r} isn't a path")
            if content["dtype"] not in DTYPES:
                raise ValueError(f"dtype {content['dtype']!r} is none of {', '.join(DTYPES)}")
            made = cls(path, numbers(content["jax_shape"], "jax_shape"), _sources(content), content["dtype"])
            for source in made.sources:
                if source.shape != made.jax_shape:
                    raise ValueError(f"{source.torch} becomes {source.shape}, the leaf has {made.jax_shape}")
        except ValueError as error:
            raise CannotConvert(f"the entry of {path!r}: {error}") from None
        return made


def dtype(name: str) -> np.dtype:
    """NumPy's dtype of a name; bfloat16 is ml_dtypes'."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes  # comes with JAX, and nothing else here needs it

    return np.dtype(ml_dtypes.bfloat16)


def _sources(content: dict[str, Any]) -> tuple[Source, ...]:
    listed = content["operations"]
    if not isinstance(listed, list):
        raise ValueError(f"operations {listed!r} isn't a list")
    others: list[Any] = []
    if listed and isinstance(listed[-1], dict) and {*listed[-1]} == {"sum"}:
        *listed, last = listed
        others = last["sum"]
        if not isinstance(others, list) or not others:
            raise ValueError(f"sum {others!r} isn't a list of further tensors")
    return tuple(_source(each) for each in (content | {"operations": listed}, *others))


def _source(content: Any) -> Source:
    keys = ("torch", "torch_shape", "operations")
    if not isinstance(content, dict) or not {*keys} <= {*content} or not isinstance(content["operations"], list):
        raise ValueError(f"a tensor that is added needs {', '.join(keys)}; this has {_said(content)}")
    if not isinstance(content["torch"], str):
        raise ValueError(f"torch {content['torch']!r} isn't a name")
    read = tuple(operations.read(each) for each in content["operations"])
    return Source(content["torch"], numbers(content["torch_shape"], "torch_shape"), read)


def _said(content: Any) -> str:
    return (", ".join(map(str, content)) or "nothing") if isinstance(content, dict) else repr(content)
