"""On a machine with JAX, Flax, optax, NumPy and PyTorch alone, the comparison runs all the same."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import compiling
import numpy as np
import pytest
from packaging.requirements import Requirement

from parity.speed import checks
from parity.speed.processes import rivals
from parity.speed.workload import Workload

ROOT = Path(__file__).resolve().parent.parent
THERE = ("jax", "flax", "optax", "numpy", "torch")
# torch.compile imports it, though PyTorch doesn't ask for it.
ALLOWED = ("packaging",)
# Flax asks for orbax, but nothing here may need it.
MISSING = ("safetensors", "grain", "tensorflow_datasets", "PIL", "matplotlib", "orbax")
HIDE = """
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed_by(names: tuple[str, ...]) -> set[str]:
    """Distributions, and all that they ask for."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = normal(left.pop())
        if name in found:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        wanted = map(Requirement, requires)
        left += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hides every other package from the processes that a test starts."""
    there = needed_by((*THERE, *ALLOWED)) | {"jax-alexnet"}  # this project itself, without what it asks for
    packages = metadata.packages_distributions()
    hidden = {top for top, owners in packages.items() if not there & set(map(normal, owners))} | set(MISSING)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(f"HIDDEN = set({sorted(hidden)!r})\n{HIDE}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "bare"))
    # Without the tests' own eight devices.
    monkeypatch.setenv("XLA_FLAGS", " ".join(["--xla_llvm_disable_expensive_passes=true", *compiling.flags()]))
    return tmp_path


def test_the_packages_are_hidden(bare: Path) -> None:
    code = (
        f"import importlib.util as u; print([name for name in {MISSING} if u.find_spec(name)], "
        f"[name for name in {THERE} if not u.find_spec(name)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=bare)
    assert done.stdout.strip() == "[] []"


def test_both_sides_are_timed_on_two_devices_and_compute_the_same(bare: Path) -> None:
    weights, files = bare / "w.npz", [bare / f"{name}.npz" for name in ("jax", "torch", "reference")]
    checks.write_weights(weights, "cifar_18pct", 32)
    workloads = [
        Workload("jax", "tuned", "cifar_18pct", 32, 8, devices=2, threads=2),
        Workload("torch", "plain", "cifar_18pct", 32, 8, devices=2, threads=2, form="nchw-eager"),
    ]
    with rivals(workloads, weights, {}) as (ours, theirs):
        assert (ours.facts["count"], theirs.facts["count"]) == (2, 2)
        assert ours.run(2) > 0
        assert theirs.run(2) > 0
        assert min(ours.peak_bytes(), theirs.peak_bytes()) > 1e8
        assert min(ours.ceilings().values()) > 1e8
        theirs.check(files[1], files[2])
        ours.check(files[0])
    for file in files[:2]:
        found = checks.compare(file, files[2], "float32")
        assert found["equal"], found
        assert found["update"] is not None and found["update"] < 1e-5  # no kink is near at this size
    with np.load(files[2]) as reference:
        assert set(reference.files) == {"logits", *checks.read_weights(weights)}
        assert reference["logits"].shape == (4, 10)


@pytest.mark.slow  # as long as the two beside it; CI runs it
@pytest.mark.matrix
def test_layers_are_compared(bare: Path) -> None:
    found = checks.layers(Workload("jax", "tuned", "cifar_18pct", 32, 8), bare, {}, 300.0)
    assert found is not None
    assert found["equal"] is True


def test_the_command_runs_and_says_what_it_can_not_measure(bare: Path) -> None:
    options = ["--mode=input", "--model=cifar_18pct", "--frameworks=jax", "--batch-size=4", "--rounds=2"]
    more = ["--block-seconds=0.01", "--threads=1", "--images=8", "--json=i.json"]
    command = [sys.executable, "-m", "parity", "throughput", *options, *more]
    environment = {"PATH": "/usr/bin", "PYTHONPATH": f"{bare / 'bare'}:{ROOT}"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # no timing is judged, and compiling takes longest
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=bare, env=environment)
    assert done.returncode == 0, done.stderr
    read = json.loads((bare / "i.json").read_text())
    assert [row["what"] for row in read["rows"]] == ["reading", "cached", "there"]
    assert read["rows"][0]["loader"] == "threads"  # grain is not there
    assert read["skipped"] == ["filling the cache: Pillow is not installed: nothing can be decoded"]
    assert f"not measured: {read['skipped'][0]}" in done.stdout
    refused = subprocess.run(
        [*command, "--data=folder:x"], capture_output=True, text=True, check=False, cwd=bare,
        env=environment,
    )  # fmt: skip
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --data folder:x can't be opened without Pillow")
