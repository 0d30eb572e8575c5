"""Both programs called from Python: what callbacks are told and do, and the traces of a few steps."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from alexnet_io.run import loop, preflight
from alexnet_io.run.epoch_record import EpochRecord
from alexnet_io.run.metrics import read_metrics
from jax_alexnet import recipes, train_command
from torch_ref import resolved_settings
from torch_ref import train_command as torch_train_command

SIDES = {"jax": (recipes.resolve, train_command.train), "torch": (resolved_settings.resolve, torch_train_command.train)}
WORDS: dict[str, Any] = {
    "model": "cifar_18pct",
    "recipe": "blog",
    "data": "synthetic:classes=2,train=8,test=4",
    "image_size": 16,
    "batch_size": 4,
    "epochs": 5,
    "devices": "1",
}


def traced_names(directory: Path) -> list[str]:
    """Of the events in the trace that Perfetto and Chrome open: they read this JSON, compressed or not."""
    (file,) = [*directory.rglob("perfetto_trace.json.gz"), *directory.rglob("trace.json")]
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return [event.get("name", "") for event in json.loads(content)["traceEvents"]]


@pytest.mark.parametrize("side", SIDES)
def test_a_callback_that_fails_leaves_a_run_that_goes_on(
    side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop.pictures, "draw", lambda *_: None)
    resolve, train = SIDES[side]
    records: list[EpochRecord] = []

    def fails(record: EpochRecord) -> None:
        records.append(record)
        if record.epoch == 4:
            raise ZeroDivisionError("the user's own")

    run, traces = tmp_path / "run", tmp_path / "traces"
    with pytest.raises(ZeroDivisionError, match="the user's own"):
        train(resolve(TrainSettings(**WORDS, output=run, profile=traces)), callbacks=[fails])
    assert [(record.epoch, record.step, record.last_step) for record in records] == [
        (epoch, 2 * epoch, 10) for epoch in (1, 2, 3, 4)
    ]
    rows = {(row.step, row.split): row for row in read_metrics(run)}
    for record in records:
        assert record.train.loss == pytest.approx(rows[record.step, "train"].loss)
        assert record.evaluation is not None and record.evaluation.top1 == rows[record.step, "test"].top1
        assert record.directory == run.resolve()
    # The trace shows the third step to the seventh.
    names = traced_names(traces)
    steps = {"jax": ["train"] * 5, "torch": [f"step {number}" for number in range(3, 8)]}[side]
    assert [name for name in names if name == "train" or name.startswith("step ")] == steps
    assert len(names) > 100
    assert f"steps 3 to 7 are traced in {traces}" in capfd.readouterr().out
    # It goes on where it was, and tells of the one epoch that is left.
    settings = resolve(TrainSettings(**WORDS, output=run, resume=True))
    assert train(settings, callbacks=[records.append]) == 0
    assert [record.epoch for record in records] == [1, 2, 3, 4, 5]


def test_a_place_where_no_trace_can_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = TrainSettings(output=tmp_path / "run", profile=tmp_path / "file" / "traces")
    with pytest.raises(UserError, match=r"--profile .*traces needs a directory, and .*file is a file"):
        preflight.check(settings)
    assert preflight.check(TrainSettings(output=tmp_path / "run", profile=tmp_path / "new" / "traces")) == []
    assert not (tmp_path / "new").exists()
