"""What the export commands of both frameworks do alike: weights put where they go, and what is said of it."""

from collections.abc import Callable
from pathlib import Path

from alexnet_io.command_line.export_settings import NetworkToExport
from alexnet_io.command_line.printing import printable
from alexnet_io.exports import formats, hub
from alexnet_io.exports.comparison import Comparison
from alexnet_io.exports.description import Description
from alexnet_io.run.network_facts import NetworkFacts


def write_weights(
    settings: NetworkToExport, chosen: str, about: Description, program: str, save: Callable[[Path], str]
) -> None:
    """Write weights as one file, or as a folder for a model hub.

    Args:
        settings: of the command.
        chosen: the format.
        about: what is exported.
        program: how the command is called.
        save: writes and checks the file of weights; returns what the check found, in a line.
    """
    if chosen == formats.HUB:
        hub.write(Path(settings.to), about, f"{program} --format hub", save)
    else:
        save(Path(settings.to))


def say_done(settings: NetworkToExport, facts: NetworkFacts, which: str, home: str | None, checked: Comparison) -> None:
    """Print what was exported, where it is, and how it was checked.

    Args:
        settings: of the command.
        facts: of the network.
        which: of a run, which of its weights.
        home: of weights, whose names they have.
        checked: what the check found.
    """
    what = f"{which} weights" if settings.run is not None else printable(settings.weights or "")
    home = "" if home is None else f", for {home}"
    print(f"{facts.model}, {what}, step {facts.step}{home}: {printable(settings.to)}")
    print(f"checked before it was put in place: {checked.line()}")
