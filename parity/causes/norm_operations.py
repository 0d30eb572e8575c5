"""Mistakes that people make in norms, in those that code calls as functions: each kind of layer lists its own.

Epsilons, missing scales and offsets are among those of every operation's numbers and parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.attempts import Attempt, Problem
from parity.causes.graph import Get, Node, Region
from parity.kinds import batch_norm, group_norm, layer_norm
from parity.kinds.kind import Kind
from parity.kinds.layer import Layer, Mistake, Recorded

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("layer_norm", "native_layer_norm"), layer_norm.KIND),
    "native_group_norm": group_norm.KIND,
    **dict.fromkeys(("native_batch_norm", "batch_norm", "_native_batch_norm_legit_no_training"), batch_norm.KIND),
}
_ELSEWHERE = frozenset({"epsilon", "scale_missing", "bias_missing", "groups", "statistics_untrained"})
_WEIGHTS = ("weight", "bias", "running_mean", "running_var")


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Those of each norm, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        layer = _layer(region.node(place), region.value) if region.node(place).op in _KINDS else None
        for mistake in () if layer is None else layer.own_mistakes():
            if mistake.key not in _ELSEWHERE:
                several = not isinstance(region.value(place), np.ndarray)
                change = _made(region, place, mistake, several)
                yield Attempt(mistake.key, f"{problem.words(place)}: {mistake.text}", {place: change})


def _layer(node: Node, get: Get) -> Layer | None:
    """A norm as its kind computes it."""
    start, made = node.argument("input"), _KINDS[node.op].layer
    if start is None or made is None or node.args.get("training"):
        return None
    weights = {name: get(p) for name in _WEIGHTS if (p := node.argument(name)) is not None}
    settings = {"eps": node.args["eps"], "num_groups": node.args.get("group")}
    settings["normalized_shape"] = node.args.get("normalized_shape")
    return made(Recorded(node.op, settings, np.asarray(get(start), np.float64), weights))


def _made(region: Region, place: int, mistake: Mistake, several: bool) -> Any:
    def change(get: Get) -> NDArray | list[NDArray]:
        layer = _layer(region.node(place), get)
        changed = None if layer is None else mistake.apply(layer)
        if changed is None:
            raise ValueError(mistake.key)
        result = changed.compute()
        return [result, np.zeros(0), np.zeros(0)] if several else result

    return change
