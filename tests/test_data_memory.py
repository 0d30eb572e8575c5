"""Batches that can't fit into memory or exceed the training set, said before anything is done for them."""

import sys

import pytest
import torch
from tiny import complete_settings

import alexnet_io.data.memory
import jax_alexnet.train
import torch_ref.train
from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.train_settings import MODELS
from alexnet_io.data.memory import StepMemory, available_memory, refuse_what_cannot_fit
from alexnet_io.data.sources import open_for
from alexnet_io.errors import UserError
from jax_alexnet.parallel import distributed
from jax_alexnet.run_setup import prepare
from jax_alexnet.shapes import smallest_image_size
from jax_alexnet.step_memory import step_memory as of_jax
from jax_alexnet.variants import VARIANTS
from torch_ref.alexnet import build
from torch_ref.processes import Processes
from torch_ref.step_memory import step_memory as of_torch


class Cpu:
    platform = "cpu"


def test_what_a_step_holds_of_an_image():
    """cifar_18pct by hand: conv1 32x32x3 to 32x32x32, conv2 and conv3 from 16x16x32 and 8x8x32, fc10 from 4x4x64."""
    step = of_jax(VARIANTS["cifar_18pct"], 32, "float32", [Cpu()])
    assert step.layers == [(3072, 32768), (8192, 8192), (2048, 4096), (1024, 10)]
    assert step.bytes_of_values() == 2 * 4 * (3072 + 32768)
    evaluated = of_jax(VARIANTS["cifar_18pct"], 32, "bfloat16", [Cpu()], training=False)
    assert evaluated.bytes_of_values() == 2 * (3072 + 32768)
    late = StepMemory([(10, 20), (15, 5), (5, 100)], value_bytes=8)
    assert late.bytes_of_values() == 2 * 8 * (10 + 15 + 5 + 100)  # the inputs of all layers are kept


@pytest.mark.parametrize("model", MODELS)
def test_both_sides_count_the_same(model):
    side = smallest_image_size(VARIANTS[model])
    ours = of_jax(VARIANTS[model], side, "float32", [Cpu()], processes=1)
    with torch.device("meta"):
        network = build(model, VARIANTS[model].classes, side)
    settings = complete_settings(model=model, image_size=side)
    assert of_torch(network, settings, Processes(0, 1, torch.device("cpu"))) == ours


class Gpu:
    platform = "gpu"

    def __init__(self, process_index: int) -> None:
        self.process_index = process_index

    def memory_stats(self) -> dict[str, int]:
        assert self.process_index == 0, "JAX can't ask another process's device"
        return {"bytes_limit": 10**9}


def test_devices_with_memory_of_their_own_divide_the_values():
    step = of_jax(VARIANTS["cifar_18pct"], 32, "float32", [Gpu(1), Gpu(0)], processes=2)
    assert (step.devices, step.device_bytes, step.share) == (2, 10**9, 0.5)


def test_main_memory_and_devices_are_each_held_to_what_they_have(monkeypatch):
    monkeypatch.setattr(alexnet_io.data.memory, "available_memory", lambda: 10**6)
    one_image = StepMemory([(100, 150)])  # 2 * 4 * 250 bytes, and 3 * 10**2 of pixels
    refuse_what_cannot_fit(434, 10, one_image)
    message = (
        r"--batch-size 435 can't fit into memory: a step takes at least 2\.3 kB for each image, 1 MB in all, and 1 MB "
        r"of main memory are available\. No more than 434 images could"
    )
    with pytest.raises(UserError, match=message):
        refuse_what_cannot_fit(435, 10, one_image)
    gpus = StepMemory([(100, 150)], devices=4, device_bytes=5000)
    refuse_what_cannot_fit(10, 10, gpus)
    with pytest.raises(UserError, match=r"--batch-size 11 .* 500 bytes .*5 kB is what a device has.* 10 images"):
        refuse_what_cannot_fit(11, 10, gpus)
    shared = StepMemory([(100, 150)], share=0.5, devices=2, device_bytes=10**9)
    refuse_what_cannot_fit(6666, 10, shared)
    with pytest.raises(UserError, match="main memory"):
        refuse_what_cannot_fit(6667, 10, shared)


def test_available_memory_is_within_what_the_machine_has(monkeypatch, tmp_path):
    assert available_memory() > 0
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(alexnet_io.data.memory, "_CGROUP_LIMITS", (str(limit),))
    without = available_memory()
    limit.write_text("12345678\n")
    assert available_memory() == 12345678
    limit.write_text("max\n")
    assert available_memory() == pytest.approx(without, rel=0.5)


@pytest.mark.parametrize("command", [jax_alexnet.train, torch_ref.train])
@pytest.mark.parametrize("words", ["--model cifar_18pct", "--image-size 67 --stored-size 67"])
def test_a_batch_that_cannot_fit_is_refused_before_the_data_are_opened(command, words, monkeypatch, capsys):
    monkeypatch.setattr(
        "alexnet_io.data.sources.opening.open_source", lambda *_, **__: pytest.fail("the data were opened")
    )
    # As on a machine with 24 GiB, whatever this one has.
    monkeypatch.setattr(alexnet_io.data.memory, "available_memory", lambda: 24 * 2**30)
    arguments = ["train", "--data", "folder:nowhere", *words.split(), "--batch-size", "1000000", "--dry-run"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--devices", "1"])
    with pytest.raises((UserError, SystemExit)) as refused:
        command.main()
    said = f"{refused.value} {capsys.readouterr().err}"
    assert "--batch-size 1000000 can't fit into memory" in said and "25.8 GB of main memory" in said


def settings_for(batch_size: int) -> CompleteSettings:
    data = "synthetic:classes=2,train=30,test=4"
    return complete_settings(data=data, batch_size=batch_size, image_size=8)


@pytest.mark.parametrize(("batch_size", "warned"), [(30, False), (31, True), (512, True)])
def test_a_batch_larger_than_the_training_set_is_warned_of(batch_size, warned, capsys):
    open_for(settings_for(batch_size), step=StepMemory([(1, 1)]))
    out = capsys.readouterr().out
    assert (
        out == ""
        if not warned
        else out.startswith(
            f"warning: --batch-size {batch_size} is more than the 30 training images: an epoch is one step"
        )
    )
    assert out.count("\n") == warned


@pytest.mark.parametrize(("index", "warned"), [(0, 1), (1, 0)])
def test_of_several_processes_the_first_says_it(index, warned, capsys):
    settings = complete_settings(
        data="synthetic:classes=2,train=30,test=4", model="cifar_18pct", batch_size=32, devices="1", normalize="half"
    )
    prepare(settings, distributed.Processes(index, 2))
    assert capsys.readouterr().out.count("warning: --batch-size 32 is more") == warned


def test_evaluation_is_not_warned_of_the_size_of_training_batches(capsys):
    open_for(settings_for(512), measuring=True)
    assert capsys.readouterr().out == ""
