"""Crops are compared where rounding and edges decide: odd margins, both directions, first and last positions."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_io.data import decoding
from jax_alexnet import augment as jax_augment
from parity.alexnet import data_comparison as data
from parity.alexnet import inputs
from parity.reports.rows import Row
from torch_ref import augment as torch_augment

OWNERS = {"JAX": jax_augment, "PyTorch": torch_augment}


def wrong(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not row.equal]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames with odd margins, one of odd side, and only the normalisation that crops matter most to."""
    monkeypatch.setattr(inputs, "FRAMES", inputs.FRAMES[1:4])
    monkeypatch.setattr(inputs, "NORMALIZATIONS", ("mean_image",))


def test_frames_and_draws_hold_every_edge(rng: np.random.Generator) -> None:
    margins = {(h - f.size, w - f.size) for f in inputs.FRAMES for h, w in [f.stored]}
    for axis in (0, 1):
        halves = {margin[axis] % 4 for margin in margins}
        assert {1, 3} <= halves  # half of them is rounded down, and up
    assert any(h != w for h, w in margins)
    assert any(f.size % 2 for f in inputs.FRAMES)
    for frame in inputs.FRAMES:
        draws = inputs.given_draws(frame, rng)
        last = [n - frame.size for n in frame.stored]
        corners = set(zip(draws.top.tolist(), draws.left.tolist(), strict=True))
        assert {(0, 0), (0, last[1]), (last[0], 0), (last[0], last[1])} <= corners
        assert 0 < draws.flip.sum() < len(draws.flip)


def test_both_sides_see_the_same() -> None:
    rows = inputs.rows(0, ("float64",))
    assert wrong(rows) == []
    assert max(row.fraction for row in rows) <= 1


@pytest.mark.parametrize("rule", [math.floor, math.ceil])
@pytest.mark.parametrize("side", OWNERS)
def test_a_centre_that_is_rounded_otherwise_is_found(
    side: str, rule: Any, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OWNERS[side], "central", lambda stored, size: tuple(rule((n - size) / 2) for n in stored[:2]))
    first = wrong(inputs.rows(0, ("float64",)))[0]
    assert first.cause_keys == ["crop_position"]
    assert first.causes[0].startswith(f"{side}: crops lie one ")


def test_a_centre_off_in_one_direction_alone_is_found(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def columns_down(stored: Any, size: int) -> tuple[int, int]:
        return round((stored[0] - size) / 2), (stored[1] - size) // 2

    monkeypatch.setattr(torch_augment, "central", columns_down)
    first = wrong(inputs.rows(0, ("float64",)))[0]
    assert "one column before" in first.causes[0]


def test_the_mean_image_alone_off_is_found(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = jax_augment.statistics_for

    def shifted(augmentation: Any, measured: Any) -> Any:
        found = right(augmentation, measured)
        size, whole = augmentation.image_size, measured.mean_image
        top, left = ((n - size) // 2 for n in whole.shape[:2])
        return found | {"mean_image": whole[top : top + size, left : left + size]}

    monkeypatch.setattr(jax_augment, "statistics_for", shifted)
    assert wrong(inputs.rows(0, ("float64",)))[0].cause_keys == ["mean_image_position"]


def last_never(images: Any, draws: Any, size: int) -> Any:
    left = np.minimum(draws.left, max(images.shape[2] - size - 1, 0))
    return draws._replace(left=left)


def test_a_last_position_that_is_never_reached_is_found(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch_augment.cut
    monkeypatch.setattr(
        torch_augment,
        "cut",
        lambda images, draws, size: right(images, None if draws is None else last_never(images, draws, size), size),
    )
    first = wrong(inputs.rows(0, ("float64",)))[0]
    assert first.cause_keys == ["crop_last"]
    assert "PyTorch: the last column" in first.causes[0]


def test_a_flip_that_loses_the_middle_column_is_found(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch_augment.cut

    def cut(images: Any, draws: Any, size: int) -> Any:
        crops = right(images, draws, size).copy()
        if draws is not None and size % 2:
            crops[draws.flip, :, size // 2] = 0
        return crops

    monkeypatch.setattr(torch_augment, "cut", cut)
    found = wrong(inputs.rows(0, ("float64",)))
    assert found
    assert all("to 23" in row.torch_name or "to 23" in row.stage for row in found)


@pytest.mark.parametrize("side", OWNERS)
def test_an_input_that_went_through_float32_is_named(side: str, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = OWNERS[side]
    right = owner.normalized

    def coarse(pixels: Any, normalize: str, statistics: Any) -> Any:
        made = right(pixels / 3, normalize, statistics)  # float32 holds whole numbers
        return made.astype(jnp.float32).astype(pixels.dtype) if side == "JAX" else made.float().to(pixels.dtype)

    monkeypatch.setattr(owner, "normalized", coarse)
    for other in {*OWNERS} - {side}:
        plain = OWNERS[other].normalized
        monkeypatch.setattr(OWNERS[other], "normalized", lambda p, n, s, plain=plain: plain(p / 3, n, s))
    first = wrong(inputs.rows(0, ("float64",)))[0]
    assert first.cause_keys == ["float32"]
    assert first.causes[0].startswith(f"{side}: ")


def test_pictures_with_odd_margins_need_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(data.made_up_rows(data.shared_resize, 0)) == []
    monkeypatch.setattr(decoding, "round", math.floor, raising=False)  # in the place of the builtin
    found = wrong(data.made_up_rows(data.shared_resize, 0))
    assert found
    assert {key for row in found for key in row.cause_keys} == {"crop_position"}
