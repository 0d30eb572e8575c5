"""The layout of model hubs: a folder with `model.safetensors`, `config.json` and a model card, `README.md`.

`model.safetensors` is an export like any other and suffices to predict from; `config.json` says for other programs, and
the card for people, what it holds. Imports nothing that `--help` would wait for.
"""

import json
import os
from pathlib import Path

from alexnet_io.command_line import output_file
from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError

WEIGHTS, CONFIG, README = "model.safetensors", "config.json", "README.md"
FILES = (WEIGHTS, CONFIG, README)


def is_folder(path: Path) -> bool:
    """Whether a folder is of this layout."""
    return (path / WEIGHTS).is_file()


def weights_in(path: Path, flag: str) -> Path:
    """The file of weights in a local copy of such a folder.

    Args:
        path: the folder.
        flag: the command line's word for it, which an error names.

    Raises:
        UserError: a folder without weights, a `config.json` that can't be read or is about another network.
    """
    shown = printable(path)
    if not is_folder(path):
        raise UserError(
            f"{flag} {shown} is a folder without {WEIGHTS}: pass a file of weights, a folder as python -m "
            "jax_alexnet.export --format hub leaves it, or with --run the directory that training wrote"
        )
    config = path / CONFIG
    if config.exists():
        try:
            said = json.loads(config.read_text(encoding="utf-8"))["model"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{flag} {shown}: {CONFIG} can't be read ({error!r}): fetch the folder again") from None
        held = _facts_of(path / WEIGHTS).get("model") or str(said)
        if held != str(said):
            raise UserError(
                f"{flag} {shown}: {CONFIG} is about {printable(str(said))} and {WEIGHTS} about {printable(held)}: "
                "fetch the folder again"
            )
    return path / WEIGHTS


def check_folder(path: Path) -> None:
    """Refuse a folder that can't be written, or that holds anything else.

    Raises:
        UserError: as said.
    """
    if not path.is_dir():
        output_file.check_one("--to", path, "binary")
        return
    others = sorted(each.name for each in path.iterdir() if each.name not in FILES)
    if others:
        shown = ", ".join(map(printable, others[:3]))
        raise UserError(
            f"--to {printable(path)} holds other files than {', '.join(FILES)} ({shown}): name a new or empty folder"
        )
    if not os.access(path, os.W_OK):
        raise UserError(f"--to {printable(path)}: the folder is not writable; choose another place")


def _facts_of(path: Path) -> dict[str, str]:
    """The texts in a safetensors file's header; none of one that can't be read, which whoever reads it will say."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return json.loads(file.read(min(length, os.path.getsize(path)))).get("__metadata__", {})
    except (OSError, ValueError, AttributeError):
        return {}
