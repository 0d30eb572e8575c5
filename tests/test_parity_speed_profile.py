"""`parity profile`: time by layer, measured in both frameworks or modelled for GPUs that aren't there."""

import json
from pathlib import Path

import pytest

from alexnet_io.errors import UserError
from jax_alexnet.compiled import gpu_compiler, gpu_reading, gpu_step
from jax_alexnet.compiled.collectives import Collective
from jax_alexnet.compiled.gpu_settings import GpuSettings
from jax_alexnet.variants import VARIANTS
from parity.__main__ import main
from parity.speed import charts, profile_page, settings


def test_time_by_layer_of_both_frameworks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "p.json", tmp_path / "p.html"]
    options = ["--model=cifar_18pct", "--batch-size=2", "--style=plain"]
    assert main(["profile", *options, f"--json={files[0]}", f"--html={files[1]}"]) == 0
    read = json.loads(files[0].read_text())
    names = [row.name for row in VARIANTS["cifar_18pct"].layers]
    for framework in ("jax", "torch"):
        entries = read["frameworks"][framework]
        assert [entry["layer"] for entry in entries] == names
        assert all(entry["forward"] > 0 and entry["backward"] >= 0 for entry in entries)
    out, page = capfd.readouterr().out, files[1].read_text()
    assert all(name in out and f">{name}</text>" in page for name in (*names,))
    assert all(words in out and words in page for words in ("jax forward", "torch backward"))


def launch(layer: str, direction: str, seconds: float) -> gpu_reading.Launch:
    return gpu_reading.Launch("fusion", "fusion", "", layer, direction, 1000, 2000, seconds)


PROGRAM = gpu_reading.GpuProgram(
    {"model": "cifar_18pct", "precision": "bfloat16", "batch_size": 4, "devices": 2, "gpu": "h100"},
    [launch("", "", 1e-6), launch("conv1", "forward", 2e-6), launch("conv1", "forward", 1e-6),
     launch("conv1", "backward", 4e-6), launch("fc10", "update", 5e-6)],
    [Collective("all-reduce", "f32", 400, 1, 2, 1)], [], [], [], 10, 20,
)  # fmt: skip


def test_a_gpu_program_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[GpuSettings] = []
    monkeypatch.setattr(gpu_step, "compile_step", lambda settings: (asked.append(settings), PROGRAM)[1])
    files = [tmp_path / "g.json", tmp_path / "g.html"]
    words = ["--gpu=h100", "--devices=2", "--model=cifar_18pct", f"--json={files[0]}", f"--html={files[1]}"]
    assert main(["profile", *words, "--batch-size=4", "--precision=tf32", "--image-size=40"]) == 0
    assert main(["profile", "--gpu=a100"]) == 0
    first, second = asked
    assert (first.model, first.gpu, first.devices, first.batch_size, first.precision, first.image_size) == (
        "cifar_18pct", "h100", 2, 4, "tf32", 40,
    )  # fmt: skip
    assert (second.gpu, second.devices, second.batch_size, second.precision) == ("a100", 8, 256, "bfloat16")
    out = capfd.readouterr().out
    assert "4 images on each of 2 h100" in out
    assert "all-reduce: 400 bytes in 1 arrays of f32" in out
    read = json.loads(files[0].read_text())
    assert read["seconds"] == pytest.approx(13e-6)
    layers = {entry["layer"]: entry for entry in profile_page.by_layer(read["launches"], "cifar_18pct")}
    assert list(layers) == ["conv1", "fc10", "other"]
    assert layers["conv1"] == {"layer": "conv1", "forward": pytest.approx(3e-6), "backward": 4e-6}
    assert layers["other"]["forward"] == 1e-6
    assert "Nothing was run" in files[1].read_text()


HLO = """
%fused_add (p0: f32[4,4]) -> f32[4,4] {
  ROOT %add.1 = f32[4,4]{1,0} add(%p0, %p0), metadata={op_name="jit(local_step)/shard_map/add"}
}

ENTRY %main (param.1: f32[4,4]) -> f32[4,4] {
  %param.1 = f32[4,4]{1,0} parameter(0), metadata={op_name="state.params['fc10']['kernel']"}
  %update = f32[4,4]{1,0} fusion(%param.1), kind=kLoop, calls=%fused_add, metadata={op_name="jit(step)/shard_map/add"}
  %cast = bf16[4,4]{1,0} fusion(%param.1), kind=kLoop, calls=%none, metadata={op_name="jit(step)/jvp(AlexNet)/convert"}
  ROOT %conv = f32[4,4]{1,0} fusion(%cast), kind=kLoop, calls=%none, metadata={op_name="jit(step)/jvp(AlexNet)/conv1/x"}
}
"""


def test_an_update_belongs_to_the_layer_whose_weights_it_reads() -> None:
    program = gpu_reading.read(HLO, GpuSettings("cifar_18pct"), 0, 0)
    found = {launch.name: (launch.layer, launch.direction) for launch in program.launches}
    assert found == {"update": ("fc10", "update"), "cast": ("fc10", "forward"), "conv": ("conv1", "forward")}


def test_without_the_compiler_the_way_to_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_compiler, "FOLDER", tmp_path)
    monkeypatch.delenv("ALEXNET_GPU_COMPILER", raising=False)
    with pytest.raises(UserError, match="make gpu-compiler"):
        main(["profile", "--gpu=h100"])
    with pytest.raises(UserError, match="did you mean h100"):
        settings.Profile(gpu="h10")


def test_charts_hold_what_they_are_given() -> None:
    drawn = charts.layers({"jax": [{"layer": "conv1", "forward": 0.001, "backward": 0.003}]})
    widths = [float(part.split('"')[0]) for part in drawn.split('y="34" width="')[1:]]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.1)
    assert ">4</text>" in drawn  # milliseconds, both passes
    value = {"median": 2.0, "low": 1.0, "high": 4.0}
    drawn = charts.lines([charts.Line("jax", [(1, value), (2, value), (8, value)], "#000")], "images/s")
    places = [float(part.split('"')[0]) for part in drawn.split('<circle cx="')[1:]]
    assert (places[2] - places[0]) == pytest.approx(7 * (places[1] - places[0]), abs=0.5)
