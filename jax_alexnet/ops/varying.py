"""What `jax.shard_map` asks of operations that it doesn't know: operands that vary over the same axes of the mesh."""

import jax
from jax import Array, lax


def alike(*arrays: Array) -> list[Array]:
    """Arrays marked as varying over all axes of a mesh that any of them varies over.

    XLA's own operations are given that by JAX; a call, a gradient of our own and the carry of a loop must be given it.
    """
    varying = [jax.typeof(array).mat.varying for array in arrays]
    everywhere = frozenset().union(*varying)
    return [lax.pcast(array, tuple(everywhere - own), to="varying") for array, own in zip(arrays, varying, strict=True)]
