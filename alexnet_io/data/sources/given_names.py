"""Names for the classes of weights that say none: `--class-names`."""

from collections.abc import Sequence
from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.data.sources import synset_names
from alexnet_io.errors import UserError

_IMAGENET = "imagenet"  # instead of a file


def names_for(path: Path, known: Sequence[str], classes: int) -> list[str]:
    """The names in a file, of as many classes as the weights have.

    Args:
        path: text file with a name a line, or `imagenet`, where no file of that name lies, for ImageNet's synsets.
        known: names that the weights say by themselves.
        classes: of the weights.

    Raises:
        UserError: names that are known already; a file that can't be read or has too few or many lines.
    """
    shown = f"--class-names {printable(path)}"
    if known:
        raise UserError(f"{shown}: --weights has names for its classes itself; leave --class-names out")
    try:
        of_imagenet = str(path) == _IMAGENET and not path.is_file()
        names = list(synset_names.names()) if of_imagenet else path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown} can't be read ({error}): pass a UTF-8 text file") from None
    if len(names) != classes:
        raise UserError(f"{shown} has {len(names)} lines; the weights have {classes} classes")
    return names
