"""Rows of weight 0 leave no trace, whatever they hold, and a label that isn't a class is never right: both sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alexnet_io.run.evaluation import Evaluation
from jax_alexnet.steps import DeviceBatch, measure
from torch_ref import steps as torch_steps

CLASSES = 6
REAL = np.array([True, False, True, False, False, True])
BAD = [np.nan, np.inf, -np.inf]
OUTSIDE = [-1, -100, CLASSES, 2**31 - 1, -(2**31)]


def by_hand(logits: NDArray, labels: NDArray) -> tuple[list[float], NDArray]:
    """Summed loss, top-1 and top-5 hits, number, and the loss's gradient."""
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = np.take_along_axis(logits, labels[:, None], 1)
    before = (logits > own).sum(1)
    loss = -np.log(np.take_along_axis(shares, labels[:, None], 1)).sum()
    return [float(loss), int((before < 1).sum()), int((before < 5).sum()), len(labels)], shares - np.eye(CLASSES)[
        labels
    ]


def of_jax(logits: NDArray, labels: NDArray, weights: NDArray) -> tuple[list[float], NDArray]:
    images = np.zeros((len(labels), 1, 1, 3), np.uint8)

    def loss(logits: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        metrics = measure(logits, DeviceBatch(images, labels, weights))
        return metrics.loss, list(metrics)

    gradient, sums = jax.grad(loss, has_aux=True)(jnp.asarray(logits))
    return [float(each) for each in sums], np.asarray(gradient)


def of_torch(logits: NDArray, labels: NDArray, weights: NDArray) -> tuple[list[float], NDArray]:
    leaf, weight = torch.tensor(logits, requires_grad=True), torch.tensor(weights).double()
    masked, classes = torch_steps._of_real_examples(leaf, torch.tensor(labels).long(), weight)
    loss = (torch_steps._losses(masked, classes) * weight).sum()
    loss.backward()
    hits = [float((hit * weight).sum()) for hit in torch_steps._hits(masked.detach(), classes)]
    assert leaf.grad is not None
    return [float(loss.detach()), *hits, float(weight.sum())], leaf.grad.numpy()


SIDES = pytest.mark.parametrize("side", [of_jax, of_torch])


@SIDES
@pytest.mark.parametrize("label", OUTSIDE)
@pytest.mark.parametrize("bad", BAD)
def test_a_filled_up_row_leaves_no_trace(side, bad: float, label: int, rng: np.random.Generator) -> None:
    logits, labels = rng.normal(size=(len(REAL), CLASSES)), np.array([3, label, 0, 2, label, 5], np.int32)
    expected, gradient = by_hand(logits[REAL], labels[REAL])
    logits[1], logits[3, 2], logits[4] = bad, bad, rng.normal(size=CLASSES)
    sums, found = side(logits, labels, REAL.astype(np.float32))
    np.testing.assert_allclose(sums, expected, rtol=1e-13)
    np.testing.assert_allclose(found[REAL], gradient, atol=1e-15)
    assert not found[~REAL].any()
    report = Evaluation([str(i) for i in range(CLASSES)])
    report.add(logits, labels, REAL.astype(np.float32))
    assert report.report().loss * len(gradient) == pytest.approx(expected[0], rel=1e-13)


@SIDES
def test_a_batch_of_filled_up_rows_alone(side) -> None:
    """As the last process of several may have it."""
    sums, gradient = side(np.full((2, CLASSES), np.nan), np.full(2, -1, np.int32), np.zeros(2, np.float32))
    assert sums == [0, 0, 0, 0]
    assert not gradient.any()


@SIDES
@pytest.mark.parametrize("label", OUTSIDE)
def test_a_label_that_is_no_class_makes_the_loss_nan_and_no_hit(side, label: int, rng: np.random.Generator) -> None:
    logits = rng.normal(size=(2, 3))  # fewer classes than five: no rank is too high for the second count
    own = logits[0].argmax()
    (loss, top1, top5, examples), _ = side(logits, np.array([own, label], np.int32), np.ones(2, np.float32))
    assert np.isnan(loss)
    assert (top1, top5, examples) == (1, 1, 2)
    with pytest.raises(ValueError, match=str(label)):
        Evaluation(["a", "b", "c"]).add(logits, [own, label])


@SIDES
def test_logits_that_are_no_numbers_are_no_hits(side) -> None:
    """Neither as the own class's, nor as another's, which comes first."""
    logits = np.array([[np.nan, 1.0, 0.0], [np.nan, 1.0, 0.0]])
    (loss, top1, top5, _), _ = side(logits, np.array([0, 1], np.int32), np.ones(2, np.float32))
    assert np.isnan(loss)
    assert (top1, top5) == (0, 1)
