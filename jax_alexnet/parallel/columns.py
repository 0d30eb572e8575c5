r"""The paper's two GPUs [P section 3.5]: each column of the network on a device of its own.

                 conv1 ... pool2   conv3   conv4 conv5 pool5   fc6     fc7     fc8
    device 0     column 0 ------\ /------ column 0 --------\ /-----\ /-----\ /-- all classes
                                 X                           X       X       X
    device 1     column 1 ------/ \------ column 1 --------/ \-----/ \-----/ \-- all classes

Both devices see the same images. The grouped convolutions (conv2, conv4, conv5) never need the other column; conv3
and the fully connected layers do, and only there the devices send each other what they hold. Each has half of the
kernels and half of the units of fc6 and fc7.

The paper does not say how the 1000 outputs were divided. Here both devices have the whole of the last layer and make
the same logits from the same input, so that nothing is sent back from it: a fifteenth of the parameters twice.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jax.sharding import PartitionSpec as P

from alexnet_io.errors import UserError
from jax_alexnet import layer_specs as specs
from jax_alexnet.parallel.layout import COLUMN, Layout, Place, make_mesh


def layout(variant: specs.Variant, devices: Sequence[Any]) -> Layout:
    """Pairs of devices; the pairs share the batch.

    Raises:
        UserError: the number of devices is odd.
    """
    if len(devices) % 2:
        raise UserError(
            f"--parallel columns needs an even number of devices, one for each column, not {len(devices)}: "
            f"use --devices {len(devices) + 1} or {len(devices) - 1}"
        )
    return Layout("columns", make_mesh(devices, data=len(devices) // 2, column=2), one_column(variant), _place(variant))


def misfit(variant: specs.Variant) -> str | None:
    """Why `variant` can't be divided into two columns, or None."""
    groups = [row for row in variant.layers if isinstance(row, specs.Conv) and row.groups == 2]
    if not groups:
        return "its convolutions are not in two groups, so it has no columns"
    spanning = [row.name for row in variant.layers if isinstance(row, specs.LRN) and row.columns != 2]
    if spanning:
        return f"{spanning[0]} normalises across both columns, which would have to meet there too"
    return None


def one_column(variant: specs.Variant) -> specs.Variant:
    """The table that one device walks: half of each layer, and an exchange where a layer needs both halves."""
    last = _last_dense(variant)
    rows: list[specs.Layer] = []
    both = True  # whether a device has both columns' values here: it begins with the whole image
    for row, after in zip(variant.layers, (*variant.layers[1:], None), strict=True):
        # A dropout mask is drawn for all units of a layer, so dropout comes after the exchange.
        needs_both = (
            row if isinstance(row, (specs.Conv, specs.Dense)) else after if isinstance(row, specs.Dropout) else None
        )
        meets = isinstance(needs_both, specs.Dense) or (isinstance(needs_both, specs.Conv) and needs_both.groups == 1)
        if meets and not both and needs_both is not None:
            rows.append(specs.Exchange(f"to_{needs_both.name}", "channels", COLUMN, whole=needs_both.name == last))
            both = True
        if isinstance(row, specs.Conv):
            row, both = replace(row, features=row.features // 2, groups=1), False
        elif isinstance(row, specs.Dense) and row.name != last and row.features is not None:
            row, both = replace(row, features=row.features // 2), False
        elif isinstance(row, specs.LRN):
            row = replace(row, columns=1)
        rows.append(row)
    return replace(variant, layers=tuple(rows))


def _place(variant: specs.Variant) -> Place:
    """Kernels and units are divided, the first half to the first device; the last layer isn't."""
    last = _last_dense(variant)

    def place(layer: str, kind: str, shape: tuple[int, ...]) -> P:
        return P() if layer == last else P(*(None,) * (len(shape) - 1), COLUMN)

    return place


def _last_dense(variant: specs.Variant) -> str:
    return [row.name for row in variant.layers if isinstance(row, specs.Dense)][-1]
