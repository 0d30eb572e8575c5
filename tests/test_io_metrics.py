"""Metrics files: exact numbers, no step twice, whole again after a crash."""

import contextlib
import csv
import json
import math
import os
import resource
import signal
import subprocess
import sys
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alexnet_io.errors import UserError
from alexnet_io.run import metrics
from alexnet_io.run.metrics import MetricsRow, MetricsWriter, read_metrics


def row(step: int, split: str = "train", **more) -> MetricsRow:
    return MetricsRow(step, step / 10, split, 1 / (step + 3), **more)


def both_files(directory) -> list[MetricsRow]:
    """The rows, after making sure that the CSV file says the same to the last digit."""
    rows = read_metrics(directory)
    with open(directory / "metrics.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert list(table[0] if table else metrics.COLUMNS) == list(metrics.COLUMNS)
    assert len(table) == len(rows)
    for line, expected in zip(table, rows, strict=True):
        for name in metrics.COLUMNS:
            value = getattr(expected, name)
            if value is None:
                assert line[name] == ""
            elif isinstance(value, str):
                assert line[name] == value
            else:
                assert float(line[name]) == value or (math.isnan(value) and line[name] == "nan")
    return rows


def test_columns_are_those_that_were_promised(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(row(1, top1=0.5, top5=1.0, learning_rate=1e-2, images_per_second=812.5))
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {
        "step": 1,
        "epoch": 0.1,
        "split": "train",
        "loss": 0.25,
        "top1": 0.5,
        "top5": 1.0,
        "learning_rate": 0.01,
        "images_per_second": 812.5,
    }
    header, values = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header == "step,epoch,split,loss,top1,top5,learning_rate,images_per_second"
    assert values == "1,0.1,train,0.25,0.5,1.0,0.01,812.5"


@settings(max_examples=60, deadline=None)
@given(loss=st.floats(width=64), rate=st.none() | st.floats(width=32))
def test_every_float_reads_back_exactly(tmp_path_factory, loss, rate):
    directory = tmp_path_factory.mktemp("exact")
    written = MetricsRow(1, 1, "test", loss, learning_rate=rate if rate is None else cast(float, np.float32(rate)))
    with MetricsWriter(directory) as writer:
        writer.write(written)
    (back,) = both_files(directory)
    assert back.loss == loss or (math.isnan(loss) and math.isnan(back.loss))
    if rate is not None and not math.isnan(rate):
        assert back.learning_rate == rate
    json.loads((directory / "metrics.jsonl").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_each_row_is_on_disk_before_the_next_step(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in (1, 2):
            writer.write(row(step))
            assert both_files(tmp_path)[-1] == row(step)


def test_no_step_appears_twice(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        assert writer.write(row(5))
        assert writer.write(row(5, "test"))
        assert not writer.write(row(5))
        assert not writer.write(row(4))
        assert writer.write(row(6))
    assert [(r.step, r.split) for r in both_files(tmp_path)] == [(5, "train"), (5, "test"), (6, "train")]


def test_a_row_that_is_none_is_refused(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        low: Any = "low"
        for wrong in (row(1, "holdout"), MetricsRow(-1, 0, "train", 1.0), MetricsRow(1, 0, "train", low)):
            with pytest.raises(ValueError, match=r"split is|step is|loss is"):
                writer.write(wrong)
    assert both_files(tmp_path) == []


def test_a_new_run_never_appends_to_an_old_one(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(row(1))
    with pytest.raises(UserError, match="already holds"):
        MetricsWriter(tmp_path)
    assert both_files(tmp_path) == [row(1)]


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_last_line_is_dropped_on_resume(tmp_path, cut):
    with MetricsWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(row(step))
    for name in ("metrics.jsonl", "metrics.csv"):
        os.truncate(tmp_path / name, (tmp_path / name).stat().st_size - cut)
    assert read_metrics(tmp_path) == [row(1), row(2)]  # a reader beside a running training sees whole rows only
    with MetricsWriter(tmp_path, resume_step=2) as writer:
        writer.write(row(3))
    assert both_files(tmp_path) == [row(1), row(2), row(3)]


def test_rows_beyond_the_resumed_step_are_removed(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in range(1, 8):
            writer.write(row(step))
            writer.write(row(step, "test"))
    with MetricsWriter(tmp_path, resume_step=4) as writer:
        assert not writer.write(row(4))
        assert writer.write(row(5))
    expected = [row(step, split) for step in range(1, 5) for split in ("train", "test")] + [row(5)]
    assert both_files(tmp_path) == expected
    assert not list(tmp_path.glob("*.bad"))


def test_damage_in_the_middle_is_repaired_and_the_original_kept(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(row(step))
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    damaged = lines[0] + b"\0" * 50 + b"\n" + lines[2] + lines[2]
    (tmp_path / "metrics.jsonl").write_bytes(damaged)
    with pytest.raises(UserError, match="line 2 is no row"):
        read_metrics(tmp_path)
    MetricsWriter(tmp_path, resume_step=3).close()
    assert both_files(tmp_path) == [row(1), row(3)]
    assert (tmp_path / "metrics.jsonl.bad").read_bytes() == damaged


def test_a_missing_table_is_rebuilt(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(row(1))
    (tmp_path / "metrics.csv").unlink()
    MetricsWriter(tmp_path, resume_step=1).close()
    assert both_files(tmp_path) == [row(1)]


def test_sigkill_between_or_within_rows_is_repaired(tmp_path):
    code = (
        "import sys, itertools\n"
        "from alexnet_io.run.metrics import MetricsRow, MetricsWriter\n"
        "writer = MetricsWriter(sys.argv[1])\n"
        "for step in itertools.count(1):\n"
        "    writer.write(MetricsRow(step, step / 10, 'train', 1 / (step + 3)))\n"
        "    if step == 500: print(flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    MetricsWriter(tmp_path, resume_step=400).close()
    assert both_files(tmp_path) == [row(step) for step in range(1, 401)]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    """A limit on the size of files makes the write fail as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = MetricsWriter(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=r"metrics\.(jsonl|csv): .*Free some space"):
            all(writer.write(row(step)) for step in range(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.close()
    MetricsWriter(tmp_path, resume_step=3).close()
    assert both_files(tmp_path) == [row(step) for step in range(4)]


def test_tensorboard_gets_the_same_scalars(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        writer.write(row(1, top1=0.5))
        writer.write(MetricsRow(2, 1, "test", float("nan")))
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"loss/train" in content
    assert b"top1/train" in content
    assert b"loss/test" not in content


def test_without_tensorboardx_the_way_to_get_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'jax-alexnet\[tensorboard\]'"):
        MetricsWriter(tmp_path, tensorboard=True)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no metrics at .*metrics\.jsonl"):
        read_metrics(tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=100)
    | st.lists(st.sampled_from(["{", "}", '"step":1', ",", "\n", "[", "1e999"])).map("".join).map(str.encode)
)
@example(content=b"[" * 100_000 + b"\n")
@example(content=b'{"step": 1, "epoch": 1' + b"0" * 400 + b', "split": "train", "loss": 1}\n')
@example(content=b'{"step": 1, "epoch": 1, "split": ["train"], "loss": {}}\n')
@example(content=b"9" * 5000 + b"\n")
def test_random_bytes_give_rows_or_a_named_error_and_can_be_repaired(tmp_path_factory, content):
    directory = tmp_path_factory.mktemp("random")
    (directory / "metrics.jsonl").write_bytes(content)
    with contextlib.suppress(UserError):
        read_metrics(directory)
    MetricsWriter(directory, resume_step=10).close()
    both_files(directory)
