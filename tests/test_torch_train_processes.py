"""The reference trained by two real processes: the same numbers as one, one voice, and an end when one is lost."""

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.run import pictures
from alexnet_io.run.metrics import read_metrics
from tests import torch_starter
from torch_ref import checkpoint, launch, processes
from torch_ref import run_setup as setup
from torch_ref import train as command
from torch_ref.dropout_masks import DropoutMasks
from torch_ref.layers import Dropout
from torch_ref.processes import Processes
from torch_ref.resolved_settings import resolve

ROOT = Path(__file__).resolve().parent.parent
# 96 images in batches of 40: of the last, the second process has places that only fill it up.
UNEVEN = (
    "--model", "cifar_18pct", "--recipe", "blog", "--data", "synthetic:classes=4,train=96,test=41", "--seed", "3",
    "--batch-size", "40", "--learning-rate", "0.01", "--optimizer", "sgd", "--momentum", "0.9", "--epochs", "2",
    "--precision", "float64", "--image-size", "16", "--stored-size", "20", "--crop", "--flip", "--color-noise",
    "--warmup-steps", "1", "--label-smoothing", "0.1", "--clip-norm", "1", "--ema", "0.9", "--accumulate", "2",
)  # fmt: skip
STEPS = 5  # an epoch and two thirds
# The command with dropout put into a network that is small enough, and with what may go wrong in process 1.
DRIVER = """
import os, signal, sys, time
from alexnet_io.command_line.settings import run_command
from alexnet_io.run import pictures
from tests.test_torch_train_processes import empty_pictures, with_dropout
from torch_ref import engine, train
from torch_ref import run_setup as setup

fault, number = os.environ.get("FAULT", ":0").split(":")
output = os.path.abspath(sys.argv[sys.argv.index("--output") + 1])
build, train_step = setup.build, engine.train_step

def step(setup, batch, done, rate, votes):
    if fault and done == int(number) and os.environ["RANK"] == "1":
        print("fault at", time.time(), file=sys.stderr, flush=True)
        if fault == "raise":
            raise ZeroDivisionError("planted")
        os.kill(os.getpid() if fault == "kill" else os.getppid(), signal.SIGKILL if fault == "kill" else signal.SIGTERM)
        time.sleep(3)  # torchrun passes the signal on
    return train_step(setup, batch, done, rate, votes)

def watch(event, arguments):
    if event in ("open", "os.mkdir", "os.rename", "os.remove") and str(arguments[0]).startswith(output):
        if event != "open" or set(str(arguments[1])) & set("wax+"):
            print("process 1 wrote", arguments[0], file=sys.stderr, flush=True)

pictures.draw = empty_pictures
setup.build, engine.train_step = lambda *words, **more: with_dropout(build(*words, **more)), step
if os.environ["RANK"] == "1":
    sys.addaudithook(watch)
run_command(train.main)
"""


def with_dropout(network):
    network.pool3 = nn.Sequential(network.pool3, Dropout(0.5))
    return network


def empty_pictures(directory, *_):
    """Drawing takes longer than a run; who does it, and that it is done once, shows all the same."""
    for name in ("curves.png", "filters.png", "confusion.png"):
        (directory / name).touch()


@pytest.fixture
def train(monkeypatch):
    """Runs the command in this process, alone."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["train", *map(str, words)])
        return command.main()

    build = setup.build
    monkeypatch.setattr(setup, "build", lambda *words, **more: with_dropout(build(*words, **more)))
    monkeypatch.setattr(pictures, "draw", empty_pictures)
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return run


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}


def _torchrun(*words, fault):
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, words)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT, env=ENVIRONMENT | {"FAULT": fault},
    )  # fmt: skip


@pytest.fixture(scope="module")
def together():
    with torch_starter.started(ENVIRONMENT, ROOT) as run:
        yield run


def _newest(run):
    content = checkpoint.load_newest(run / "checkpoints", strict=True)
    assert content is not None
    return content


def _differences(one, two):
    weights, others = one["state_dict"], two["state_dict"]
    assert all(value.dtype == torch.float64 for value in weights.values())
    assert weights.keys() == others.keys()
    weights, others = weights | one["average"], others | two["average"]
    return {name: float((weights[name] - others[name]).abs().max()) for name in weights}


def _numbers(run):
    return [(row.step, row.split, row.loss, row.top1, row.top5, row.learning_rate) for row in read_metrics(run)]


def _files(run):
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    path = tmp_path_factory.mktemp("driver") / "driver.py"
    path.write_text(DRIVER)
    return path


@pytest.fixture(scope="module")
def two(driver, together, tmp_path_factory):
    """A run of two processes, and what they said."""
    run = tmp_path_factory.mktemp("two") / "run"
    done = together(driver, *UNEVEN, "--steps", STEPS, "--output", run)
    assert done.returncode == 0, done.stderr
    return run, done


def test_two_processes_train_as_one(train, two, tmp_path):
    run, done = two
    assert done.stdout.count("reached ") == 1
    assert done.stdout.count("cifar_18pct, ") == 1
    assert "process 1 wrote" not in done.stderr
    assert train(*UNEVEN, "--steps", STEPS, "--output", tmp_path / "one") == 0
    assert _files(run) == _files(tmp_path / "one")
    assert "curves.png" in _files(run)
    one = _newest(tmp_path / "one")
    assert one["step"] == STEPS
    assert max(_differences(one, _newest(run)).values()) <= 1e-12
    for (*alike, loss, top1, top5, rate), other in zip(_numbers(tmp_path / "one"), _numbers(run), strict=True):
        assert (*alike, top1, top5, rate) == (*other[:2], *other[3:])
        assert loss == pytest.approx(other[2], rel=1e-12)
    tested = [row for row in read_metrics(run) if row.split == "test"]
    assert [row.step for row in tested] == [3, STEPS]  # the end of an epoch, and of the run
    assert [round((row.top1 or 0.0) * 41, 9) % 1 for row in tested] == [0, 0]  # each of 41 images counted once


def test_stopped_by_a_signal_they_go_on_bit_for_bit_and_in_other_numbers(train, driver, together, two, tmp_path):
    straight, _ = two
    run, alone = tmp_path / "run", tmp_path / "alone"
    done = _torchrun(driver, *UNEVEN, "--steps", STEPS, "--output", run, fault="stop:1")
    assert done.returncode != 0
    step = _newest(run)["step"]
    assert step in (2, 3)  # whether the signal reached process 0 before its second step
    said = f"stopped by signal 15 after step {step}; go on with --resume --output {run}"
    assert done.stdout.count(said) == 1, done.stderr
    shutil.copytree(run, alone)

    done = together(driver, "--resume", "--output", run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"resumed after step {step} from") == 1
    ours, expected = _newest(run), _newest(straight)
    assert ours["step"] == STEPS
    for kept in ("state_dict", "average"):
        assert all(torch.equal(ours[kept][name], value) for name, value in expected[kept].items())
    for ours_of_it, state in zip(
        ours["optimizer"]["state"].values(), expected["optimizer"]["state"].values(), strict=True
    ):
        assert torch.equal(ours_of_it["momentum_buffer"], state["momentum_buffer"])
    assert _numbers(run) == _numbers(straight)

    assert train("--resume", "--output", alone) == 0
    assert max(_differences(_newest(alone), expected).values()) <= 1e-12


@pytest.mark.parametrize("fault", ["kill", pytest.param("raise", marks=pytest.mark.slow)])
def test_a_lost_process_ends_the_run(driver, tmp_path, fault):
    run = tmp_path / "run"
    words = (*UNEVEN, "--epochs", 1000, "--checkpoint-seconds", 0, "--output", run)
    done = _torchrun(driver, *words, fault=f"{fault}:2")
    assert time.time() - float(done.stderr.partition("fault at ")[2].split()[0]) < 60
    assert done.returncode != 0
    assert _newest(run)["step"] == 2
    mine = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(mine) == 1, done.stderr
    assert "process 0 of 2 can't reach another one" in mine[0]
    assert ("planted" if fault == "raise" else "SIGKILL") in done.stderr


def test_what_all_find_wrong_is_said_once(together, tmp_path):
    done = together("-m", "torch_ref.train", "--data", f"folder:{tmp_path / 'nothing'}", "--output", tmp_path / "run")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1, done.stderr
    assert not any("torch_ref/" in line for line in lines), "a traceback of ours"
    assert not (tmp_path / "run").exists()


def test_what_one_process_alone_can_tell_is_refused_before_they_meet(train, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank, said in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(launch, "_PATIENCE", 0)
        with pytest.raises(SystemExit) as end:
            train(*UNEVEN, "--output", tmp_path / "run")
        assert end.value.code == launch.REFUSED
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == said
        assert "".join(errors).count("--batch-size 40 can't be shared evenly by 3 processes: use 39 or 42") == said
        with pytest.raises(SystemExit) as end:
            train("--batchsize", 3)
        assert end.value.code == 2
        assert capsys.readouterr().err.count("error: ") == said


def test_the_shares_of_processes_are_disjoint_and_cover_the_batch():
    settings = resolve(TrainSettings(model="cifar_18pct", recipe="blog", data=UNEVEN[5], batch_size=40))
    cpu = torch.device("cpu")
    alone = setup.prepare(settings, Processes(0, 1, cpu))
    whole = list(alone.order(0))
    shares = [list(dataclasses.replace(alone, group=Processes(rank, 2, cpu)).order(0)) for rank in range(2)]
    assert [alone.real_examples(step) for step in range(4)] == [40, 40, 16, 40]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert np.array_equal(np.concatenate([part.ids for part in parts]), batch.ids)
        assert np.array_equal(np.concatenate([part.images for part in parts]), batch.images)
        assert sum(int(part.weights.sum()) for part in parts) == alone.real_examples(step)
    seen = np.concatenate([batch.ids[batch.weights > 0] for batch in whole])
    assert sorted(seen) == list(range(96))


def test_masks_depend_on_the_place_in_the_global_batch_alone():
    layers = Dropout(0.25), Dropout(0.5)
    network = nn.Sequential(layers[0], nn.Flatten(), layers[1])
    masks, ones = DropoutMasks(network, seed=5), torch.ones(64, 10, 6, 6)

    def drawn(step, first, count):
        masks.at(step, first)
        network(ones[:count])
        found = [layer.mask for layer in layers]
        return [mask.reshape(count, -1) for mask in found if mask is not None]

    whole, second, later = drawn(7, 0, 64), drawn(7, 40, 24), drawn(8, 0, 64)
    for number, rate in enumerate((0.25, 0.5)):
        assert torch.equal(whole[number][40:], second[number])
        assert not torch.equal(whole[number], later[number])
        assert len({tuple(row.tolist()) for row in whole[number]}) == 64  # no two examples drop the same units
        spread = (rate * (1 - rate) / whole[number].numel()) ** 0.5
        assert abs(1 - whole[number].double().mean() - rate) < 4 * spread
    network.eval()
    layers[0].mask = None
    assert torch.equal(layers[0](ones), ones)
    assert layers[0].mask is None


@pytest.mark.parametrize(
    ("wanted", "there", "count", "said"),
    [
        ("all", 2, 4, "torchrun started 4 processes, but this machine has 2 CUDA device(s): use --nproc-per-node 2"),
        ("3", 2, 1, "there is no device 2"),
        ("2", 0, 3, "names 2 devices, but torchrun started 3 processes"),
        ("1,1", 2, 1, "a device twice"),
    ],
)
def test_devices_that_are_not_there(monkeypatch, wanted, there, count, said):
    _machine(monkeypatch, there, count)
    with pytest.raises(processes.UserError, match=r".") as error:
        processes.choose_device(wanted)
    assert said in str(error.value)


def test_each_process_gets_its_own_of_the_named_devices(monkeypatch):
    _machine(monkeypatch, there=4, count=2)
    assert processes.choose_device("2,3") == torch.device("cuda", 3)
    assert processes.choose_device("all") == torch.device("cuda", 1)


def _machine(monkeypatch, there, count):
    """A machine with CUDA devices, and this process the second of those on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    for name, value in (("WORLD_SIZE", count), ("LOCAL_WORLD_SIZE", count), ("RANK", 1), ("LOCAL_RANK", 1)):
        monkeypatch.setenv(name, str(value))
