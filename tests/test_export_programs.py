"""Networks taken out as programs, and folders of a model hub: what is written runs elsewhere and says what it is."""

import base64
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import export_table
import jax
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from alexnet_io.errors import FailedRun, UserError
from alexnet_io.exports import comparison, formats
from alexnet_io.run import network_facts
from alexnet_io.run.fine_tuning import located
from alexnet_io.weights import shipped
from jax_alexnet import AlexNet, load_run, predict
from jax_alexnet import export as jax_export
from jax_alexnet.ablation import ablated
from jax_alexnet.files import onnx_graph, programs, weight_homes
from jax_alexnet.layer_specs import Dense
from jax_alexnet.variants import VARIANTS
from torch_ref import export as torch_export
from torch_ref import weight_file
from torch_ref.alexnet import build

NAME = "cifar_18pct"
SHIPPED = shipped.FOLDER / f"{NAME}.safetensors"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FILES = {
    "jax onnx": (jax_export, "jax.onnx"),
    "stablehlo": (jax_export, "jax.stablehlo"),
    "torch onnx": (torch_export, "torch.onnx"),
    "pt2": (torch_export, "torch.pt2"),
    "hub": (jax_export, "hub/"),
    "torch hub": (torch_export, "torch_hub/"),
    "npz": (jax_export, "jax.npz"),
    "torch npz": (torch_export, "torch.npz"),
    "torch pth": (torch_export, "torch.pth"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shipped weights in every format."""
    folder = tmp_path_factory.mktemp("exports")
    for program, file in FILES.values():
        assert program.main(["--weights", NAME, "--to", f"{folder}/{file}"]) == 0
    return {name: folder / file for name, (_, file) in FILES.items()}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Normalised images of the network's own size, (5, 32, 32, 3)."""
    return (60 * np.random.default_rng(3).standard_normal((5, 32, 32, 3))).astype(np.float32)


@pytest.fixture(scope="module")
def logits(images: np.ndarray) -> np.ndarray:
    """What PyTorch's reference makes of them in float64, with the weights as they are in the shipped file."""
    network = build(NAME).double().eval()
    network.load_state_dict({name: torch.tensor(value).double() for name, value in load_file(SHIPPED).items()})
    with torch.no_grad():
        return network(torch.tensor(images).double().permute(0, 3, 1, 2)).numpy()


def _of_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"images": images.transpose(0, 3, 1, 2)})[0])


def _of_stablehlo(path: Path, images: np.ndarray) -> np.ndarray:
    return np.asarray(jax.export.deserialize(bytearray(path.read_bytes())).call(images))


def _of_pt2(path: Path, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return torch.export.load(path).module()(torch.tensor(images).permute(0, 3, 1, 2)).numpy()


RUN: dict[str, Any] = {"jax onnx": _of_onnx, "torch onnx": _of_onnx, "stablehlo": _of_stablehlo, "pt2": _of_pt2}


@pytest.mark.parametrize("name", RUN)
def test_a_program_computes_what_the_network_does_for_any_number_of_images(
    name: str, exported: dict[str, Path], images: np.ndarray, logits: np.ndarray
) -> None:
    for count in (1, 5):
        got = RUN[name](exported[name], images[:count])
        assert got.shape == (count, 10)
        assert np.abs(got - logits[:count]).max() <= 1e-5 * np.abs(logits).max()


@pytest.mark.parametrize("name", RUN)
def test_a_program_says_what_it_is_and_how_it_is_fed(name: str, exported: dict[str, Path]) -> None:
    texts = _texts(name, exported[name])
    assert json.loads(texts["class_names"]) == CLASSES
    assert (texts["model"], texts["image_size"], texts["normalize"]) == (NAME, "32", "mean_image")
    shape = "batch, 32, 32, 3" if name == "stablehlo" else "batch, 3, 32, 32"
    assert texts["input"] == f"images: float32 ({shape}), normalised"
    assert "pixels - mean_image" in texts["preprocessing"]
    array = json.loads(texts[network_facts.KEY])["arrays"]["mean_image"]
    mean = np.frombuffer(base64.b64decode(array["base64"]), "<f4").reshape(array["shape"])
    facts = weight_homes.read(SHIPPED).facts
    assert facts is not None and np.array_equal(mean, facts.arrays["mean_image"])


def _texts(name: str, path: Path) -> dict[str, str]:
    if name == "stablehlo":
        return json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    if name == "pt2":
        found = dict.fromkeys(["class_names", "model", "image_size", "normalize", "input", "preprocessing"], "")
        found[network_facts.KEY] = ""
        torch.export.load(path, extra_files=found)
        return found
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_the_onnx_graph_is_of_standard_operators_under_the_layers_names(exported: dict[str, Path]) -> None:
    graph = onnx.load(exported["jax onnx"]).graph
    kinds = {node.name: node.op_type for node in graph.node}
    assert {"conv1": "Conv", "pool1": "MaxPool", "relu1": "Relu", "pool2": "AveragePool"}.items() <= kinds.items()
    assert {entry.name for entry in graph.initializer} >= {"conv1.weight", "conv1.bias", "fc10.weight"}
    assert {node.domain for node in graph.node} == {""}


def test_stablehlo_holds_no_calls_to_libraries(exported: dict[str, Path]) -> None:
    program = jax.export.deserialize(bytearray(exported["stablehlo"].read_bytes()))
    assert program.platforms == programs.PLATFORMS
    assert not re.findall(r"custom_call\s*@(?!shape_assertion)", program.mlir_module())


@pytest.mark.parametrize("model", ["cifar_13pct"])
def test_unshared_kernels_go_into_both_onnx_files(model: str, tmp_path: Path) -> None:
    source = export_table.drawn(tmp_path, model)
    for program in (jax_export, torch_export):
        assert export_table.error(program, source, tmp_path / "net.onnx") <= comparison.LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("model", VARIANTS)
def test_every_network_goes_into_every_format(model: str) -> None:
    assert max(export_table.row(model)) <= comparison.LIMIT


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("single_column", "no-overlap"),
        ("single_column", "tanh,two-columns"),
        ("cuda_convnet_2012", "one-column,no-lrn"),
    ],
)
def test_the_graph_of_a_changed_network(model: str, words: str, rng: np.random.Generator) -> None:
    """At a size at which the layers before the adaptive pool make maps that don't divide into its windows."""
    variant, side = _narrow(model, words), 95
    network = AlexNet(variant, classes=3, weight_init="pytorch")
    images = rng.standard_normal((2, side, side, 3)).astype(np.float32)
    params = network.init(jax.random.key(1), images)
    graph = onnx_graph.graph_of(variant, params["params"], side, 3)
    session = onnxruntime.InferenceSession(onnx_graph.to_bytes(graph, side, 3, {"model": model}, "0"))
    got = session.run(None, {"images": images.transpose(0, 3, 1, 2)})[0]
    expected = np.asarray(network.apply(params, images))
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def _narrow(model: str, words: str) -> Any:
    variant = ablated(VARIANTS[model], words)
    rows = [replace(row, features=8) if isinstance(row, Dense) and row.features else row for row in variant.layers]
    return replace(variant, layers=tuple(rows))


# --- What must not be put in place, and what can't be read back ------------------------------------------------


@pytest.mark.parametrize("name", ["onnx", "stablehlo"])
def test_a_program_that_computes_something_else_is_not_put_in_place(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = getattr(programs, f"{name}_bytes")

    def wrong(model: Any, params: Any, description: Any) -> bytes:
        bias = {**params["conv2"], "bias": params["conv2"]["bias"] + 1e-3}
        return right(model, {**params, "conv2": bias}, description)

    monkeypatch.setattr(programs, f"{name}_bytes", wrong)
    with pytest.raises(FailedRun, match=rf"net\.{name}: by .* differs from its source by .*was not put in place"):
        jax_export.main(["--weights", NAME, "--to", str(tmp_path / f"net.{name}")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_no_small_error(bad: float) -> None:
    with pytest.raises(FailedRun, match="differs from its source"):
        comparison.compare(np.ones((2, 2)), np.array([[1, 1], [1, bad]]), "x", "y")
    with pytest.raises(FailedRun, match="differs from its source"):
        comparison.compare(np.array([[1, 1], [1, bad]]), np.ones((2, 2)), "x", "y")


@pytest.mark.parametrize("name", RUN)
def test_weights_are_not_read_back_from_a_program(name: str, exported: dict[str, Path]) -> None:
    words = r"is a program, which \S+ runs; weights are not read back from it: export the network as \.safetensors too"
    with pytest.raises(UserError, match=f"--weights .*{words}"):
        weight_homes.read(exported[name])
    with pytest.raises(UserError, match=f"--init-from .*{words}"):
        located(str(exported[name]))
    with pytest.raises(UserError, match=words):
        weight_file.read(exported[name])


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else find(name))
    with pytest.raises(UserError, match=r'needs ONNX and ONNX Runtime, .*pip install "jax-alexnet\[onnx\]"'):
        jax_export.main(["--weights", NAME, "--to", str(tmp_path / "x.onnx")])
    with pytest.raises(UserError, match="ONNX Script"):
        torch_export.main(["--weights", NAME, "--to", str(tmp_path / "x.onnx")])


def test_every_format_is_offered_by_a_program() -> None:
    assert {*jax_export.FORMATS, *torch_export.FORMATS} == set(formats.FORMATS)


# --- Weights, and folders of a model hub ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hub", "torch hub", "npz", "torch npz", "torch pth"])
def test_both_programs_read_what_either_has_written(name: str, exported: dict[str, Path]) -> None:
    expected = load_file(SHIPPED)
    ours, theirs = weight_homes.read(exported[name]), weight_file.read(exported[name])
    assert ours.facts is not None and theirs.facts is not None
    assert ours.facts.to_text() == theirs.facts.to_text() == weight_homes.read(SHIPPED).facts.to_text()  # type: ignore[union-attr]
    got = weight_homes.to_torch(ours.params, VARIANTS[NAME])
    state = weight_file.state_for(theirs, build(NAME))
    assert got.keys() == expected.keys() == state.keys()
    for key, value in expected.items():
        assert np.array_equal(got[key], value) and np.array_equal(state[key].numpy(), value)


def test_a_folder_predicts_as_the_weights_that_it_was_made_of(
    exported: dict[str, Path], tmp_path: Path, capsys
) -> None:
    picture = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 40, 3), np.uint8)).save(picture)
    said = []
    for source in (NAME, str(exported["hub"])):
        assert predict.main(["--weights", source, str(picture), "--json", "-"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert load_run(exported["hub"]).class_names == CLASSES
    assert located(str(exported["hub"])).name == "model.safetensors"


def test_a_folder_has_a_card_and_a_config(exported: dict[str, Path]) -> None:
    config = json.loads((exported["hub"] / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {str(i): name for i, name in enumerate(CLASSES)}
    assert (config["model"], config["image_size"], config["normalize"]) == (NAME, 32, "mean_image")
    card = (exported["hub"] / "README.md").read_text(encoding="utf-8")
    (error,) = [line for line in shipped.card(NAME).splitlines() if line.startswith("| error |")]
    assert "** top-1" in error and error in card and "library_name: jax-alexnet" in card
    assert sorted(path.name for path in exported["hub"].iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_a_folder_is_written_over_itself_but_over_nothing_else(exported: dict[str, Path], tmp_path: Path) -> None:
    words = ["--weights", NAME, "--format", "hub", "--to"]
    assert jax_export.main([*words, str(exported["hub"])]) == 0
    (tmp_path / "notes.txt").write_text("mine")
    for program in (jax_export, torch_export):
        with pytest.raises(UserError, match=r"holds other files than .*notes\.txt"):
            program.main([*words, str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("text", "said"),
    [('{"model": "caffenet"}', "is about caffenet and model.safetensors about cifar_18pct"), ("[]", "can't be read")],
)
def test_a_config_of_another_network_is_refused(
    text: str, said: str, exported: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(SHIPPED.read_bytes())
    (tmp_path / "config.json").write_text(text)
    for read in (weight_homes.read, weight_file.read):
        with pytest.raises(UserError, match=said):
            read(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    for read in (weight_homes.read, weight_file.read):
        with pytest.raises(UserError, match=r"is a folder without model\.safetensors: pass a file of weights.*--run"):
            read(tmp_path)
    with pytest.raises(UserError, match=r"neither run\.json nor model\.safetensors"):
        located(str(tmp_path))
