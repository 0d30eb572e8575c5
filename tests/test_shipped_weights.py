"""Weights that come with the project: found by name in every command of both programs, packed with an honest card."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import commands
import jax
import numpy as np
import pytest
import torch
from absolute_paths import absolute_paths
from PIL import Image

import alexnet_io.run.loop as loop_module
from alexnet_io.command_line.settings import run_command
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from alexnet_io.files import tensor_file
from alexnet_io.run.run_description import read_description
from alexnet_io.weights import card, shipped
from jax_alexnet import load_run
from jax_alexnet import train_command as training
from jax_alexnet.files import weight_homes
from jax_alexnet.recipes import resolve
from parity.__main__ import main as parity_main
from torch_ref import evaluate, resolved_settings, weight_file
from torch_ref import train_command as torch_training
from torch_ref.alexnet import build

ROOT = Path(__file__).parents[1]
NAMES = shipped.names()
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def picture(tmp_path: Path, rng: np.random.Generator) -> Path:
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch of the two that were planned, of seed 3."""
    where = tmp_path_factory.mktemp("runs") / "run"
    words: Any = {
        "model": "cifar_13pct", "data": "synthetic:classes=6,train=16,test=9", "image_size": 16, "stored_size": 20,
        "batch_size": 8, "epochs": 2, "steps": 2, "devices": "1", "output": where, "learning_rate": 0.01, "seed": 3,
    }  # fmt: skip
    x64 = jax.config.read("jax_enable_x64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module.pictures, "draw", lambda *_: None)
        assert training.train(resolve(TrainSettings(**words))) == 0
    jax.config.update("jax_enable_x64", x64)
    return where


# --- what is there ------------------------------------------------------------------------------------------


def test_there_are_some_and_all_together_are_small() -> None:
    assert "cifar_18pct" in NAMES
    files = [path for path in shipped.FOLDER.iterdir() if path.suffix in (shipped.ENDING, shipped.CARD_ENDING)]
    assert sum(path.stat().st_size for path in files) <= 10_000_000


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_card_that_says_the_same_as_its_file(name: str) -> None:
    path = shipped.FOLDER / f"{name}.safetensors"
    found, text = card.read(path), shipped.card(name)
    assert found is not None
    assert text == found.to_markdown(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    loaded = weight_homes.read(Path(name))
    assert loaded.facts is not None and list(loaded.facts.class_names) == found.classes
    assert (loaded.model, loaded.facts.step) == (found.model, found.step)
    assert sum(x.size for leaves in loaded.params.values() for x in leaves.values()) == found.parameters
    assert {x.dtype.name for leaves in loaded.params.values() for x in leaves.values()} == {"float32"}
    for said in (f"{found.top1_error:.2f}%", found.command, found.measured_by, f"seed {found.seed}", found.data):
        assert said in text
    assert ("unfinished" in text) == (found.reached_epoch < found.planned_epochs)
    assert absolute_paths(text) == []  # PATH and RUN stand for places
    assert "/home/" not in text and "/tmp/" not in text


def test_a_wheel_has_them(tmp_path: Path) -> None:
    for name in ("jax_alexnet", "torch_ref", "alexnet_io", "parity"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    code = "import setuptools.build_meta as build; print(build.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    inside = set(zipfile.ZipFile(tmp_path / done.stdout.split()[-1]).namelist())
    expected = {f"alexnet_io/weights/{name}{ending}" for name in NAMES for ending in (".safetensors", ".md")}
    assert {*expected, "alexnet_io/data/sources/imagenet_classes.txt"} <= inside


# --- by name ------------------------------------------------------------------------------------------------


def test_load_run_takes_a_name(picture: Path) -> None:
    network = load_run("cifar_18pct")
    assert network.class_names == CLASSES
    by_path = load_run(shipped.FOLDER / "cifar_18pct.safetensors")
    assert network.predict(picture) == by_path.predict(picture)


def test_commands_take_a_name(picture: Path, tmp_path: Path) -> None:
    told = commands.run("predict", "--weights", "cifar_18pct", picture, devices=1).stdout
    assert {line.split()[1] for line in told.splitlines() if "%" in line} <= set(CLASSES)
    output = tmp_path / "features.npz"
    commands.run("features", picture, "--weights", "cifar_18pct", "--layer", "pool3", "--output", output, devices=1)
    assert np.load(output)["features"].shape == (1, 4, 4, 64)


def test_both_programs_measure_the_same_by_name(picture: Path, tmp_path: Path, capsys) -> None:
    """On one picture for each class."""
    for split in ("train", "test"):
        for number, name in enumerate(CLASSES):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            color = (25 * number, 255 - 20 * number, 100 if split == "train" else 90)
            Image.new("RGB", (32, 32), color).save(tmp_path / "data" / split / name / "0.png")
    found = {}
    words = ("--weights", "cifar_18pct", "--data", f"folder:{tmp_path / 'data'}", "--cache-dir", tmp_path / "cache")
    commands.run("evaluate", *words, "--json", tmp_path / "jax.json", devices=1)
    assert evaluate.main([*map(str, words), "--json", str(tmp_path / "torch.json"), "--devices", "1"]) == 0
    found = {side: json.loads((tmp_path / f"{side}.json").read_text()) for side in ("jax", "torch")}
    assert found["jax"]["top1"] == found["torch"]["top1"] and found["jax"]["examples"] == 10
    assert found["jax"]["loss"] == pytest.approx(found["torch"]["loss"], rel=1e-5)


@pytest.mark.parametrize("side", ["jax", "torch"])
def test_a_run_begins_with_a_name(side: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(loop_module.pictures, "draw", lambda *_: None)
    words: Any = {
        "model": "cifar_18pct", "data": "synthetic:classes=6,train=8,test=8", "batch_size": 8, "steps": 1, "epochs": 1,
        "devices": "1", "output": tmp_path / "run", "init_from": "cifar_18pct", "freeze": "conv1..conv3",
    }  # fmt: skip
    chosen = TrainSettings(**words)
    if side == "jax":
        assert training.train(resolve(chosen)) == 0
    else:
        assert torch_training.train(resolved_settings.resolve(chosen)) == 0
    assert "fc10 is new: 6 classes here, 10 there" in capsys.readouterr().out
    assert read_description(tmp_path / "run")["begun_with"]["model"] == "cifar_18pct"
    original = weight_homes.read(Path("cifar_18pct")).params["conv1"]["kernel"]
    if side == "jax":
        np.testing.assert_array_equal(load_run(tmp_path / "run").variables["params"]["conv1"]["kernel"], original)
    else:
        state = tensor_file.read(tmp_path / "run" / "best" / "weights.safetensors")[0]
        np.testing.assert_array_equal(state["conv1.weight"].transpose(2, 3, 1, 0), original)


def test_the_harness_compares_both_sides_with_them(capsys, monkeypatch) -> None:
    arguments = ["parity", "grads", "--model", "cifar_18pct", "--weights", "cifar_18pct", "--batch", "2"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        run_command(parity_main)
    said = capsys.readouterr().out
    assert end.value.code == 0, said


def test_what_lies_at_the_path_wins_over_the_name(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "cifar_18pct")
    assert load_run("cifar_18pct").settings.model == "cifar_13pct"
    with pytest.raises(UserError, match=r"--weights cifar_18pct is a folder without model\.safetensors.*with --run"):
        shipped.located(Path("cifar_18pct"), "--weights")


@pytest.mark.parametrize("name", ["cifar_18", "nothing", "CIFAR_18PCT"])
def test_a_name_that_there_is_not_is_refused_with_those_that_there_are(name: str, capsys, monkeypatch) -> None:
    expected = f"{name} is not a file, and no weights of that name come with the project.*cifar_18pct"
    with pytest.raises(UserError, match=expected):
        load_run(name)
    with pytest.raises(UserError, match=expected):
        weight_file.read(Path(name))
    with pytest.raises(UserError, match=r"does not exist: .*weights that come with the project \(.*cifar_18pct.*\)"):
        training.train(resolve(TrainSettings(model="cifar_18pct", init_from=name, data="synthetic")))
    monkeypatch.setattr(sys, "argv", ["parity", "layers", "--model", "cifar_18pct", "--weights", name])
    with pytest.raises(SystemExit) as end:
        run_command(parity_main)
    assert end.value.code == 2 and "cifar_18pct" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["w.pth", "folder/w", "folder/cifar_18pct"])
def test_what_can_only_be_a_path_is_none(path: str) -> None:
    assert shipped.located(Path(path), "--weights") == Path(path)
    assert not shipped.is_name(path)


def test_they_are_listed_and_their_cards_shown(capsys) -> None:
    from jax_alexnet.weights import main

    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = card.read(shipped.FOLDER / "cifar_18pct.safetensors")
    assert found is not None
    assert any(line == found.line() and f"{found.top1_error:.2f}% error" in line for line in lines)
    assert main(["--card", "cifar_18pct"]) == 0
    assert capsys.readouterr().out == shipped.card("cifar_18pct")
    with pytest.raises(UserError, match=r"'cifar_18' .*did you mean cifar_18pct.*: .*cifar_18pct"):
        main(["--card", "cifar_18"])
    with pytest.raises(UserError, match="exclude each other"):
        main(["--list", "--card", "cifar_18pct"])


# --- packing ------------------------------------------------------------------------------------------------


def test_a_run_is_packed_with_what_it_is_worth(run: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    words = ("--run", run, "--into", folder, "--data-is", "pictures that were made up", "--crops", "9")
    commands.run("evaluate", "--run", run, "--crops", "9", "--json", tmp_path / "found.json", devices=1)
    pack(*words)
    report = json.loads((tmp_path / "found.json").read_text())
    found = card.read(folder / "cifar_13pct.safetensors")
    assert found is not None
    assert found.top1_error == round(100 * (1 - report["top1"]), 2) and found.loss == round(report["loss"], 4)
    assert (found.seed, found.step, found.epochs, found.planned_epochs, found.examples) == (3, 2, 1, 2, 9)
    assert not found.finished and found.training_images == 16 and "9 crops" in found.protocol
    text = (folder / "cifar_13pct.md").read_text()
    assert "**Of an unfinished run**: it had reached epoch 1 of 2" in text and str(run) not in text
    assert "pictures that were made up; 16 training images" in text
    same, own = load_run(folder / "cifar_13pct.safetensors"), load_run(run)
    for layer, leaves in own.variables["params"].items():
        for kind, leaf in leaves.items():
            np.testing.assert_array_equal(same.variables["params"][layer][kind], leaf)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    pack(*words)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    state = weight_file.state_for(weight_file.read(folder / "cifar_13pct.safetensors"), build("cifar_13pct", 6, 16))
    assert all(torch.isfinite(value).all() for value in state.values())


def pack(*words: object, code: int = 0) -> str:
    done = commands.run("pack", *words, devices=None, code=code)
    return done.stdout + done.stderr


def test_the_command_on_a_card_trains_the_same_again(run: Path, tmp_path: Path) -> None:
    """Every setting that decides what is learnt is either in it or its recipe's."""
    from alexnet_io.command_line.settings import parse_given

    folder = tmp_path / "weights"
    folder.mkdir()
    pack("--run", run, "--into", folder, "--data-is", "x", "--name", "mine")
    found = card.read(folder / "mine.safetensors")
    assert found is not None and found.command.startswith("python -m jax_alexnet.train ")
    again = resolve(parse_given(TrainSettings, "train", found.command.split()[3:])[0])
    assert {name: getattr(again, name) for name in found.recipe} == {**found.recipe}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "pass --run DIR"),
        (("--run", "RUN"), "--data-is TEXT"),
        (("--run", "RUN", "--data-is", "x", "--name", "Mine!"), "small letters, digits and underscores"),
        (("--run", "RUN", "--data-is", "x", "--into", "nowhere"), "nowhere is not a folder"),
        (("--run", "nowhere", "--data-is", "x"), "nowhere"),
    ],
)
def test_what_cannot_be_packed_is_refused(words: tuple[str, ...], said: str, run: Path) -> None:
    assert said in pack(*(str(run) if word == "RUN" else word for word in words), code=2)


def test_no_more_than_ten_megabytes_are_packed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"0" * 9_999_999)
    assert "10,000,000: take others away" in pack("--run", run, "--into", tmp_path, "--data-is", "x", code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["other.safetensors"]
