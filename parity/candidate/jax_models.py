"""One way to run models of any JAX library: whole, with every layer's call shown, and each layer alone.

Variables are dictionaries by collection, path and name, as in Linen: {"params": {"conv": {"kernel": ...}},
"batch_stats": ...}; paths are joined with `/`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Variables = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]


class JaxLayer(Protocol):
    """One module inside a model while the model runs."""

    @property
    def path(self) -> str:
        """Where it is in the model; empty for the model itself."""
        ...

    @property
    def module(self) -> Any:
        """The library's object."""
        ...

    def variables(self) -> Variables:
        """Its own."""
        ...

    def apply(self, variables: Variables, *args: Any, **kwargs: Any) -> Any:
        """Its result alone, with other variables."""
        ...

    def wanted(self, *args: Any, **kwargs: Any) -> Variables:
        """The variables that it would make for these inputs, or their shapes."""
        ...


# Takes a layer, what calls it, and the arguments; gives what the model goes on with.
Look = Callable[[JaxLayer, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class JaxModel(Protocol):
    """A whole model."""

    def shapes(self, inputs: tuple[Any, ...], kwargs: dict[str, Any], look: Look) -> Variables:
        """Shapes and dtypes of all variables, found without computing; `look` is shown every call on the way."""
        ...

    def apply(self, variables: Variables, inputs: tuple[Any, ...], kwargs: dict[str, Any], look: Look | None) -> Any:
        """The model's result with these variables; `look` may change what a layer gives."""
        ...
