"""`python -m jax_alexnet.reproduce EXPERIMENT`: the paper's claims repeated, with the published figures beside.

An experiment is a list of trainings by the training program itself, a reading of their metrics, and a picture. Its runs
lie under --output as all runs do; the same command goes on where it was stopped, and finds what is finished. Imports
NumPy and JAX when the settings are known to be right.
"""

from collections.abc import Sequence

from alexnet_io.command_line.settings import one_of, parse_given, run_command
from alexnet_io.data.sources import parse_spec
from alexnet_io.errors import UserError
from jax_alexnet.reproduce.experiments import EXPERIMENTS, LIST, listing
from jax_alexnet.reproduce.settings import PROGRAM, ReproduceSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """List the experiments or perform some; returns the exit code.

    0 done; 1 failed on the way; 2 refused before it began; 130 or 143 stopped by a signal.
    """
    settings, given = parse_given(ReproduceSettings, PROGRAM, arguments)
    for name in settings.experiments:
        one_of("experiment", name, (LIST, *EXPERIMENTS))
    if LIST in settings.experiments:
        print(listing(settings.seeds, settings.epochs))
        return 0
    _refuse(settings)
    # None of the above imports JAX: whatever is wrong with the words is said at once.
    from jax_alexnet.reproduce.performing import perform

    return perform(settings, given)


def _refuse(settings: ReproduceSettings) -> None:
    """Refuse what no experiment could make sense of, before anything is loaded."""
    parse_spec(settings.data)
    if settings.quick and (settings.seeds is not None or settings.epochs is not None):
        raise UserError("--quick trains a few steps of one seed: leave --seeds and --epochs out, or --quick")
    looking = [name for name in settings.experiments if EXPERIMENTS[name].needs_run]
    if settings.run is not None and len(looking) < len(settings.experiments):
        others = [name for name in settings.experiments if name not in looking]
        raise UserError(f"--run is for what looks at a run, and {', '.join(others)} trains its own: leave it out there")
    if settings.learning_rates is not None and "relu-vs-tanh" not in settings.experiments:
        raise UserError("--learning-rates is for relu-vs-tanh: leave it out")
    if settings.learning_rates == []:
        raise UserError("--learning-rates [] is empty: name at least one, such as '[0.001]'")
    ours = [name for name in settings.experiments if not EXPERIMENTS[name].imagenet and name not in looking]
    if parse_spec(settings.data).kind == "imagenet" and ours:
        possible = [name for name, each in EXPERIMENTS.items() if each.imagenet]
        raise UserError(
            f"{', '.join(ours)} is of CIFAR-10: pass --data cifar10 or folder:PATH; on ImageNet there are "
            f"{', '.join(possible)}"
        )


if __name__ == "__main__":
    run_command(main)
