r"""One weird trick: convolutions data-parallel, fully connected layers model-parallel.

    convolutions: few weights,      all images'      fully connected layers: many weights,
    each its own images             features         each its part of the units, all images

    device 0   images 0..b-1   --\           /--    a quarter of fc6   --\ /--  a quarter of fc7  --\
    device 1   images b..2b-1  ---\  gather /---    a quarter of fc6   --- X --  a quarter of fc7   --- sum of
    device 2   images 2b..3b-1 ---/         \---    a quarter of fc6   --- X --  a quarter of fc7   --- logits
    device 3   images 3b..4b-1 --/           \--    a quarter of fc6   --/ \--  a quarter of fc7  --/

Nine tenths of the parameters lie in the fully connected layers; their gradients never leave the device. What is sent
instead are features of the images, so that it pays up to a global batch of some thousand images.

Of the paper's three ways of doing it this is the first: one big pass through the fully connected layers with all
images of the group, so that the weights are updated once a step, as on one device. The last layer is divided along its
inputs: each device multiplies its part of fc7, and the sum of the products comes back to the device that has the image.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jax.sharding import PartitionSpec as P

from alexnet_io.errors import UserError
from jax_alexnet import layer_specs as specs
from jax_alexnet.parallel.layout import Layout, Place, make_mesh

PART = "part"


def layout(variant: specs.Variant, devices: Sequence[Any], group: int) -> Layout:
    """Groups of `group` devices that share the fully connected layers; the groups share the batch.

    Raises:
        UserError: the units can't be divided by `group`.
    """
    hidden = [row for row in variant.layers if isinstance(row, specs.Dense)][:-1]
    odd = [row for row in hidden if row.features is None or row.features % group]
    if odd:
        units = [row.features for row in odd if row.features is not None]
        sizes = [n for n in range(1, group) if len(devices) % n == 0 and all(count % n == 0 for count in units)]
        raise UserError(
            f"--parallel hybrid: the {odd[0].features} units of {odd[0].name} can't be divided among {group} devices. "
            f"Choose --group-size from: {', '.join(map(str, sizes))}"
        )
    if group == 1:
        return Layout("hybrid", make_mesh(devices, data=len(devices)), variant)
    return Layout(
        "hybrid", make_mesh(devices, data=len(devices) // group, part=group), one_part(variant, group), _place(variant)
    )


def misfit(variant: specs.Variant) -> str | None:
    """Why `variant` has no fully connected layers worth dividing, or None."""
    if len([row for row in variant.layers if isinstance(row, specs.Dense)]) < 2:
        return "its only fully connected layer makes the logits, and holds few of the weights"
    return None


def one_part(variant: specs.Variant, group: int) -> specs.Variant:
    """The table that one device walks: all convolutions, and a part of each fully connected layer."""
    dense = [row.name for row in variant.layers if isinstance(row, specs.Dense)]
    first, last = dense[0], dense[-1]
    rows: list[specs.Layer] = []
    for row, after in zip(variant.layers, (*variant.layers[1:], None), strict=True):
        feeds = after.name if isinstance(row, specs.Dropout) and isinstance(after, specs.Dense) else None
        if isinstance(row, specs.Dense):
            if row.name == first:
                rows.append(specs.Exchange(f"to_{row.name}", "examples", PART))
            elif row.name != last and not isinstance(rows[-1], specs.Dropout):
                rows.append(specs.Exchange(f"to_{row.name}", "channels", PART))
            divided = None if row.features is None else row.features // group
            row = replace(row, sum_over=PART) if row.name == last else replace(row, features=divided)
        elif feeds == last:
            row = replace(row, part_along=PART)
        elif feeds is not None and feeds != first:
            # A dropout mask is drawn for all units of a layer, so dropout comes after the exchange.
            rows.append(specs.Exchange(f"to_{feeds}", "channels", PART))
        rows.append(row)
    return replace(variant, layers=tuple(rows))


def _place(variant: specs.Variant) -> Place:
    dense = [row.name for row in variant.layers if isinstance(row, specs.Dense)]

    def place(layer: str, kind: str, shape: tuple[int, ...]) -> P:
        if layer not in dense:
            return P()
        if layer == dense[-1]:
            return P(PART, None) if kind == "kernel" else P()
        return P(None, PART) if kind == "kernel" else P(PART)

    return place
