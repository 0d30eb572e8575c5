"""`python -m jax_alexnet.train`: settings in, a run's directory out. The work is in `train_command.py`.

Imports NumPy and JAX when the settings are known to be right.
"""

from alexnet_io.command_line.resumed_settings import of_resumed_run
from alexnet_io.command_line.settings import as_yaml, parse_given, run_command
from alexnet_io.command_line.train_settings import TrainSettings

PROGRAM = "python -m jax_alexnet.train"


def main() -> int:
    """Train, and return the exit code.

    0 done; 1 failed on the way; 2 refused before it began: usage, settings, data, devices, directory, packages; 130 or
    143 stopped by a signal.
    """
    settings, given = parse_given(TrainSettings, PROGRAM)
    # None of these imports JAX: whatever is wrong with the settings is said at once.
    from jax_alexnet.recipes import resolve

    if settings.resume:
        settings = of_resumed_run(settings, given, "jax_alexnet")
    settings = resolve(settings)
    if settings.print_config:
        print(as_yaml(settings), end="")
        return 0
    from jax_alexnet.train_command import train

    return train(settings)


if __name__ == "__main__":
    run_command(main)
