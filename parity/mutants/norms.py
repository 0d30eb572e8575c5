"""Planted bugs in response normalisation, and in the order of layers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from parity.mutants import planting
from parity.mutants.mutant import (
    SMALL,
    Mutant,
    jax_row,
    on_both_sides,
    patch,
    torch_attributes,
)


def norm_mutants() -> Iterator[Mutant]:
    """Constants, window, side and columns of the norms."""
    lrn = partial(on_both_sides, model="caffe_alexnet", size=SMALL, layers="lrn1")
    yield from lrn(
        1,
        "lrn-alpha",
        "LRN alpha not divided by the window",
        causes="lrn_alpha",
        jax=jax_row("lrn1", divide_by_size=False),
        torch=torch_attributes("lrn1", divide_by_size=False),
    )
    yield from lrn(
        2, "lrn-k", "LRN k 2 for 1", causes="lrn_k", jax=jax_row("lrn1", k=2.0), torch=torch_attributes("lrn1", k=2.0)
    )
    yield from lrn(
        3,
        "lrn-beta",
        "LRN beta 0.5",
        causes="lrn_beta",
        jax=jax_row("lrn1", beta=0.5),
        torch=torch_attributes("lrn1", beta=0.5),
    )

    def looking_right(function: Any) -> Any:
        return partial(function, even="right")

    layers_module = "jax_alexnet.ops.lrn"
    sides = {
        "jax": patch(layers_module, "local_response_norm", looking_right),
        "torch": torch_attributes("lrn1", even="right"),
    }
    yield from on_both_sides(
        4, "lrn-side", "the even window looks right", "single_column", (67, 67), ("lrn1",), "lrn_side", **sides
    )
    yield from lrn(4, "lrn-side-odd", "an odd window looks right", causes="lrn_side", equivalent=True, **sides)
    yield from lrn(
        5,
        "lrn-radius",
        "LRN radius taken as the size",
        causes="lrn_size",
        jax=jax_row("lrn1", size=11),
        torch=torch_attributes("lrn1", size=11),
    )
    yield from on_both_sides(
        35,
        "lrn-columns",
        "LRN windows cross the columns",
        "two_column",
        SMALL,
        "lrn1",
        "lrn_columns",
        jax=jax_row("lrn1", columns=1),
        torch=torch_attributes("lrn1", columns=1),
    )
    yield from on_both_sides(
        36,
        "rnorm-size",
        "same-map norm over 5x5 for 3x3",
        "cifar_18pct",
        None,
        "rnorm1",
        "lrn_size",
        jax=jax_row("rnorm1", size=5),
        torch=torch_attributes("rnorm1", size=5),
    )


def order_mutants() -> Iterator[Mutant]:
    """Two layers exchanged."""
    for number, name, title, pair_of_layers, seen in (
        (6, "order-relu-lrn", "ReLU and LRN exchanged", ("relu1", "lrn1"), ("relu1", "lrn1")),
        (7, "order-lrn-pool", "LRN and pool exchanged", ("lrn1", "pool1"), ("lrn1", "pool1")),
    ):
        yield from on_both_sides(
            number,
            name,
            title,
            "caffe_alexnet",
            SMALL,
            seen,
            "order",
            jax=lambda pair, names=pair_of_layers: planting.jax_swapped(pair, *names),
            torch=lambda pair, names=pair_of_layers: planting.torch_swapped(pair, *names),
        )
