"""What naming a cause may look at: one call of a layer, and its model. Implemented by `parity.candidate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from parity.causes.between.between_graph import Code
from parity.comparison.store import Store
from parity.kinds.layouts import Layout
from parity.reports.rows import Row


class ExaminedModel(Protocol):
    """A JAX model beside the records of its reference.

    Attributes:
        store: the reference's records.
        dtype: of the lane.
        pairs: path of each JAX leaf to its PyTorch leaf's.
        kinds: kind of each JAX leaf, by path.
        code: PyTorch's code between the leaves; None if it could not be written down.
        unexplained: inputs that differ and nobody knows why: row, JAX's array, its layout, PyTorch's, what is allowed.
    """

    store: Store
    dtype: str
    pairs: dict[str, str]
    kinds: dict[str, str]
    code: Code | None
    unexplained: list[tuple[Row, NDArray, Layout | None, NDArray, NDArray | None]]

    @property
    def visited(self) -> Mapping[str, ExaminedCall]:
        """The calls so far, by the keys of their records."""
        ...

    @property
    def natural(self) -> ExaminedModel | None:
        """Where this run is at ties: the one on the natural input."""
        ...

    @property
    def weights(self) -> Any:
        """A function: a PyTorch leaf's parameters and statistics, by its path."""
        ...

    def dropout_mask(self, torch_path: str) -> NDArray | None:
        """The mask that was injected into a dropout layer of both sides, True where kept."""
        ...


class ExaminedCall(Protocol):
    """One call of one JAX leaf beside the record of the reference's.

    Attributes:
        key: of the record.
        path: of the leaf in JAX; torch_path in PyTorch.
        kind: of the layer.
        facts: of the record.
        output_layout: how the output lies; None where it isn't known.
        allowed: the bound on the output, in PyTorch's layout.
    """

    key: str
    path: str
    torch_path: str
    kind: str
    facts: dict[str, Any]
    output_layout: Layout | None
    allowed: NDArray | None

    @property
    def candidate(self) -> ExaminedModel:
        """The model that it is in."""
        ...

    @property
    def input_layouts(self) -> Sequence[Layout | None]:
        """How each input lies."""
        ...

    def coarse(self, variables: Any) -> list[tuple[str, str]]:
        """(dtype, operation) of what the leaf computes on fewer bits than the lane's."""
        ...
