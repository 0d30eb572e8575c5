"""Mistakes in losses: summed for averaged, another loss, target and prediction exchanged, a half too many."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.graph.graph import Region
from parity.causes.graph.nodes import Get, Node, run
from parity.causes.mistakes.attempts import Attempt, Problem
from parity.causes.numpy_operations.losses import REDUCED

_DISTANCES: dict[str, tuple[str, Callable[[NDArray], NDArray]]] = {
    "mse_loss": ("the squared error", np.square),
    "l1_loss": ("the absolute error", np.abs),
    "smooth_l1_loss": ("the smooth absolute error", lambda d: np.where(np.abs(d) < 1, d * d / 2, np.abs(d) - 0.5)),
}
_LOSSES = (*_DISTANCES, "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "nll_loss_forward")
_MEANS = ("mean", "sum")


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each loss, the last one first; and in sums and means that give one number."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        start, target = node.argument("self"), node.argument("target")
        if start is None or not region.of_data(place):
            continue
        if node.op in _LOSSES and target is not None:
            if node.args.get("reduction", 1) in (1, 2):
                yield from _reductions(region, place, start, str(node.op), mean=node.args.get("reduction", 1) == 1)
            yield from _others(region, place, start, target)
        elif node.op in _MEANS and np.ndim(region.value(place)) == 0:  # what leaves axes is pooling, see `tokens`
            yield from _reductions(region, place, start, f"the {node.op}", mean=node.op == "mean")


def _reductions(region: Region, place: int, start: int, name: str, mean: bool) -> Iterator[Attempt]:
    """A sum for a mean, over all axes or some; or a mean for a sum."""
    x, y = region.value(start), region.value(place)
    several = not isinstance(y, np.ndarray | float)
    node = region.node(place)
    own = node.args.get("dim") or range(x.ndim)
    axes = [int(a) % x.ndim for a in (own if isinstance(own, (list, range)) else [own])]
    for count in range(len(axes), 0, -1):
        for some in itertools.combinations(axes, count):
            size = int(np.prod([x.shape[a] for a in some]))
            what = "" if count == len(axes) else f" over axes {list(some)} of {list(x.shape)}"
            text = f"{name} is {'summed' if mean else 'averaged'}{what}, not {'averaged' if mean else 'summed'}"
            factor = float(size) if mean else 1 / size
            if size > 1:
                changes = {place: _times(node, factor, several)}
                yield Attempt("reduction", text, changes, strange=count < len(axes))  # any factor is the size of some
    for factor, words in ((0.5, "half of"), (2.0, "twice")):
        yield Attempt("loss_half", f"{name} is {words} PyTorch's", {place: _times(node, factor, several)}, strange=True)


def _times(node: Node, factor: float, several: bool) -> Callable[[Get], Any]:
    def change(get: Get) -> Any:
        made = run(node, get)
        return [made[0] * factor, *made[1:]] if several else made * factor

    return change


def _others(region: Region, place: int, start: int, target: int) -> Iterator[Attempt]:
    """Another loss on the same arguments, or these exchanged."""
    node = region.node(place)
    reduced = REDUCED[int(node.args.get("reduction", 1))]
    if node.op not in ("nll_loss_forward",) and region.value(start).shape == region.value(target).shape:
        swapped = {start: target, target: start}
        text = f"the arguments of {node.op} are exchanged: the prediction stands for the target"
        yield Attempt("arguments_exchanged", text, {place: lambda get: run(node, lambda p: get(swapped.get(p, p)))})
    if node.op in (*_DISTANCES, "huber_loss"):
        for name, (words, loss) in _DISTANCES.items():
            if name != node.op:

                def other(get: Get, loss: Callable[[NDArray], NDArray] = loss) -> NDArray:
                    return reduced(loss(get(start) - get(target)))

                yield Attempt("other_loss", f"{words} stands for {node.op}", {place: other})
    if node.op == "binary_cross_entropy_with_logits":
        of_shares = Node("binary_cross_entropy", node.args)
        text = "a binary cross entropy of shares stands for one of logits: the sigmoid is missing"
        yield Attempt("sigmoid_missing", text, {place: lambda get: run(of_shares, get)})

        def twice(get: Get) -> NDArray:
            shares = 1 / (1 + np.exp(-get(start)))
            return run(node, lambda p: shares if p == start else get(p))

        yield Attempt("sigmoid_twice", "the sigmoid is taken twice, before the loss and in it", {place: twice})
