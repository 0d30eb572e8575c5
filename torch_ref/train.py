"""`python -m torch_ref.train`: the reference trained, alone or under torchrun. The work is in `train_command.py`.

Imports PyTorch when the settings are known to be right.
"""

from alexnet_io.command_line import packages
from alexnet_io.command_line.resumed_settings import of_resumed_run
from alexnet_io.command_line.settings import as_yaml, parse_given, run_command
from alexnet_io.command_line.train_settings import TrainSettings
from torch_ref.launch import said_once

PROGRAM = "python -m torch_ref.train"


def main() -> int:
    """Train, and return the exit code.

    0 done; 1 failed on the way; 2 refused before it began: usage, settings, data, devices, directory; 130 or 143
    stopped by a signal.
    """
    with said_once():
        settings, given = parse_given(TrainSettings, PROGRAM)
        packages.require("torch", by=PROGRAM)
        # Imported only now, so that --help and a misspelt flag answer without waiting for PyTorch.
        from torch_ref.resolved_settings import resolve

        if settings.resume:
            settings = of_resumed_run(settings, given, "torch_ref")
        settings = resolve(settings)
        if settings.print_config:
            print(as_yaml(settings), end="")
            return 0
    from torch_ref.train_command import train

    return train(settings)


if __name__ == "__main__":
    run_command(main)
