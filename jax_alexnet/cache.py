"""`python -m jax_alexnet.cache`: the decoded images that earlier runs left, listed or removed. Imports no JAX."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

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
    from alexnet_io.command_line.printing import printable
    from alexnet_io.data.cache import default_cache_dir

    directory = (settings.cache_dir or default_cache_dir()).expanduser().resolve()
    try:
        if settings.clear:
            _clear(directory, settings.older_than or 0.0)
        else:
            _list(directory)
    except OSError as error:
        raise UserError(
            f"{printable(error.filename or directory)}: {error.strerror or error}: check --cache-dir"
        ) from None
    return 0


def _list(directory: Path) -> None:
    from alexnet_io.command_line.printing import amount, printable
    from alexnet_io.data.cache_folders import entries

    found = entries(directory)
    if not found:
        print(f"nothing is kept in {printable(directory)}")
        return
    print(f"in {printable(directory)}:")
    print(f"{'size':>10}{'images':>12}  {'pixels':<9}  {'unused for':<12}  source")
    for entry in found:
        height, width = entry.origin.pixels
        pixels = f"{height}x{width}" if height else "?"
        source = entry.origin.source or "unknown"
        if not entry.finished:
            source += " (unfinished)"
        images = f"{entry.origin.images:,}" if entry.origin.images else "?"
        age = f"{entry.days_since_use():.1f} days"
        print(f"{amount(entry.size):>10}{images:>12}  {pixels:<9}  {age:<12}  {source}")
    print(f"{amount(sum(entry.size for entry in found)):>10}  in all; {PROGRAM} --clear removes it")


def _clear(directory: Path, days: float) -> None:
    from alexnet_io.command_line.printing import amount, printable
    from alexnet_io.data.cache_folders import entries, remove

    found = [entry for entry in entries(directory) if entry.days_since_use() >= days]
    if found and not os.access(directory, os.W_OK):
        raise UserError(f"{printable(directory)} can't be written to: clear it as the user to whom it belongs")
    freed = 0
    for entry in found:
        source = entry.origin.source or printable(entry.folder)
        if remove(entry.folder):
            freed += entry.size
            print(f"removed {amount(entry.size)}: {source}")
        else:
            print(f"kept {amount(entry.size)}, in use: {source}")
    print(f"{amount(freed)} freed in {printable(directory)}")


if __name__ == "__main__":
    run_command(main)
