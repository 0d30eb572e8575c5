"""One way to run models of any JAX library: whole, with every layer's call shown, and each layer alone.

Variables are dictionaries by collection, path and name, as in Linen: {"params": {"conv": {"kernel": ...}},
"batch_stats": ...}; paths are joined with `/`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from parity.comparison.jax_recurrent import RecurrentModel

from parity.mapping import trees

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


def is_function(model: Any) -> bool:
    """Whether a candidate is a function, with no layers to be seen."""
    from flax import linen, nnx

    return callable(model) and not isinstance(model, (linen.Module, nnx.Module, type))


def library_of(model: Any) -> str:
    """The library of a module."""
    from flax import nnx

    return trees.NNX if isinstance(model, nnx.Module) else trees.LINEN


def as_variables(variables: Any) -> Variables:
    """Variables by collection, from Linen's or from nnx's state of a module."""
    from flax import nnx

    from parity.comparison.nnx_models import variables_of

    return variables_of(variables) if isinstance(variables, nnx.State) else variables


def of(model: Any, whole: bool = True) -> RecurrentModel:
    """A model of whichever library as one that this package can run.

    Args:
        model: a module.
        whole: see `parity.comparison.jax_recurrent.RecurrentModel`.

    Raises:
        CannotCompare: it is of no library that is known.
    """
    from flax import linen, nnx

    from parity.comparison.jax_recurrent import RecurrentModel
    from parity.comparison.linen_models import LinenModel
    from parity.comparison.nnx_models import NnxModel
    from parity.errors import CannotCompare

    if isinstance(model, linen.Module):
        return RecurrentModel(LinenModel(model), whole)
    if isinstance(model, nnx.Module):
        return RecurrentModel(NnxModel(model), whole)
    if isinstance(model, type):
        raise CannotCompare(f"{model.__name__} is a class: give an instance of it")
    raise CannotCompare(
        f"a {type(model).__name__} can't be compared: give a flax.linen or flax.nnx module, or a function of "
        "(parameters, *inputs) with its tree of parameters as `variables`"
    )
