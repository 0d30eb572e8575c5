"""The formats of exports: how each is told from the others, what it needs, and whether it can be read back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_io.command_line import output_file, packages
from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.exports import folders


@dataclass(frozen=True)
class Format:
    """One kind of export.

    Attributes:
        endings: of its files, the usual one first; none for a folder.
        runs_by: what runs it without this project; None for weights alone, which are read back here.
        needs: packages that write and check it, by import name.
    """

    endings: tuple[str, ...]
    runs_by: str | None = None
    needs: tuple[str, ...] = ()


HUB = "hub"
FORMATS = {
    "safetensors": Format((".safetensors",)),
    "npz": Format((".npz",)),
    "pth": Format((".pth", ".pt", ".pth.tar", ".pt.tar", ".ckpt"), needs=("torch",)),
    "onnx": Format((".onnx",), "onnxruntime", ("onnx", "onnxruntime")),
    "stablehlo": Format((".stablehlo",), "jax.export.deserialize"),
    "pt2": Format((".pt2",), "torch.export.load", ("torch",)),
    HUB: Format(()),
}


def choose(to: str, named: str | None, offered: Sequence[str]) -> str:
    """The format that `--to`, and `--format` if it is given, mean.

    Args:
        to: as given: a file's path, or a folder's.
        named: `--format`; None for the one that the ending says.
        offered: those that this program writes.

    Raises:
        UserError: an ending that says none of them, or another one than `--format`.
    """
    said = _said(to)
    if said is not None and said not in offered:
        other = "torch_ref" if said == "pt2" else "jax_alexnet"
        raise UserError(
            f"--to {printable(to)}: {said} is written by python -m {other}.export; here: {_listed(offered)}"
        )
    if named is None:
        if said is None:
            raise UserError(
                f"--to {printable(to)} doesn't say a format: {_listed(offered)}, or an existing folder or a path with "
                "/ at its end for the layout of a model hub"
            )
        return said
    if named == HUB and said in (None, HUB):
        return HUB
    if said != named:
        raise UserError(f"--to {printable(to)} is not for --format {named}: {_wanted(named)}")
    return named


def is_program(name: str) -> bool:
    """Whether an export is the network itself, which other programs run."""
    return FORMATS[name].runs_by is not None


def is_file_of_weights(name: str) -> bool:
    """Whether an export is one file of weights alone."""
    return name != HUB and not is_program(name)


def check_place(to: str, name: str) -> None:
    """Refuse a place where an export can't be put, before anything begins.

    Raises:
        UserError: as said.
    """
    if name == HUB:
        folders.check_folder(Path(to))
    else:
        output_file.check_one("--to", Path(to), "binary")


def require(name: str, to: str, *more: str) -> None:
    """Refuse a format whose packages aren't installed; `more` are what this program needs for it besides.

    Raises:
        UserError: it has the line that installs them.
    """
    packages.require(*FORMATS[name].needs, *more, by=f"--to {printable(to)}")


def refuse_program(path: Path, flag: str) -> None:
    """Refuse to read weights from an export that is a program: nothing here looks into one.

    Raises:
        UserError: it says what runs the file, and what to export for reading back.
    """
    said = FORMATS.get(_said(path.name) or "")
    if said is not None and said.runs_by is not None:
        raise UserError(
            f"{flag} {printable(path)} is a program, which {said.runs_by} runs; weights are not read back from it: "
            "export the network as .safetensors too, and pass that"
        )


def _said(to: str) -> str | None:
    """The format that a path says by its ending or by being a folder's; None for none."""
    if to.endswith("/") or Path(to).is_dir():
        return HUB
    return next((name for name, each in FORMATS.items() if each.endings and to.lower().endswith(each.endings)), None)


def _listed(offered: Sequence[str]) -> str:
    return ", ".join(FORMATS[name].endings[0] for name in offered if FORMATS[name].endings)


def _wanted(name: str) -> str:
    endings = FORMATS[name].endings
    return f"its files end in {' or '.join(endings)}" if endings else "it is a folder: end it with /"
