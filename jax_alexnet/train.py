"""`python -m jax_alexnet.train`: settings in, a run's directory out. The work is in `training.py`."""

from alexnet_io.settings import as_yaml, parse_given, run_command
from alexnet_io.train_settings import TrainSettings, resumed

PROGRAM = "python -m jax_alexnet.train"


def main() -> int:
    """Train, and return the exit code: 0 done, 1 an error, 2 bad usage, 130 or 143 stopped by a signal."""
    settings, given = parse_given(TrainSettings, PROGRAM)
    # None of these imports JAX: whatever is wrong with the settings is said at once.
    from jax_alexnet.recipes import resolve

    if settings.resume:
        settings = _resumed(settings, given)
    settings = resolve(settings)
    if settings.print_config:
        print(as_yaml(settings), end="")
        return 0
    from jax_alexnet.training import train

    return train(settings)


def _resumed(settings: TrainSettings, given: dict) -> TrainSettings:
    from alexnet_io.errors import UserError
    from alexnet_io.run_directory import read_description

    if settings.output is None:
        raise UserError("--resume needs --output DIR, the directory of the run to go on with")
    description = read_description(settings.output)
    if description.get("framework", "jax_alexnet") != "jax_alexnet":
        trainer = f"python -m {description['framework']}.train"
        raise UserError(f"the run in {settings.output} was trained by {trainer}: go on with that command")
    return resumed(description["settings"], given)


if __name__ == "__main__":
    run_command(main)
