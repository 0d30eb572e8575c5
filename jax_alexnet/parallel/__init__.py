"""How several devices share the training of one network: four schemes, each a file of its own.

* `data`: every device has the whole network and a part of the batch; their gradients are summed.
* `columns`: the paper's two GPUs. Each column of the network has a device, and they talk at three or four places.
* `hybrid`: "One weird trick". The convolutions as in `data`; each device has a part of the fully connected layers.
* `zero`: as `data`, but each device keeps the optimizer's state, and makes the update, of a part of the weights.

A scheme is a `Layout`: a mesh of devices with named axes, the table of layers that one device walks, and where each
weight lies. `steps.py` turns any of them into a training step. The global arrays have the same names and shapes in
all of them, so a checkpoint moves between schemes and numbers of devices.
"""

from collections.abc import Sequence
from typing import Any

from alexnet_io.errors import UserError
from jax_alexnet.layer_specs import Variant
from jax_alexnet.parallel import columns, hybrid, zero
from jax_alexnet.parallel import data_parallel as data
from jax_alexnet.parallel.layout import Layout

__all__ = ["Layout", "choose_layout", "fitting_schemes"]


def fitting_schemes(variant: Variant) -> list[str]:
    """The values of `--parallel` that `variant` can be trained with."""
    fits = {"columns": not columns.misfit(variant), "hybrid": not hybrid.misfit(variant)}
    return [name for name in ("data", "columns", "hybrid", "zero") if fits.get(name, True)]


def choose_layout(scheme: str, variant: Variant, devices: Sequence[Any], group_size: int | None = None) -> Layout:
    """The layout that `--parallel` and `--group-size` name; on one device there is nothing to share.

    Args:
        scheme: data, columns, hybrid or zero.
        variant: the whole network's table.
        devices: those of all processes, in their order.
        group_size: devices that share the fully connected layers (hybrid) or the optimizer's state (zero); all by
            default. Groups share the batch as in `data`. The groups of `columns` are pairs.

    Raises:
        UserError: a scheme that doesn't fit the network, or a number of devices that doesn't fit the scheme.
    """
    wrong = {"columns": columns.misfit, "hybrid": hybrid.misfit}.get(scheme, lambda _: None)(variant)
    if wrong:
        raise UserError(
            f"--parallel {scheme} doesn't fit {variant.name}: {wrong}. "
            f"Choose from: {', '.join(fitting_schemes(variant))}"
        )
    if scheme in ("data", "columns") and group_size is not None:
        raise UserError(f"--group-size is for --parallel hybrid or zero, not {scheme}: leave it out")
    if len(devices) == 1 and group_size in (None, 1):
        return data.layout(variant, devices)
    if scheme == "columns":
        return columns.layout(variant, devices)
    if scheme == "data":
        return data.layout(variant, devices)
    group = len(devices) if group_size is None else group_size
    if not 1 <= group <= len(devices) or len(devices) % group:
        sizes = [str(n) for n in range(1, len(devices) + 1) if len(devices) % n == 0]
        raise UserError(
            f"--group-size {group}: {len(devices)} devices can't be divided into such groups. "
            f"Choose from: {', '.join(sizes)}"
        )
    return (hybrid if scheme == "hybrid" else zero).layout(variant, devices, group)
