"""`python -m jax_alexnet.weights`: the trained weights that come with the project. Imports no JAX."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from alexnet_io.command_line.settings import parse, run_command, setting
from alexnet_io.errors import UserError
from alexnet_io.weights import shipped

PROGRAM = "python -m jax_alexnet.weights"


@dataclass(frozen=True)
class WeightsSettings:
    """List the trained weights that come with the project, a line each, or show the card of one."""

    EXAMPLES: ClassVar = (
        ("--list", "which there are"),
        ("--card cifar_18pct", "where these are from, and what they are worth"),
    )

    list: bool = setting(False, "list them, which is done without any flag too", action=True)
    card: str | None = setting(None, "show all that is to be known of these", metavar="NAME")


def main(arguments: Sequence[str] | None = None) -> int:
    """List or show, and return the exit code."""
    settings = parse(WeightsSettings, PROGRAM, arguments)
    if settings.list and settings.card is not None:
        raise UserError("--list and --card exclude each other: choose one")
    if settings.card is not None:
        print(shipped.card(settings.card), end="")
        return 0
    from alexnet_io.weights import card

    for name in shipped.names():
        found = card.read(shipped.FOLDER / f"{name}{shipped.ENDING}")
        print(found.line() if found else f"{name}: without a card")
    print("Use them by name: predict, evaluate and features --weights NAME, load_run(NAME), train --init-from NAME.")
    return 0


if __name__ == "__main__":
    run_command(main)
