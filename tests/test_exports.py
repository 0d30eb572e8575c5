"""An export suffices to predict and evaluate from; what it can't carry, or what contradicts it, is said."""

import dataclasses
import json
import os
import stat
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from alexnet_io.command_line.complete_settings import plain
from alexnet_io.command_line.settings import as_yaml
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.picture_paths import pictures as pictures_named
from alexnet_io.errors import FailedRun, UserError
from alexnet_io.files import tensor_file
from alexnet_io.run import network_facts, statistics_file
from alexnet_io.run.directory import RunDirectory
from alexnet_io.run.network_facts import NetworkFacts
from jax_alexnet import evaluate, export, predict
from jax_alexnet.files import exported as exported_files
from jax_alexnet.files import weight_files, weight_homes
from jax_alexnet.recipes import resolve
from jax_alexnet.variants import VARIANTS
from torch_ref.alexnet import build

FILES = {
    "flax": ("flax.safetensors", "flax"),
    "torch_ref": ("reference.safetensors", "torch_ref"),
    "torch": ("state.pth.tar", "torch_ref"),
}
MODEL, NAMES = "cifar_18pct", ["b", "c", "café"]
FACTS = NetworkFacts(MODEL, 32, 36, "channel", ["a"], {"mean": np.arange(3.0), "std": np.ones(3)}, False, "bfloat16", 4)
SETTINGS = resolve(TrainSettings(model=MODEL, data="folder:x", stored_size=36, crop=True, batch_size=8))


def _state(model, size, classes, scale=0.05):
    draw = np.random.default_rng(7)
    shapes = weight_homes.torch_shapes(VARIANTS[model], size, classes)
    return {name: (scale * draw.standard_normal(shape, np.float32)) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's directory as the reference leaves it: its best weights are one file, which takes no training to make."""
    before = os.umask(0o027)
    try:
        return _made_run(tmp_path_factory.mktemp("runs") / "run")
    finally:
        os.umask(before)


def _made_run(where):
    draw = np.random.default_rng(8)
    with RunDirectory(where) as directory:
        directory.describe(
            model=MODEL,
            class_names=NAMES,
            normalisation={"normalize": SETTINGS.normalize},
            settings=plain(SETTINGS),
            settings_yaml=as_yaml(SETTINGS),
            framework="torch_ref",
        )
    mean = draw.uniform(90, 160, (32, 32, 3)).astype(np.float32)
    statistics_file.write(where, {"mean_image": mean, "eigenvalues": np.ones(3, np.float32)})
    (where / "best").mkdir()
    facts = {"model": MODEL, "image_size": 32, "home": "torch_ref", "step": 12}
    tensor_file.write(where / "best" / "weights.safetensors", _state(MODEL, 32, 3), facts)
    return where


def test_a_run_is_as_readable_as_the_umask_says(run):
    assert {stat.S_IMODE(path.stat().st_mode) for path in run.rglob("*") if path.is_file()} == {0o640}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (run, run / "best")} == {0o750}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of pictures of every kind that a folder may hold."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(9)
    for name in ("b/2.png", "b/10.png", "a.jpg", "c/deep/er/x.webp", ".hidden.png", "b/.thumbs/t.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / "void").mkdir()
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The run exported for each home and as each kind of file."""
    folder = tmp_path_factory.mktemp("exports")
    files = {name: folder / file for name, (file, _) in FILES.items()}
    for name, (_, home) in FILES.items():
        assert export.main(["--run", str(run), "--to", str(files[name]), "--home", home]) == 0
    return files


def _predicted(capsys, *words):
    assert predict.main([*map(str, words), "--json", "-"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out)["predictions"], said.err


def test_an_export_alone_predicts_what_the_run_does_for_a_folder(run, exported, pictures, capsys):
    """Names, input and normalisation come from the file, and with --json - standard output is JSON and nothing else."""
    expected, _ = _predicted(capsys, "--run", run, pictures)
    got, errors = _predicted(capsys, "--weights", exported["flax"], pictures)
    assert got == expected
    assert {entry["name"] for entry in got[0]["classes"]} == set(NAMES)
    assert [entry["file"] for entry in got] == [
        str(pictures / name) for name in ("a.jpg", "b/10.png", "b/2.png", "c/deep/er/x.webp")
    ]
    assert "note:" not in errors
    assert str(pictures / "a.jpg") in errors
    assert errors.count("oneDNN computes convolutions") + errors.count("oneDNN is not used: ") == 1
    assert len({entry["classes"][0]["probability"] for entry in got}) == 4


@pytest.mark.parametrize("home", ["flax", "torch_ref", "torch"])
def test_every_home_carries_all_that_predicting_needs(home, exported, run):
    loaded = weight_homes.read(exported[home])
    facts = loaded.facts
    assert facts is not None
    assert loaded.model == MODEL
    assert dataclasses.replace(facts, arrays={}) == NetworkFacts(
        MODEL, 32, 36, "mean_image", NAMES, {}, False, "float32", 12
    )
    assert list(facts.arrays) == ["mean_image"]
    assert facts.arrays["mean_image"].tobytes() == statistics_file.read(run)["mean_image"].tobytes()
    expected = weight_homes.to_flax(_state(MODEL, 32, 3), VARIANTS[MODEL])
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, loaded.params, expected)))


def test_pytorch_loads_its_exports_as_they_are(exported):
    network = build(MODEL, 3, 32)
    state = torch.load(exported["torch"], weights_only=True)["state_dict"]
    assert network.load_state_dict(state).missing_keys == []
    state = {name: torch.from_numpy(value.copy()) for name, value in load_file(exported["torch_ref"]).items()}
    assert network.load_state_dict(state).unexpected_keys == []


def test_torchvision_loads_its_exports_as_they_are(tmp_path):
    """Its files are the state dict alone; what else there is to say doesn't get into the way, and isn't lost."""
    theirs = torch.nn.Module()
    theirs.features = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 11))
    arrays = {name: value.numpy() + 1 for name, value in theirs.state_dict().items()}
    content = weight_files.Content(arrays, {"model": "one_weird_trick", "home": "torchvision"}, FACTS.to_text())
    weight_files.write(tmp_path / "w.pth", content, lambda _: None)
    theirs.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True))
    assert np.array_equal(theirs.state_dict()["features.0.bias"].numpy(), arrays["features.0.bias"])
    back = weight_files.read(tmp_path / "w.pth")
    assert back.description == content.description
    assert back.facts["model"] == "one_weird_trick"


def test_evaluation_takes_an_export(exported, capsys, tmp_path):
    draw = np.random.default_rng(1)
    for number, name in enumerate(NAMES):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(number + 1):
            picture = Image.fromarray(draw.integers(0, 256, (40, 40, 3), np.uint8))
            picture.save(tmp_path / "data" / name / f"{index}.png")
    words = ["--data", f"folder:{tmp_path / 'data'}", "--cache-dir", str(tmp_path / "cache"), "--devices", "1"]
    assert evaluate.main(["--weights", str(exported["torch_ref"]), *words, "--json", "-"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert said.err.count("oneDNN computes convolutions") + said.err.count("oneDNN is not used: ") == 1
    assert {name: entry["total"] for name, entry in report["per_class"].items()} == {"b": 1, "c": 2, "café": 3}


def test_what_a_file_does_not_say_is_said(run, capsys, pictures):
    """Weights alone, of a network whose input needs no training set's mean, and of one whose input does."""
    settings = exported_files.fed_as_usual("w.pth", weight_homes.Loaded("single_column", {}, 227, None), "float32")
    assert (settings.image_size, settings.stored_size, settings.normalize) == (227, 227, "half")
    said = capsys.readouterr().err
    assert said == (
        "note: w.pth says nothing of its input: fed as --recipe blog does, --normalize half, 227 pixels from 227\n"
    )
    with pytest.raises(UserError, match=r"weights\.safetensors doesn't hold the mean of its training set.*--run DIR"):
        predict.main(["--weights", str(run / "best" / "weights.safetensors"), str(pictures / "a.jpg")])


def test_evaluation_by_an_export_needs_data_with_its_classes(tmp_path):
    names = {network_facts.KEY: dataclasses.replace(FACTS, class_names=["a", "b", "c"]).to_text(), "home": "torch_ref"}
    tensor_file.write(tmp_path / "named.safetensors", _state(MODEL, 32, 3), names)
    words = ["--weights", str(tmp_path / "named.safetensors"), "--devices", "1"]
    with pytest.raises(UserError, match=r"has 4 classes and the network 3.*only in the network: a, b, c"):
        evaluate.main([*words, "--data", "synthetic:classes=4,train=4,test=4"])
    with pytest.raises(UserError, match=r"--weights needs --data SOURCE"):
        evaluate.main(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "two_column"), "holds weights of cifar_18pct, not of two_column"),
        (("--checkpoint", "newest"), "--checkpoint is for --run"),
        (("--class-names", "x.txt"), "--class-names x.txt: --weights has names for its classes itself"),
        (("--run", "x"), "--run and --weights are two networks"),
    ],
)
def test_flags_that_contradict_an_export_are_refused_by_name(words, said, exported, pictures):
    with pytest.raises(UserError, match=said):
        predict.main(["--weights", str(exported["flax"]), *words, str(pictures / "a.jpg")])


@pytest.mark.parametrize(("flag", "value"), [("--model", MODEL), ("--class-names", "x.txt")])
def test_flags_for_files_are_refused_with_a_run(flag, value, run, pictures):
    with pytest.raises(UserError, match=f"{flag} is for --weights"):
        predict.main(["--run", str(run), flag, value, str(pictures / "a.jpg")])


@pytest.mark.parametrize("command", [predict, evaluate])
def test_a_network_is_needed(command):
    with pytest.raises(UserError, match=r"pass --run DIR.*or --weights FILE"):
        command.main(["x.png"] if command is predict else [])


def test_files_and_folders_may_be_mixed_and_folders_without_pictures_are_refused(pictures, tmp_path):
    inside = [pictures / "b/10.png", pictures / "b/2.png"]
    assert pictures_named([Path("x.tif"), pictures / "b", Path("y")]) == [Path("x.tif"), *inside, Path("y")]
    with pytest.raises(UserError, match="void is empty: name pictures"):
        pictures_named([pictures / "void"])
    (tmp_path / "only.txt").write_text("")
    with pytest.raises(UserError, match=r"has no pictures in it or below \(\.jpg, "):
        predict.main(["--weights", "w.pth", str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--to", "x.txt"),
            r"--to x\.txt doesn't say a format: \.safetensors, \.npz, \.pth, \.onnx, \.stablehlo",
        ),
        (("--to", "x.pt2"), r"--to x\.pt2: pt2 is written by python -m torch_ref\.export; here: \.safetensors"),
        (("--to", "x.onnx", "--format", "npz"), r"--to x\.onnx is not for --format npz: its files end in \.npz"),
        (("--to", "x.onnx", "--home", "flax"), "--home is for files of weights, and --to x.onnx is onnx"),
        (("--to", "x.onnx", "--weights", MODEL), "--run and --weights are two networks"),
        (("--to", "x.onnx", "--model", MODEL), "--model is for --weights"),
        (("--to", "x.pth", "--home", "flax"), r"must end in \.safetensors or \.npz"),
        (("--to", "x.pth", "--home", "torchvision"), "torchvision's alexnet is one_weird_trick, not cifar_18pct"),
        ((), "pass --to FILE, such as --to net.safetensors or --to net.onnx, or --to FOLDER/"),
    ],
)
def test_an_export_that_cannot_be_is_refused_first(words, said, run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        export.main(["--run", str(run), *words])
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_come_back_as_it_was_is_not_put_in_place(monkeypatch, tmp_path):
    params = weight_homes.to_flax(_state(MODEL, 32, 3), VARIANTS[MODEL])
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"old")
    to_bytes = tensor_file.to_bytes

    def one_bit_off(*words):
        content = bytearray(to_bytes(*words))
        content[-1] ^= 1
        return bytes(content)

    monkeypatch.setattr(weight_files.tensor_file, "to_bytes", one_bit_off)
    with pytest.raises(FailedRun, match=r"w\.safetensors did not come back as it was written"):
        weight_homes.save(file, params, MODEL, 32, "flax")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


# --- the text that files carry -----------------------------------------------------------------------------


def test_facts_come_back_bit_for_bit():
    back = NetworkFacts.from_text(FACTS.to_text(), "x")
    assert back.to_text() == FACTS.to_text()
    assert back.arrays["mean"].dtype == np.float32
    assert dataclasses.replace(back, arrays={}) == dataclasses.replace(FACTS, arrays={})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 3}, "has format 3, this version reads 1 and 2: update it"),
        ({"model": "alexnet"}, "impossible model 'alexnet'"),
        ({"image_size": "32"}, "impossible image_size '32'"),
        ({"image_size": True}, "impossible image_size True"),
        ({"stored_size": 31}, "impossible stored_size 31"),
        ({"normalize": "x"}, "impossible normalize 'x'"),
        ({"class_names": []}, "impossible class_names"),
        ({"class_names": [1]}, "impossible class_names"),
        ({"span_columns": True}, "impossible span_columns True"),
        ({"step": -1}, "impossible step -1"),
        ({"arrays": {}}, "as mean for --normalize channel, and has no array"),
        ({"arrays": {"mean": {"dtype": "float32", "shape": [2], "base64": "AAAAAAAAAAA="}}}, r"has shape \(2,\)"),
        ({"arrays": {"mean": {"dtype": "float32", "shape": [3], "base64": "AAAA"}}}, "can't be read"),
        ({"arrays": {"mean": {"dtype": "object", "shape": [3], "base64": "AAAA"}}}, "can't be read"),
        ({"arrays": 3}, "can't be read"),
    ],
)
def test_impossible_facts_are_refused_by_the_files_name(change, said):
    text = json.dumps({**json.loads(FACTS.to_text()), **change})
    with pytest.raises(UserError, match=rf"w\.pth.*{said}"):
        NetworkFacts.from_text(text, "w.pth")


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "null", "{}", '{"format": 1}', '{"format": 1, "arrays": {}}'])
def test_damaged_facts_are_refused_by_the_files_name(text):
    with pytest.raises(UserError, match=r"w\.pth says of its network what can't be read"):
        NetworkFacts.from_text(text, "w.pth")


def test_names_that_do_not_match_the_weights_are_refused(tmp_path):
    facts = {network_facts.KEY: dataclasses.replace(FACTS, class_names=["a", "b"]).to_text(), "home": "torch_ref"}
    tensor_file.write(tmp_path / "w.safetensors", _state(MODEL, 32, 3), facts)
    with pytest.raises(UserError, match="names 2 classes and has weights for 3"):
        weight_homes.read(tmp_path / "w.safetensors")
