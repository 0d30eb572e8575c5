"""`parity throughput --mode input`: what is read is what the cache holds, and nothing is left out in silence."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from alexnet_io.data.decoding import Resizing, prepare
from alexnet_io.errors import UserError
from parity.__main__ import main
from parity.speed import input_data, input_files, input_page, input_result, torch_input
from parity.speed.statistics import Interval
from parity.speed.workload import Workload
from tests.image_files import write_folder

TINY = Workload("torch", "tuned", "cifar_18pct", 32, 4)


def test_a_target_inside_the_interval_is_not_decided() -> None:
    assert input_result.met(Interval(1.0, 0.95, 1.1), 0.9) is True
    assert input_result.met(Interval(0.9, 0.8, 0.95), 0.9) is None
    assert input_result.met(Interval(0.8, 0.7, 0.85), 0.9) is False
    assert input_result.met(Interval(0.8, 0.7, 0.85), None) is None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> input_data.Source:
    return input_data.made_up(tmp_path_factory.mktemp("made"), 6, 37)


def test_the_store_holds_the_files_as_training_would_read_them(
    made: input_data.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = input_data.open_store(made).train
    files = input_data.encoded(made)
    assert len(split) == len(files) == 6
    found = {image.tobytes() for image in split.read(np.arange(6))}
    assert found == {prepare(files.read(i), "image", Resizing(37, 37, 37)).tobytes() for i in range(6)}
    # 500x375 pixels and about as many bytes as ImageNet's files, 110,000 in the mean.
    assert all(80_000 < size < 140_000 for size in files.sizes)
    monkeypatch.setattr(input_data, "MOST_STORED_BYTES", 4 * 37 * 37 * 3)
    assert len(input_data.open_store(made).train) == 4  # as much as stays warm


def test_files_again_and_again(made: input_data.Source) -> None:
    files = input_data.encoded(made)
    more = input_data.repeated(files, 15)
    assert len(more) == len(more.names) == len(more.sizes) == 15
    assert [more.read(i) for i in (0, 7, 14)] == [files.read(i) for i in (0, 1, 2)]
    assert len({files.fingerprint, more.fingerprint, input_data.repeated(files, 14).fingerprint}) == 3


def test_every_image_is_decoded_and_filled(made: input_data.Source, monkeypatch: pytest.MonkeyPatch) -> None:
    from alexnet_io.data.sources import files as listing

    seen: list[str] = []
    monkeypatch.setattr(input_files.processes, "pin", lambda *_: None)
    monkeypatch.setattr(input_files, "_decode", lambda data: seen.append("decode"))
    monkeypatch.setattr(input_files.Files, "_prepare", lambda self, data: seen.append("prepare"))
    once = listing.prepare_first
    monkeypatch.setattr(listing, "prepare_first", lambda *words: (seen.append("fill"), once(*words))[1])
    job = input_files.Files(made, 37)
    for what in ("decode", "prepare", "fill"):
        assert job.time(what, 9)["seconds"] > 0
    assert {what: seen.count(what) for what in seen} == {"decode": 9, "prepare": 9, "fill": 9}


def test_blocks_have_as_many_batches_as_they_say(made: input_data.Source) -> None:
    data = input_data.open_store(made)
    side = torch_input.Torch(TINY, 37, data)
    used = []
    side.use = lambda batch, step: used.append(batch)  # type: ignore[method-assign]
    assert side.read(5, seed=3)["seconds"] > 0
    assert len(used) == 5
    assert sum(len(batch.images) for batch in used) == sum(batch.weights.sum() for batch in used) == 20
    stored = {image.tobytes() for image in data.train.read(np.arange(6))}
    assert {image.tobytes() for batch in used for image in batch.images} == stored
    # Read ahead, but never past the block: the time belongs to what was used.
    reads = []
    fetch = data.train.fetch
    split = dataclasses.replace(data.train, fetch=lambda places: (reads.append(len(places)), fetch(places))[1])
    counted = torch_input.Torch(TINY, 37, dataclasses.replace(data, train=split))
    reads.clear()
    counted.read(3, seed=0)
    assert reads == [4, 4, 4]


def test_data_without_a_cache_or_without_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without a prepared cache: --mode input needs folder:PATH"):
        input_data.given("digits", 37)
    with pytest.raises(SystemExit, match="2"):
        main(["throughput", "--data=digits"])
    with pytest.raises(SystemExit, match="2"):
        main(["throughput", "--mode=input", "--profile"])
    with pytest.raises(UserError, match="one number of devices at a time"):
        main(["throughput", "--mode=input", "--devices=1,2"])


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", {"a": 2, "b": 3})
    source = input_data.given(f"folder:{tmp_path / 'mine'}", 37, cache_dir=str(tmp_path / "cache"))
    assert source.classes == 2
    assert len(input_data.open_store(source).train) == len(input_data.encoded(source)) == 5
    write_folder(tmp_path / "both", {"train/a": 2, "train/b": 3, "test/a": 1, "test/b": 1}, start=50)
    source = input_data.given(f"folder:{tmp_path / 'both'}", 37, cache_dir=str(tmp_path / "cache"))
    assert len(input_data.open_store(source).train) == len(input_data.encoded(source)) == 5


def test_the_command_measures_input(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "i.json", tmp_path / "i.html"]
    options = ["--model=cifar_18pct", "--batch-size=4", "--rounds=2", "--block-seconds=0.01", "--threads=1"]
    written = [f"--json={files[0]}", f"--html={files[1]}"]
    assert main(["throughput", "--mode=input", "--images=6", *options, *written]) == 0
    read = json.loads(files[0].read_text())
    rows = {(row["framework"], row["what"]): row for row in read["rows"]}
    both = {(framework, what) for framework in ("jax", "torch") for what in ("reading", "cached", "there")}
    assert set(rows) == both | {(None, what) for what in ("decode", "prepare", "fill", "fill, all cores")}
    for row in rows.values():
        speed = row["images_per_second"]
        assert 0 < speed["low"] <= speed["median"] <= speed["high"]
        assert row["mode"] == "input"
        assert row["n"] == len(row["blocks"]) == 2
    assert rows["jax", "cached"]["compile_seconds"] > 0
    assert rows["jax", "reading"]["crops"].startswith("device")
    assert rows["torch", "reading"]["crops"] == "host"
    assert rows["jax", "reading"]["stored_bytes"] == 6 * 37 * 37 * 3
    assert [ratio["target"] for ratio in read["ratios"]] == [0.9, 0.9, 0.97, 0.97]
    for ratio, (over, under) in zip(read["ratios"], (("fill", "decode"), ("fill", "prepare")), strict=False):
        speeds = [np.array(rows[None, what]["blocks"]) for what in (over, under)]
        assert ratio["median"] == pytest.approx(np.median(speeds[0] / speeds[1]))
    assert read["aa_control"]["low"] <= read["aa_control"]["median"] <= read["aa_control"]["high"]
    assert read["skipped"] == []
    assert files[1].read_text() == input_page.render(read)
    assert "<svg" in files[1].read_text()
    assert "filling the cache over decoding alone, one core" in capfd.readouterr().out
