"""Command lines answer before a framework is loaded, and say what to do next."""

import subprocess
import sys

import pytest
import yaml

from alexnet_io.settings import parse_given
from alexnet_io.train_settings import TrainSettings

COMMANDS = ("train", "evaluate", "predict", "summary", "plan")
_LOADED = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    heavy = {"jax", "flax", "torch", "numpy", "matplotlib", "grain"} & set(sys.modules)
    print("loaded:", ",".join(sorted(heavy)))
    sys.exit(end.code)
"""


def _run(*words, code=None):
    script = [sys.executable, "-c", code] if code else [sys.executable, "-m"]
    return subprocess.run([*script, *words], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_no_framework(command):
    done = _run(f"jax_alexnet.{command}", "--help", code=_LOADED)
    assert done.returncode == 0
    assert "usage:" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded: "


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--batchsize", "4"), "there is no --batchsize; did you mean --batch-size"),
        (("train", "--batch-size", "x"), "--batch-size 'x' is not a whole number"),
        (("train", "--batch-size", "0"), "--batch-size 0 is out of range: it must be at least 1"),
        (("train", "--model", "two_colum"), "did you mean two_column. Choose from: single_column"),
        (("train", "--learning-rate", "-1"), "it must be above 0"),
        (("train", "--dropout", "1"), "--dropout 1.0 is out of range: it must be below 1"),
        (("summary", "--modle", "x"), "did you mean --model"),
        (("evaluate", "--rum", "x"), "did you mean --run"),
        (("predict", "--run", "x"), "images"),
    ],
)
def test_bad_usage_exits_with_2_and_the_nearest_name(words, said):
    done = _run(f"jax_alexnet.{words[0]}", *words[1:], code=_LOADED)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: "


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "cifar_18pct", "--span-columns"), "--span-columns is for two_column"),
        (("--model", "caffenet", "--schedule", "at_epochs"), "needs --drop-epochs"),
        (("--schedule", "every_steps"), "needs --drop-every"),
        (("--image-size", "100", "--stored-size", "90"), "make it at least 100"),
        (("--resume",), "--resume needs --output"),
        (("--image-size", "66"), "The smallest size that works is 67x67"),
        (("--devices", "99"), "asks for 99 devices; this machine has"),
        (("--devices", "two"), "is not all, a count or ids"),
        (("--data", "digit"), "did you mean 'digits'"),
        (("--data", "folder:nowhere", "--batch-size", "8"), "does not exist"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_one_line(words, said):
    done = _run("jax_alexnet.train", "--dry-run", *words)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_print_config_reads_back(tmp_path):
    first = _run("jax_alexnet.train", "--model", "two_column", "--batch-size", "64", "--no-flip", "--print-config")
    settings = yaml.safe_load(first.stdout)
    assert settings["recipe"] == "paper"
    assert settings["batch_size"] == 64
    assert settings["flip"] is False
    assert settings["learning_rate"] == 0.01
    file = tmp_path / "config.yaml"
    file.write_text(first.stdout)
    second = _run("jax_alexnet.train", "--config", str(file), "--print-config")
    assert second.stdout == first.stdout
    third = _run("jax_alexnet.train", "--config", str(file), "--epochs", "7", "--print-config")
    assert yaml.safe_load(third.stdout) == {**settings, "epochs": 7}


def test_an_unknown_yaml_key_names_the_nearest(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("batch_siz: 4\n")
    done = _run("jax_alexnet.train", "--config", str(file), "--print-config")
    assert done.returncode == 2
    assert "there is no setting 'batch_siz'; did you mean batch_size" in done.stderr


LINES = [
    "",
    "--model two_column --batch_size=8 --learning-rate 0.1 --crop --no-flip",
    "--drop-epochs [3,5] --output runs/x --steps 7 --weight-decay=5e-4 --resume",
]


@pytest.mark.parametrize("line", LINES)
def test_without_jsonargparse_the_same_flags_mean_the_same(line, monkeypatch):
    expected = parse_given(TrainSettings, "prog", line.split())
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert parse_given(TrainSettings, "prog", line.split()) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--steps seven", "--steps 'seven' is not a whole number"),
        ("--steps 0", "--steps 0 is out of range: it must be at least 1"),
        ("--stepz 1", "there is no --stepz; did you mean --steps"),
        ("--drop-epochs [1,x]", "--drop-epochs '[1,x]' is not"),
        ("--config x.yaml", "--config needs jsonargparse"),
    ],
)
def test_without_jsonargparse_mistakes_are_told_in_a_line(line, words, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    with pytest.raises(SystemExit, match="2"):
        parse_given(TrainSettings, "prog", line.split())
    assert capsys.readouterr().err.startswith(f"error: {words}")
