"""What would stop a run later, found before its first step and by a dry run: packages and places to write to."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from alexnet_io.run import profiling
from alexnet_io.run.directory import DEFAULT_ROOT, refuse_unusable

# Packages that a run imports only when it first writes, and how to get them.
_TO_SAVE = ("safetensors",)
_TO_DRAW = ("matplotlib",)


def check(settings: TrainSettings, packages: Sequence[str] = ()) -> list[str]:
    """Look for what the run will need after its first step.

    Args:
        settings: the run's.
        packages: further modules without which the framework can't save.

    Returns:
        Warnings: what the run will do without.

    Raises:
        UserError: a package is missing, or the run can't be written where it is to be.
    """
    if settings.tensorboard and not _there("tensorboardX"):
        raise UserError(
            "--tensorboard needs tensorboardX, which is not installed: pip install 'jax-alexnet[tensorboard]', or "
            "leave --tensorboard out"
        )
    missing = [name for name in (*_TO_SAVE, *packages) if not _there(name)]
    if missing:
        names = " ".join(name.replace(".", "-") for name in missing)
        raise UserError(f"saving needs {' and '.join(missing)}, not installed here: pip install {names}")
    refuse_unusable(settings.output or Path(DEFAULT_ROOT), resume=settings.resume, new=settings.output is None)
    if settings.profile is not None:
        profiling.refuse_unusable(settings.profile)
    missing = [name for name in _TO_DRAW if not _there(name)]
    return [f"no pictures will be drawn: pip install {name}" for name in missing]


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
