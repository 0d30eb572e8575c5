"""Which library a JAX model is of: flax.linen, flax.nnx, or none, as a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import linen, nnx
from numpy.typing import NDArray

from parity.candidate.jax_models import Variables
from parity.candidate.jax_recurrent import RecurrentModel
from parity.candidate.linen_models import LinenModel
from parity.candidate.nnx_models import NnxModel, variables_of
from parity.errors import CannotCompare
from parity.mapping import trees


def is_function(model: Any) -> bool:
    """Whether a candidate is a function, with no layers to be seen."""
    return callable(model) and not isinstance(model, (linen.Module, nnx.Module, type))


def library_of(model: Any) -> str:
    """The library of a module."""
    return trees.NNX if isinstance(model, nnx.Module) else trees.LINEN


def as_variables(variables: Any) -> Variables:
    """Variables by collection, from Linen's or from nnx's state of a module."""
    return variables_of(variables) if isinstance(variables, nnx.State) else variables


def kernels_of(variables: Any) -> Callable[[str], NDArray | None]:
    """Gives the kernel that a layer has of its own, by its path; None where there is none, or without variables."""
    tree = {} if variables is None else as_variables(variables).get("params", {})

    def kernel(path: str) -> NDArray | None:
        node: Any = tree
        for part in (*path.split("/"), "kernel"):
            node = node.get(part) if hasattr(node, "get") else None
        return None if node is None else np.asarray(node, np.float64)

    return kernel


def of(model: Any, whole: bool = True) -> RecurrentModel:
    """A model of whichever library as one that this package can run.

    Args:
        model: a module.
        whole: see `parity.candidate.jax_recurrent.RecurrentModel`.

    Raises:
        CannotCompare: it is of no library that is known.
    """
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
