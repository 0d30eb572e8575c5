"""Arrays on JAX's side of a comparison: the precisions that it runs in, its inputs' shapes and layout."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from parity.errors import CannotCompare

DTYPES = {"float64": jnp.float64, "float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check_dtype(dtype: str) -> None:
    """Refuse float64 where JAX would quietly compute in float32.

    Raises:
        CannotCompare: float64 isn't enabled, or the name is unknown.
    """
    if dtype not in DTYPES:
        raise CannotCompare(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
    if dtype == "float64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise CannotCompare(
            "float64 is off in JAX: set JAX_ENABLE_X64=1, or call jax.config.update('jax_enable_x64', True) first"
        )


def cast(x: NDArray, dtype: str) -> Any:
    """Shape and dtype of an input as the lane sees it."""
    floating = np.issubdtype(x.dtype, np.floating)
    return jax.ShapeDtypeStruct(x.shape, DTYPES[dtype] if floating else x.dtype)


def placed(x: ArrayLike, dtype: DTypeLike | None = None) -> jax.Array:
    """An array of NumPy's as one of JAX's, in a copy of its own.

    `jnp.asarray` compiles a program for every shape, which takes longer than all that a comparison does with the array.
    """
    return jax.device_put(np.array(x, dtype))


def shapes_of(variables: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a leaf's variables by name, whatever their collection."""
    return {name: tuple(array.shape) for arrays in variables.values() for name, array in arrays.items()}


def in_one_precision(variables: Any, inputs: tuple[Any, ...]) -> Any:
    """Variables in the widest of the formats that they and the inputs have.

    Modules make some of theirs in float32 and others in JAX's default, which is another one in a float64 run; a scan
    that carries both, from zeros of the one kind, doesn't run.
    """
    leaves = [x for x in jax.tree.leaves((variables, list(inputs))) if jnp.issubdtype(x.dtype, jnp.floating)]
    widest = jnp.result_type(*(x.dtype for x in leaves)) if leaves else None

    def cast_up(x: Any) -> Any:
        if widest is None or not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype == widest:
            return x
        return jax.ShapeDtypeStruct(x.shape, widest) if isinstance(x, jax.ShapeDtypeStruct) else x.astype(widest)

    return jax.tree.map(cast_up, variables)
