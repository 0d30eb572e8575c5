"""Files of settings, `--config FILE`: YAML, one setting a line. PyYAML is loaded for them alone.

Trainings that come with the project are such files, too, and found by name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_io import recipes
from alexnet_io.command_line import packages
from alexnet_io.command_line.flags import Flag
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.suggestions import nearest, nearest_setting
from alexnet_io.errors import UserError


def named(flags: Sequence[Flag]) -> list[str]:
    """Names of files that come with the project and suit a command; they hold settings of training."""
    return recipes.names() if any(flag.name == "weight_decay" for flag in flags) else []


def read(file: str, flags: Sequence[Flag]) -> dict[str, Any]:
    """The settings that a file has, by name, with checked values; those without a value are None.

    Values are taken as they are written and read as if they stood on the command line, so that `1e-3` is a number and
    `devices: 2` a word, whatever YAML makes of them.

    Args:
        file: its path; a name of `named` where no file lies there.
        flags: settings that there are.

    Raises:
        UserError: no such file, no YAML, no PyYAML, a setting that there isn't or that comes twice, or a bad value.
    """
    if not file:
        raise UserError("--config needs a value: a YAML file")
    packages.require("yaml", by="--config")
    import yaml

    shown = printable(file)
    try:
        root = yaml.compose(_located(file, named(flags)).read_bytes(), yaml.SafeLoader)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        names = named(flags)
        others = f", or the name of one that comes with the project: {', '.join(names)}" if names else ""
        near = nearest(Path(file).stem, names)
        raise UserError(f"--config {shown} is not a file: pass a YAML file of settings{others}{near}") from None
    except OSError as error:
        raise UserError(f"--config {shown} can't be read: {error.strerror or error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"--config can't be read as YAML: {shown}: {_what(error)}") from None
    if not isinstance(root, yaml.MappingNode):
        found = "nothing" if root is None else f"a {root.id}"
        raise UserError(f"--config must hold settings, one a line as NAME: VALUE, not {found}: {shown}")
    known = {flag.name: flag for flag in flags}
    values: dict[str, Any] = {}
    try:
        for key, node in root.value:
            name = str(key.value).replace("-", "_")
            if name == "config":
                raise UserError("a file can't name another: give --config several times, the later wins")
            if name not in known:
                near = nearest_setting(name, list(known))
                raise UserError(f"there is no setting {str(key.value)!r}{f'; did you mean {near}' if near else ''}")
            if name in values:
                raise UserError(f"{name} is there twice: leave one of the two out")
            values[name] = known[name].read(_plain(node))
    except UserError as error:
        raise UserError(f"--config {shown}: {error}") from None
    return values


def _located(file: str, names: Sequence[str]) -> Path:
    """What is to be read. A file wins over the name, so that none becomes unreachable."""
    path = Path(file)
    return recipes.FOLDER / f"{file}{recipes.ENDING}" if file in names and not path.is_file() else path


def _plain(node: Any) -> Any:
    """A value as it is written: text, a list, or None."""
    if node.tag == "tag:yaml.org,2002:null":
        return None
    if node.id == "sequence":
        return [_plain(item) for item in node.value]
    return node.value if node.id == "scalar" else {str(key.value): _plain(value) for key, value in node.value}


def _what(error: Exception) -> str:
    """What is wrong with a file, and where, in a line."""
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error) or "it is nested too deeply"
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return printable(" ".join(what.split())) + where
