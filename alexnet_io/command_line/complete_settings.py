"""The settings of a training run with nothing left open: what a run is built from, and how they are completed."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CompleteSettings(TrainSettings):
    """Settings of which none is None that a run needs; made by `complete`, with the values of a recipe.

    Where None is left it means something: `dropout` the network's own, `steps` no limit, `group_size` all devices,
    `ema` and `clip_norm` none; `drop_every` and `drop_epochs` may be None under a schedule that doesn't ask for them.

    Raises:
        UserError: the schedule lacks what it needs.
        ValueError: a setting is None that no run can do without.
    """

    recipe: str = field()
    image_size: int = field()
    stored_size: int = field()
    epochs: int = field()
    batch_size: int = field()
    optimizer: str = field()
    learning_rate: float = field()
    bias_learning_rate_factor: float = field()
    momentum: float = field()
    weight_decay: float = field()
    decay_biases: bool = field()
    schedule: str = field()
    drop_factor: float = field()
    plateau_patience: int = field()
    plateau_cooldown: int = field()
    weight_init: str = field()
    normalize: str = field()
    crop: bool = field()
    flip: bool = field()
    color_noise: bool = field()

    def __post_init__(self) -> None:
        missing = [name for name in CompleteSettings.__annotations__ if getattr(self, name) is None]
        if missing:
            raise ValueError(f"complete settings lack {', '.join(missing)}")
        if self.schedule in ("every_epochs", "every_steps") and self.drop_every is None:
            raise UserError(f"--schedule {self.schedule} needs --drop-every N: say after how many it drops")
        if self.schedule == "at_epochs" and not self.drop_epochs:
            raise UserError("--schedule at_epochs needs --drop-epochs, such as --drop-epochs '[60,80]'")
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise UserError(
                f"--warmup-epochs {self.warmup_epochs:g} and --warmup-steps {self.warmup_steps} say the same thing: "
                "leave one of them out"
            )

    @property
    def drop_period(self) -> int:
        """Epochs or steps between drops.

        Raises:
            ValueError: the schedule is neither `every_epochs` nor `every_steps`, and no period was given.
        """
        if self.drop_every is None:
            raise ValueError(f"the schedule {self.schedule} has no period")
        return self.drop_every

    @property
    def milestones(self) -> list[int]:
        """Epochs at which the learning rate drops.

        Raises:
            ValueError: the schedule isn't `at_epochs`, and no epochs were given.
        """
        if self.drop_epochs is None:
            raise ValueError(f"the schedule {self.schedule} has no milestones")
        return self.drop_epochs


def complete(settings: TrainSettings, *, image_size: int, crop: bool, **values: Any) -> CompleteSettings:
    """The settings with these values, a recipe's and a network's, in place of what is still None.

    Args:
        settings: as given; they win.
        image_size: the network's own.
        crop: whether the recipe takes random crops.
        values: of all other settings that a run needs.

    Raises:
        UserError: settings that don't go together.
        ValueError: values are missing.
    """
    size = image_size if settings.image_size is None else settings.image_size
    cropped = crop if settings.crop is None else settings.crop
    side = stored_size(size, cropped, settings.stored_size)
    filled = fill(settings, image_size=size, crop=cropped, stored_size=side, **values)
    return CompleteSettings(**{item.name: getattr(filled, item.name) for item in fields(filled)})


def fill(settings: TrainSettings, **values: Any) -> TrainSettings:
    """The settings with `values` in place of what is still None."""
    return replace(settings, **{name: value for name, value in values.items() if getattr(settings, name) is None})


# What the default data set runs with, where neither the command line nor a file says otherwise: the blog's recipe
# at a size that two CPU cores train in two minutes. 67 pixels is the smallest image that single_column takes;
# crops from 73 shift a digit by a pixel of the 8x8 original at most; 24 images can be shared by 2, 3, 4, 6 or 8
# devices.
DIGITS: dict[str, Any] = {
    "image_size": 67,
    "stored_size": 73,
    "crop": True,
    "batch_size": 24,
    "epochs": 6,
    "learning_rate": 2e-4,
    "schedule": "at_epochs",
    "drop_epochs": [5],
}


def data_defaults(settings: TrainSettings) -> TrainSettings:
    """The settings with what suits the data set in place of None, before the recipe has its say."""
    if settings.data == "digits" and settings.model == "single_column" and settings.recipe in (None, "blog"):
        return fill(settings, **DIGITS)
    return settings


def stored_size(image_size: int, crop: bool, asked: int | None = None) -> int:
    """Side of the stored images: as asked, or else what suits the network and its crops.

    That is 256 for crops of 224 or 227, 32 for crops of 24, 8/7 of other crops.

    Args:
        image_size: side of what the network sees.
        crop: whether that is cut at random out of the stored images.
        asked: by the user.

    Raises:
        UserError: the stored images are smaller than what is cut from them.
    """
    if asked is None:
        return {224: 256, 227: 256, 24: 32}.get(image_size, round(image_size * 8 / 7)) if crop else image_size
    if asked < image_size:
        raise UserError(
            f"--stored-size {asked} is smaller than --image-size {image_size}, which is cut from it: "
            f"make it at least {image_size}"
        )
    return asked


def plain(settings: TrainSettings) -> dict[str, Any]:
    """The settings as JSON can hold them."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
