"""The commands that installing the package leaves, beside `python -m`."""

import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import jax_alexnet

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("name", PROJECT["scripts"])
def test_an_installed_command_does_what_the_module_does(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, _, function = PROJECT["scripts"][name].partition(":")
    command = getattr(import_module(module), function)
    for words, code, said in (["--help"], 0, "usage: "), (["tarin"], 2, "there is no command 'tarin'"):
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as ended:
            command()
        assert ended.value.code == code
        out = capsys.readouterr()
        assert said in out.out + out.err


def test_the_version_is_the_installed_one() -> None:
    assert jax_alexnet.__version__ == version("jax-alexnet") == PROJECT["version"]
