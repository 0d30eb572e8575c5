"""The forms of convolutions that are the fastest here are found by a process of its own, and kept; and then taken."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from alexnet_io.errors import UserError
from jax_alexnet.ops import convolution
from jax_alexnet.ops.cpu import calibration, onednn, stopwatch

NOBODY = (sys.executable, "-c", "raise SystemExit('nobody should have been asked')")
TASK = "kernel's gradient of large windows"


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(calibration.SWITCH, "on")


def saying(times: Any) -> tuple[str, ...]:
    return sys.executable, "-c", f"print({json.dumps(times)!r})"


def found(monkeypatch: pytest.MonkeyPatch, times: calibration.Times) -> None:
    monkeypatch.setattr(calibration, "_times", lambda dtype: times)


@pytest.mark.parametrize(
    ("times", "forms", "wanted"),
    [
        ({"xla": 1.0, "products": 2.0, "convolution": 3.0}, ["xla", "products", "convolution"], "xla"),
        ({"xla": 3.0, "products": 2.0, "convolution": 1.0}, ["xla", "products", "convolution"], "convolution"),
        # Nearly as fast, and simpler; and not nearly.
        ({"xla": 1.09, "products": 1.0, "convolution": 1.05}, ["xla", "products", "convolution"], "xla"),
        ({"xla": 1.11, "products": 1.0, "convolution": 0.99}, ["xla", "products", "convolution"], "products"),
        # What doesn't fit here isn't taken, however fast it was.
        ({"xla": 3.0, "products": 2.0, "convolution": 1.0}, ["xla", "products"], "products"),
        ({"xla": 3.0}, ["xla", "products"], "products"),
        ({}, ["xla", "products"], "products"),
    ],
)
def test_the_simplest_that_is_nearly_the_fastest(
    times: dict[str, float], forms: list[str], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(monkeypatch, {TASK: times})
    usual = "convolution" if "convolution" in forms else "products"
    assert calibration.fastest(TASK, "float32", usual, forms) == wanted


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, {TASK: {"xla": 1.0, "products": 2.0}})
    monkeypatch.setenv(calibration.SWITCH, "off")
    assert calibration.fastest(TASK, "float32", "products", ["xla", "products"]) == "products"
    assert "none of them timed" in calibration.status("float32")
    monkeypatch.setenv(calibration.SWITCH, "perhaps")
    with pytest.raises(UserError, match="perhaps is neither on nor off"):
        calibration.fastest(TASK, "float32", "products", ["xla", "products"])


def test_timed_once_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts, times = calibration.circumstances("float32"), {TASK: {"xla": 0.5, "products": 0.25}}
    assert calibration.kept_or_timed(facts, tmp_path / "new", saying(times)) == times
    assert capsys.readouterr().err == "timing ways to compute convolutions in float32 once (some 15 s)\n"
    assert calibration.kept_or_timed(facts, tmp_path / "new", NOBODY) == times
    assert capsys.readouterr().err == ""
    # Of other circumstances, and damaged: timed again.
    assert calibration.kept_or_timed(facts | {"cores": 0}, tmp_path / "new", saying({})) == {}
    (path,) = (tmp_path / "new").glob("convolutions-*.json")
    for damage in ("", "[]", json.dumps({"seconds": {TASK: {"xla": -1}}, "circumstances": facts})):
        path.write_text(damage)
        assert calibration.kept_or_timed(facts, tmp_path / "new", saying(times)) == times


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", "exit code -11"),
        ("raise SystemExit('no memory')", "exit code 1: no memory"),
        ("import time; time.sleep(60)", "had not ended after 2 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGALRM)", "had not ended after 2 s"),
        ("print('half an ans')", "no answer"),
        ("", "no answer"),
        ('print(\'{"a": {"xla": NaN}}\')', "no answer"),
    ],
)
def test_without_times_the_usual_forms(
    code: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = calibration.circumstances("float32")
    assert calibration.kept_or_timed(facts, tmp_path, (sys.executable, "-c", code), limit=2) == {}
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("convolutions-*.json"))


def calls(images: int, name: str) -> int:
    """How often a kernel's gradient of a layer like conv2 calls oneDNN."""
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((images, 27, 27, 96), (5, 5, 96, 256)))

    def gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.grad(lambda k: convolution.conv(x, k, stride=1, padding=2, groups=1).sum())(kernel)

    return jax.jit(gradient).lower(x, kernel).as_text().count(f"__onednn${name}")


def test_the_fastest_is_what_programs_contain(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := onednn.reason_against(jnp.dtype("float32")):
        pytest.skip(f"oneDNN can't be used here: {reason}")
    found(monkeypatch, {TASK: {"xla": 2.0, "products": 2.0, "convolution": 1.0}})
    assert calls(16, "convolution") > 0
    found(monkeypatch, {TASK: {"xla": 1.0, "products": 2.0, "convolution": 2.0}})
    assert calls(16, "convolution") == 0
    # A little arithmetic isn't worth a measurement.
    assert calls(1, "convolution") > 0


def test_what_is_timed_is_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind is timed, in all forms that fit, with the sums of the form in common."""
    kinds = [convolution.kind(layer.geometry, layer.channels) for layer in stopwatch.LAYERS]
    assert sorted(kinds) == ["images", "large windows", "small windows"]
    monkeypatch.setattr(stopwatch, "IMAGES", 1)
    monkeypatch.setattr(stopwatch, "ROUNDS", 1)
    images = stopwatch.times(stopwatch.LAYERS[0]._replace(side=23), jnp.dtype("float32"))
    assert set(images) == {"convolution of images", "kernel's gradient of images"}
    fits = onednn.usable(jnp.dtype("float32"), "auto")
    assert list(images["kernel's gradient of images"]) == ["xla", "products", *["convolution"] * fits]
    assert list(images["convolution of images"]) == [*["onednn"] * fits, "xla"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_stopwatch_itself(dtype: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*calibration.STOPWATCH, dtype, "120", str(tmp_path)], capture_output=True, text=True, check=True
    )
    times = json.loads(done.stdout.splitlines()[-1])
    assert len(times) == 6
    assert all(0 < seconds < 60 for forms in times.values() for seconds in forms.values())
