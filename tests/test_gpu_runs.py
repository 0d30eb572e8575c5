"""Training on a real GPU: `python -m pytest -m gpu`. Runs in processes of their own; in this one JAX stays on CPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_io.run.metrics import read_metrics

ROOT = Path(__file__).parent.parent
STEPS = 20


def train(run: Path, *words: str, platform: str = "cuda") -> str:
    """Train with deterministic operations for some steps; what the command printed."""
    command = [sys.executable, "-m", "jax_alexnet.train", *words, "--steps", str(STEPS), "--log-every", "1"]
    variables = {**os.environ, "JAX_PLATFORMS": platform, "XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
    variables.pop("JAX_ENABLE_X64", None)
    done = subprocess.run(
        [*command, "--output", str(run)], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of every array of the last checkpoint: weights, and what the optimizer remembers."""
    (manifest,) = (run / "checkpoints").glob("*/manifest.json")
    found = json.loads(manifest.read_text())
    assert found["step"] == STEPS
    return {name: leaf["sha256"] for name, leaf in found["leaves"].items()}


def losses(run: Path) -> list[float | None]:
    """The loss of every step."""
    return [row.loss for row in read_metrics(run) if row.split == "train"]


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["single_column", "two_column"])
def test_two_runs_are_the_same_bit_for_bit(model: str, tmp_path: Path) -> None:
    words = (
        "--model", model, "--precision", "bfloat16", "--devices", "1", "--batch-size", "256",
        "--data", "synthetic:classes=10,train=5120,test=16",
    )  # fmt: skip
    runs = [tmp_path / name for name in ("first", "second", "other")]
    for run, seed in zip(runs, "001", strict=True):
        assert "on 1 gpu device(s)" in train(run, *words, "--seed", seed)
    first, second, other = map(digests, runs)
    assert first == second
    assert losses(runs[0]) == losses(runs[1])
    assert len(losses(runs[0])) == STEPS
    # Another seed differs in every kernel: digests tell.
    kernels = [name for name in first if name.endswith("kernel")]
    assert len(kernels) >= 16  # eight layers, each with its velocity
    assert all(first[name] != other[name] for name in kernels)
