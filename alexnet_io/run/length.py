"""How long a run is, and how long its learning rate rises: in steps, which only its data make of epochs."""

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.errors import UserError


def last_step(settings: CompleteSettings, per_epoch: int) -> int:
    """The step after which the run is over.

    Args:
        settings: of the run.
        per_epoch: steps of an epoch.
    """
    total = settings.epochs * per_epoch
    return min(total, settings.steps or total)


def warmup_steps(settings: CompleteSettings, per_epoch: int) -> int:
    """Steps in which the learning rate still rises: those of `--warmup-epochs` rounded, or as `--warmup-steps` says.

    Args:
        settings: of the run.
        per_epoch: steps of an epoch.

    Raises:
        UserError: the run would never get to its learning rate, or its cosine never begin.
    """
    if settings.warmup_epochs is not None:
        flag, steps = f"--warmup-epochs {settings.warmup_epochs:g}", round(settings.warmup_epochs * per_epoch)
    elif settings.warmup_steps is not None:
        flag, steps = f"--warmup-steps {settings.warmup_steps}", settings.warmup_steps
    else:
        return 0
    # A run that --steps cuts short may end while the rate rises, but then there is no cosine.
    cosine = settings.schedule == "cosine"
    limit = last_step(settings, per_epoch) if cosine else settings.epochs * per_epoch
    if steps >= limit:
        raise UserError(
            f"{flag} is {steps} steps, and the whole run has {limit}: choose a warmup of fewer, or a longer run with "
            "--epochs" + (" and --steps" if settings.steps else "")
        )
    return steps
