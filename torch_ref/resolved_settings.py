"""A run's settings completed by this side's recipes, and the schedule that they name."""

from dataclasses import fields

import torch

from alexnet_io.command_line.complete_settings import CompleteSettings, complete, data_defaults
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.sources import parse_spec
from alexnet_io.errors import UserError
from alexnet_io.run import length
from alexnet_io.run.fine_tuning import frozen_layers, refuse_what_needs_weights
from torch_ref.alexnet import HAVE_DROPOUT, VARIANTS, build
from torch_ref.network import layers_with_weights
from torch_ref.recipes import recipe_for
from torch_ref.schedules import Constant, Cosine, EveryEpochs, EverySteps, Milestones, Plateau, Schedule

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
    "cifar_80sec": "cifar",
}


def resolve(settings: TrainSettings) -> CompleteSettings:
    """The settings completed.

    The command line and the YAML file win, then what suits the data set, then the recipe, then the network.

    Raises:
        UserError: settings that don't go together, or a data source that doesn't exist.
    """
    parse_spec(settings.data)
    if settings.span_columns and settings.model != "two_column":
        raise UserError(f"--span-columns is for two_column; {settings.model} has no such choice: leave the flag out")
    if settings.dropout and settings.model not in HAVE_DROPOUT:
        raise UserError(f"--dropout is for networks with dropout, which {settings.model} has not: leave the flag out")
    _refuse_what_only_jax_has(settings)
    if settings.freeze is not None or settings.ablate is not None:
        with torch.device("meta"):  # refuses what the network hasn't got before anything slow is done for it
            frozen_layers(settings, layers_with_weights(build(settings.model, ablate=settings.ablate)))
    refuse_what_needs_weights(settings)
    settings = data_defaults(settings)
    name = settings.recipe or OWN_RECIPE[settings.model]
    recipe = recipe_for(name, settings.model)
    return complete(
        settings,
        recipe=name,
        image_size=VARIANTS[settings.model].image_size,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        bias_learning_rate_factor=recipe.bias_learning_rate_factor,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        decay_biases=recipe.decay_biases,
        schedule=recipe.schedule,
        drop_every=recipe.drop_every,
        drop_epochs=None if recipe.drop_epochs is None else list(recipe.drop_epochs),
        drop_factor=recipe.drop_factor,
        plateau_patience=recipe.plateau_patience,
        plateau_cooldown=recipe.plateau_cooldown,
        weight_init=recipe.weight_init,
        normalize=recipe.normalize,
        crop=recipe.crop,
        flip=recipe.flip,
        color_noise=recipe.color_noise,
    )


def _refuse_what_only_jax_has(settings: TrainSettings) -> None:
    for item in fields(TrainSettings):
        if item.metadata.get("only") == "jax_alexnet" and getattr(settings, item.name) != item.default:
            flag = f"--{item.name.replace('_', '-')}"
            raise UserError(
                f"{flag} is for jax_alexnet.train; here every device has the whole network, PyTorch computes the "
                "convolutions, and torchrun starts and numbers the processes (torchrun --nproc-per-node N -m "
                "torch_ref.train): leave the flag out"
            )


def schedule_of(settings: CompleteSettings, per_epoch: int | None = None) -> Schedule:
    """The learning rate's schedule that the settings name.

    Args:
        settings: the run's.
        per_epoch: steps of an epoch, which a cosine over the whole run must know.

    Raises:
        UserError: the warmup is as long as the run.
        ValueError: a cosine, and nobody says how long an epoch is.
    """
    match settings.schedule:
        case "every_epochs":
            return EveryEpochs(settings.drop_period, settings.drop_factor)
        case "every_steps":
            return EverySteps(settings.drop_period, settings.drop_factor)
        case "at_epochs":
            return Milestones(tuple(settings.milestones), settings.drop_factor)
        case "plateau":
            return Plateau(settings.drop_factor, settings.plateau_patience, settings.plateau_cooldown)
        case "cosine":
            if per_epoch is None:
                raise ValueError("a cosine falls over a whole run: say how many steps an epoch has")
            return Cosine(length.warmup_steps(settings, per_epoch), length.last_step(settings, per_epoch))
    return Constant()
