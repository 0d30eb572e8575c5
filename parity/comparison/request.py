"""What a comparison is asked for. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from parity.mapping.mapping import Mapping


@dataclass(frozen=True)
class Request:
    """The arguments of `parity.compare`, which documents them.

    Attributes:
        flax_module: the candidate; likewise torch_module, the reference.
        inputs: arrays, in PyTorch's layout; likewise flax_inputs, in Flax's.
    """

    flax_module: Any
    torch_module: Any
    inputs: tuple[NDArray, ...]
    flax_inputs: tuple[NDArray, ...]
    flax_kwargs: dict[str, Any]
    torch_kwargs: dict[str, Any]
    variables: Any = None
    dtype: str = "float64"
    gradients: bool = True
    mapping: dict[str, str] | Mapping | None = None
    name: str = "model"
    seed: int = 0
    workspace: str | Path | None = None

    def to_json(self) -> dict[str, Any]:
        """What a process that runs one side needs to know: all but the arrays, of which it reads files."""
        mapping = self.mapping.to_json() if isinstance(self.mapping, Mapping) else self.mapping
        return {
            "flax": self.flax_module,
            "torch": self.torch_module,
            "flax_kwargs": self.flax_kwargs,
            "torch_kwargs": self.torch_kwargs,
            "dtype": self.dtype,
            "gradients": self.gradients,
            "mapping": mapping,
            "name": self.name,
            "seed": self.seed,
        }
