"""The pictures that a command line names: files, and folders of them."""

from collections.abc import Sequence
from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.data.image_types import EXTENSIONS
from alexnet_io.data.sources.files import image_names, is_empty
from alexnet_io.errors import UserError


def pictures(paths: Sequence[Path]) -> list[Path]:
    """The files, and in a folder's place the pictures in it and below, by name.

    Raises:
        UserError: a folder without pictures, or one that can't be read.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        shown = printable(path)
        try:
            empty = is_empty(path)
        except OSError as error:
            raise UserError(f"{shown} can't be read: {error.strerror or error}") from None
        inside = [path / name for name in image_names(path)]
        if not inside:
            what = "is empty" if empty else f"has no pictures in it or below ({', '.join(EXTENSIONS)})"
            raise UserError(f"{shown} {what}: name pictures, or a folder that has some")
        found += inside
    return found
