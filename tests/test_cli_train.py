"""Runs as a user starts them: train, resume, evaluate, predict, and what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import run as run_here
from PIL import Image
from stops import StoppedOnce

from alexnet_io.run.metrics import read_metrics
from jax_alexnet import train_command as training

# 96 images in batches of 32: three steps an epoch.
DATA = ("--data", "synthetic:classes=4,train=96,test=40")
SMALL = (
    "--model", "cifar_18pct", "--recipe", "blog", *DATA, "--image-size", "16", "--batch-size", "32",
    "--learning-rate", "0.001",
)  # fmt: skip
COLUMNS = {"step", "epoch", "split", "loss", "top1", "top5", "learning_rate", "images_per_second"}


def _command(name, *words):
    return [sys.executable, "-m", f"jax_alexnet.{name}", *map(str, words)]


def _environment(devices=2):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def stopped_after(monkeypatch):
    """Make the next run stop after so many of its steps."""
    return lambda step: monkeypatch.setattr(training, "Signals", StoppedOnce(step))


def _state(run):
    import jax

    from alexnet_io.command_line.resumed_settings import resumed
    from alexnet_io.run.run_description import read_description
    from jax_alexnet.files import checkpoint
    from jax_alexnet.recipes import resolve
    from jax_alexnet.run_setup import prepare

    settings = resolve(resumed(read_description(run)["settings"], {"devices": "1"}))
    x64 = jax.config.read("jax_enable_x64")
    try:
        template = jax.eval_shape(prepare(settings).new_state)._asdict()
        found = checkpoint.restore_newest(run / "checkpoints", template, read_only=True)
    finally:
        jax.config.update("jax_enable_x64", x64)
    assert found is not None
    return found.step, jax.tree.map(np.asarray, found.state)


def _without_speed(run):
    return [{k: v for k, v in vars(row).items() if k != "images_per_second"} for row in read_metrics(run)]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes longer than these runs; the run `finished`, which is made first, draws its own."""
    monkeypatch.setattr("alexnet_io.run.loop.pictures.draw", lambda *_: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs on two devices."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    done = run_here("train", *SMALL, "--epochs", 2, "--output", run)
    return run, done.stdout


def test_a_run_leaves_what_it_promises(finished):
    run, said = finished
    for name in ("metrics.jsonl", "metrics.csv", "curves.png", "filters.png", "confusion.png", "settings.yaml"):
        assert (run / name).stat().st_size > 0, name
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(set(row) == COLUMNS for row in rows)
    assert [row["step"] for row in rows if row["split"] == "test"] == [3, 6]
    assert [row["step"] for row in rows if row["split"] == "train"] == [3, 6]
    last = said.strip().splitlines()[-1]
    assert last.startswith("reached ")
    assert str(run) in last


def test_evaluation_counts_every_example_once(finished, tmp_path):
    """Whatever the batch size and the number of devices; 40 examples don't divide by 7, 3 or 16."""
    run, _ = finished
    reports = []
    for devices, batch in ((1, 7), (2, 3), (2, 16)):
        file = tmp_path / f"{devices}-{batch}.json"
        run_here("evaluate", "--run", run, "--batch-size", batch, "--json", file, devices=devices)
        reports.append(json.loads(file.read_text()))
    for report in reports:
        assert set(report) >= {"examples", "top1", "top5", "loss", "per_class"}
        assert report["examples"] == 40
        assert sum(entry["total"] for entry in report["per_class"].values()) == 40
        assert report["top1"] == reports[0]["top1"]
        assert report["per_class"] == reports[0]["per_class"]
        assert report["loss"] == pytest.approx(reports[0]["loss"], rel=1e-6)
    tested = [row for row in read_metrics(run) if row.split == "test"]
    assert reports[0]["top1"] == max(row.top1 or 0.0 for row in tested)


def test_predict_names_unreadable_files_and_goes_on(finished, tmp_path):
    run, _ = finished
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (50, 40), (200, 30, 30)).save(good)
    bad.write_bytes(b"<html>not found</html>")
    done = run_here("predict", "--run", run, bad, good, code=1)
    assert "bad.png" in done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[0] == str(good)
    shares = [float(line.split("%")[0]) for line in lines[1:]]
    assert len(shares) == 4  # the network has no fifth class
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.1)


def test_a_folder_of_test_images_alone_can_be_evaluated(finished, tmp_path):
    run, _ = finished
    names = list(json.loads((run / "run.json").read_text())["class_names"])
    for number, name in enumerate(names):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for shade in range(number + 1):
            Image.new("RGB", (40, 40), (60 * number, 50 * shade, 9)).save(tmp_path / "pictures" / name / f"{shade}.png")
    words = ("--data", f"folder:{tmp_path / 'pictures'}", "--cache-dir", tmp_path / "cache", "--json", tmp_path / "e")
    run_here("evaluate", "--run", run, *words)
    report = json.loads((tmp_path / "e").read_text())
    assert [report["per_class"][name]["total"] for name in names] == [1, 2, 3, 4]


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(finished, tmp_path, stopped_after):
    """Stopped after step 4, inside the second epoch, and gone on with: weights, optimizer state and metrics."""
    straight, _ = finished
    run = tmp_path / "broken"
    stopped_after(4)
    run_here("train", *SMALL, "--epochs", 2, "--output", run, code=128 + signal.SIGTERM)
    done = run_here("train", "--resume", "--output", run)
    assert "resumed after step 4" in done.stdout
    assert _without_speed(run) == _without_speed(straight)
    (step, ours), (expected_step, expected) = _state(run), _state(straight)
    assert step == expected_step == 6
    import jax

    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, ours, expected)))


def test_a_run_goes_on_with_another_number_of_devices(finished, tmp_path):
    """Within float32 rounding: 4 steps on two devices and 2 on one against 6 on two."""
    import jax

    straight, _ = finished
    run = tmp_path / "moved"
    run_here("train", *SMALL, "--epochs", 2, "--steps", 4, "--output", run, devices=2)
    run_here("train", "--resume", "--output", run, "--steps", 6, devices=1)
    (_, ours), (_, expected) = _state(run), _state(straight)
    for a, b in zip(jax.tree.leaves(ours["params"]), jax.tree.leaves(expected["params"]), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)  # Adam's step is 1e-3: a sample left out would show


def test_a_signal_ends_the_step_and_saves(tmp_path):
    run = tmp_path / "stopped"
    process = subprocess.Popen(
        _command("train", *SMALL, "--epochs", 100000, "--output", run),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 240
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2:"):
            break
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(120) == 128 + signal.SIGTERM, rest
    assert f"--resume --output {run}" in rest
    step, _ = _state(run)
    assert f"after step {step};" in rest
    assert step >= 6


def test_killed_without_warning_it_goes_on_from_the_last_save(tmp_path):
    run = tmp_path / "killed"
    process = subprocess.Popen(
        _command("train", *SMALL, "--epochs", 100000, "--checkpoint-seconds", 0, "--output", run),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 3:"):
            break
    process.kill()
    process.wait(60)
    process.stdout.close()
    step, _ = _state(run)
    done = run_here("train", "--resume", "--output", run, "--steps", step + 3)
    assert "resumed after step" in done.stdout
    assert _state(run)[0] == step + 3
    steps = [row.step for row in read_metrics(run) if row.split == "test"]
    assert steps == sorted(set(steps))


def test_what_a_run_must_not_become(finished, tmp_path):
    run, _ = finished
    done = run_here("train", *SMALL, "--output", run, code=2)
    assert "--resume" in done.stderr
    done = run_here("train", "--resume", "--output", run, "--model", "single_column", "--batch-size", 16, code=2)
    assert "--model single_column (the run has cifar_18pct)" in done.stderr
    assert "--batch-size 16 (the run has 32)" in done.stderr
    other = tmp_path / "other"
    other.mkdir()
    description = json.loads((run / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**description, "framework": "torch_ref"}))
    done = run_here("train", "--resume", "--output", other, code=2)
    assert "trained by python -m torch_ref.train" in done.stderr
    done = run_here("train", "--resume", "--output", tmp_path / "nothing", code=2)
    assert "no run" in done.stderr
    done = run_here("evaluate", "--run", run, "--data", "digits", code=2)
    assert "must be the same by name" in done.stderr


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    words = ("--optimizer", "paper", "--learning-rate", 1e12, "--epochs", 3)
    done = run_here("train", *SMALL, *words, "--output", tmp_path / "run", code=1)
    assert "at step" in done.stderr or "after step" in done.stderr
    assert "smaller --learning-rate" in done.stderr


def test_a_batch_that_devices_cannot_share_is_refused_first():
    """https://github.com/google/objax/pull/52: 6 images on 4 devices."""
    done = run_here("train", "--batch-size", 6, "--devices", 4, "--dry-run", devices=4, code=2)
    assert "--batch-size 6 can't be shared evenly by 4 devices: use 4 or 8" in done.stderr


def test_output_into_a_closed_pipe_is_clean():
    process = subprocess.Popen(
        _command("summary", "--model", "two_column"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(60)
