"""`python -m jax_alexnet.reproduce`: its arithmetic by hand, and experiments on a few pictures, stopped and resumed."""

import html.parser
import importlib
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import commands
import facts
import numpy as np
import pytest
from PIL import Image

import alexnet_io.run.loop as loop_module
from alexnet_io.command_line.complete_settings import CompleteSettings, plain
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import FailedRun, UserError
from alexnet_io.run.directory import RunDirectory
from alexnet_io.run.metrics import MetricsRow, MetricsWriter, read_metrics
from alexnet_io.run.run_description import read_description
from alexnet_io.run.signals import Signals
from jax_alexnet.recipes import choose_variant, resolve
from jax_alexnet.reproduce import (
    experiments,
    figure1,
    looking,
    originals,
    page,
    performing,
    pictures,
    reading,
    results,
    running,
    studies,
)
from jax_alexnet.reproduce.experiments import EXPERIMENTS
from jax_alexnet.reproduce.performing import PERFORMERS
from jax_alexnet.reproduce.race import Race
from jax_alexnet.reproduce.results import Result
from jax_alexnet.reproduce.settings import ReproduceSettings
from jax_alexnet.variants import VARIANTS


def train_row(step: int, error: float, per_epoch: int = 10, speed: float | None = 100.0) -> MetricsRow:
    return MetricsRow(step, step / per_epoch, "train", 1.0, 1 - error, None, 0.1, speed)


# --- arithmetic -------------------------------------------------------------------------------------------


def test_errors_stand_in_the_middle_of_windows_of_a_fifth_of_an_epoch() -> None:
    """Ten steps an epoch: rows of one, of three and of two steps, and one that is too short to stand alone."""
    rows = [train_row(1, 0.9), train_row(4, 0.5), train_row(6, 0.4), train_row(7, 0.3)]
    points = reading.training_errors(rows)
    assert [epoch for epoch, _ in points] == pytest.approx([0.2, 0.5])
    assert [error for _, error in points] == pytest.approx([(0.9 + 3 * 0.5) / 4, 0.4])


def test_a_level_is_crossed_on_the_straight_line_between_two_points() -> None:
    points = [(1.0, 0.45), (2.0, 0.35), (4.0, 0.15), (5.0, 0.35)]
    assert reading.crossing(points, 0.25) == pytest.approx(3.0)
    assert reading.crossing(points, 0.35) == pytest.approx(2.0)
    assert reading.crossing(points, 0.1) is None
    assert reading.crossing(points, 0.5) == 1.0
    assert reading.crossing([], 0.5) is None


def test_seconds_follow_the_speed_that_each_row_measured() -> None:
    """Batches of 20: the first row has no speed and takes the next one's, 40 images at 10 a second, then 60 at 30."""
    rows = [train_row(2, 0.9, speed=None), train_row(4, 0.9, speed=10.0), train_row(7, 0.9, speed=30.0)]
    assert reading.seconds_until(rows, 0.4, 20) == pytest.approx(4 + 4)
    assert reading.seconds_until(rows, 0.55, 20) == pytest.approx(8 + 1)
    assert reading.seconds_until(rows, float("inf"), 20) == pytest.approx(8 + 2)


def test_spreads_are_sample_deviations() -> None:
    spread = reading.Spread.of([1.0, 2.0, 6.0])
    assert (spread.mean, spread.lowest, spread.highest, spread.n) == (3.0, 1.0, 6.0, 3)
    assert spread.deviation == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert reading.Spread.of([2.0]).text() == "2.00"
    assert spread.text("{:.1f}") == "3.0 ± 2.6"


def race(neurons: str, rate: float, epochs: float | None, seed: int = 0, last: float = 0.3) -> Race:
    return Race(neurons, rate, seed, [(0.1, 0.9), (20.0, last)], epochs, None if epochs is None else 10 * epochs)


def test_the_ratio_is_of_the_same_seeds() -> None:
    relu = [race("relu", 0.1, 2.0, 0), race("relu", 0.1, 4.0, 1), race("relu", 0.1, 5.0, 2)]
    tanh = [race("tanh", 0.1, 12.0, 0), race("tanh", 0.1, 20.0, 1), race("tanh", 0.1, None, 2)]
    assert figure1.ratios(relu, tanh) == pytest.approx([6.0, 5.0])
    assert figure1.ratios(relu, tanh, "seconds") == pytest.approx([6.0, 5.0])
    said = figure1.measured({"relu": relu, "tanh": tanh}, [6.0, 5.0], [6.0, 5.0], 0.25)
    assert said.startswith("5.5 ± 0.7 times the epochs, 5.5 ± 0.7 times the seconds")


def test_where_tanh_never_arrives_the_ratio_is_a_bound() -> None:
    races = {"relu": [race("relu", 0.1, 2.0)], "tanh": [race("tanh", 0.1, None)]}
    assert figure1.measured(races, [], [], 0.25) == "more than 10.0 times: tanh did not reach 25% within 20.0 epochs"
    races["relu"] = [race("relu", 0.1, None)]
    assert figure1.measured(races, [], [], 0.25) == "ReLUs did not reach 25% within 20.0 epochs"


def test_learning_rates_are_tried_until_the_best_lies_between_two() -> None:
    tried = [race("relu", 0.001, 9.0), race("relu", 0.002, 8.0), race("relu", 0.004, 7.0)]
    assert figure1.next_rate(tried) == 0.008
    assert figure1.best_is_at_the_edge(tried)
    tried.append(race("relu", 0.008, None))
    assert figure1.next_rate(tried) is None
    assert not figure1.best_is_at_the_edge(tried)
    assert figure1.quickest(tried).rate == 0.004
    assert figure1.next_rate([race("relu", 0.002, None, last=0.3), race("relu", 0.004, None, last=0.5)]) == 0.001


def test_differences_are_of_the_same_seeds() -> None:
    assert studies.paired([10.0, 12.0], [13.0, 12.5]) == [3.0, 0.5]
    assert studies.paired([10.0, None, 12.0], [None, 1.0, 12.5]) == [0.5]


def test_colour_is_what_differs_between_the_channels() -> None:
    """A grey kernel has none; one in red alone has two thirds: (2/3)² + 2 (1/3)² of 1."""
    kernel = np.zeros((2, 2, 3, 3))
    kernel[..., 0] = 0.7
    kernel[0, 1, 0, 1] = -1.0
    assert looking.colour_shares(kernel) == pytest.approx([0.0, 2 / 3, 0.0])


def test_the_nearest_are_found_over_pieces() -> None:
    rng = np.random.default_rng(4)
    queries, features = rng.normal(size=(3, 5)), rng.normal(size=(40, 5))
    nearest = looking.Nearest.none(3, 4)
    for start in range(0, 40, 16):
        nearest.add(queries, features[start : start + 16], start)
    for query, places in zip(queries, nearest.places, strict=True):
        distances = [float(sum((a - b) ** 2 for a, b in zip(query, each, strict=True))) for each in features]
        assert list(places) == sorted(range(40), key=distances.__getitem__)[:4]


@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2, 0, 0]])
def test_images_are_chosen_of_all_classes(labels: list[int]) -> None:
    chosen = looking.of_all_classes(np.array(labels), 4)
    assert {labels[place] for place in chosen} == {0, 1, 2}
    assert list(looking.of_all_classes(np.array(labels), 20)) == list(range(8))


def test_features_are_those_of_the_last_hidden_layer() -> None:
    assert looking.last_hidden(VARIANTS["two_column"]) == "relu7"
    assert looking.last_hidden(VARIANTS["cifar_18pct"]) == "pool3"
    assert [looking.columns_of(VARIANTS[name]) for name in ("two_column", "cifar_18pct")] == [2, 1]


# --- what there is ----------------------------------------------------------------------------------------


def test_published_figures_are_those_of_the_sources() -> None:
    assert {name.replace("-", "_"): error for name, error in originals.PUBLISHED_ERRORS.items()} == facts.CIFAR_ERROR
    assert {1: originals.FIRST_LOSS, 6: originals.BEST_LOSS} == facts.NOTEBOOK_VALIDATION_LOSS
    top = {published.what: (published.top1, published.top5) for published in facts.PUBLISHED}
    assert looking.PUBLISHED_CROPS[10] == top["ILSVRC-2010 test, ten views [P]"]
    assert looking.PUBLISHED_CROPS[1] == pytest.approx(top["ILSVRC-2010 test, centre, log of net 145 [S]"], abs=0.05)


def test_every_experiment_can_be_performed_and_has_a_cost() -> None:
    assert list(PERFORMERS) == list(EXPERIMENTS)
    assert EXPERIMENTS["cifar-80sec"].cost() == "1.0 million images, about 24 min on 2 cores"  # 700 a second
    assert EXPERIMENTS["lrn"].cost(seeds=1, epochs=1).startswith("0.1 million images")


def test_the_list_is_there_at_once() -> None:
    """In a process of its own: JAX isn't loaded for it."""
    code = "import sys; from jax_alexnet.reproduce.__main__ import main; main(['list']); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    for name, experiment in EXPERIMENTS.items():
        assert f"\n{name}\n" in f"\n{done.stdout}"
        assert experiment.published in done.stdout
        assert experiment.cost() in done.stdout
    assert "0.1 million images" in experiments.listing(seeds=1, epochs=1) and "0.1 million" not in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lnr"], "experiment 'lnr' is not known.*did you mean lrn.*Choose from: list, relu-vs-tanh"),
        (["lrn", "--run", "x"], "--run is for what looks at a run, and lrn trains its own"),
        (["lrn", "--learning-rates", "[0.1]"], "--learning-rates is for relu-vs-tanh"),
        (["relu-vs-tanh", "--learning-rates", "[]"], "--learning-rates \\[\\] is empty"),
        (["relu-vs-tanh", "--data", "imagenet:x"], "relu-vs-tanh is of CIFAR-10.*on ImageNet there are lrn"),
        (["lrn", "--quick", "--seeds", "2"], "--quick trains a few steps of one seed: leave --seeds and --epochs out"),
        (["lrn", "--quick", "--epochs", "2"], "--quick trains a few steps of one seed"),
        (["lrn", "--data", "cifar"], "unknown data source 'cifar'"),
        (["filters", "--output", "{folder}"], "filters looks at a run that is there: pass --run DIR"),
        (["neighbours", "--run", "{folder}/none", "--output", "{folder}"], "there is no .*/none: pass the directory"),
        (["neighbours", "--run", "{folder}", "--output", "{folder}"], "no run in .*run.json is missing"),
    ],
)
def test_bad_words_are_refused(words: list[str], said: str, tmp_path: Path) -> None:
    module = importlib.import_module("jax_alexnet.reproduce.__main__")
    with pytest.raises(UserError, match=said):
        module.main([word.format(folder=tmp_path) for word in words])


def test_what_is_missing_or_out_of_range_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module("jax_alexnet.reproduce.__main__")
    for words, said in (["--quick"], "experiments are missing"), (["lrn", "--seeds", "0"], "--seeds 0 is out of range"):
        with pytest.raises(SystemExit) as ended:
            module.main(words)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


# --- table and page ---------------------------------------------------------------------------------------


def found(experiment: str, subject: str, measured: str) -> Result:
    return Result(experiment, subject, measured, 3, ["a|b"], [["1"]], ["a <note>"])


def test_results_are_merged_over_calls(tmp_path: Path) -> None:
    results.merge(tmp_path, found("pooling", "cifar10", "first"))
    results.merge(tmp_path, found("lrn", "cifar10", "second"))
    every = results.merge(tmp_path, found("pooling", "cifar10", "third"))
    assert [(each.experiment, each.measured) for each in every] == [("lrn", "second"), ("pooling", "third")]
    assert results.read(tmp_path) == every
    table = (tmp_path / results.TABLE).read_text()
    assert "| lrn | cifar10 | response normalisation lowers errors |" in table
    assert "a\\|b" in table
    assert "first" not in table


class Tags(html.parser.HTMLParser):
    """Refuses tags that are closed in another order than they were opened; keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("quick", [False, True])
def test_the_page_is_whole_and_takes_no_text_for_markup(tmp_path: Path, quick: bool) -> None:
    result = replace(found("lrn", "folder:<b>", "1 & 2"), pictures=["gone.png"], about={"command": "x '<i>'"})
    tags = Tags()
    tags.feed(page.render(tmp_path, [result], quick))
    assert not tags.open
    for text in ("folder:<b>", "1 & 2", "a <note>", "x '<i>'", "gone.png is gone: run the experiment again"):
        assert text in tags.text
    assert ("A look (--quick)" in tags.text) is quick


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is damaged"),
        ('{"format": 9, "results": []}', "has format 9"),
        ('{"format": 1, "results": [{"experiment": "lrn"}]}', "is damaged"),
        ('{"format": 1, "results": 3}', "is damaged"),
    ],
)
def test_a_damaged_table_is_refused_before_anything_is_trained(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / results.RESULTS).write_text(text)
    module = importlib.import_module("jax_alexnet.reproduce.__main__")
    with pytest.raises(UserError, match=f"results.json {said}.*move it away"):
        module.main(["cifar-80sec", "--output", str(tmp_path), "--data", "synthetic"])


# --- pictures ---------------------------------------------------------------------------------------------


def assert_drawn(path: Path, *colours: str) -> None:
    """The picture is there, and has lines or bars in these colours."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    for colour in colours:
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - wanted).max(axis=1) <= 12).sum() > 30, f"{path.name} has nothing in {colour}"


def test_pictures_have_something_in_them(tmp_path: Path) -> None:
    blue, orange = pictures._COLOURS[:2]
    races = {
        name: [Race(name, 0.1, seed, [(0.0, 0.9), (9.0, 0.1)], 5.0, 1.0) for seed in range(2)]
        for name in ("relu", "tanh")
    }
    pictures.draw_race(tmp_path / "race.png", races, 0.25)
    rows = [MetricsRow(10 * i, i, split, 1 / i, 1 - 0.5 / i) for i in range(1, 5) for split in ("train", "test")]
    pictures.draw_study(tmp_path / "study.png", {"with": [rows, rows], "without": [rows], "diverged": [[]]}, "lrn")
    pictures.draw_errors(tmp_path / "errors.png", {"seed 0": rows, "seed 1": rows}, 0.18, "net")
    pictures.draw_losses(tmp_path / "losses.png", {"blog": rows, "paper": rows}, 0.972, 0.7)
    pictures.draw_crops(tmp_path / "crops.png", {1: [39.0, 18.3], 10: [37.5, 17.0]})
    for name in ("race", "study", "errors", "losses", "crops"):
        assert_drawn(tmp_path / f"{name}.png", blue, orange)
    image = np.full((8, 8, 3), (250, 20, 180), np.uint8)
    query = pictures.Query(image, "cat", [("cat", 0.7), ("dog", 0.3)], [image, image], [True, False])
    pictures.draw_neighbours(tmp_path / "near.png", [query, query])
    assert_drawn(tmp_path / "near.png", "#fa14b4", pictures._RIGHT, pictures._WRONG)


# --- experiments on a few pictures ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PATH/{train,test}/CLASS with pictures of 16 pixels: three colours with noise."""
    rng, root = np.random.default_rng(7), tmp_path_factory.mktemp("pictures")
    for split, count in ("train", 20), ("test", 6):
        for name, colour in ("blue", (40, 60, 200)), ("green", (50, 190, 60)), ("red", (210, 50, 40)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(rng.normal(colour, 25, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture(autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all tests of decoded images; no check of oneDNN and no pictures of runs that last for a second."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "reproduce-cache"))
    monkeypatch.setenv("JAX_ALEXNET_ONEDNN", "off")
    monkeypatch.setattr(loop_module.pictures, "draw", lambda *_: None)


@pytest.mark.parametrize(
    ("name", "epochs", "length"),
    [
        # [K]: 8 epochs and 2 at a tenth of the rate. [S] doesn't say how long; twice as long is trained unless told.
        ("cifar-80sec", None, {"epochs": 20, "drop_epochs": [16]}),
        ("cifar-80sec", 10, {}),
        ("cifar-18pct", None, {}),
        ("cifar-13pct", 94, {"epochs": 94, "drop_epochs": [90, 92]}),
    ],
)
def test_drops_move_with_the_end(name: str, epochs: int | None, length: dict[str, Any]) -> None:
    settings = SimpleNamespace(quick=False, epochs=epochs)
    assert originals._length(name, SimpleNamespace(settings=settings)) == length  # type: ignore[arg-type]


def reproduce(*words: object, code: int = 0) -> SimpleNamespace:
    return commands.run("jax_alexnet.reproduce.__main__", *words, devices=1, code=code)


def test_an_experiment_is_stopped_gone_on_with_and_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal in the second epoch; the same command ends the run, and once more trains nothing."""
    words = ("cifar-80sec", "--data", f"folder:{folder}", "--output", tmp_path / "out", "--epochs", 4)
    account = loop_module.TrainingLoop._account

    def interrupted(self: Any, done: Any) -> None:
        account(self, done)
        if done.number == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module.TrainingLoop, "_account", interrupted)
        stopped = reproduce(*words, code=143)
    assert "the same command goes on" in stopped.stdout
    assert not (tmp_path / "out" / results.RESULTS).exists()
    went_on = reproduce(*words)
    assert "seed0: going on; --model cifar_80sec, seed 0, learning rate 0.001, to 4 epochs" in went_on.stdout
    run = next((tmp_path / "out" / "runs").glob("*/cifar-80sec/seed0"))
    rows = reading.of_split(read_metrics(run), "test")
    assert [row.step for row in rows] == [1, 2, 3, 4]
    assert read_description(run)["settings"]["drop_epochs"] == [3]  # 8 of 10
    again = reproduce(*words)
    assert "seed0: found finished" in again.stdout
    (result,) = results.read(tmp_path / "out")
    assert result.values["errors"] == [pytest.approx(100 * (1 - (rows[-1].top1 or 0)))]
    assert result.notes[0].startswith(f"folder:{folder.name} isn't CIFAR-10: the published figure is of other pictures")
    other = reproduce(*words, "--precision", "bfloat16", code=2)
    assert "begun with other settings: --precision bfloat16 (the run has float32)" in other.stderr
    another = tmp_path / "elsewhere" / folder.name  # which the table calls by the same name
    shutil.copytree(folder, another)
    moved = reproduce("cifar-80sec", "--data", f"folder:{another}", *words[3:])
    assert "seed0: found finished" in moved.stdout
    shutil.copy(another / "train" / "red" / "0.png", another / "train" / "blue" / "1.png")
    refused = reproduce("cifar-80sec", "--data", f"folder:{another}", *words[3:], code=2)
    assert "seed0 was trained on other data" in refused.stderr and "another --output" in refused.stderr
    longer = reproduce(*words[:-1], 5, code=2)  # the drops of the learning rate move with the end
    assert "seed0 was begun with other settings: " in longer.stderr and "another --output" in longer.stderr
    assert "--drop-epochs [4] (the run has [3])" in longer.stderr
    whole = reproduce("ten-crop", "--run", run, "--output", tmp_path / "out", code=2)
    assert "there is nothing to crop: pass a run that was trained with --crop" in whole.stderr
    looked = reproduce("filters", "neighbours", "--run", run, "--output", tmp_path / "out")
    assert "of the 6 nearest show the same class (by chance 33%)" in looked.stdout
    written = (tmp_path / "out" / "index.html").read_text()
    assert written.count("data:image/png;base64,") == 3
    assert [each.experiment for each in results.read(tmp_path / "out")] == ["filters", "neighbours", "cifar-80sec"]
    for each in results.read(tmp_path / "out"):
        with Image.open(tmp_path / "out" / each.pictures[0]) as picture:
            assert min(picture.size) > 100


def test_nothing_is_said_of_the_data_where_they_are_those_of_the_claim(tmp_path: Path) -> None:
    for data, classes in (("folder:x", performing.CIFAR10[::-1]), ("imagenet:x", ["n01440764"]), ("digits", [])):
        runner = running.Runner(ReproduceSettings(experiments=["lrn"], data=data), {}, tmp_path)
        runner.class_names = list(classes)
        assert performing.of_other_pictures(runner) is None


def test_pictures_of_other_data_and_of_other_runs_have_other_names(tmp_path: Path) -> None:
    """So that the page shows each result with its own."""
    names = [
        running.Runner(ReproduceSettings(experiments=["lrn"], data=data), {}, tmp_path).picture("lrn")
        for data in ("folder:/a/one", "folder:/a/two", "cifar10")
    ]
    names += [looking._picture("filters", tmp_path / place / "runs" / "cifar") for place in ("a", "b")]
    assert len(set(names)) == 5 and all(Path(name).name == name for name in names)


def test_a_look_at_an_ablation_trains_both_networks_and_is_kept_apart(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "_MOST_QUICK_STEPS", 2)
    reproduce("columns", "--quick", "--data", f"folder:{folder}", "--output", tmp_path)
    (result,) = results.read(tmp_path / "quick")
    assert [row[0] for row in result.rows] == ["two columns", "one of half"]
    settings = [read_description(path)["settings"] for path in sorted(tmp_path.glob("quick/runs/*/columns/*"))]
    assert [each["ablate"] for each in settings] == ["one-column", "two-columns"]
    assert {each["steps"] for each in settings} == {2}
    assert "--quick" in (tmp_path / "quick" / "index.html").read_text()


def test_figure_1_is_a_race_of_the_training_program(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of one epoch until the level is reached; what differs between the two is the neuron alone."""
    monkeypatch.setattr(figure1, "PIECE", 2)
    monkeypatch.setattr(figure1, "LEVEL", 1.0)  # reached at once
    words = ("relu-vs-tanh", "--seeds", 1, "--learning-rates", "[0.001]", "--data", f"folder:{folder}")
    monkeypatch.setattr(figure1, "next_rate", lambda races: None)
    done = reproduce(*words, "--output", tmp_path)
    assert "relu-vs-tanh: 1.0 times the epochs" in done.stdout
    runs = {path.name: read_description(path)["settings"] for path in tmp_path.glob("runs/*/relu-vs-tanh/*")}
    relu, tanh = (runs[f"{name}-0.001-seed0"] for name in ("relu", "tanh"))
    assert {name for name in relu if relu[name] != tanh[name]} == {"ablate", "output"}
    assert (relu["ablate"], tanh["ablate"], relu["weight_decay"], relu["crop"]) == ("no-lrn", "tanh,no-lrn", 0.0, False)
    assert [path.name[:8] for path in tmp_path.glob("*.png")] == ["figure1-"]


def test_a_learning_rate_that_is_too_high_ends_a_race_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the training program ends: the run is there, and isn't trained again; other failures are failures."""
    trained: list[str] = []
    message = "the loss became nan at step 3 (images [1]...)"

    def fails(settings: CompleteSettings) -> int:
        trained.append(str(settings.output))
        with RunDirectory(settings.output or Path()) as directory, MetricsWriter(directory.path) as writer:
            directory.describe(model=settings.model, class_names=["a"], normalisation={}, settings=plain(settings))
            writer.write(train_row(1, 0.9))
        raise FailedRun(message)

    monkeypatch.setattr(running, "train", fails)
    runner = running.Runner(ReproduceSettings(experiments=["lrn"], data="synthetic"), {}, tmp_path)
    words = {"model": "cifar_80sec", "learning_rate": 1e9}
    for _ in range(2):
        done = runner.train("high", words, may_diverge=True)
        assert done.diverged
        assert [row.step for row in done.rows] == [1]
    assert len(trained) == 1
    with pytest.raises(FailedRun, match="the loss became nan"):
        runner.train("other", words)
    message = "cannot write metrics.jsonl: No space left on device"
    with pytest.raises(FailedRun, match="No space left"):
        runner.train("third", words, may_diverge=True)
    row = figure1._read(done, "relu", 1e9, 0, 0.95)
    assert row.epochs is None


def test_a_signal_after_a_run_s_last_step_keeps_the_next_one_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training program has done all that it was asked for then, and says 0."""

    def ends(settings: CompleteSettings) -> int:
        with Signals(), RunDirectory(settings.output or Path()) as directory, MetricsWriter(directory.path) as writer:
            directory.describe(model=settings.model, class_names=["a"], normalisation={}, settings=plain(settings))
            writer.write(train_row(1, 0.9))
            signal.raise_signal(signal.SIGTERM)
        return 0

    monkeypatch.setattr(running, "train", ends)
    runner = running.Runner(ReproduceSettings(experiments=["lrn"], data="synthetic"), {}, tmp_path)
    with pytest.raises(running.Stopped) as stopped:
        runner.train("one", {"model": "cifar_80sec"})
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not runner.train("one", {"model": "cifar_80sec"}).diverged  # found finished


def test_settings_of_the_studies_are_settings_of_training() -> None:
    """On CIFAR-10 and on ImageNet alike; the arms of one study differ, and nothing but what it is about."""
    assert list(studies.ON_CIFAR) == list(studies.ON_IMAGENET)
    for kind in (studies.ON_CIFAR, studies.ON_IMAGENET):
        for name, study in kind.items():
            made = [
                resolve(TrainSettings(**{"data": "synthetic", "drop_epochs": [34, 37], **study.common, **words}))
                for words in study.arms.values()
            ]
            assert len({(choose_variant(each), str(each)) for each in made}) == len(made), name
            assert len({(each.stored_size, each.image_size, each.epochs) for each in made}) == 1, name
