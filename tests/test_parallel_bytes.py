"""What each scheme sends, counted in the compiled program of the networks at their full size."""

from collections import Counter

import facts
import pytest
from collectives import Collective, collectives, compiled_step

pytestmark = pytest.mark.multi_device

BATCH = 1024
# Four scalars: the batch's real examples, whose sum the metrics share, its loss and its two kinds of hits.
SCALARS = 4 * 4


def sent(found: list[Collective]) -> float:
    return sum(one.sent for one in found)


@pytest.fixture(scope="module")
def data() -> list[Collective]:
    return collectives(compiled_step("two_column", "data", 8, BATCH).as_text())


def test_data_reduces_every_gradient_exactly_once(data):
    """4 bytes a parameter plus scalars: neither twice, nor one layer left out."""
    assert {one.kind for one in data} == {"all-reduce"}
    assert {one.group for one in data} == {8}
    assert sum(one.payload for one in data) == 4 * facts.NETWORKS["two_column"].parameters + SCALARS


def test_zero_sends_no_more_than_data(data):
    found = collectives(compiled_step("two_column", "zero", 8, BATCH).as_text())
    assert sent(found) <= sent(data)
    parameters = 4 * facts.NETWORKS["two_column"].parameters
    for kind in ("reduce-scatter", "all-gather"):
        assert sum(one.payload for one in found if one.kind == kind) == parameters
    assert sum(one.payload for one in found if one.kind == "all-reduce") == SCALARS


def test_hybrid_sends_three_times_less_than_data(data):
    """The features of 1024 images instead of the fully connected layers' gradients."""
    found = collectives(compiled_step("two_column", "hybrid", 8, BATCH).as_text())
    assert 3 * sent(found) <= sent(data)
    small = Counter((one.kind, one.shape) for one in found if one.kind != "all-reduce")
    assert small == {
        ("all-gather", (BATCH, 6, 6, 256)): 1,
        ("reduce-scatter", (BATCH // 8, 6, 6, 256)): 1,
        ("all-gather", (BATCH, 4096)): 1,
        ("reduce-scatter", (BATCH, 4096 // 8)): 1,
        ("reduce-scatter", (BATCH // 8, 1000)): 1,  # the logits, and back
        ("all-gather", (BATCH, 1000)): 1,
    }
    # Of the weights, the convolutions' gradients and the logits' biases.
    reduced = sum(one.payload for one in found if one.kind == "all-reduce")
    layers = facts.NETWORKS["two_column"].layers
    assert reduced == 4 * (sum(layers[f"conv{i}"].parameters for i in range(1, 6)) + 1000) + SCALARS


def talk(batch: int) -> Counter:
    """The inputs of conv3, fc6, fc7 and fc8 forward; back the gradients of all but fc8's, which needs nothing."""
    return Counter({
        ("all-gather", (batch, 13, 13, 256)): 1,
        ("all-gather", (batch, 6, 6, 256)): 1,
        ("all-gather", (batch, 4096)): 2,
        ("reduce-scatter", (batch, 13, 13, 128)): 1,
        ("reduce-scatter", (batch, 6, 6, 128)): 1,
        ("reduce-scatter", (batch, 2048)): 1,
    })  # fmt: skip


def test_columns_talk_at_conv3_and_the_fully_connected_layers_alone():
    """Two devices: there is no gradient to be shared."""
    found = collectives(compiled_step("two_column", "columns", 2, 128).as_text())
    assert Counter((one.kind, one.shape) for one in found) == talk(128)


def test_columns_beside_data_parallelism_reduce_each_half_once():
    """Four pairs: the talk within a pair, and each device's own half of the gradients, and all of fc8's."""
    found = collectives(compiled_step("two_column", "columns", 8, BATCH).as_text())
    reduced = [one for one in found if one.kind == "all-reduce"]
    assert {one.group for one in reduced} == {4}
    last = facts.NETWORKS["two_column"].layers["fc8"].parameters
    assert sum(one.payload for one in reduced) == 2 * (facts.NETWORKS["two_column"].parameters + last) + SCALARS
    within = [one for one in found if one.kind != "all-reduce"]
    assert {one.group for one in within} == {2}
    assert Counter((one.kind, one.shape) for one in within) == talk(BATCH // 4)
