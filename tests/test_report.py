"""The page of a run: of either program, finished, interrupted and going on, whole or with parts missing."""

import html.parser
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import commands
import jax
import numpy as np
import pytest

import alexnet_io.run.loop as loop_module
from alexnet_io.command_line import repeating
from alexnet_io.command_line.resumed_settings import of_resumed_run, planned
from alexnet_io.command_line.settings import parse
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.report.status import status_of
from alexnet_io.run import directory, directory_lock, machine
from alexnet_io.run.metrics import MetricsRow, best_of, read_metrics
from alexnet_io.run.mistakes import WorstMistakes
from alexnet_io.run.run_description import read_description
from jax_alexnet import train_command as jax_training
from jax_alexnet.recipes import resolve
from torch_ref import resolved_settings
from torch_ref import train_command as torch_training

WORDS: dict[str, Any] = {
    "model": "cifar_13pct",
    "data": "synthetic:classes=6,train=16,test=9",
    "image_size": 16,
    "stored_size": 20,
    "batch_size": 8,
    "epochs": 2,
    "devices": "1",
    "learning_rate": 0.01,
    "seed": 3,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each program."""
    where = tmp_path_factory.mktemp("runs")
    x64 = jax.config.read("jax_enable_x64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module.pictures, "draw", lambda *_: None)
        assert jax_training.train(resolve(TrainSettings(**WORDS, output=where / "jax"))) == 0
        assert torch_training.train(resolved_settings.resolve(TrainSettings(**WORDS, output=where / "torch"))) == 0
    jax.config.update("jax_enable_x64", x64)
    return {"jax_alexnet": where / "jax", "torch_ref": where / "torch"}


class Page(html.parser.HTMLParser):
    """Refuses tags that are closed in another order than they were opened; keeps text and pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.pictures = "", 0
        self.feed(path.read_text())
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "img":
            self.pictures += 1
            assert str(dict(attrs)["src"]).startswith("data:image/")  # nothing is loaded
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(package: str, run: Path, *words: object, code: int = 0) -> SimpleNamespace:
    return commands.run(f"{package}.report", run, *words, devices=1, code=code)


# --- whole pages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["jax_alexnet", "torch_ref"])
def test_a_finished_run_has_everything_on_its_page(package: str, runs: dict[str, Path]) -> None:
    run = runs[package]
    told = report(package, run)
    assert told.stdout.splitlines()[-1] == f"wrote {run / 'report.html'}"
    assert "warning" not in told.stderr
    page = Page(run / "report.html")
    best = best_of(read_metrics(run))
    assert best is not None and best.top1 is not None
    wrong = round(9 * (1 - best.top1))
    assert page.pictures == 3 + 1 + wrong + 1  # curves, confusion, mistakes, filters
    description = read_description(run)
    for said in (
        "Finished after 2 of 2 epochs, step 4.",
        "learning_rate0.010.001",
        description["machine"]["processor"],
        "1 x cpu",
        f"python -m {package}.train --model cifar_13pct",
        "9 test images",
        "images a second",
    ):
        assert said in page.text, said


def test_either_program_measures_the_reference_s_run_alike(runs: dict[str, Path], tmp_path: Path) -> None:
    found = []
    for package in ("jax_alexnet", "torch_ref"):
        report(package, runs["torch_ref"], "--output", tmp_path / f"{package}.html")
        text = Page(tmp_path / f"{package}.html").text
        found.append(text[text.index("top-1") : text.index("nats")][:20])
    assert found[0] == found[1]


def test_the_reference_leaves_other_runs_to_their_program(runs: dict[str, Path]) -> None:
    told = commands.run("torch_ref.report", runs["jax_alexnet"], devices=None, code=2)
    assert "is a run of jax_alexnet: python -m jax_alexnet.report" in told.stderr


# --- what is missing -----------------------------------------------------------------------------------------


def copy(run: Path, to: Path, **settings: Any) -> Path:
    """A copy of a run, with settings as if it had been begun with them."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("report.html"))
    description = json.loads((to / "run.json").read_text())
    description["settings"] |= settings
    del description["machine"]  # as versions before left it
    (to / "run.json").write_text(json.dumps(description))
    return to


def test_pictures_that_moved_are_said_to_be_missing(runs: dict[str, Path], tmp_path: Path) -> None:
    run = copy(runs["torch_ref"], tmp_path / "run", data=f"folder:{tmp_path}/<gone>")
    told = report("torch_ref", run)
    page = Page(run / "report.html")
    for said in (told.stderr, page.text):
        assert "nothing was measured on the test images" in said
        assert "<gone>" in said
    assert page.pictures == 3 + 1  # curves and filters
    assert "not recorded by the version that began this run" in page.text


def test_a_run_without_weights_and_rows_has_a_page_too(runs: dict[str, Path], tmp_path: Path) -> None:
    run = copy(runs["torch_ref"], tmp_path / "run")
    shutil.rmtree(run / "best")
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").unlink()
    told = report("torch_ref", run)
    assert "warning: no metrics: " in told.stderr
    assert "warning: no weights: no checkpoint was finished" in told.stderr
    page = Page(run / "report.html")
    assert page.pictures == 0
    for said in ("Interrupted after 0 of 2 epochs", "Nothing was evaluated yet", "None was finished yet"):
        assert said in page.text


def test_a_run_that_was_stopped_says_how_it_goes_on(runs: dict[str, Path], tmp_path: Path) -> None:
    run = copy(runs["torch_ref"], tmp_path / "run", epochs=5)
    report("torch_ref", run, "--no-evaluate", "--output", tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert "Interrupted after 2 of 5 epochs" in page.text
    assert f"python -m torch_ref.train --resume --output {run}" in page.text
    assert "No picture was looked at" in page.text
    assert not (run / "report.html").exists()


def test_a_run_that_was_resumed_is_held_to_its_later_end(runs: dict[str, Path], tmp_path: Path) -> None:
    """Also by the next resumption, and of both programs; the first of several processes is called that."""
    for trainer, run in runs.items():
        again = copy(run, tmp_path / trainer)
        commands.run(f"{trainer}.train", "--resume", "--output", again, "--epochs", 3, "--steps", 2, devices=1)
        found = read_description(again)
        assert (found["settings"]["epochs"], planned(found)["epochs"]) == (2, 3)
        assert of_resumed_run(TrainSettings(output=again, resume=True), {}, trainer).epochs == 3
        with directory.RunDirectory(again, resume=True) as kept:
            kept.went_on(lengths={"epochs": 9, "steps": None}, machine=machine.describe(["cpu"] * 3, 3))
        report(trainer, again, "--no-evaluate")
        page = Page(again / "report.html")
        assert "Interrupted after 2 of 9 epochs" in page.text
        assert "2 times, last at" in page.text and "on 3 x cpu" in page.text
    assert "processes" not in machine.describe(["cpu"])


def test_a_run_that_goes_on_is_told_by_its_lock(runs: dict[str, Path], tmp_path: Path) -> None:
    run = copy(runs["torch_ref"], tmp_path / "run")
    assert not directory_lock.in_use(run)
    with directory.RunDirectory(run, resume=True):
        assert directory_lock.in_use(run)
        assert _in_another_process(run)
    assert not directory_lock.in_use(run)
    assert not _in_another_process(run)


def _in_another_process(run: Path) -> bool:
    code = "import sys; from alexnet_io.run.directory_lock import in_use; sys.exit(in_use(sys.argv[1]))"
    return bool(subprocess.run([sys.executable, "-c", code, run], check=False).returncode)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "runs are missing"),
        (["{none}"], "no run in"),
        (["{run}", "{run}"], "one run has one page"),
        (["{run}", "--output", "{none}/page.html"], "there is no folder"),
        (["{run}", "--mistakes", "-1"], "must be at least 0"),
    ],
)
def test_what_can_have_no_page_is_refused(words, said, runs: dict[str, Path], tmp_path: Path) -> None:
    places = {"run": runs["jax_alexnet"], "none": tmp_path / "none"}
    told = commands.run("report", *(word.format(**places) for word in words), devices=None, code=2)
    assert said in told.stderr


# --- status, mistakes, commands ------------------------------------------------------------------------------


def test_status_of_a_run_that_ran_out_of_patience_and_its_time(tmp_path: Path) -> None:
    settings = resolve(TrainSettings(data="synthetic", model="cifar_18pct", epochs=9, patience=2, validation=0.1))
    rows = [
        MetricsRow(10, 1, "train", 1.0, 0.5, images_per_second=50.0),
        MetricsRow(10, 1, "validation", 1.0, 0.7, images_per_second=10.0),
        MetricsRow(20, 2, "train", 1.0, 0.5, images_per_second=100.0),
        MetricsRow(20, 2, "validation", 1.0, 0.7, images_per_second=10.0),
        MetricsRow(30, 3, "train", 1.0, 0.5, images_per_second=25.0),
        MetricsRow(30, 3, "validation", 1.0, 0.6, images_per_second=10.0),
        MetricsRow(30, 3, "test", 1.0, 0.9, images_per_second=4.0),
    ]
    description = {"data": {"train": {"examples": 100}, "validation": {"examples": 10}, "test": {"examples": 8}}}
    found = status_of(tmp_path, description, settings, rows)
    assert (found.state, found.best) == ("stopped early", rows[1])
    assert found.training_seconds == pytest.approx(100 / 50 + 100 / 100 + 100 / 25)
    assert found.evaluating_seconds == pytest.approx(3 * 10 / 10 + 8 / 4)
    assert found.headline == (
        "Stopped early after 3 of 9 epochs, step 30. Best on the validation images: 70.00%, after epoch 1; last: "
        "60.00%. Test images at the end: 90.00%."
    )
    assert status_of(tmp_path, {}, replace(settings, patience=None), rows).state == "interrupted"


def test_the_surest_mistakes_are_kept_whatever_the_batches() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.6, 0.4], [0.01, 0.99], [0.3, 0.7]])
    labels, split = np.array([0, 0, 1, 1, 0, 1]), SimpleNamespace(names=[f"{i}.png" for i in range(6)])
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    for sizes in ((6,), (1, 2, 3)):
        worst, start = WorstMistakes(3), 0
        for size in sizes:
            part = slice(start, start + size)
            weights = np.where(np.arange(6)[part] == 4, 0.0, 1.0)  # the surest of all only fills up a batch
            batch: Any = SimpleNamespace(
                images=images[part], labels=labels[part], weights=weights, ids=np.arange(6)[part]
            )
            worst(np.log(probabilities[part]), batch, split)  # pyright: ignore[reportArgumentType]
            start += size
        found = [(each.place, each.name, each.truth, each.guess, round(each.probability, 9)) for each in worst.found]
        assert found == [(2, "2.png", 1, 0, 0.9), (1, "1.png", 0, 1, 0.8), (3, "3.png", 1, 0, 0.6)]
        assert [int(each.picture[0, 0, 0]) for each in worst.found] == [2, 1, 3]
        assert [round(each.of_truth, 9) for each in worst.found] == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("side", [resolve, resolved_settings.resolve])
@pytest.mark.parametrize(
    "words",
    [
        {},
        {"data": "folder:a b", "model": "cifar_18pct", "holdout": 0.2, "flip": True, "validation": 0.1},
        {"model": "cifar_13pct", "data": "synthetic", "recipe": "blog", "image_size": 40, "crop": True},
        {"model": "two_column", "data": "cifar10", "recipe": "caffe", "schedule": "at_epochs", "drop_epochs": [3, 5]},
        {"data": "digits", "learning_rate": 1e-5, "decay_biases": False, "ema": 0.99, "cache_dir": Path("there")},
    ],
)
def test_the_command_trains_with_the_same_settings(side: Any, words: dict[str, Any]) -> None:
    saved = side(TrainSettings(**words))
    again = side(parse(TrainSettings, "python -m jax_alexnet.train", repeating.command(saved, side)))
    assert again == saved


def test_a_recipe_that_is_not_the_network_s_own_is_among_what_was_chosen() -> None:
    saved = resolve(TrainSettings(model="cifar_18pct", data="synthetic", recipe="blog", learning_rate=0.5))
    assert repeating.differing(saved, resolve) == {
        "data": ("synthetic", "digits"),
        "model": ("cifar_18pct", "single_column"),
        "recipe": ("blog", "cifar"),
        "learning_rate": (0.5, 1e-4),
    }


def test_a_damaged_line_of_metrics_is_missing_and_no_traceback(runs: dict[str, Path], tmp_path: Path) -> None:
    run = copy(runs["torch_ref"], tmp_path / "run")
    (run / "metrics.jsonl").write_text("{\n")
    assert "line 1 is no row of metrics" in report("torch_ref", run, "--no-evaluate").stderr
