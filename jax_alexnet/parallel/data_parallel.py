r"""Data parallelism: the whole network on every device, each with its part of the batch.

    device 0   images 0..b-1     ->  gradient \
    device 1   images b..2b-1    ->  gradient  >  one sum  ->  the same update everywhere
    device 2   images 2b..3b-1   ->  gradient /

Each step sends every gradient once: 4 bytes a parameter, however many images there are.
"""

from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from jax_alexnet.layer_specs import Variant
from jax_alexnet.parallel.layout import Layout, make_mesh


def layout(variant: Variant, devices: Sequence[Any]) -> Layout:
    """Every device alike along one axis, `data`."""
    return on_mesh(variant, make_mesh(devices, data=len(devices)))


def on_mesh(variant: Variant, mesh: Mesh) -> Layout:
    """Data parallelism over a mesh that is there already."""
    return Layout("data", mesh, variant)
