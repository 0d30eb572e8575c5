"""Mistakes in code between layers, each tried on PyTorch's own operations: what JAX would have made is NumPy's here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from parity.causes.between.between_graph import Code
from parity.causes.graph.graph import Graph, Region
from parity.causes.graph.node_kinds import GIVEN
from parity.reference.torch_graph import of_model

rng = np.random.default_rng(0)
GAMMA = rng.normal(size=6)
A, B = rng.normal(size=(2, 5, 6)), rng.normal(size=(2, 5, 6))
MAP, OTHER = rng.normal(size=(2, 6, 3, 4)), rng.normal(size=(2, 6, 3, 4))
POSITIVE = rng.exponential(size=(4, 5)) + 0.1
FIELDS = rng.normal(size=(3, 4, 4))
SYMMETRIC = FIELDS + FIELDS.swapaxes(1, 2)
ROWS, COLUMNS = np.tril_indices(4, -1)
LOGITS, LABELS = rng.normal(size=(7, 4)), np.arange(7) % 4


def length(x: NDArray, order: float = 2) -> NDArray:
    return np.linalg.norm(x, order, -1)


def smoothed(logits: NDArray, right: float, each: float) -> NDArray:
    """The loss of these targets: `each` for every class, and `right` more for the one that it is."""
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.asarray(-(right * logs[np.arange(len(logs)), LABELS] + each * logs.sum(-1)).mean())


class Calls(nn.Module):
    """One function."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: Tensor) -> Tensor:
        return self.function(*x)


def recorded(function: Callable[..., Tensor], *inputs: NDArray) -> tuple[Any, int, NDArray]:
    """What PyTorch ran, the node of its result, and this."""
    tensors = tuple(torch.from_numpy(x) for x in inputs)
    recorder, (sink,) = of_model(Calls(function), tensors, {})
    return recorder, sink, function(*tensors).numpy()


def causes(function: Callable[..., Tensor], inputs: tuple[NDArray, ...], observed: NDArray) -> list[str]:
    """Keys and words of the causes of what JAX makes of these inputs, as between two layers."""
    recorder, sink, right = recorded(function, *inputs)
    code = Code.of(recorder.nodes, recorder.constants, inputs)
    code.whole = False
    tolerance = 64 * 2**-53 * float(np.abs(right).max())
    found = code.explain(sink, "layer", observed, right, tolerance, "")
    return [f"{each.key}: {each.text}" for each in found]


def scaled_branch(x: Tensor, y: Tensor) -> Tensor:
    """As of ConvNeXt: the branch has its channels last, is scaled and moved, and added to maps."""
    return x + (torch.from_numpy(GAMMA) * y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


SCALE = GAMMA[:, None, None]
DOT, ONE, TWO = (A[0] * B[0]).sum(-1), length(A[0]), length(B[0])

# What PyTorch does with which inputs, what JAX makes of them instead, and the cause that is named, with words of it.
CASES: dict[str, tuple[Callable[..., Tensor], tuple[NDArray, ...], NDArray, str, str]] = {
    "scale of the sum": (
        scaled_branch,
        (MAP, OTHER),
        SCALE * (MAP + OTHER),
        "factor_moved",
        "whole sum with the model's input",
    ),
    "scale of the residual": (
        scaled_branch,
        (MAP, OTHER),
        SCALE * MAP + OTHER,
        "factor_moved",
        "multiplies the model's input 0, not",
    ),
    "scale of a part": (
        lambda x, y: ((x + y) / 2**0.5).transpose(1, 2),
        (A, B),
        (A / 2**0.5 + B).swapaxes(1, 2),
        "factor_moved",
        "divides the model's input 0 alone",
    ),
    "mean left out": (lambda x: x.mean((-2, -1)), (MAP,), np.moveaxis(MAP, 1, -1), "pool_missing", "is left out"),
    "mean over one axis": (lambda x: x.mean((-2, -1)), (MAP,), MAP.mean(2)[:, :, 0], "pool_axis", "axes [2] alone"),
    "mean too early": (lambda x: x * 2, (A,), (2 * A).mean(1), "pool_mean", "the mean of all places along axis 1"),
    "mean of a map too early": (lambda x: x * 2, (MAP,), 2 * MAP.mean((2, 3)), "pool_mean", "over axes [2, 3]"),
    "other pairs": (
        lambda x: torch.cat([x[:, 0], x[:, ROWS, COLUMNS]], 1),
        (FIELDS,),
        np.concatenate([FIELDS[:, 0], FIELDS[:, [0, 1, 2, 3, 2, 3], [0, 1, 2, 3, 0, 0]]], 1),
        "index_places",
        "of the model's input: (0, 0), (1, 1), (2, 2), (3, 3), (2, 0), (3, 0); in PyTorch (1, 0)",
    ),
    "pairs by rows of the other half": (
        lambda x: x[:, ROWS, COLUMNS],
        (SYMMETRIC,),
        SYMMETRIC[:, [0, 0, 0, 1, 1, 2], [1, 2, 3, 2, 3, 3]],
        "index_order",
        ": (1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2); in PyTorch (1, 0), (2, 0), (2, 1)",
    ),
    "logarithm without one": (lambda x: x.log1p(), (POSITIVE,), np.log(POSITIVE), "log_for_log1p", "log stands for"),
    "cosine for sine": (lambda x: x.sin(), (A,), np.cos(A), "cos_for_sin", ""),
    "a number left out": (lambda x: (x + 0.3).tanh(), (A,), np.tanh(A), "term_missing", "0.3 isn't added"),
    "a number subtracted": (lambda x: (x + 0.3).tanh(), (A,), np.tanh(A - 0.3), "term_sign", "0.3, which is added"),
    "nothing subtracted": (lambda x: (1 - x).tanh(), (A,), np.tanh(A), "difference_missing", "for 1 minus it"),
    "turned round": (lambda x: (1 - x).exp(), (A,), np.exp(A - 1), "operands_exchanged", "1 is subtracted from"),
    "epsilon added": (
        lambda x: x / x.norm(dim=-1, keepdim=True).clamp_min(1e-4),
        (A,),
        A / (length(A)[..., None] + 1e-4),
        "epsilon_placed",
        "0.0001 is added to",
    ),
    "squared distance": (F.pairwise_distance, (A[0], B[0]), length(A[0] - B[0] + 1e-6) ** 2, "norm_kind", "squared"),
    "distance without epsilon": (F.pairwise_distance, (A[0], B[0]), length(A[0] - B[0]), "epsilon_missing", "1e-06"),
    "sizes added up": (F.pairwise_distance, (A[0], B[0]), length(A[0] - B[0], 1), "norm_kind", "sum of sizes"),
    "not normalised": (F.cosine_similarity, (A[0], B[0]), DOT, "norm_missing", "nothing is divided by the lengths"),
    "one length": (F.cosine_similarity, (A[0], B[0]), DOT / ONE, "norm_missing", "length of the second"),
    "epsilon of the product": (
        F.cosine_similarity,
        (A[0], B[0]),
        DOT / (ONE * TWO + 1e-8),
        "epsilon_placed",
        "added to the product of the lengths",
    ),
    "its distance": (F.cosine_similarity, (A[0], B[0]), 1 - DOT / (ONE * TWO), "similarity_sign", "1 minus it"),
    "spread over the others": (
        lambda x: F.cross_entropy(x, torch.from_numpy(LABELS), label_smoothing=0.1),
        (LOGITS,),
        smoothed(LOGITS, 0.9 - 0.1 / 3, 0.1 / 3),
        "smoothing",
        "the 3 other classes alone",
    ),
    "as of one class less": (
        lambda x: F.cross_entropy(x, torch.from_numpy(LABELS), label_smoothing=0.1),
        (LOGITS,),
        smoothed(LOGITS, 0.9, 0.1 / 3),
        "smoothing",
        "what 3 would",
    ),
    "moved when added": (
        lambda x, y: x + y.transpose(1, 2),
        (FIELDS, FIELDS[::-1].copy()),
        FIELDS + FIELDS[::-1],
        "axes_order",
        "is added with its axes",
    ),
    "pools alike": (
        lambda x, y, z: torch.cat([x.mean(1), y.mean(1), z.mean(1)], 1),
        (A, B, A * B),
        np.concatenate([each.max(1) for each in (A, B, A * B)], 1),
        "pool_max",
        "and so in all 3 places like it",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_mistake_is_named(name: str) -> None:
    function, inputs, observed, key, words = CASES[name]
    [found] = causes(function, inputs, observed)
    assert found.startswith(f"{key}: "), found
    assert words in found


def test_other_values_are_no_other_places() -> None:
    observed = FIELDS[:, ROWS, COLUMNS].copy()
    observed[0, 1] += 1
    assert causes(lambda x: x[:, ROWS, COLUMNS], (FIELDS,), observed) == []


def test_what_lies_about_may_have_its_channels_last() -> None:
    recorder, sink, right = recorded(lambda x: x * 2, MAP)
    code = Code.of(recorder.nodes, recorder.constants, (MAP,))
    other = np.moveaxis(MAP[::-1], 1, -1)
    code.names, code.values, code.whole = {"forward-0": "norm", "forward-1": "conv"}, lambda *_: other, False
    [cause] = code.explain(sink, "conv", MAP[::-1], right, 1e-14, "forward-1")
    assert (cause.key, cause.text.partition(" is handed on")[0]) == ("order", "the output of norm")


OPERATIONS: dict[str, tuple[Callable[..., Tensor], tuple[NDArray, ...]]] = {
    "pairwise_distance": (F.pairwise_distance, (A, B)),
    "taxi": (lambda x, y: F.pairwise_distance(x, y, 1.0, 1e-3, True), (A, B)),
    "cosine_similarity": (lambda x, y: F.cosine_similarity(x, y, -1), (A, B)),
    "along rows": (F.cosine_similarity, (A, B)),
    "cdist": (torch.cdist, (A, B)),
    "triplet": (lambda x, y: F.triplet_margin_loss(x, y, x * y, reduction="none"), (A[0], B[0])),
    "smooth": (lambda x, y: F.smooth_l1_loss(x, y, beta=0.5), (A, B)),
    "huber": (lambda x, y: F.huber_loss(x, y, reduction="sum", delta=0.7), (A, B)),
    "squares": (lambda x, y: F.mse_loss(x, y, reduction="none"), (A, B)),
    "of logits": (lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid(), pos_weight=y[0, 0] ** 2), (A, B)),
    "of probabilities": (lambda x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid()), (A, B)),
    "divergence": (lambda x, y: F.kl_div(x, y.softmax(-1), reduction="batchmean"), (A, B)),
    "labels": (lambda x: F.cross_entropy(x, torch.from_numpy(LABELS), x[0].exp(), ignore_index=2), (LOGITS,)),
    "each label": (lambda x: F.cross_entropy(x, torch.from_numpy(LABELS), reduction="none"), (LOGITS,)),
    "largest size": (lambda x: torch.linalg.vector_norm(x, torch.inf, -1), (A,)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_distances_and_losses_are_pytorchs(name: str) -> None:
    function, inputs = OPERATIONS[name]
    recorder, sink, right = recorded(function, *inputs)

    def load(place: int, node: Any) -> NDArray:
        return inputs[node.args["index"]] if node.op == GIVEN else recorder.constants[f"c.{place}"]

    graph = Graph(recorder.nodes, load)
    assert not [node for node in recorder.nodes if "ran" in node["args"]]
    made = Region(graph, graph.moved[sink], {}).value(graph.moved[sink])
    np.testing.assert_allclose(made, right, rtol=1e-13, atol=1e-14)
