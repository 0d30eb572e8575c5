"""The commands that installing the package leaves, beside `python -m`."""

import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import jax_alexnet
import parity
from alexnet_io.command_line import command_list
from alexnet_io.errors import UserError
from jax_alexnet.__main__ import COMMANDS as jax_commands
from parity.settings import COMMANDS as parity_commands
from torch_ref.__main__ import COMMANDS as torch_commands

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("name", PROJECT["scripts"])
def test_an_installed_command_does_what_the_module_does(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, _, function = PROJECT["scripts"][name].partition(":")
    command = getattr(import_module(module), function)
    wanted = (
        ([], 0, f"usage: {name} COMMAND"),
        (["--help"], 0, f"usage: {name} COMMAND"),
        (["--version"], 0, f"jax-alexnet {PROJECT['version']}\n"),
        (["tarin"], 2, f"there is no command 'tarin'; did you mean train\nTry: {name} --help"),
        ([("layers" if module.startswith("parity") else "train"), "--help"], 0, f"usage: {name} "),
    )
    for words, code, said in wanted:
        monkeypatch.setattr(sys, "argv", [name, *words])
        monkeypatch.setattr(sys, "orig_argv", ["python", f"/somewhere/bin/{name}", *words])
        with pytest.raises(SystemExit) as ended:
            command()
        assert ended.value.code == code
        out = capsys.readouterr()
        assert said in out.out + out.err


def test_the_version_is_the_installed_one() -> None:
    assert jax_alexnet.__version__ == parity.__version__ == version("jax-alexnet") == PROJECT["version"]


SUBCOMMANDS = {"jax-alexnet": jax_commands, "torch-alexnet": torch_commands, "alexnet-parity": parity_commands}


@pytest.mark.parametrize("name", PROJECT["scripts"])
def test_a_shell_completes_every_command_and_its_values(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What bash itself makes of the script: commands, a command's flags, a flag's choices."""
    monkeypatch.setattr(sys, "argv", [name, "--print-completion", "bash"])
    with pytest.raises(SystemExit) as ended:
        import_module(PROJECT["scripts"][name].partition(":")[0]).console()
    assert ended.value.code == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    function = f"_shtab_{name.replace('-', '_')}"

    def completed(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in (name, *words))
        code = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; {function}; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert completed("") >= set(SUBCOMMANDS[name])
    for command in SUBCOMMANDS[name]:
        assert {"--help", "--config"} <= completed(command, "--"), command
    choices = {"jax-alexnet": ("export", "--format", "onnx"), "torch-alexnet": ("train", "--model", "cifar_18pct")}
    if name in choices:
        command, flag, value = choices[name]
        assert value in completed(command, flag, "")


@pytest.mark.parametrize(
    "words", [["--print-completion"], ["--print-completion", "fish"], ["--print-completion=bash", "x"]]
)
def test_a_shell_that_there_is_not_is_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match="--print-completion needs one of bash, zsh, tcsh, as in torch-alexnet"):
        command_list.run("torch_ref", "", torch_commands, words)
