"""The networks' tables with parts taken out or replaced, to see what the parts do: `--ablate`."""

from collections.abc import Callable
from dataclasses import replace

from alexnet_io.command_line.ablations import ablations, refuse_nothing_to_change
from jax_alexnet.layer_specs import LRN, Conv, Layer, Pool, Relu, SpatialNorm, Tanh, Variant

Rows = tuple[Layer, ...]


def ablated(variant: Variant, words: str | None) -> Variant:
    """The network's table as `--ablate` changes it; names, initialisation and weight decay stay.

    Raises:
        UserError: words that there aren't, or a network without what they are about.
    """
    rows = variant.layers
    for word in ablations(words):
        change, lacking = _CHANGES[word]
        before, rows = rows, change(rows)
        refuse_nothing_to_change(word, variant.name, rows != before, lacking)
    return replace(variant, layers=rows)


def _tanh(rows: Rows) -> Rows:
    return tuple(Tanh(row.name) if isinstance(row, Relu) else row for row in rows)


def _without_norms(rows: Rows) -> Rows:
    return tuple(row for row in rows if not isinstance(row, LRN | SpatialNorm))


def _without_overlap(rows: Rows) -> Rows:
    """Pools of windows that touch. Rounded down, their maps are as large as those of 3/2 rounded up [P section 3.4]."""
    return tuple(
        replace(row, window=row.stride, ceil=False) if isinstance(row, Pool) and row.window > row.stride else row
        for row in rows
    )


def _one_column(rows: Rows) -> Rows:
    """Half as many kernels, but in the last convolution: the one-GPU net of [P section 3.2], `layers-145-half.cfg` [S].

    The last one keeps its kernels so that the fully connected layers, which have most of the weights, stay.
    """
    last = [row for row in rows if isinstance(row, Conv)][-1]

    def one(row: Layer) -> Layer:
        if isinstance(row, Conv):
            return replace(row, groups=1, features=row.features if row is last else row.features // 2)
        return replace(row, columns=1) if isinstance(row, LRN) else row

    return tuple(map(one, rows))


def _two_columns(rows: Rows) -> Rows:
    """Two groups in every convolution but the first and the third: which kernels meet which in [P figure 2]."""
    convolutions = [row for row in rows if isinstance(row, Conv)]
    if any(row.groups > 1 for row in convolutions):
        return rows
    grouped = [row for number, row in enumerate(convolutions) if number not in (0, 2)]

    def one(row: Layer) -> Layer:
        if isinstance(row, Conv):
            return replace(row, groups=2) if row in grouped else row
        return replace(row, columns=2) if isinstance(row, LRN) else row

    return tuple(map(one, rows))


_CHANGES: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "tanh": (_tanh, "no ReLUs"),
    "no-lrn": (_without_norms, "no response normalisation"),
    "no-overlap": (_without_overlap, "no pools that overlap"),
    "one-column": (_one_column, "no convolutions"),
    "two-columns": (_two_columns, "two columns already"),
}
