"""Command lines answer before a framework is loaded, and say what to do next."""

import dataclasses
import importlib
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alexnet_io.command_line import settings as command_lines
from alexnet_io.command_line.flags import flags_of, positional, setting
from alexnet_io.command_line.parser import CommandParser
from alexnet_io.command_line.settings import parse, parse_given, run_command
from alexnet_io.command_line.train_settings import MODELS, RECIPES, TrainSettings
from alexnet_io.errors import FailedRun, UserError
from jax_alexnet.cache import CacheSettings
from jax_alexnet.compiled.gpu_settings import GpuSettings
from jax_alexnet.curves import CurvesSettings
from jax_alexnet.evaluate import EvaluateSettings
from jax_alexnet.export_settings import ExportSettings
from jax_alexnet.features import FeaturesSettings
from jax_alexnet.launch import LaunchSettings
from jax_alexnet.pack_settings import PackSettings
from jax_alexnet.plan.settings import PlanSettings
from jax_alexnet.predict import PredictSettings
from jax_alexnet.recipes import resolve
from jax_alexnet.summary import SummarySettings
from jax_alexnet.weights import WeightsSettings
from parity import settings as parity
from parity.speed import settings as speed

EVERY = [
    *(TrainSettings, EvaluateSettings, PredictSettings, ExportSettings, SummarySettings, LaunchSettings, CacheSettings),
    *(PlanSettings, GpuSettings, parity.Layers, parity.Grads, parity.Train, parity.Runs, parity.Data, parity.Mutants),
    *(parity.Clean, parity.Compare, speed.Throughput, speed.Profile, FeaturesSettings, PackSettings, WeightsSettings),
    CurvesSettings,
]
_LOADED = """
import runpy, sys
for words in (line.split() for line in sys.stdin):
    sys.argv = words
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        heavy = {"jax", "flax", "torch", "numpy", "matplotlib", "grain"} & set(sys.modules)
        print("ended:", words[0], end.code, ",".join(sorted(heavy)))
"""


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command in this process; returns its exit code, output and errors."""

    def call(program, *words):
        monkeypatch.setattr(sys, "argv", [program, *map(str, words)])
        with pytest.raises(SystemExit) as end:
            run_command(importlib.import_module(program).main)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return end.value.code, said.out, said.err

    return call


def test_help_and_mistakes_load_no_framework():
    names = [
        "jax_alexnet." + name
        for name in ("train", "evaluate", "predict", "features", "export", "summary", "cache", "plan", "launch")
    ]
    calls = [
        f"{name} {word}"
        for name in [*names, "torch_ref.train", "torch_ref.evaluate"]
        for word in ("--help", "--batchsiz 4")
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _LOADED],
        input="\n".join(calls),
        capture_output=True,
        text=True,
        check=True,
    )
    ended = [line for line in done.stdout.splitlines() if line.startswith("ended:")]
    assert ended == [f"ended: {call.split()[0]} {0 if call.endswith('help') else 2} " for call in calls]
    assert done.stdout.count("usage:") == len(calls) // 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--batch-size", "x"), "--batch-size 'x' is not a whole number"),
        (("train", "--batch-size", "0"), "--batch-size 0 is out of range: it must be at least 1"),
        (("train", "--model", "two_colum"), "did you mean two_column. Choose from: single_column"),
        (("train", "--learning-rate", "-1"), "it must be above 0"),
        (("train", "--dropout", "1"), "--dropout 1.0 is out of range: it must be below 1"),
        (("train", "--drop-epochs", "3,5"), "--drop-epochs '3,5' is not whole numbers such as [3,5]"),
        (("train", "--epochs"), "--epochs needs a value: a whole number"),
        (("train", "--output", "--resume"), "--output needs a value: a path"),
        (("train", "--flip=no"), "--flip takes no value: write --flip or --no-flip"),
        (("train", "--flip", "maybe"), "'maybe' belongs to no setting"),
        (("train", "cifar10"), "'cifar10' belongs to no setting: settings look like --name VALUE"),
        (("train", "--config", "/nowhere.yaml"), "--config /nowhere.yaml is not a file"),
        (("summary", "--modle", "x"), "did you mean --model"),
        (("evaluate", "--rum", "x"), "did you mean --run"),
        (("predict", "--run", "x"), "images are missing: name at least one"),
    ],
)
def test_bad_usage_exits_with_2_and_one_line(words, said, run):
    code, _, error = run(f"jax_alexnet.{words[0]}", *words[1:])
    assert code == 2
    assert said in error.splitlines()[0]
    assert error.splitlines()[1:] == [f"Try: python -m jax_alexnet.{words[0]} --help"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *[(word, "learning-rate") for word in ("lr", "lrs", "l-r", "learning", "learnin-rate", "base_lr", "LR")],
        *[(word, "batch-size") for word in ("bs", "batch", "batchsize", "batch_siz", "train-batch-size", "b")],
        *[(word, "epochs") for word in ("epoch", "num-epochs", "epchs", "max_epochs")],
        *[(word, "output") for word in ("out", "outdir", "save-dir", "outputs")],
        *[(word, "devices") for word in ("gpus", "gpu", "device", "num-gpus", "cuda")],
        *{"wd": "weight-decay", "opt": "optimizer", "mom": "momentum", "sched": "schedule"}.items(),
        *{"milestones": "drop-epochs", "gamma": "drop-factor", "warmup": "warmup-epochs"}.items(),
        *{"max-grad-norm": "clip-norm", "gradient-accumulation-steps": "accumulate", "ema-decay": "ema"}.items(),
        *{"early-stopping": "patience", "smoothing": "label-smoothing", "num_warmup_steps": "warmup-steps"}.items(),
        *{"img-size": "image-size", "dataset": "data", "print-freq": "log-every", "val-split": "holdout"}.items(),
        *{"arch": "model", "amp": "precision", "world-size": "num-processes", "rank": "process-id"}.items(),
        *{"tb": "tensorboard", "cfg": "config", "cs": "checkpoint-seconds", "no-flp": "no-flip"}.items(),
    ],
)
def test_a_name_that_there_is_not_leads_to_the_one_that_was_meant(written, meant, capsys):
    for dashes in ("--",) if len(written) > 2 else ("--", "-"):
        with pytest.raises(SystemExit, match="2"):
            parse(TrainSettings, "prog", [dashes + written, "3"])
        first = capsys.readouterr().err.splitlines()[0]
        assert first.endswith(f"; did you mean --{meant}")


@pytest.mark.parametrize("written", ["hlep", "helpp", "zzz", "xylophone", "held"])
def test_help_is_never_suggested_for_a_setting(written, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(TrainSettings, "prog", ["--" + written])
    first = capsys.readouterr().err.splitlines()[0]
    assert "mean --help" not in first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "cifar_18pct", "--span-columns"), "--span-columns is for two_column"),
        (("--model", "caffenet", "--schedule", "at_epochs"), "needs --drop-epochs"),
        (("--schedule", "every_steps"), "needs --drop-every"),
        (("--image-size", "100", "--stored-size", "90"), "make it at least 100"),
        (("--resume",), "--resume needs --output"),
        (("--data", "digit"), "did you mean 'digits'"),
    ],
)
@pytest.mark.parametrize("package", ["jax_alexnet", "torch_ref"])
def test_settings_that_do_not_go_together_are_refused_alike_with_2(package, words, said, run):
    code, _, error = run(f"{package}.train", "--dry-run", *words)
    assert code == 2
    assert error.startswith("error: ")
    assert said in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--image-size", "66"), "The smallest size that works is 67x67"),
        (("--devices", "99"), "asks for 99 devices; this machine has"),
        (("--devices", "two"), "is not all, a count or ids"),
        (("--data", "folder:nowhere", "--batch-size", "8"), "does not exist"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_in_one_line_with_2(words, said, run):
    code, _, error = run("jax_alexnet.train", "--dry-run", *words)
    assert code == 2
    assert said in error


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("refused"), 2), (FailedRun("broke"), 1), (None, 0), (KeyboardInterrupt(), 130)]
)
def test_exit_codes(error, code, capsys):
    def main():
        if error:
            raise error

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == code
    assert capsys.readouterr().err == (f"error: {error}\n" if isinstance(error, UserError) else "")


def test_print_config_reads_back(tmp_path, run):
    _, first, _ = run("jax_alexnet.train", "--model", "two_column", "--batch-size", "64", "--no-flip", "--print-config")
    settings = yaml.safe_load(first)
    assert settings["recipe"] == "paper"
    assert settings["batch_size"] == 64
    assert settings["flip"] is False
    assert settings["learning_rate"] == 0.01
    file = tmp_path / "config.yaml"
    file.write_text(first)
    assert run("jax_alexnet.train", "--config", file, "--print-config")[1] == first
    third = run("jax_alexnet.train", "--config", file, "--epochs", "7", "--print-config")[1]
    assert yaml.safe_load(third) == {**settings, "epochs": 7}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("batch_siz: 4", "there is no setting 'batch_siz'; did you mean batch_size"),
        ("lr: 0.1", "there is no setting 'lr'; did you mean learning_rate"),
        ("batch_size: x", "--batch-size 'x' is not a whole number"),
        ("- 1", "--config must hold settings, one a line as NAME: VALUE"),
        ("a: [", "--config can't be read as YAML"),
    ],
)
def test_a_bad_file_of_settings_is_refused_in_a_line(content, said, tmp_path, run):
    (tmp_path / "config.yaml").write_text(content)
    code, _, error = run("jax_alexnet.train", "--config", tmp_path / "config.yaml", "--print-config")
    assert code == 2
    assert said in error.splitlines()[0]


def _given(words, cls: type = TrainSettings):
    return parse_given(cls, "prog", [str(word) for word in words])[1]


def _refused(words, capsys, cls: type = TrainSettings):
    with pytest.raises(SystemExit, match="2"):
        _given(words, cls)
    return capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("", {}),
        ("--batch_size=8 --crop --no_flip", {"batch_size": 8, "crop": True, "flip": False}),
        ("--drop-epochs [3,5] --output - --resume", {"drop_epochs": [3, 5], "output": Path("-"), "resume": True}),
        ("--weight-decay=5e-4 --steps null --epochs 1_000", {"weight_decay": 5e-4, "steps": None, "epochs": 1000}),
        ("--epochs 3 --epochs 4 --devices 0,2", {"epochs": 4, "devices": "0,2"}),
    ],
)
def test_values_are_read_by_the_types_of_their_settings(line, given):
    assert _given(line.split()) == given


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--learning-rate", "-1e-3"), "--learning-rate -0.001 is out of range: it must be above 0"),
        (("--learning-rate", "-inf"), "--learning-rate -inf must be a finite number"),
        (("--epochs", "-3"), "--epochs -3 is out of range: it must be at least 1"),
        (("--drop-epochs", "[-3]"), "--drop-epochs -3 is out of range"),
        (("--drop-epochs", "[3.0]"), "--drop-epochs '[3.0]' is not whole numbers such as [3,5], in quotes"),
        (("--output", ""), "--output needs a value: a path"),
        (("--config", ""), "--config needs a value: a YAML file"),
        (("--model", "null"), "--model 'null' is not known"),
        (("--", "x"), "'x' belongs to no setting"),
    ],
)
def test_a_value_that_a_setting_does_not_take_is_refused(words, said, capsys):
    assert said in _refused(words, capsys)


def test_flags_win_over_files_wherever_they_stand_and_later_files_over_earlier(tmp_path):
    (tmp_path / "a.yaml").write_text("epochs: 3\nlearning_rate: 1e-3\nsteps:\n")
    (tmp_path / "b.yaml").write_text("epochs: 4\nbatch-size: 010\nflip: yes\ndevices: 2\n")
    first, second = ("--config", tmp_path / "a.yaml"), ("--config", tmp_path / "b.yaml")
    assert _given(["--epochs", 7, *first]) == {"epochs": 7, "learning_rate": 1e-3, "steps": None}
    later = {"epochs": 4, "learning_rate": 1e-3, "steps": None, "batch_size": 10, "flip": True, "devices": "2"}
    assert _given([*first, *second]) == later
    (tmp_path / "c.yaml").write_text("images: [a.png]")
    assert _given(["--config", tmp_path / "c.yaml"], PredictSettings) == {"images": [Path("a.png")]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"epochs: 3\nepochs: 4", "epochs is there twice"),
        (b"model: null", "--model null is not text"),
        (b"data: [a]", "is not text"),
        (b"data: \xff", "can't be read as YAML"),
        (b"", "must hold settings, one a line as NAME: VALUE, not nothing"),
        (b"config: a.yaml", "a file can't name another"),
        (b"flip: 1", "--flip '1' is not true or false"),
        (b"drop_epochs: [3.0]", "is not whole numbers"),
        (b"data: !!python/object:os.system {}", "is not text"),
    ],
)
def test_a_mistake_in_a_file_of_settings_names_the_file(content, said, tmp_path, capsys):
    (tmp_path / "c.yaml").write_bytes(content)
    error = _refused(["--config", tmp_path / "c.yaml"], capsys)
    assert said in error
    assert "c.yaml" in error


def test_files_of_settings_need_pyyaml_and_nothing_else_does(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "x.yaml").write_text("epochs: 3")
    assert _given(["--epochs", 3]) == {"epochs": 3}
    assert "--config needs PyYAML, not installed here: pip install" in _refused(
        ["--config", tmp_path / "x.yaml"], capsys
    )


def test_words_without_flags_may_stand_on_both_sides_of_flags(capsys):
    found = _given(["a.png", "--run", "r", "-5", "--", "-x"], PredictSettings)
    assert found["images"] == [Path("a.png"), Path("-5"), Path("-x")]
    assert "there is no -x" in _refused(["a.png", "--run", "r", "-x"], capsys, PredictSettings)


def test_words_after_two_dashes_are_taken_as_they_are():
    chosen = parse(PredictSettings, "prog", ["--run", "r", "--", "--an_odd_name.png", "-x"])
    assert [str(path) for path in chosen.images] == ["--an_odd_name.png", "-x"]


# --- the help ----------------------------------------------------------------------------------------------


def render(cls, program, flags, width):
    return CommandParser(cls, program, flags, width).format_help()


def _help(cls, program, parser_words=("--help",)):
    with pytest.raises(SystemExit, match="0"):
        parse(cls, program, list(parser_words))


def test_help_is_as_wide_as_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    _help(TrainSettings, "python -m jax_alexnet.train")
    expected = render(TrainSettings, "python -m jax_alexnet.train", flags_of(TrainSettings), 98)
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("cls", EVERY)
def test_help_names_every_setting_once_in_a_group_with_a_default_that_is_true(cls):
    text = render(cls, "python -m jax_alexnet.x", flags_of(cls), 200)
    lines = text.splitlines()
    assert "examples:" in lines
    for flag in flags_of(cls):
        if flag.is_positional:
            continue
        switch = f"--[no-]{flag.spelling[2:]}"
        entries = [line for line in lines if f"{line} ".startswith((f"  {flag.spelling} ", f"  {switch} "))]
        assert len(entries) == 1, flag
        if isinstance(flag.default, int | float) and not isinstance(flag.default, bool):
            assert f"(default: {flag.default:g})" in text[text.index(entries[0]) :].split("\n  --")[0], flag
    for noise in ("null", "None", "<class", "type:", "MISSING", "__", "if not given)", "by default)"):
        assert noise not in text
    narrow = render(cls, "python -m jax_alexnet.x", flags_of(cls), 80)
    assert max(map(len, narrow.splitlines())) <= 80


def test_the_help_says_what_decides_a_default():
    # Each network by each recipe, on the default data set and on another one, completed without any flag.
    found = {
        (model, recipe, data): dataclasses.asdict(resolve(TrainSettings(model=model, recipe=recipe, data=data)))
        for model, recipe, data in itertools.product(MODELS, RECIPES, ("digits", "synthetic"))
    }
    for flag in flags_of(TrainSettings):
        values = {key: row[flag.name] for key, row in found.items()}
        says = flag.about.get("unset", "")
        decided_here = any(value is not None for value in values.values()) and flag.default is None
        if not decided_here or flag.name in ("recipe", "stored_size"):
            continue
        for place, words in enumerate(("network", "recipe", "d(ata set|igits)")):
            others = {}
            for key, value in values.items():
                if place < 2 and key[2] == "digits":
                    continue  # these have values of their own for one network by one recipe
                others.setdefault(key[:place] + key[place + 1 :], set()).add(str(value))
            varies = any(len(seen) > 1 for seen in others.values())
            assert varies == bool(re.search(words, says)), (flag.name, words, says)
        if not re.search("recipe|network|data", says):
            assert {f"{value:g}" for value in values.values()} == {says}, flag.name


def test_the_help_of_training_is_grouped_by_what_settings_are_for():
    text = render(TrainSettings, "python -m jax_alexnet.train", flags_of(TrainSettings), 100)
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        "data", "network", "recipe and optimizer", "input and augmentation", "learning rate schedule",
        "fine-tuning", "arithmetic and devices", "several processes", "the run's directory", "reporting", "help",
        "examples",
    ]  # fmt: skip
    theirs = render(TrainSettings, "python -m torch_ref.train", flags_of(TrainSettings), 100)
    assert "--coordinator" in text
    assert "--cpu-convolution" in text
    assert not any(word in theirs for word in ("--coordinator", "--cpu-convolution", "--parallel"))


def test_the_examples_of_the_help_parse(capsys):
    for cls in EVERY:
        for words, _ in cls.EXAMPLES:
            assert isinstance(parse(cls, "prog", words.partition(" -- ")[0].split()), cls)


# --- files that commands write -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Writing:
    """Writes."""

    words: list[str] = positional("words")
    json: str | None = setting(None, "a file", writes="text")
    html: str | None = setting(None, "a file", writes="text")
    plot: str | None = setting(None, "a file", writes="binary")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--json", "nowhere/x.json"), "--json nowhere/x.json: there is no folder"),
        (("--json", "."), "--json . is a folder: name a file in it"),
        (("--plot", "-"), "--plot - can't go to standard output: it is no text"),
        (("--plot", "/dev/stdout"), "--plot /dev/stdout can't go to standard output"),
        (("--json", "-", "--html", "-"), "--json and --html would both write to -"),
        (("--json", "x", "--html", "./x"), "--json and --html would both write to ./x"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_any_work(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        parse(Writing, "prog", ["word", *words])
    assert said in capsys.readouterr().err


def test_a_minus_is_standard_output_and_all_else_goes_elsewhere(capsys):
    from alexnet_io.command_line import output_file

    with output_file.others_on_standard_error(None, "-"):
        print("progress")
        output_file.write_json("--json", "-", {"a": 1})
    assert capsys.readouterr().err == "progress\n"
    assert command_lines.FAILED == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_command_prints_what_the_terminal_cannot_show(encoding):
    code = (
        "from alexnet_io.command_line.settings import run_command\nrun_command(lambda: print('V\\u00f6gel \\u9ce5'))\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (
        done.stdout.decode(encoding).strip()
        == {
            "ascii": "V\\xf6gel \\u9ce5",
            "latin-1": "Vögel \\u9ce5",
            "utf-8": "Vögel 鳥",
        }[encoding]
    )
