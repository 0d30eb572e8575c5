"""A run's settings completed by this side's recipes, and the recipe that completed settings amount to."""

import math
from dataclasses import replace
from typing import Any

from alexnet_io.command_line.train_settings import TrainSettings, data_defaults, fill, stored_size
from alexnet_io.data.sources import parse_spec
from alexnet_io.errors import UserError
from torch_ref.alexnet import HAVE_DROPOUT, VARIANTS
from torch_ref.recipes import BLOG, MeanImage, Recipe, recipe_for
from torch_ref.schedules import Constant, EveryEpochs, EverySteps, Milestones, Plateau, Schedule

# The recipe that a variant's own source describes.
OWN_RECIPE = {
    "single_column": "blog",
    "two_column": "paper",
    "cuda_convnet_2012": "paper",
    "caffe_alexnet": "caffe",
    "caffenet": "caffe",
    "one_weird_trick": "torchvision",
    "one_weird_trick_lrn": "paper",
    "cifar_18pct": "cifar",
    "cifar_13pct": "cifar",
    "cifar_11pct": "cifar",
}
IMAGENET_IMAGES = 1_281_167  # of ILSVRC-2012's training set, by which iterations become epochs
OPTIMIZERS = {"paper": "momentum_inside", "sgd": "sgd", "adam": "adam"}  # as the command line says, as recipes say


def resolve(settings: TrainSettings) -> TrainSettings:
    """The settings with every None that a default can fill, filled.

    The command line and the YAML file win, then what suits the data set, then the recipe, then the network.

    Raises:
        UserError: settings that don't go together, or a data source that doesn't exist.
    """
    parse_spec(settings.data)
    if settings.span_columns and settings.model != "two_column":
        raise UserError(f"--span-columns is for two_column; {settings.model} has no such choice: leave the flag out")
    if settings.dropout and settings.model not in HAVE_DROPOUT:
        raise UserError(f"--dropout is for networks with dropout, which {settings.model} has not: leave the flag out")
    _refuse_what_torchrun_decides(settings)
    _refuse_what_only_jax_has(settings)
    settings = data_defaults(settings)
    name = settings.recipe or OWN_RECIPE[settings.model]
    values = _values(recipe_for(name, settings.model))
    settings = fill(settings, recipe=name, image_size=VARIANTS[settings.model].image_size, **values)
    assert settings.image_size is not None
    settings = fill(settings, stored_size=stored_size(settings, settings.image_size))
    schedule_of(settings)
    return settings


def _refuse_what_torchrun_decides(settings: TrainSettings) -> None:
    for name, usual in (("parallel", "data"), ("group_size", None), ("coordinator", None), ("num_processes", None),
                        ("process_id", None)):  # fmt: skip
        if getattr(settings, name, usual) != usual:
            raise UserError(
                f"--{name.replace('_', '-')} is for jax_alexnet.train; here every device has the whole network, and "
                "torchrun starts and numbers the processes: leave the flag out"
            )


def _refuse_what_only_jax_has(settings: TrainSettings) -> None:
    given = {
        "--parallel": settings.parallel != "data", "--group-size": settings.group_size is not None,
        "--coordinator": settings.coordinator is not None, "--num-processes": settings.num_processes is not None,
        "--process-id": settings.process_id is not None,
        "--cpu-convolution": settings.cpu_convolution != "auto",
    }  # fmt: skip
    for flag, there in given.items():
        if there:
            raise UserError(
                f"{flag} is for jax_alexnet: the reference trains data-parallel, with as many processes as "
                "torchrun --nproc-per-node N -m torch_ref.train starts. Leave it out"
            )


def _values(recipe: Recipe) -> dict[str, Any]:
    """A recipe in the command line's words."""
    if isinstance(recipe.normalization, MeanImage):
        normalize = "mean_image"
    else:
        normalize = "half" if recipe.normalization == BLOG.normalization else "imagenet"
    iterations = recipe.iterations or 0
    return {
        "batch_size": recipe.batch_size,
        "epochs": recipe.epochs or math.ceil(iterations * recipe.batch_size / IMAGENET_IMAGES),
        "optimizer": next(word for word, name in OPTIMIZERS.items() if name == recipe.optimizer),
        "learning_rate": recipe.learning_rate,
        "bias_learning_rate_factor": recipe.bias_lr_multiplier,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "decay_biases": recipe.decay_biases,
        "weight_init": recipe.initialization,
        "normalize": normalize,
        "crop": recipe.augmentation.source_size is not None,
        "flip": recipe.augmentation.flip,
        "color_noise": recipe.augmentation.pca_noise > 0,
        **_schedule_values(recipe.schedule),
    }


def _schedule_values(schedule: Schedule) -> dict[str, Any]:
    plateau = schedule if isinstance(schedule, Plateau) else Plateau()
    values: dict[str, Any] = {
        "drop_factor": plateau.factor if isinstance(schedule, Constant) else schedule.factor,
        "plateau_patience": plateau.patience,
        "plateau_cooldown": plateau.cooldown,
    }
    match schedule:
        case EveryEpochs():
            return {**values, "schedule": "every_epochs", "drop_every": schedule.epochs}
        case EverySteps():
            return {**values, "schedule": "every_steps", "drop_every": schedule.steps}
        case Milestones():
            return {**values, "schedule": "at_epochs", "drop_epochs": list(schedule.epochs)}
        case Plateau():
            return {**values, "schedule": "plateau"}
    return {**values, "schedule": "constant"}


def schedule_of(settings: TrainSettings) -> Schedule:
    """The schedule of completed settings.

    Raises:
        UserError: the schedule lacks what it needs.
    """
    factor = settings.drop_factor
    assert factor is not None
    match settings.schedule:
        case "every_epochs" | "every_steps":
            if settings.drop_every is None:
                raise UserError(f"--schedule {settings.schedule} needs --drop-every N: say after how many it drops")
            kind = EveryEpochs if settings.schedule == "every_epochs" else EverySteps
            return kind(settings.drop_every, factor)
        case "at_epochs":
            if not settings.drop_epochs:
                raise UserError("--schedule at_epochs needs --drop-epochs, such as --drop-epochs '[60,80]'")
            return Milestones(tuple(settings.drop_epochs), factor)
        case "plateau":
            return Plateau(factor, settings.plateau_patience or 0, settings.plateau_cooldown or 0)
    return Constant()


def recipe_of(settings: TrainSettings) -> Recipe:
    """The recipe that completed settings amount to: what the optimizer is built from."""
    assert settings.recipe and settings.optimizer and settings.learning_rate is not None
    assert settings.momentum is not None and settings.weight_decay is not None
    assert settings.bias_learning_rate_factor is not None and settings.weight_init and settings.batch_size
    return replace(
        recipe_for(settings.recipe, settings.model),
        optimizer=OPTIMIZERS[settings.optimizer],
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        bias_lr_multiplier=settings.bias_learning_rate_factor,
        decay_biases=bool(settings.decay_biases),
        schedule=schedule_of(settings),
        initialization=settings.weight_init,
    )
