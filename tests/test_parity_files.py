"""`parity layers --weights`: each side reads the file by itself, so that a converter's mistake is on one side only."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from alexnet_io.errors import UserError
from jax_alexnet.files import weight_homes
from parity.alexnet import layerwise as layers
from parity.alexnet import pairs, torch_weights

MODEL = "cifar_18pct"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights in every home."""
    folder = tmp_path_factory.mktemp("weights")
    params = pairs.build(MODEL, dtype="float32", classes=7).variables["params"]
    found = {}
    for home, ending in (("flax", ".safetensors"), ("torch_ref", ".safetensors"), ("torch_ref", ".pth")):
        found[home + ending] = folder / f"{home}{ending}"
        weight_homes.save(found[home + ending], params, MODEL, 32, home)
    return found


@pytest.mark.parametrize("home", ["flax.safetensors", "torch_ref.safetensors", "torch_ref.pth"])
def test_both_sides_read_every_home_alike(home: str, files: dict[str, Path]) -> None:
    pair = pairs.load(MODEL, files[home])
    assert {row.verdict for row in layers.exported(pair)} == {"equal"}
    again = pairs.to_flax(
        pair.torch_module, {n: p.detach().numpy() for n, p in pair.torch_module.named_parameters()}, (32, 32), "float64"
    )
    for layer, leaves in again["params"].items():
        for kind, array in leaves.items():
            np.testing.assert_array_equal(array, pair.variables["params"][layer][kind])


def test_torchvision_numbers_the_same_layers() -> None:
    with torch.device("meta"):
        theirs = list(torchvision.models.alexnet().state_dict())
    names = dict.fromkeys(name.rpartition(".")[0] for name in theirs)
    ours = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    network = torch.nn.Sequential(OrderedDict((name, torch.nn.Linear(i + 1, 2)) for i, name in enumerate(ours)))
    tensors = {}
    for their_name, name in zip(names, ours, strict=True):
        tensors |= {f"{their_name}.{part}": t for part, t in network.get_submodule(name).state_dict().items()}
    # As safetensors gives them: the classifier first, and features.10 before features.3.
    content = torch_weights.Content(dict(sorted(tensors.items())), {})
    assert torch_weights.classes_of(content, network) == 2
    state = torch_weights.state_of(content, network, (63, 63))
    for name, parameter in network.named_parameters():
        np.testing.assert_array_equal(state[name], parameter.detach().numpy())


def exchanged(array: Any) -> np.ndarray:
    changed = np.array(array)
    changed[[3, 5]] = changed[[5, 3]]
    return changed


def in_reading(params: Any) -> Any:
    return params | {"fc10": params["fc10"] | {"kernel": exchanged(params["fc10"]["kernel"])}}


def in_writing(state: Any) -> Any:
    return state | {"fc10.weight": exchanged(state["fc10.weight"])}


@pytest.mark.parametrize("home", ["flax.safetensors", "torch_ref.pth"])
def test_a_converter_that_exchanges_rows_is_found(
    home: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = weight_homes.to_flax
    monkeypatch.setattr(weight_homes, "to_flax", lambda *a, **k: in_reading(right(*a, **k)))
    report = layers.run([MODEL], weights=files[home])
    first = report.first_divergence
    assert first is not None
    assert (first.name, first.stage) == ("fc10", "weights:kernel")
    assert first.cause_keys == ["channels_permuted"]


def test_a_converter_that_writes_other_rows_is_found(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pair = pairs.load(MODEL, files["torch_ref.pth"])
    right = weight_homes.to_torch
    monkeypatch.setattr(weight_homes, "to_torch", lambda *a, **k: in_writing(right(*a, **k)))
    (row,) = (row for row in layers.exported(pair) if not row.equal)
    assert (row.name, row.stage, row.cause_keys) == ("fc10", "weights:weight exported", ["channels_permuted"])
    assert "3 holds 5, 5 holds 3" in row.causes[0]


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in state.items()}},
        lambda state: {"model": {f"_orig_mod.{n}": t for n, t in state.items()}},
        dict,
    ],
)
def test_wrappers_come_off(wrapped: Callable[[Any], Any], files: dict[str, Path], tmp_path: Path) -> None:
    plain = torch_weights.read(files["torch_ref.safetensors"]).tensors
    torch.save(wrapped(plain), tmp_path / "w.pth")
    found = torch_weights.read(tmp_path / "w.pth").tensors
    assert {*found} == {*plain}


def test_files_without_weights_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"none\.pth holds no state dict"):
        torch_weights.read(tmp_path / "none.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"bad\.safetensors can't be read by PyTorch"):
        torch_weights.read(tmp_path / "bad.safetensors")
