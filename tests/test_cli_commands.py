"""Commands are listed, run from the list, and say which package they lack and how to get it."""

import pkgutil
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

import jax_alexnet.__main__ as jax_commands
import torch_ref.__main__ as torch_commands
from alexnet_io.command_line import packages
from alexnet_io.errors import UserError
from jax_alexnet import launch
from parity.__main__ import main as parity
from parity.commands import table as parity_commands
from parity.settings import COMMANDS

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("commands", [jax_commands, torch_commands])
@pytest.mark.parametrize(("words", "code"), [([], 0), (["--help"], 0), (["-h"], 0)])
def test_a_package_lists_its_commands(commands, words, code, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", *words])
    assert commands.main() == code
    said = capsys.readouterr().out
    assert said.startswith("usage: python -m ")
    for name, what in commands.COMMANDS.items():
        assert any(line.split() == [name, *what.split()] for line in said.splitlines())


@pytest.mark.parametrize("commands", [jax_commands, torch_commands])
def test_every_module_that_is_a_command_is_listed(commands):
    package = commands.__name__.partition(".")[0]
    folder = Path(str(import_module(package).__file__)).parent
    found = {path.stem for path in folder.glob("*.py") if "run_command(main)" in path.read_text()} - {"__main__"}
    found |= {path.parent.name for path in folder.glob("*/__main__.py")}
    assert found == set(commands.COMMANDS)
    assert found <= {module.name for module in pkgutil.iter_modules([str(folder)])}


def test_a_listed_command_runs_from_the_list(monkeypatch, capsys):
    for words in (["summary", "--model", "cifar_18pct"], ["plan", "--gpu", "k20"], ["sumary"]):
        monkeypatch.setattr(sys, "argv", ["x", *words])
        if words[0] == "plan":
            with pytest.raises(SystemExit, match="2"):
                jax_commands.main()
        else:
            assert jax_commands.main() == (0 if words[0] == "summary" else 2)
    said = capsys.readouterr()
    assert "89,578" in said.out
    assert "--gpu 'k20' is not known" in said.err
    assert "there is no command 'sumary'; did you mean summary" in said.err


@pytest.mark.parametrize("words", [[], ["--processes", "3"], ["--"], ["--processes=2", "--"]])
def test_launch_without_anything_to_train_says_how_it_is_called(words, monkeypatch, capsys):
    monkeypatch.setattr(launch.subprocess, "Popen", None)
    assert launch.main(words) == 2
    said = capsys.readouterr()
    assert said.out.startswith("usage: python -m jax_alexnet.launch [settings] -- FLAGS OF TRAINING")
    assert said.err.startswith("error: what to train is missing")


# --- packages that are not there ---------------------------------------------------------------------------

_PARITY = {
    "compare": ["--flax", "a:b", "--torch", "c:d", "--shape", "1,3,8,8"],
    "convert": ["--mapping", "m.json", "--weights", "w.pth", "--output", "w.npz"],
}


# What is missing is a finding of that part of `parity gpu` which needs it; its other parts run.
@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "gpu"])
def test_parity_without_pytorch_says_how_to_get_it(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError) as error:
        parity([command, *_PARITY.get(command, [])])
    assert str(error.value) == (
        f'python -m parity {command} needs PyTorch, not installed here: pip install "jax-alexnet[torch]"'
    )


def test_every_command_of_parity_is_a_function_of_its_module():
    assert list(COMMANDS) == sorted(parity_commands.TABLE, key=list(COMMANDS).index)
    for name, command in parity_commands.TABLE.items():
        assert callable(getattr(import_module(command.module), name))


def test_parity_asks_only_for_what_is_used_here(monkeypatch):
    from parity.settings import Compare, Convert
    from parity.speed.settings import Profile, Throughput

    compare = Compare(flax="a:b", torch="c:d", shape="1,3")
    assert parity_commands.needed(compare) == ["jax", "flax", "torch"]
    assert parity_commands.needed(replace(compare, torch_python="/p")) == ["jax", "flax"]
    assert parity_commands.needed(Throughput(frameworks="torch")) == ["torch"]
    assert parity_commands.needed(Profile(gpu="h100")) == ["jax", "flax"]
    assert parity_commands.needed(Convert("m.json", "w.safetensors", "w.npz")) == ["safetensors"]


def test_parity_with_a_minus_leaves_standard_output_to_the_file(monkeypatch, capsys, tmp_path):
    class Score:
        summary, exit_code = "no alarm", 0

        def write_json(self, path):
            Path(path).write_text('{"runs": 1}')

    def run(*_, show):
        show(type("Run", (), {"line": "a run"}))
        return Score()

    monkeypatch.setattr("parity.alexnet.clean_runs.run", run)
    assert parity(["clean", "--runs", "1", "--json", "-"]) == 0
    assert capsys.readouterr() == ('{"runs": 1}', "a run\nno alarm\n")
    assert parity(["clean", "--runs", "1", "--json", str(tmp_path / "r.json")]) == 0
    assert capsys.readouterr().out.splitlines() == ["a run", "no alarm", f"wrote {tmp_path / 'r.json'}"]
    assert (tmp_path / "r.json").read_text() == '{"runs": 1}'


@pytest.mark.parametrize("flag", ["--json", "--html", "--arrays"])
def test_parity_refuses_a_file_without_a_folder_before_it_begins(flag, capsys):
    with pytest.raises(SystemExit, match="2"):
        parity(["layers", flag, "nowhere/x"])
    assert f"{flag} nowhere/x: there is no folder nowhere; make it first" in capsys.readouterr().err


_HIDDEN = """
import runpy, sys

hidden = sys.argv[1]

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
for words in [line.split() for line in sys.stdin]:
    sys.argv = words
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        print("ended:", words[0], end.code, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("hidden", "calls", "line"),
    [
        (
            "torch",
            ["torch_ref.train", "torch_ref train", "parity layers", "jax_alexnet.predict --weights {here}/w.pth x.png"],
            'pip install "jax-alexnet[torch]"',
        ),
        (
            "jax",
            [
                "jax_alexnet.train --dry-run",
                "jax_alexnet.predict --weights {here}/w.safetensors x.png",
                "jax_alexnet.evaluate --weights {here}/w.safetensors --data digits",
                "parity train",
            ],
            'pip install "jax-alexnet"',
        ),
        ("safetensors", ["jax_alexnet.predict --weights {here}/w.safetensors x.png"], 'pip install "jax-alexnet"'),
        ("yaml", ["jax_alexnet.train --print-config"], 'pip install "jax-alexnet"'),
        (
            "tensorflow_datasets",
            ["jax_alexnet.train --data tfds:mnist --batch-size 8 --dry-run"],
            "pip install 'jax-alexnet[tfds]'",
        ),
    ],
)
def test_a_command_that_lacks_a_package_exits_with_2_and_the_line_that_gets_it(hidden, calls, line, tmp_path):
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    words = "\n".join(call.format(here=tmp_path) for call in calls)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _HIDDEN, hidden], input=words, capture_output=True, text=True, cwd=ROOT
    )
    assert "Traceback" not in done.stderr
    told = done.stderr.splitlines()
    errors = [text for text in told if text.startswith("error: ")]
    assert [text.split()[-1] for text in told if text.startswith("ended:")] == ["2"] * len(calls), done.stderr
    assert len(errors) == len(calls), done.stderr
    assert all(line in text for text in errors), errors


def test_a_failed_import_of_something_else_stays_one():
    assert packages.missing_in(ImportError("cannot import name 'x' from 'numpy'", name="numpy")) is None
    assert packages.missing_in(ModuleNotFoundError("No module named 'parity.x'", name="parity.x")) is None
