"""The decoded images that are kept, listed or removed: what `python -m jax_alexnet.cache` does."""

import os
from pathlib import Path

from alexnet_io.command_line.printing import amount, printable
from alexnet_io.data.cache import default_cache_dir
from alexnet_io.data.cache_folders import entries, remove
from alexnet_io.errors import UserError

__all__ = ["clear", "default_cache_dir", "show"]

PROGRAM = "python -m jax_alexnet.cache"


def show(directory: Path) -> None:
    """Print what a directory holds, a line each."""
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


def clear(directory: Path, days: float | None) -> None:
    """Remove what wasn't used for so many days, or all, but for what a process is using.

    Raises:
        UserError: the directory can't be written to.
    """
    found = [entry for entry in entries(directory) if days is None or entry.days_since_use() >= days]
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
