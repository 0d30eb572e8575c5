"""The settings of an export that both programs have. Imports no framework."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alexnet_io.command_line.settings import setting
from alexnet_io.command_line.train_settings import MODELS
from alexnet_io.errors import UserError
from alexnet_io.exports import formats

network_setting, place_setting = partial(setting, group="the trained network"), partial(setting, group="where to")


@dataclass(frozen=True)
class NetworkToExport:
    """Which trained network, and where it goes."""

    run: Path | None = network_setting(None, "the directory that training wrote", metavar="DIR")
    weights: Path | None = network_setting(
        None,
        "instead of a run: a .safetensors, .npz or .pth file, a folder as --format hub leaves it, or a name that "
        "python -m jax_alexnet.weights lists",
        metavar="FILE|NAME",
    )
    model: str | None = network_setting(
        None, "what --weights is for: " + ", ".join(MODELS), unset="as the file says", choices=MODELS
    )
    class_names: Path | None = network_setting(
        None,
        "text file with the name of class 0, 1, ... a line, for --weights without them; or imagenet: its 1,000",
        metavar="FILE|imagenet",
    )
    checkpoint: str = network_setting(
        "best", "of a run: best (highest validation or test accuracy) or newest", choices=("best", "newest")
    )
    to: str = place_setting("", "the file, whose ending says the format, or a folder with / at its end", metavar="FILE")


def checked_format(settings: NetworkToExport, named: str | None, offered: tuple[str, ...], *more: str) -> str:
    """The format that is meant, of which all is there that it needs, and whose place can be written.

    Args:
        settings: of the command.
        named: `--format`.
        offered: formats that the program writes.
        more: packages that it needs for ONNX besides, by import name.

    Raises:
        UserError: as said.
    """
    if not settings.to:
        raise UserError("pass --to FILE, such as --to net.safetensors or --to net.onnx, or --to FOLDER/")
    chosen = formats.choose(settings.to, named, offered)
    formats.check_place(settings.to, chosen)
    formats.require(chosen, settings.to, *(more if chosen == "onnx" else ()))
    return chosen
