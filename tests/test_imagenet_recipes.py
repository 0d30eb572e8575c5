"""`alexnet_io/recipes/`: what each file says against the sources, and one run from end to end in miniature."""

import json
from pathlib import Path
from typing import Any

import commands
import facts
import numpy as np
import pytest
from parallel_cases import narrow
from PIL import Image

import alexnet_io.run.loop as loop_module
from alexnet_io import recipes
from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.settings import parse_given
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.sources import synset_names
from alexnet_io.errors import UserError
from jax_alexnet import recipes as jax_recipes
from jax_alexnet import schedules as jax_schedules
from jax_alexnet.files.exported import with_names
from jax_alexnet.files.finished_run import TrainedNetwork
from jax_alexnet.model import AlexNet
from jax_alexnet.variants import VARIANTS
from torch_ref import resolved_settings
from torch_ref import schedules as torch_schedules
from torch_ref.recipes import IMAGENET_IMAGES

ROOT = Path(__file__).parents[1]
FILES = {name: recipes.FOLDER / f"{name}.yaml" for name in recipes.names()}
RESOLVE = {"jax": jax_recipes.resolve, "torch": resolved_settings.resolve}
STEPS = -(-IMAGENET_IMAGES // 256)  # an epoch of Caffe's batches

# The network, the published figures as the sources write them, and what evaluate has to be told.
PUBLISHED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "imagenet-paper": ("two_column", ("40.7%", "18.2%"), " --crops 10"),
    "imagenet-released-code": ("cuda_convnet_2012", ("40.664%", "18.210%", "37.4727%", "16.9987%"), " --crops 10"),
    "imagenet-caffe-alexnet": ("caffe_alexnet", ("57.1%", "80.2%"), ""),
    "imagenet-caffenet": ("caffenet", ("57.4%", "80.4%"), ""),
    "imagenet-torchvision": ("one_weird_trick", ("56.522%", "79.066%"), ""),
    "imagenet-one-weird-trick": ("one_weird_trick_lrn", ("42.55%", "19.81%"), ""),
}
# [P] section 5, [S] section 6 of its log, [K] solver.prototxt, [TV], [C2]: batch, rate, biases' rate and decay, decay.
FIGURES: dict[str, tuple[int, float, float, bool, float]] = {
    "imagenet-paper": (128, 0.01, 1, True, 5e-4),
    "imagenet-released-code": (128, 0.01, 2, False, 5e-4),
    "imagenet-caffe-alexnet": (256, 0.01, 2, False, 5e-4),
    "imagenet-caffenet": (256, 0.01, 2, False, 5e-4),
    "imagenet-torchvision": (256, 0.01, 1, True, 1e-4),
    "imagenet-one-weird-trick": (128, 0.01, 2, False, 5e-4),
}
# The weights' learning rate in epochs from 0.
RATES: dict[str, dict[int, float]] = {
    "imagenet-released-code": {0: 1e-2, 22: 1e-2, 23: 1e-3, 50: 1e-3, 51: 1e-4, 77: 1e-4, 78: 1e-5, 92: 1e-5},
    "imagenet-torchvision": {0: 1e-2, 29: 1e-2, 30: 1e-3, 60: 1e-4, 89: 1e-4},
    "imagenet-one-weird-trick": {
        0: 1e-2, 22: 1e-2, 23: 1e-2 * 250 ** (-1 / 3), 45: 1e-2 * 250 ** (-2 / 3), 68: 1e-2 / 250, 89: 1e-2 / 250,
    },
    # Every 100,000 steps, the first within the epoch that begins with step 95,095 of batches of 256.
    "imagenet-caffe-alexnet": {0: 1e-2, 19: 1e-2, 20: 1e-3, 39: 1e-3, 40: 1e-4, 80: 1e-6},
    "imagenet-caffenet": {0: 1e-2, 19: 1e-2, 20: 1e-3, 39: 1e-3, 40: 1e-4, 80: 1e-6},
}  # fmt: skip


def given_by(name: str) -> tuple[TrainSettings, dict[str, Any]]:
    return parse_given(TrainSettings, "train", ["--config", name, "--data", "imagenet:PATH"])


def test_every_file_is_known_here_and_in_the_documents() -> None:
    assert set(FILES) == set(PUBLISHED) == set(FIGURES)
    page = (ROOT / "docs" / "imagenet.md").read_text()
    for name, (model, figures, crops) in PUBLISHED.items():
        text = FILES[name].read_text()
        row = next(line for line in page.splitlines() if f"`{name}`" in line)
        assert f"`{model}`" in row, name
        assert all(figure in text and figure.rstrip("%") in row for figure in figures), name
        assert f"python -m jax_alexnet.train --config {name} --data imagenet:PATH --output RUN\n" in text
        assert f"python -m jax_alexnet.evaluate --run RUN{crops}\n" in text


@pytest.mark.parametrize("name", FILES)
def test_a_file_leaves_nothing_to_defaults_and_both_programs_read_the_same(name: str) -> None:
    """So that no change of a recipe's default changes what a file trains."""
    settings, given = given_by(name)
    jax, torch = (resolve(settings) for resolve in RESOLVE.values())
    assert jax == torch
    decided = set(CompleteSettings.__annotations__)
    unused = {"drop_every", "drop_epochs"} - set(given)
    assert decided - unused <= set(given) | {"drop_every", "drop_epochs"}
    assert all(getattr(jax, key) == value for key, value in given.items())
    assert jax.dropout == 0.5


def test_a_name_gives_way_to_a_file_and_not_to_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet-paper").mkdir()  # a run of that name
    (tmp_path / "imagenet-caffenet").write_text("epochs: 7")
    for name, epochs in ("imagenet-paper", 90), ("imagenet-caffenet", 7):
        assert parse_given(TrainSettings, "train", ["--config", name])[0].epochs == epochs
    with pytest.raises(SystemExit):
        parse_given(TrainSettings, "train", ["--config", "imagenet-papr.yaml"])
    said = capsys.readouterr().err
    assert "--config imagenet-papr.yaml is not a file: pass a YAML file of settings, or the name" in said
    assert all(name in said for name in FILES) and "; did you mean imagenet-paper" in said


@pytest.mark.parametrize("side", RESOLVE)
@pytest.mark.parametrize("name", FILES)
def test_figures_are_the_sources(name: str, side: str) -> None:
    settings = RESOLVE[side](given_by(name)[0])
    assert settings.model == PUBLISHED[name][0]
    found = (settings.batch_size, settings.learning_rate, settings.bias_learning_rate_factor, settings.decay_biases)
    assert (*found, settings.weight_decay) == FIGURES[name]
    assert settings.momentum == 0.9 and settings.crop and settings.flip
    assert (settings.image_size, settings.stored_size) == (facts.NETWORKS[settings.model].image_size, 256)
    by_the_author = name in ("imagenet-paper", "imagenet-released-code", "imagenet-one-weird-trick")
    assert settings.color_noise == by_the_author  # [P] section 4.1; Caffe and torchvision have none
    assert settings.optimizer == ("sgd" if name == "imagenet-torchvision" else "paper")
    assert settings.normalize == ("imagenet" if name == "imagenet-torchvision" else "mean_image")
    if settings.recipe == "caffe":
        assert settings.steps == facts.CAFFE_MAX_ITERATIONS <= settings.epochs * STEPS
        assert settings.drop_every == facts.CAFFE_STEP_ITERATIONS


@pytest.mark.parametrize("side", RESOLVE)
@pytest.mark.parametrize("name", RATES)
def test_rates_of_whole_runs(name: str, side: str) -> None:
    settings = RESOLVE[side](given_by(name)[0])
    for epoch, rate in RATES[name].items():
        assert rate_of(settings, side, epoch) == pytest.approx(rate, rel=1e-5), epoch


def rate_of(settings: CompleteSettings, side: str, epoch: int) -> float:
    """In the first step of an epoch of ImageNet."""
    step = epoch * -(-IMAGENET_IMAGES // settings.batch_size)
    if side == "jax":
        return jax_schedules.learning_rate(settings, epoch, step)
    schedule = resolved_settings.schedule_of(settings)
    return torch_schedules.learning_rate(schedule, settings.learning_rate, epoch=epoch, step=step)


def test_the_only_plateau_is_the_papers() -> None:
    plateaus = [name for name in FILES if given_by(name)[0].schedule == "plateau"]
    assert plateaus == ["imagenet-paper"] and given_by("imagenet-paper")[0].drop_factor == 0.1


# --- from a folder of photographs to the ten-crop error -----------------------------------------------------

SYNSETS = {"n01440764": "tench", "n02105855": "Shetland sheepdog", "n04254680": "soccer ball"}


@pytest.fixture
def imagenet(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three synsets with two pictures each to learn from, one greyscale, and one each to be tested on; odd sizes."""
    for place, synset in enumerate(SYNSETS):
        for split, count in (("train", 2), ("val", 1)):
            folder = tmp_path / "imagenet" / split / synset
            folder.mkdir(parents=True)
            for number in range(count):
                shape = (90 + place, 120 - number, 3) if place or number else (100, 80)
                Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / f"{split}{number}.JPEG")
    return tmp_path / "imagenet"


def test_the_papers_recipe_from_a_folder_to_the_ten_crop_error(imagenet, tmp_path, monkeypatch) -> None:
    """Small and narrow: begun, stopped after a step, resumed to its end, measured, and asked by names."""
    monkeypatch.setattr(loop_module.pictures, "draw", lambda *_: None)
    monkeypatch.setitem(VARIANTS, "two_column", narrow(VARIANTS["two_column"]))
    small = ("--image-size", "67", "--stored-size", "77", "--batch-size", "4", "--epochs", "2")
    where = ("--output", tmp_path / "run", "--cache-dir", tmp_path / "cache")
    recipe = ("--config", FILES["imagenet-paper"], "--data", f"imagenet:{imagenet}")
    commands.run("train", *recipe, *small, *where, "--steps", "1")
    said = commands.run("train", "--resume", "--output", tmp_path / "run", "--steps", "4").stdout
    assert "step 4/4" in said
    measured = commands.run("evaluate", "--run", tmp_path / "run", "--crops", "10", "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["examples"] == 3 and found["crops"] == 10 and list(found["per_class"]) == list(SYNSETS)
    assert np.isfinite(found["loss"]) and found["top5"] == 1.0  # of three classes the right one is among five
    told = commands.run("predict", "--run", tmp_path / "run", next(imagenet.glob("val/*/*"))).stdout
    for synset, name in SYNSETS.items():
        assert f"{name} ({synset})" in measured.stdout and f"{name} ({synset})" in told


# --- names that people can read -----------------------------------------------------------------------------


def test_every_synset_of_the_contest_has_a_name_of_its_own() -> None:
    """The first, the last and those that are easily mixed up, as ImageNet's own lists have them."""
    names = synset_names.names()
    assert len(names) == len(set(names.values())) == 1000 and list(names) == sorted(names)
    assert names["n01440764"] == "tench" and names["n15075141"] == "toilet tissue"
    assert {names["n02012849"], names["n03126707"]} == {"crane bird", "crane"}
    assert synset_names.readable("n02123045") == "tabby (n02123045)"
    assert synset_names.readable("cat") == "cat" and synset_names.readable("n00000000") == "n00000000"


def test_weights_without_names_get_imagenets_on_request(tmp_path: Path, monkeypatch) -> None:
    """Of as many classes only, and where no file has that name."""
    monkeypatch.chdir(tmp_path)
    network = TrainedNetwork(*9 * [None])  # pyright: ignore[reportArgumentType]
    network.class_names, network.model = [], AlexNet("one_weird_trick", 1000)
    assert with_names(network, Path("imagenet")).class_names == list(synset_names.names())
    network.model = AlexNet("one_weird_trick", 10)
    with pytest.raises(UserError, match="--class-names imagenet has 1000 lines; the weights have 10 classes"):
        with_names(network, Path("imagenet"))
    (tmp_path / "imagenet").mkdir()  # the data, as it may be
    network.model = AlexNet("one_weird_trick", 1000)
    assert with_names(network, Path("imagenet")).class_names == list(synset_names.names())
    (tmp_path / "imagenet").rmdir()
    network.model = AlexNet("one_weird_trick", 10)
    (tmp_path / "imagenet").write_text("\n".join(f"own {number}" for number in range(10)))
    assert with_names(network, Path("imagenet")).class_names[3] == "own 3"
