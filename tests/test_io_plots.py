"""The pictures: drawn without a display, right in the pixels that matter, and never in the way of a run."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from alexnet_io.errors import UserError
from alexnet_io.run import plots
from alexnet_io.run.metrics import MetricsRow


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def some_rows(count: int) -> list[MetricsRow]:
    return [
        MetricsRow(step, step / 10, split, 2 / (step + 1), 1 - 1 / (step + 1), learning_rate=0.1 ** (1 + step // 50))
        for step in range(count)
        for split in ("train", "test")
    ]


def has_colour(image: np.ndarray, colour: str) -> bool:
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return bool((np.abs(image.astype(int) - wanted).max(axis=2) <= 2).any())


@pytest.mark.parametrize("count", [1, 5, 400])
def test_curves_show_both_splits(tmp_path, count):
    image = pixels(plots.draw_curves(some_rows(count), tmp_path / "curves.png"))
    assert image.shape[0] > 800
    assert image.shape[1] > 800
    assert has_colour(image, "#0072b2")
    assert has_colour(image, "#d55e00")


def test_curves_of_a_run_that_diverged_can_be_drawn(tmp_path):
    rows = [MetricsRow(1, 0.1, "train", math.nan, math.nan), MetricsRow(2, 0.2, "train", math.inf)]
    plots.draw_curves(rows, tmp_path / "a.png")
    plots.draw_curves(some_rows(3) + rows, tmp_path / "b.png")
    with pytest.raises(ValueError, match="no metrics"):
        plots.draw_curves([], tmp_path / "c.png")


@pytest.mark.parametrize("scale", ["each", "all"])
def test_filters_are_the_weights_pixel_for_pixel(tmp_path, scale):
    """Zero is mid-grey; the largest weight reaches white or black; rows and columns are not transposed."""
    kernel = np.zeros((2, 3, 3, 96), np.float32)
    kernel[0, 2, 0, 0] = 4  # filter 0: upper right, red
    kernel[1, 0, 2, 95] = -1  # filter 95: lower left, no blue
    image = pixels(plots.draw_filters(kernel, tmp_path / "filters.png", scale=scale))
    reds, _ = _boxes(image, (255, 128, 128))
    lacks, where = _boxes(image, (128, 128, 0) if scale == "each" else (128, 128, 96))
    assert (reds, lacks) == (1, 1)
    red_row, red_column = _boxes(image, (255, 128, 128))[1]
    assert red_row < where[0]
    assert red_column < where[1]
    grey = (np.abs(image.astype(int) - 128).max(axis=2) <= 1).sum()
    assert grey == pytest.approx(96 * 66 * 44, rel=0.02)  # 22 pixels a tap


def test_columns_are_drawn_apart(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(11, 11, 3, 96))
    one = pixels(plots.draw_filters(kernel, tmp_path / "one.png"))
    two = pixels(plots.draw_filters(kernel, tmp_path / "two.png", columns=2))
    assert one.shape != two.shape
    assert (two[two.shape[0] // 2 + 14] == 255).all()  # the gap between the two halves
    assert one.shape[1] >= 16 * 66


def test_kernels_that_are_no_pictures_are_refused(tmp_path):
    for kernel, columns in ((np.zeros((3, 3, 48, 8)), 1), (np.zeros((3, 3, 3)), 1), (np.zeros((3, 3, 3, 5)), 2)):
        with pytest.raises(ValueError, match="can't be drawn"):
            plots.draw_filters(kernel, tmp_path / "x.png", columns=columns)
    with pytest.raises(ValueError, match="finite"):
        plots.draw_filters(np.full((3, 3, 3, 4), np.nan), tmp_path / "x.png")
    plots.draw_filters(np.zeros((5, 5, 1, 3)), tmp_path / "grey.png")


@pytest.mark.parametrize("classes", [1, 2, 10, 40, 41, 1000])
def test_confusion_is_legible_for_any_number_of_classes(tmp_path, classes):
    image = pixels(plots.draw_confusion(np.eye(classes), [f"class {i}" for i in range(classes)], tmp_path / "c.png"))
    darkest = (8, 48, 107)  # the end of the colour map: everything right
    count = (np.abs(image.astype(int) - darkest).max(axis=2) <= 2).sum()
    side = math.sqrt(count * classes / 1)  # the diagonal holds a share of 1/classes of the square
    assert side > max(300, classes)  # at least one pixel a class


def test_confusion_is_normalised_by_row_and_not_transposed(tmp_path):
    counts = [[0, 1000], [0, 0]]  # the true first class is always taken for the second; no second one exists
    image = pixels(plots.draw_confusion(counts, ["a", "b"], tmp_path / "c.png"))
    height, width = image.shape[:2]
    dark = np.argwhere(np.abs(image.astype(int) - (8, 48, 107)).max(axis=2) <= 2)
    dark = dark[dark[:, 1] < 0.75 * width]  # without the colour bar
    empty = np.argwhere(np.abs(image.astype(int) - 0xDD).max(axis=2) <= 1)
    assert dark[:, 0].mean() < 0.5 * height < empty[:, 0].mean()
    assert dark[:, 1].mean() > empty[:, 1].mean()
    with pytest.raises(ValueError, match="doesn't fit"):
        plots.draw_confusion(np.eye(3), ["a", "b"], tmp_path / "c.png")


def test_class_names_of_any_kind_can_be_drawn(tmp_path):
    names = ["$x^", "日本", os.fsdecode(b"\xff"), "a" * 300, "\n", ""]
    plots.draw_confusion(np.eye(6), names, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none/curves\.png"):
        plots.draw_curves(some_rows(2), tmp_path / "none" / "curves.png")


def test_no_display_no_pyplot_and_no_setting_of_matplotlib_is_touched(tmp_path):
    """Even where the environment asks for a backend that needs a display."""
    code = (
        "import sys\n"
        "from alexnet_io.run import pictures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from alexnet_io.run import plots\n"
        "from alexnet_io.run.metrics import MetricsRow\n"
        "plots.draw_curves([MetricsRow(1, 1, 'train', 1.0)], sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment["MPLBACKEND"] = "tkagg"
    child = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "curves.png"], env=environment, capture_output=True, text=True
    )
    assert (child.returncode, child.stderr) == (0, "")
    assert (tmp_path / "curves.png").exists()


def _boxes(image: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, tuple[float, float]]:
    """How many rectangles of `colour` there are, up to one, and the centre."""
    found = np.argwhere(np.abs(image.astype(int) - colour).max(axis=2) <= 1)
    if not len(found):
        return 0, (math.nan, math.nan)
    height, width = found.max(axis=0) - found.min(axis=0) + 1
    assert len(found) == height * width == 22 * 22
    return 1, (float(found[:, 0].mean()), float(found[:, 1].mean()))
