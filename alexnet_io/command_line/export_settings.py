"""The settings of an export that both programs have. Imports no framework."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from alexnet_io.command_line.flags import setting
from alexnet_io.command_line.network_source import GivenClassNames, NetworkSource, WhichCheckpoint
from alexnet_io.errors import UserError
from alexnet_io.exports import formats

place_setting = partial(setting, group="where to")


@dataclass(frozen=True)
class NetworkToExport(WhichCheckpoint, GivenClassNames, NetworkSource):
    """Which trained network, and where it goes."""

    to: str = place_setting("", "the file, whose ending says the format, or a folder with / at its end", metavar="FILE")


def checked_format(
    settings: NetworkToExport, named: str | None, given: Collection[str], offered: tuple[str, ...], *more: str
) -> str:
    """The format that is meant, of which all is there that it needs, and whose place can be written.

    Args:
        settings: of the command.
        named: `--format`.
        given: names of the settings that the command line has.
        offered: formats that the program writes.
        more: packages that it needs for ONNX besides, by import name.

    Raises:
        UserError: as said, or a flag that is for another format.
    """
    if not settings.to:
        raise UserError("pass --to FILE, such as --to net.safetensors or --to net.onnx, or --to FOLDER/")
    chosen = formats.choose(settings.to, named, offered)
    formats.check_place(settings.to, chosen)
    formats.require(chosen, settings.to, *(more if chosen == "onnx" else ()))
    if "home" in given and not formats.is_file_of_weights(chosen):
        raise UserError(f"--home is for files of weights, and --to {settings.to} is {chosen}: leave --home out")
    return chosen
