"""The weights that come with the project, found by their names: whatever files lie beside this one."""

from __future__ import annotations

from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.suggestions import nearest
from alexnet_io.errors import UserError
from alexnet_io.exports import folders, formats

FOLDER = Path(__file__).resolve().parent
ENDING, CARD_ENDING = ".safetensors", ".md"
MOST_BYTES = 10_000_000  # of all files together: a repository is fetched whole


def names(folder: Path = FOLDER) -> list[str]:
    """Of all weights that are there, sorted."""
    return sorted(path.stem for path in folder.glob(f"*{ENDING}"))


def is_name(path: str | Path) -> bool:
    """Whether a word can only be a name: without a folder and without an ending."""
    word = str(path)
    return Path(word).name == word and not Path(word).suffix and word not in ("", ".", "..", "~")


def located(path: Path, flag: str, folder: Path = FOLDER) -> Path:
    """The file that a flag for weights means: a path, that in a folder of a model hub's layout, or weights by name.

    What lies at the path wins over the name, so that no file becomes unreachable.

    Args:
        path: as given.
        flag: the command line's word for it, which an error names.
        folder: where named weights lie.

    Raises:
        UserError: a word that can only be a name, and none that there is; a folder without weights; an export that is a
            program.
    """
    if path.is_dir():
        return folders.weights_in(path, flag)
    formats.refuse_program(path, flag)
    if path.exists() or not is_name(path):
        return path
    known = names(folder)
    if str(path) in known:
        return folder / f"{path}{ENDING}"
    raise UserError(
        f"{flag} {printable(path)} is not a file, and no weights of that name come with the project"
        f"{nearest(str(path), known)}: pass a file of weights, or one of {', '.join(known)}"
    )


def card(name: str, folder: Path = FOLDER) -> str:
    """What is to be known of weights, in Markdown.

    Raises:
        UserError: no weights of that name.
    """
    if name not in names(folder):
        known = ", ".join(names(folder))
        raise UserError(f"no weights named {name!r} come with the project{nearest(name, known.split(', '))}: {known}")
    return (folder / f"{name}{CARD_ENDING}").read_text(encoding="utf-8")
