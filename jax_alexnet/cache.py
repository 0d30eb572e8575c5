"""`python -m jax_alexnet.cache`: the decoded images that earlier runs left, listed or removed.

Imports no JAX, and NumPy when the settings are known to be right.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.settings import parse, run_command, setting
from alexnet_io.errors import UserError

PROGRAM = "python -m jax_alexnet.cache"


@dataclass(frozen=True)
class CacheSettings:
    """List the decoded images that are kept, the longest unused first, or remove them; no data set is touched."""

    EXAMPLES: ClassVar = (
        ("--list", "what is kept"),
        ("--clear --older-than 30", "remove what no run opened for a month"),
    )

    list: bool = setting(False, "list them, which is done without any flag too", action=True)
    clear: bool = setting(False, "remove them, but for those that a process is using", action=True)
    older_than: float | None = setting(
        None, "with --clear: only those unused for this many days", metavar="DAYS", minimum=0
    )
    cache_dir: Path | None = setting(None, "where they are kept", metavar="DIR", unset="~/.cache/jax_alexnet")


def main() -> int:
    """List or clear, and return the exit code."""
    settings = parse(CacheSettings, PROGRAM)
    if settings.list and settings.clear:
        raise UserError("--list and --clear exclude each other: choose one")
    if settings.older_than is not None and not settings.clear:
        raise UserError("--older-than goes with --clear: add that, or leave it out to list everything")
    from alexnet_io.data import cache_listing

    directory = (settings.cache_dir or cache_listing.default_cache_dir()).expanduser().resolve()
    try:
        if settings.clear:
            cache_listing.clear(directory, settings.older_than)
        else:
            cache_listing.show(directory)
    except OSError as error:
        if error.filename is None:  # what is printed has nowhere to go
            raise
        raise UserError(f"{printable(error.filename)}: {error.strerror or error}: check --cache-dir") from None
    return 0


if __name__ == "__main__":
    run_command(main)
