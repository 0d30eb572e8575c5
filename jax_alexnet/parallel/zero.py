"""Data parallelism with the optimizer's state divided among the devices (ZeRO, stage 1).

    gradients      --- reduce-scatter --->  a device gets the sum of its part alone
    its part of the weights and moments     updated there, once
    new weights    --- all-gather ------->  everywhere, for the next batch

An all-reduce is a reduce-scatter followed by an all-gather, so no more is sent than in `data`; but a device keeps only
its part of the moments, and the update, a pass over all weights and moments, is divided too.
"""

from collections.abc import Sequence
from typing import Any

from jax.sharding import PartitionSpec as P

from jax_alexnet.layer_specs import Variant
from jax_alexnet.parallel.layout import Layout, Place, everywhere, make_mesh

SHARD = "shard"


def layout(variant: Variant, devices: Sequence[Any], group: int) -> Layout:
    """Groups of `group` devices that share the optimizer's state; the groups share the batch, as all devices do."""
    mesh = make_mesh(devices, data=len(devices) // group, shard=group)
    return Layout("zero", mesh, variant, moments=_place(group) if group > 1 else everywhere)


def _place(group: int) -> Place:
    """Each array is divided along its longest dimension that can be; the few without one stay whole, as in `data`."""

    def place(layer: str, kind: str, shape: tuple[int, ...]) -> P:
        fitting = [size for size in shape if size % group == 0]
        if not fitting:
            return P()
        dimension = shape.index(max(fitting))
        return P(*(SHARD if d == dimension else None for d in range(len(shape))))

    return place
