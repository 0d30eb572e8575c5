"""`python -m jax_alexnet.pack`: a run's weights with their card, as they come with the project.

Imports NumPy and JAX when the settings are known to be right.
"""

from collections.abc import Sequence

from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.settings import parse, run_command
from alexnet_io.errors import UserError
from alexnet_io.weights import shipped
from jax_alexnet.pack_settings import PROGRAM, PackSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack, say what the weights are worth, and return the exit code."""
    settings = parse(PackSettings, PROGRAM, arguments)
    if settings.run is None or not settings.data_is:
        raise UserError(
            "pass --run DIR, the directory that training wrote, and --data-is TEXT, which says what it learnt from"
        )
    if not settings.into.is_dir():
        raise UserError(f"--into {printable(settings.into)} is not a folder: make it first")
    from jax_alexnet.pack_command import pack

    card, name = pack(settings)
    print(card.line())
    print(f"wrote {printable(settings.into / name)}{shipped.ENDING} and {shipped.CARD_ENDING}")
    return 0


if __name__ == "__main__":
    run_command(main)
