"""Work on some images at a time, so that what a step makes is still near when the next step reads it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from jax_alexnet.ops import varying


def mapped(images: int, function: Callable[..., Array], *arrays: Array) -> Array:
    """`function` of so many images after the other; its results joined.

    Args:
        images: of a block; the last one may have fewer.
        function: arrays (images, ...) to one array (images, ...).
        arrays: (batch, ...), all cut alike.
    """
    blocks, rest = _cut(images, arrays)
    if blocks is None:
        return function(*arrays)
    results = lax.map(lambda block: function(*block), blocks)
    results = results.reshape(-1, *results.shape[2:])
    return jnp.concatenate([results, function(*rest)]) if rest else results


def added(images: int, function: Callable[..., list[Array]], *arrays: Array) -> list[Array]:
    """`function` of so many images after the other; its results summed over the blocks.

    Args:
        images: see `mapped`.
        function: arrays (images, ...) to sums over these images.
        arrays: see `mapped`.
    """
    blocks, rest = _cut(images, arrays)
    if blocks is None:
        return function(*arrays)
    shapes = jax.eval_shape(function, *(array[0] for array in blocks))
    zeros = [varying.alike(jnp.zeros(s.shape, s.dtype), *arrays)[0] for s in shapes]

    def step(sums: list[Array], block: list[Array]) -> tuple[list[Array], None]:
        return jax.tree.map(jnp.add, sums, function(*block)), None

    sums, _ = lax.scan(step, zeros, blocks)
    return step(sums, rest)[0] if rest else sums


def _cut(images: int, arrays: tuple[Array, ...]) -> tuple[list[Array] | None, list[Array]]:
    """Whole blocks (blocks, images, ...) and what is left; None where one block holds everything."""
    count, rest = divmod(len(arrays[0]), images)
    if count + bool(rest) <= 1:
        return None, []
    blocks = [a[: count * images].reshape(count, images, *a.shape[1:]) for a in arrays]
    return blocks, [a[count * images :] for a in arrays] if rest else []
