"""Curves of several runs in one picture: each run in a colour of its own, from both programs' records."""

import json
from pathlib import Path

import commands
import numpy as np
import pytest
from PIL import Image

from alexnet_io.run.curves import draw_curves
from alexnet_io.run.curves_together import COLOURS, draw_together
from alexnet_io.run.metrics import MetricsRow, MetricsWriter
from alexnet_io.run.run_description import FORMAT
from jax_alexnet import curves


def written(run: Path, framework: str | None, accuracy: float, rows: int = 4) -> Path:
    """A run's record as either program leaves it; its test accuracy stays where it is told."""
    run.mkdir(parents=True)
    description = {"format": FORMAT, "model": "cifar_18pct", "classes": 2, "class_names": ["a", "b"]}
    description |= {"normalisation": {}, "data": {}, "settings": {}, "versions": {}, "started": ""}
    (run / "run.json").write_text(json.dumps(description | ({"framework": framework} if framework else {})))
    with MetricsWriter(run) as metrics:
        for step in range(1, rows + 1):
            metrics.write(MetricsRow(step, step / 2, "train", 2 / step, 1 - 1 / step))
            metrics.write(MetricsRow(step, step / 2, "test", 1.0, accuracy))
    return run


def middle(image: np.ndarray, colour: str) -> float:
    """How high the points of a colour lie in the lower half of a picture, which has accuracies; 0 at the top."""
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    places = np.argwhere(np.abs(image.astype(int) - wanted).max(axis=2) <= 2)[:, 0]
    return float(np.median(places[places > len(image) // 2]))


def test_twins_are_drawn_in_two_colours_and_named_by_their_programs(tmp_path: Path) -> None:
    ours, theirs = written(tmp_path / "a$x", None, 0.9), written(tmp_path / "b", "torch_ref", 0.3)
    told = commands.run("curves", ours, theirs, "--output", tmp_path / "both.png", devices=None)
    first, second, last = told.stdout.splitlines()
    assert (
        first == "a$x (cifar_18pct, JAX): 2 epochs; train: loss 0.5000, top-1 75.00%; test: loss 1.0000, top-1 90.00%"
    )
    assert second.startswith("b (cifar_18pct, PyTorch): 2 epochs; ")
    assert last == f"wrote {tmp_path / 'both.png'}"
    image = np.asarray(Image.open(tmp_path / "both.png").convert("RGB"))
    assert middle(image, COLOURS[0]) + 100 < middle(image, COLOURS[1])  # 90% lies above 30%
    commands.run("curves", theirs, ours, "--output", tmp_path / "both.png", devices=None)
    image = np.asarray(Image.open(tmp_path / "both.png").convert("RGB"))
    assert middle(image, COLOURS[0]) > middle(image, COLOURS[1]) + 100  # colours go by place


def test_directories_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [written(tmp_path / seed / "run", "torch_ref", 0.5) for seed in ("0", "1")]
    told = commands.run("curves", *runs, "--output", tmp_path / "both.png", devices=None).stdout
    assert [line.split(" ")[0] for line in told.splitlines()[:2]] == [str(run) for run in runs]


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    run, empty = written(tmp_path / "run", None, 0.5), written(tmp_path / "empty", None, 0.5, rows=0)
    picture = ("--output", tmp_path / "x.png")
    assert len(COLOURS) == curves.MOST
    for words, said in (
        ((run, tmp_path, *picture), f"no run in {tmp_path}"),
        ((run, empty, *picture), "empty (cifar_18pct, JAX) has no metrics yet"),
        ((run, tmp_path / "empty" / ".." / "run", *picture), "named twice"),
        ((*[run] * (curves.MOST + 1), *picture), "7 runs were named, and 6 can be told apart"),
        ((run, "--output", tmp_path), "is a folder"),
        ((run, "--output", "-"), "it is no text"),
    ):
        assert said in commands.run("curves", *words, devices=None, code=2).stderr
    assert not (tmp_path / "x.png").exists()
    with pytest.raises(ValueError, match="that have metrics"):
        draw_together({"a": []}, tmp_path / "x.png")


def test_many_points_and_points_that_are_not_finite_can_be_drawn(tmp_path: Path) -> None:
    rows = [MetricsRow(step, step / 9, "train", 2.0 / step, None) for step in range(1, 300)]
    rows += [MetricsRow(300, 34.0, "test", float("nan"), float("nan"))]
    draw_together({"a": rows, "b": rows[:1]}, tmp_path / "a.png")
    draw_curves(rows, tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
