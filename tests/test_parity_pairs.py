"""This repository's networks, both sides: clean, and with the weights' three homes agreeing."""

import json
from itertools import product
from pathlib import Path

import narrow
import numpy as np
import pytest
import torch

from jax_alexnet.files import weight_homes
from jax_alexnet.variants import VARIANTS
from parity.alexnet import layerwise as layers
from parity.alexnet import pairs
from parity.reports import html
from parity.settings import MODELS

SMALL = dict.fromkeys(("cifar_18pct", "cifar_13pct", "cifar_11pct", "cifar_80sec"))


def test_the_command_line_knows_every_model() -> None:
    assert tuple(VARIANTS) == MODELS == pairs.MODELS


# Each network and each precision once: all others run the same lines again.
SOON = {("cifar_18pct", "float64"), ("cifar_13pct", "float32"), ("cifar_11pct", "bfloat16"), ("cifar_80sec", "float32")}


@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        case if case in SOON else pytest.param(*case, marks=(pytest.mark.slow, pytest.mark.matrix))
        for case in product(SMALL, ("float64", "float32", "bfloat16"))
    ],
)
def test_cifar_networks_are_equal(model: str, dtype: str) -> None:
    report = layers.run([model], dtype=dtype)
    assert report.exit_code == 0, str(report)
    assert report.not_exercised == []
    forward = [row for row in report.rows if row.stage == "forward"]
    assert [row.name for row in forward] == [layer.name for layer in VARIANTS[model].layers]
    assert all(row.fraction <= 1 for row in report.rows)


def test_two_columns_of_a_picture_that_is_not_square() -> None:
    pair = narrow.pair("two_column", image_size=(71, 95), classes=10)
    report = layers.compare_pair(pair, np.asarray(pairs.images(pair, 2), np.float64))
    assert report.exit_code == 0, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", MODELS)
def test_every_network_at_full_size(model: str, dtype: str) -> None:
    report = layers.run([model], dtype=dtype)
    assert report.exit_code == 0, str(report)


def test_gradients_of_a_cifar_network() -> None:
    report = layers.run(["cifar_11pct"], gradients=True)
    assert report.exit_code == 0, str(report)
    end = [row for row in report.rows if row.name == "end to end"]
    assert {row.stage for row in end} == {"outputs", "gradients"}
    assert all(row.max_error <= 1e-11 for row in end)
    names = {row.name for row in report.rows if row.stage == "backward"}
    assert names == {layer.name for layer in VARIANTS["cifar_11pct"].layers}


def test_training_mode_with_shared_masks() -> None:
    pair = pairs.with_dropout_rate(pairs.build("caffe_alexnet", image_size=(71, 95), classes=10), 0.3)
    masks = pairs.draw_masks(pair, 2, seed=5)
    images = np.asarray(pairs.images(pair, 2), np.float64)
    report = layers.compare_pair(pair, images, masks=masks)
    assert report.exit_code == 0, str(report)
    share = 1 - masks["drop6"].mean()
    assert share == pytest.approx(0.3, abs=0.02)


def test_masks_before_the_flattened_map() -> None:
    # In torchvision's order dropout comes before fc6: PyTorch's mask is flat, Flax's lies on the map.
    pair = narrow.pair("one_weird_trick", image_size=63, classes=10)
    masks = pairs.draw_masks(pair, 2, seed=5)
    assert masks["drop6"].shape == (2, 9216)
    report = layers.compare_pair(pair, np.asarray(pairs.images(pair, 2), np.float64), masks=masks)
    assert report.exit_code == 0, str(report)


@pytest.mark.parametrize("model", ["cifar_11pct", "caffe_alexnet"])
def test_the_harness_and_the_converter_agree_bit_for_bit(model: str) -> None:
    size = None if model.startswith("cifar") else 71
    pair = pairs.build(model, dtype="float32", image_size=size)
    state = {name: p.detach().numpy() for name, p in pair.torch_module.named_parameters()}
    converted = weight_homes.to_flax(state, VARIANTS[model], size)
    for layer, leaves in converted.items():
        for kind, array in leaves.items():
            np.testing.assert_array_equal(array, pair.variables["params"][layer][kind])


def test_trained_weights_and_real_pictures(tmp_path: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / f"{i}.png")
    pair = pairs.build("cifar_18pct", dtype="float32", classes=4)
    weight_homes.save(tmp_path / "w.safetensors", pair.variables["params"], "cifar_18pct", 32, "flax")
    report = layers.run(["cifar_18pct"], images=tmp_path, weights=tmp_path / "w.safetensors")
    assert report.exit_code == 0, str(report)
    end = [row.name for row in report.rows].index("end to end")
    exported = {f"{row.name} {row.stage}" for row in report.rows[end + 1 :]}
    layers_with_weights = ("conv1", "conv2", "conv3", "fc10")
    assert exported == {
        f"{name} weights:{part} exported" for name in layers_with_weights for part in ("weight", "bias")
    }
    with pytest.raises(ValueError, match="holds 3 images, 9 are needed"):
        layers.run(["cifar_18pct"], images=tmp_path, batch=9)


def test_json_and_html(tmp_path: Path) -> None:
    report = layers.run(["cifar_18pct"])
    report.write_json(tmp_path / "r.json")
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["schema"] == "parity-report/1"
    assert read["equal"] is True
    assert read["first_divergence"] is None
    keys = {"model", "name", "stage", "dtype", "n", "max_error", "bound", "fraction", "ratio", "verdict"}
    assert all(keys <= set(row) for row in read["layers"])
    again = type(report).from_json(read)
    assert str(again) == str(report)
    html.write(report, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert len(page) < html.LIMIT_BYTES
    assert "<svg" in page
    assert "data:image/png;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_a_divergence_is_reported_with_place_values_and_cause(tmp_path: Path) -> None:
    pair = pairs.build("cifar_18pct")
    with torch.no_grad():
        kernel = pair.torch_module.get_parameter("conv2.weight")
        kernel.copy_(kernel.swapaxes(2, 3).clone())
    report = layers.compare_pair(pair, np.asarray(pairs.images(pair, 2), np.float64))
    assert report.exit_code == 1
    report.write_json(tmp_path / "r.json")
    read = json.loads((tmp_path / "r.json").read_text())
    first = read["first_divergence"]
    assert (first["layer"], first["stage"]) == ("conv2", "weights:kernel")
    assert first["cause_keys"] == ["kernel_hw_exchanged"]
    assert first["jax"] != first["torch"]
    assert len(first["index"]) == 4
    # Teacher forcing: the layers after it are judged on what they should have been given.
    assert [entry["layer"] for entry in read["divergences"]] == ["conv2"]
    assert {row["name"] for row in read["layers"] if row["consequence_of"] is not None} == {"conv2", "end to end"}
    text = str(report)
    assert "first divergence: cifar_18pct: conv2" in text
    assert "height and width of the kernel are exchanged" in text
    page = html.render(report)
    assert "MISMATCH" in page.upper()


def test_two_bugs_at_once_are_both_named() -> None:
    from parity.mutants import planting

    pair = pairs.build("cifar_11pct")
    pair = planting.jax_row(pair, "lrn1", k=2.0)
    pair = planting.torch_weight(pair, "local4", lambda w: w.swapaxes(4, 5))
    report = layers.compare_pair(pair, np.asarray(pairs.images(pair, 2), np.float64), whole=False)
    assert [row.name for row in report.divergences] == ["lrn1", "local4"]
    assert [row.cause_keys for row in report.divergences] == [["lrn_k"], ["kernel_hw_exchanged"]]
