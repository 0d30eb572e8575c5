"""The command line, and frameworks in processes of their own."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import parity
from parity.__main__ import main
from parity.errors import CannotCompare

ROOT = Path(__file__).resolve().parent.parent

PORT = """
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(4, (3, 3), padding=1)(x))
            return nn.Dense(3)(x.reshape(x.shape[0], -1))

    def wrong():
        class Wrong(nn.Module):
            @nn.compact
            def __call__(self, x):
                x = nn.leaky_relu(nn.Conv(4, (3, 3), padding=1)(x))
                return nn.Dense(3)(x.reshape(x.shape[0], -1))

        return Wrong()
"""
ORIGINAL = """
    from torch import nn

    def net():
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5 * 6, 3))
"""


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_PLATFORMS")}
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **kept}
    command = [sys.executable, "-m", "parity", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "port.py").write_text(textwrap.dedent(PORT))
    (folder / "original.py").write_text(textwrap.dedent(ORIGINAL))
    return folder


@pytest.mark.parametrize("arguments", [["--help"], ["layers", "--help"], ["mutants", "--help"], ["compare", "--help"]])
def test_help_loads_no_framework(arguments: list[str]) -> None:
    code = (
        "import sys, time; began = time.process_time()\n"
        "from parity.__main__ import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as e:\n    assert not e.code\n"
        "assert not {'jax', 'torch', 'flax', 'numpy'} & set(sys.modules), sorted(sys.modules)\n"
        "print('seconds', time.process_time() - began)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["layer"], ["no command 'layer'", "did you mean layers"]),
        (["layers", "--modle", "all"], ["--modle", "did you mean --model"]),
        (["layers", "--model", "cafenet"], ["cafenet", "did you mean caffenet"]),
        (["layers", "--dtype", "float16"], ["float16", "float64"]),
        (["compare", "--flax", "port:Net"], ["--torch", "package.module:attribute"]),
        (["compare", "--flax", "a:b", "--torch", "c:d"], ["--shape", "--inputs"]),
    ],
)
def test_usage_errors_exit_with_2_and_name_the_nearest(arguments: list[str], words: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_layers_writes_its_files_and_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / name for name in ("r.json", "r.html", "r.npz")]
    options = [f"--{kind}={path}" for kind, path in zip(("json", "html", "arrays"), files, strict=True)]
    assert main(["layers", "--model", "cifar_18pct", *options]) == 0
    said = capsys.readouterr().out
    assert "equal: 26 comparisons" in said
    assert "forward" not in said  # equal layers are a line each
    assert json.loads(files[0].read_text())["equal"] is True
    assert files[1].stat().st_size < 5_000_000
    with np.load(files[2]) as arrays:
        assert {"jax", "torch", "difference"} == set(arrays.files)


@pytest.fixture
def pythons(models: Path) -> dict[str, str]:
    """An interpreter for each side that does without the other's framework, which its environment need not have."""
    blocker = "import sys\nsys.modules['{0}'] = None\n"
    wrappers = {}
    for side, other in (("jax", "torch"), ("torch", "jax")):
        (models / f"without_{other}").mkdir(exist_ok=True)
        (models / f"without_{other}" / "sitecustomize.py").write_text(blocker.format(other))
        script = models / f"python-{side}"
        script.write_text(f'#!/bin/sh\nPYTHONPATH={models}/without_{other}:$PYTHONPATH exec {sys.executable} "$@"\n')
        script.chmod(0o755)
        wrappers[side] = str(script)
    return wrappers


def test_models_given_by_name_run_in_two_processes(
    models: Path, pythons: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """And each imports one framework."""
    command = ["compare", "--torch", "original:net", "--shape", "2,3,5,6", "--flax", "port:wrong", "--all"]
    both = ["--jax-python", pythons["jax"], "--torch-python", pythons["torch"]]
    monkeypatch.chdir(models)
    assert main([*command, *both, f"--json={tmp_path / 'r.json'}"]) == 1
    assert "backward:kernel" in capsys.readouterr().out
    first = json.loads((tmp_path / "r.json").read_text())["first_divergence"]
    assert (first["layer"], first["stage"]) == ("Dense_0", "input")


def test_what_a_worker_says_is_passed_on(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models)
    x = np.zeros((1, 3, 5, 6))
    with pytest.raises(CannotCompare, match="'port:Nett' can't be loaded"):
        parity.compare("port:Nett", "original:net", x)
    with pytest.raises(CannotCompare, match="can't be run"):
        parity.compare("port:Net", "original:net", x, torch_python="/no/such/python")
    with pytest.raises(CannotCompare, match="both as objects"):
        parity.compare("port:Net", object(), x)


def test_importing_the_package_is_free() -> None:
    code = "import sys, parity; assert not {'jax', 'torch', 'flax', 'numpy'} & set(sys.modules)"
    began = time.process_time()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert time.process_time() - began < 1
