"""What each scheme sends and keeps, read from the program compiled for eight H100s; nothing is run.

The statements of `test_parallel_bytes.py`, there for virtual CPU devices. Activations are bfloat16 here.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import facts
import pytest

# Compiling takes most of a minute; what is sent is counted on virtual devices too, and read from a GPU's program by
# test_gpu_program.py.
pytestmark = pytest.mark.slow

DEVICES, IMAGES = 8, 128
BATCH = DEVICES * IMAGES
LAYERS = facts.NETWORKS["two_column"].layers
WEIGHTS = 4 * facts.NETWORKS["two_column"].parameters
# Four scalars: the batch's real examples, whose sum the metrics share, its loss and its two kinds of hits.
SCALARS = 4 * 4


@pytest.fixture(scope="module")
def plan(gpu_compiler, tmp_path_factory) -> dict[str, Any]:
    """What the command finds; in a process of its own, where JAX has not begun without the compiler."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    words = [sys.executable, "-m", "jax_alexnet.plan", "--model", "two_column", "--devices", str(DEVICES)]
    words += ["--batch-size", str(IMAGES), "--bandwidth", "300", "--no-scaling", "--json", str(path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "best: " in done.stdout
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def schemes(plan) -> dict[str, dict[str, Any]]:
    return {entry["scheme"]: entry for entry in plan["schemes"]}


def whole(message: dict[str, Any]) -> int:
    return message["nbytes"] * (message["group"] if message["kind"] == "all-gather" else 1)


def sent(scheme: dict[str, Any]) -> float:
    """Bytes that a device sends in a ring; an all-reduce goes round twice."""
    return sum(
        whole(m) * (m["group"] - 1) / m["group"] * (2 if m["kind"] == "all-reduce" else 1) for m in scheme["messages"]
    )


def test_data_reduces_every_gradient_exactly_once_in_float32(schemes):
    messages = schemes["data"]["messages"]
    assert {(m["kind"], m["dtype"], m["group"]) for m in messages} == {("all-reduce", "f32", DEVICES)}
    assert sum(m["nbytes"] for m in messages) == WEIGHTS + SCALARS


def test_zero_sends_no_more_than_data(schemes):
    zero = schemes["zero"]
    assert sent(zero) <= sent(schemes["data"])
    assert {m["dtype"] for m in zero["messages"]} == {"f32"}
    assert zero["by_kind"] == {"reduce-scatter": WEIGHTS, "all-gather": WEIGHTS, "all-reduce": SCALARS}


def test_hybrid_sends_three_times_less_than_data(schemes):
    hybrid = schemes["hybrid"]
    assert 3 * sent(hybrid) <= sent(schemes["data"])
    features = [BATCH * 9216 * 2, BATCH * 4096 * 2, BATCH * 1000 * 4]  # in bfloat16; the logits in float32
    found = Counter((m["kind"], whole(m)) for m in hybrid["messages"] if m["kind"] != "all-reduce")
    assert found == Counter((kind, size) for kind in ("all-gather", "reduce-scatter") for size in features)
    convolutions = sum(LAYERS[f"conv{i}"].parameters for i in range(1, 6))
    assert hybrid["by_kind"]["all-reduce"] == 4 * (convolutions + 1000) + SCALARS


def test_columns_talk_at_conv3_and_the_fully_connected_layers_alone(schemes):
    """Pairs exchange these layers' inputs, and the gradients of all but fc8's; four pairs add up their halves."""
    messages = schemes["columns"]["messages"]
    images = 2 * IMAGES  # a pair works on the images of both
    conv3, fc6, fc7 = images * 13 * 13 * 256 * 2, images * 9216 * 2, images * 4096 * 2
    pairs = Counter((m["kind"], whole(m)) for m in messages if m["group"] == 2)
    assert pairs == Counter(
        [("all-gather", n) for n in (conv3, fc6, fc7, fc7)] + [("reduce-scatter", n) for n in (conv3, fc6, fc7)]
    )
    rest = [m for m in messages if m["group"] != 2]
    assert {(m["kind"], m["dtype"], m["group"], m["stride"]) for m in rest} == {("all-reduce", "f32", 4, 2)}
    assert sum(m["nbytes"] for m in rest) == WEIGHTS // 2 + 2 * LAYERS["fc8"].parameters + SCALARS


def test_hybrid_pays_up_to_the_batch_at_which_features_weigh_as_much(plan):
    """Bytes of an image's features and back against those of the weights that stay: logits and half of the rest."""
    image = 2 * (2 * (9216 + 4096) + 4 * 1000)
    stay = 2 * 4 * (sum(LAYERS[name].parameters for name in ("fc6", "fc7", "fc8")) - 1000)
    assert plan["crossover"] == pytest.approx(stay / image)


def test_memory_is_that_of_weights_moments_and_images(schemes):
    stored = IMAGES * 256 * 256 * 3  # before they are cropped
    rest = 2 * 2**20  # the mean image, and what is padded
    data = schemes["data"]["argument_bytes"]
    assert 2 * WEIGHTS + stored <= data <= 2 * WEIGHTS + stored + rest
    zero = schemes["zero"]["argument_bytes"]
    assert WEIGHTS * 9 / 8 + stored <= zero <= WEIGHTS * 9 / 8 + stored + rest
    dense = 4 * sum(LAYERS[name].parameters for name in ("fc6", "fc7", "fc8"))
    hybrid = schemes["hybrid"]["argument_bytes"]
    assert 0 <= hybrid - (2 * (WEIGHTS - dense * 7 / 8) + stored) <= rest
