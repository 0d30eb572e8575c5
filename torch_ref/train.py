"""`python -m torch_ref.train`: the reference trained, alone or under torchrun. The work is in `training.py`."""

from alexnet_io.settings import as_yaml, parse_given, run_command
from alexnet_io.train_settings import TrainSettings, resumed
from torch_ref.launch import said_once

PROGRAM = "python -m torch_ref.train"


def main() -> int:
    """Train, and return the exit code.

    0 done; 1 failed on the way; 2 refused before it began: usage, settings, data, devices, directory; 130 or 143
    stopped by a signal.
    """
    with said_once():
        settings, given = parse_given(TrainSettings, PROGRAM)
        # Imported only now, so that --help and a misspelt flag answer without waiting for PyTorch.
        from torch_ref.completion import resolve

        if settings.resume:
            settings = _resumed(settings, given)
        settings = resolve(settings)
        if settings.print_config:
            print(as_yaml(settings), end="")
            return 0
    from torch_ref.training import train

    return train(settings)


def _resumed(settings: TrainSettings, given: dict) -> TrainSettings:
    from alexnet_io.errors import UserError
    from alexnet_io.run_directory import read_description

    if settings.output is None:
        raise UserError("--resume needs --output DIR, the directory of the run to go on with")
    description = read_description(settings.output)
    if description.get("framework", "jax_alexnet") != "torch_ref":
        trainer = f"python -m {description.get('framework', 'jax_alexnet')}.train"
        raise UserError(f"the run in {settings.output} was trained by {trainer}: go on with that command")
    return resumed(description["settings"], given)


if __name__ == "__main__":
    run_command(main)
