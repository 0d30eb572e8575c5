"""What would stop a run later is found before its first step, and a run goes on with what it began with."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from alexnet_io.run import preflight, statistics_file
from alexnet_io.run.directory import RunDirectory
from jax_alexnet import recipes
from jax_alexnet import run_setup as setup
from torch_ref import resolved_settings
from torch_ref import run_setup as torch_setup
from torch_ref.processes import Processes

DESCRIPTION = {"model": "m", "class_names": ["a", "b"], "normalisation": {}, "settings": {}}


@pytest.mark.parametrize(
    ("module", "settings", "said"),
    [
        ("tensorboardX", {"tensorboard": True}, r"pip install 'jax-alexnet\[tensorboard\]'"),
        ("safetensors", {}, "pip install safetensors"),
        ("orbax.checkpoint", {}, "pip install orbax-checkpoint"),
    ],
)
def test_a_missing_package_is_found_first(monkeypatch, tmp_path, module, settings, said):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=said):
        preflight.check(TrainSettings(output=tmp_path / "run", **settings), packages=("orbax.checkpoint",))
    assert not (tmp_path / "run").exists()


def test_without_matplotlib_a_run_is_only_warned(monkeypatch, tmp_path):
    assert preflight.check(TrainSettings(output=tmp_path / "run")) == []
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert preflight.check(TrainSettings(output=tmp_path / "run")) == [
        "no pictures will be drawn: pip install matplotlib"
    ]


def test_a_place_that_cannot_be_written_to_is_found_first(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    for output in (file, file / "run", file / "deeper" / "run"):
        with pytest.raises(UserError, match="file"):
            preflight.check(TrainSettings(output=output))
    monkeypatch.setattr("os.access", lambda *_: False)  # as on a disk mounted for reading; root may write anywhere
    with pytest.raises(UserError, match="can't be written to"):
        preflight.check(TrainSettings(output=tmp_path / "a" / "run"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="can't be written to"):
        preflight.check(TrainSettings())  # runs/, which isn't there yet
    assert not (tmp_path / "runs").exists()


def test_a_directory_in_which_no_step_was_finished_may_be_used_again(tmp_path):
    run = tmp_path / "run"
    for _ in range(2):
        with RunDirectory(run) as directory:
            directory.describe(**DESCRIPTION)
        (run / "metrics.jsonl").write_text("")
        (run / "checkpoints").mkdir(exist_ok=True)
    preflight.check(TrainSettings(output=run))
    for finished in ("metrics.jsonl", "checkpoints/step_00000001", "checkpoints/step-000000001.pt"):
        path = run / finished
        path.write_text("{}\n")
        for check in (lambda: preflight.check(TrainSettings(output=run)), lambda: RunDirectory(run)):
            with pytest.raises(UserError, match="--resume"):
                check()
        path.write_text("") if path.name == "metrics.jsonl" else path.unlink()
    RunDirectory(run).close()


@pytest.mark.parametrize("framework", ["jax_alexnet", "torch_ref"])
def test_a_run_goes_on_with_its_own_normalisation(framework, tmp_path):
    """Measured when it began: what the pictures are now would be another input."""
    given = TrainSettings(
        model="cifar_18pct", recipe="blog", data="synthetic:classes=2,train=8,test=4", batch_size=4, devices="1",
        normalize="channel", color_noise=True, output=tmp_path,
    )  # fmt: skip

    def arrays(settings: TrainSettings) -> dict[str, np.ndarray]:
        if framework == "jax_alexnet":
            return setup.prepare(recipes.resolve(settings)).statistics_arrays
        return torch_setup.prepare(resolved_settings.resolve(settings), Processes(0, 1, torch.device("cpu"))).arrays

    measured = arrays(given)
    own = {name: array + 1 for name, array in measured.items()}
    statistics_file.write(tmp_path, own)
    for name, array in arrays(replace(given, resume=True)).items():
        np.testing.assert_array_equal(array, own[name])
    np.testing.assert_array_equal(arrays(given)["mean"], measured["mean"])
    (tmp_path / statistics_file.STATISTICS).unlink()
    with pytest.raises(UserError, match="normalisation that the run in"):
        arrays(replace(given, resume=True))
