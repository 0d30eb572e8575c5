"""The reference's training command: what it leaves, going on after a stop, several processes, wrong usage."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stops import StoppedOnce

from alexnet_io.command_line.settings import run_command
from alexnet_io.errors import UserError
from alexnet_io.files import tensor_file
from alexnet_io.run.metrics import read_metrics
from torch_ref import augment, checkpoint
from torch_ref import train as command
from torch_ref import train_command as training
from torch_ref.resolved_settings import resolve

ROOT = Path(__file__).resolve().parent.parent
DATA = ("--data", "synthetic:classes=4,train=96,test=40")
SMALL = (
    "--model", "cifar_18pct", "--recipe", "blog", *DATA, "--image-size", "16", "--batch-size", "32",
    "--learning-rate", "0.001",
)  # fmt: skip
COLUMNS = {"step", "epoch", "split", "loss", "top1", "top5", "learning_rate", "images_per_second"}


@pytest.fixture
def train(monkeypatch):
    """Runs the command in this process, on one device."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["train", *map(str, words)])
        return command.main()

    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return run


@pytest.fixture
def stopped_after(monkeypatch):
    """Make the next run stop after so many of its steps."""
    return lambda step: monkeypatch.setattr(training, "Signals", StoppedOnce(step))


def _newest(run):
    content = checkpoint.load_newest(run / "checkpoints", strict=True)
    assert content is not None
    return content


def _same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(_same, first, second))
    return first == second


def _without_speed(run):
    return [{**vars(row), "images_per_second": None} for row in read_metrics(run)]


def test_a_run_leaves_its_files_and_goes_on_as_if_never_stopped(train, stopped_after, tmp_path, capsys):
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    assert train(*SMALL, "--epochs", 2, "--flip", "--output", straight) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("reached ")
    assert str(straight) in last
    for name in ("metrics.jsonl", "metrics.csv", "curves.png", "filters.png", "confusion.png", "settings.yaml"):
        assert (straight / name).stat().st_size > 0, name
    rows = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert all(set(row) == COLUMNS for row in rows)
    assert [(row["step"], row["split"]) for row in rows] == [(3, "train"), (3, "test"), (6, "train"), (6, "test")]
    _jax_reads(straight / "best" / "weights.safetensors")

    # Four steps are an epoch and a third: the stop falls between two rows of metrics.
    stopped_after(4)
    assert train(*SMALL, "--epochs", 2, "--flip", "--output", halted) == 128 + signal.SIGTERM
    assert train("--resume", "--output", halted) == 0
    assert _same(_newest(halted), _newest(straight))
    assert _without_speed(halted) == _without_speed(straight)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float64"])
def test_a_dry_run_takes_a_step_in_any_precision_and_writes_nothing(train, tmp_path, capsys, precision):
    assert train(*SMALL, "--precision", precision, "--dry-run", "--output", tmp_path / "run") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("dry run: one step built and run in ")
    assert last.endswith("; nothing written")
    loss = float(last.partition("loss ")[2].split(";")[0])
    assert loss == pytest.approx(np.log(4), abs=0.05)  # of four classes, before anything is learnt
    assert not (tmp_path / "run").exists()


def test_a_plateau_lowers_the_rate_also_across_a_stop(train, stopped_after, tmp_path):
    words = ("--schedule", "plateau", "--plateau-patience", 0, "--drop-factor", 0.5, "--epochs", 6)
    straight, halted = tmp_path / "straight", tmp_path / "halted"
    assert train(*SMALL, *words, "--output", straight) == 0
    tests = [row for row in read_metrics(straight) if row.split == "test"]
    trains = [row for row in read_metrics(straight) if row.split == "train"]
    rate, best, expected = 0.001, float("inf"), []
    for row in tests:  # the rule of PyTorch's documentation, with a patience of 0
        expected.append(rate)
        error = 1 - (row.top1 or 0.0)
        rate, best = (rate, error) if error < best * (1 - 1e-4) else (rate * 0.5, best)
    assert [row.learning_rate for row in trains] == expected
    assert [row.learning_rate for row in tests] == expected
    assert expected[-1] < 0.001
    stopped_after(13)
    assert train(*SMALL, *words, "--output", halted) == 128 + signal.SIGTERM
    assert train("--resume", "--output", halted) == 0
    assert _without_speed(halted) == _without_speed(straight)
    assert _same(_newest(halted), _newest(straight))


def test_a_loss_that_is_not_finite_stops_the_run(train, tmp_path):
    words = ("--optimizer", "paper", "--learning-rate", 1e12, "--epochs", 3, "--output", tmp_path / "run")
    with pytest.raises(UserError, match="smaller --learning-rate"):
        train(*SMALL, *words)


def test_the_jax_side_evaluates_and_predicts_from_a_run_of_the_reference(train, tmp_path, monkeypatch, capsys):
    from PIL import Image

    from jax_alexnet import evaluate, predict

    run, picture = tmp_path / "run", tmp_path / "picture.png"
    assert train(*SMALL, "--epochs", 1, "--normalize", "channel", "--output", run) == 0
    tested = next(row for row in read_metrics(run) if row.split == "test")
    Image.new("RGB", (40, 50), (200, 30, 30)).save(picture)

    def call(module, *words):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        return module.main()

    assert call(evaluate, "--run", run, "--json", tmp_path / "report.json") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["examples"] == 40
    assert report["top1"] == tested.top1
    assert report["loss"] == pytest.approx(tested.loss, rel=1e-5)
    assert call(predict, "--run", run, picture) == 0
    assert "pattern-" in capsys.readouterr().out
    with pytest.raises(UserError, match="--checkpoint best"):
        call(evaluate, "--run", run, "--checkpoint", "newest")
    (run / "best" / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"torch_ref\.train --resume"):
        call(evaluate, "--run", run)


def _jax_reads(path):
    from safetensors import safe_open

    from jax_alexnet.files import weight_homes

    params, classes = weight_homes.load(path, "cifar_18pct")
    assert classes == 4
    with safe_open(path, framework="numpy") as file:
        assert file.metadata().items() >= {"model": "cifar_18pct", "image_size": "16", "home": "torch_ref"}.items()
        kernel = file.get_tensor("conv1.weight")
    np.testing.assert_array_equal(params["conv1"]["kernel"], kernel.transpose(2, 3, 1, 0))


def test_draws_depend_on_the_place_in_the_global_batch_alone():
    from alexnet_io.command_line.train_settings import TrainSettings

    settings = resolve(TrainSettings(model="cifar_11pct", data=DATA[1], color_noise=True, seed=3))
    whole = augment.draw(settings, 7, 0, 64, (32, 32))
    second = augment.draw(settings, 7, 32, 32, (32, 32))
    assert all(np.array_equal(all_of_it[32:], part) for all_of_it, part in zip(whole, second, strict=True))
    assert not np.array_equal(whole.top, augment.draw(settings, 8, 0, 64, (32, 32)).top)
    assert {whole.top.min(), whole.top.max()} == {0, 8}  # 24 of 32: nine places
    assert 0 < whole.flip.sum() < 64
    assert 0.07 < whole.noise.std() < 0.13  # paper, section 4.1: 0.1


def test_help_and_a_misspelt_flag_answer_without_pytorch():
    code = """if True:
        import sys
        from torch_ref.train import main
        for words, code in ((["--help"], 0), (["--batchsize", "4"], 2)):
            sys.argv = ["train", *words]
            try:
                main()
            except SystemExit as end:
                assert end.code == code, end.code
        assert "torch" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "--batch-size" in done.stdout
    assert "did you mean --batch-size" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--devices", "2"), "torchrun --nproc-per-node 2 -m torch_ref.train --model cifar_18pct"),
        (("--devices", "gpu"), "all, a count or ids"),
        (("--dropout", "0.5"), "cifar_18pct"),
        (("--data", "digitz"), "digits"),
        (("--image-size", "2", "--stored-size", "2"), "too small"),
        (("--image-size", "32", "--stored-size", "16"), "--image-size 32"),
    ],
)
def test_bad_usage_is_one_line(train, tmp_path, capsys, words, said):
    with pytest.raises(SystemExit) as end:
        run_command(lambda: train(*SMALL, *words, "--output", tmp_path / "run"))
    assert end.value.code == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert said in errors[0]
    assert not (tmp_path / "run").exists()


class Gift:
    """What a file of another's could bring: it runs when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def test_nothing_in_a_checkpoint_can_run(tmp_path):
    path, place = tmp_path / "step-000000001.pt", tmp_path / "ran"
    torch.save({"format": 1, "step": 1, "gift": Gift(place)}, path)
    with pytest.raises(
        UserError, match=r"checkpoint \S*step-000000001\.pt can't be read \(Weights only load failed[^\n]*\)$"
    ):
        checkpoint.load(path)
    assert not place.exists()


def test_a_checkpoint_of_the_first_format_is_read(tmp_path):
    torch.save({"format": 1, "step": 7, "state_dict": {}}, tmp_path / "step-000000007.pt")
    assert checkpoint.load(tmp_path / "step-000000007.pt")["step"] == 7


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    for other in (0, 2):
        torch.save({"format": other, "step": 7, "state_dict": {}}, tmp_path / "step-000000007.pt")
        with pytest.raises(UserError, match=rf"can't be read \(format {other}\)"):
            checkpoint.load(tmp_path / "step-000000007.pt")


def test_why_a_checkpoint_cannot_be_read_is_said_by_errors_without_words_too(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path / "deep" / "checkpoints", 7, {})  # directories are made

    def fails(*_, **__):
        raise EOFError

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(UserError, match=r"can't be read \(EOFError\)"):
        checkpoint.load(path)


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    assert checkpoint.load_newest(tmp_path) is None and checkpoint.load_newest(tmp_path / "none") is None
    (tmp_path / "step-000000001.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"no checkpoint in .* is intact: start a new run with another --output"):
        checkpoint.load_newest(tmp_path)


def test_a_checkpoint_that_is_gone_already_need_not_be_deleted(tmp_path, monkeypatch):
    """Of two programs that look after one directory, the other may have deleted it."""
    gone, found = tmp_path / "step-000000000.pt", checkpoint.saved
    monkeypatch.setattr(checkpoint, "saved", lambda directory: [gone, *found(directory)])
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {})
    assert [path.name for path in found(tmp_path)] == ["step-000000002.pt", "step-000000003.pt"]


def test_weights_beside_a_checkpoint_are_written_into_directories_that_are_made(tmp_path):
    network, path = torch.nn.Linear(2, 3), tmp_path / "deep" / "best" / "weights.safetensors"
    for step in (1, 2):
        checkpoint.save_weights(path, network, model="small", image_size=16, step=step)
    arrays, metadata = tensor_file.read(path)
    assert metadata.items() >= {"model": "small", "image_size": "16", "home": "torch_ref", "step": "2"}.items()
    np.testing.assert_array_equal(arrays["weight"], network.weight.detach().numpy())


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(tmp_path, capsys):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"state_dict": {"w": torch.full((1000,), float(step))}})
    assert [path.name for path in checkpoint.saved(tmp_path)] == ["step-000000002.pt", "step-000000003.pt"]
    newest = tmp_path / "step-000000003.pt"
    damaged = bytearray(newest.read_bytes())
    damaged[damaged.index(np.float32(3).tobytes() * 4) + 5] ^= 1
    newest.write_bytes(damaged)
    with pytest.raises(UserError, match="step-000000003"):
        checkpoint.load_newest(tmp_path, strict=True)
    content = checkpoint.load_newest(tmp_path)
    assert content is not None
    assert content["step"] == 2
    assert "warning" in capsys.readouterr().out
