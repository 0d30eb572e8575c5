"""What is said of a run that evaluates and keeps an average of its weights (`--ema`)."""

from typing import Any

from alexnet_io.command_line.train_settings import TrainSettings


def notes(settings: TrainSettings) -> list[str]:
    """Lines before the first step: none for a run without an average."""
    if settings.ema is None:
        return []
    return [
        f"evaluations, the best weights and exports are of the weights' exponential moving average (--ema "
        f"{settings.ema:g}), not of the weights themselves"
    ]


def described(settings: TrainSettings) -> dict[str, Any]:
    """What run.json says of it: nothing of a run without an average."""
    return {} if settings.ema is None else {"evaluated_weights": {"average": "exponential", "decay": settings.ema}}
