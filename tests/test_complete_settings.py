"""Settings with nothing left open: what they hold, what they refuse, and runs of which they were written."""

from dataclasses import fields, replace
from itertools import product
from typing import Any

import pytest

from alexnet_io.command_line.complete_settings import CompleteSettings, complete, plain
from alexnet_io.command_line.resumed_settings import resumed
from alexnet_io.command_line.settings import as_yaml
from alexnet_io.command_line.train_settings import MODELS, RECIPES, TrainSettings
from alexnet_io.errors import UserError
from jax_alexnet import recipes, schedules
from torch_ref import resolved_settings

SIDES = {"jax": recipes.resolve, "torch": resolved_settings.resolve}
# Where None means something: the network's own, no limit, all, none.
MAY_BE_NONE = {
    "cache_dir", "holdout", "steps", "drop_every", "drop_epochs", "dropout", "group_size", "coordinator",
    "num_processes", "process_id", "output", "validation", "init_from", "freeze", "ablate",
    "clip_norm", "ema", "patience", "warmup_epochs", "warmup_steps", "profile",
}  # fmt: skip

# run.json's settings of a run that was begun with --model cifar_13pct --data folder:pictures --holdout 0.2 --output
# runs/cifar --devices 1 --learning-rate 0.002, in their order.
SAVED: dict[str, Any] = {
    "data": "folder:pictures", "data_dir": "data", "cache_dir": None, "holdout": 0.2, "download": False,
    "validation": None, "model": "cifar_13pct", "recipe": "cifar", "image_size": 24, "stored_size": 32, "epochs": 470,
    "steps": None, "batch_size": 128, "optimizer": "paper", "learning_rate": 0.002, "bias_learning_rate_factor": 2.0,
    "momentum": 0.9, "weight_decay": 0.004, "decay_biases": False, "label_smoothing": 0.0, "clip_norm": None,
    "accumulate": 1, "ema": None, "patience": None, "schedule": "at_epochs", "warmup_epochs": None,
    "warmup_steps": None, "drop_every": None,
    "drop_epochs": [450, 460], "drop_factor": 0.1, "plateau_patience": 10, "plateau_cooldown": 0,
    "weight_init": "variant", "normalize": "mean_image", "crop": True, "flip": True, "color_noise": False,
    "dropout": None, "span_columns": False, "ablate": None, "init_from": None, "freeze": None,
    "new_layer_learning_rate_factor": 1.0, "precision": "float32", "cpu_convolution": "auto", "devices": "1",
    "parallel": "data", "group_size": None, "coordinator": None, "num_processes": None, "process_id": None, "seed": 0,
    "output": "runs/cifar", "resume": False, "strict_resume": False, "changed_data": False,
    "checkpoint_seconds": 300.0, "log_every": 20, "evaluate_every": 1, "max_bad_images": 100, "tensorboard": False,
    "profile": None, "dry_run": False, "print_config": False,
}  # fmt: skip


@pytest.mark.parametrize("side", SIDES)
def test_nothing_that_a_run_needs_is_left_open(side: str) -> None:
    for model, recipe in product(MODELS, (None, *RECIPES)):
        settings = SIDES[side](TrainSettings(model=model, recipe=recipe))
        assert type(settings) is CompleteSettings
        assert {name for name, value in vars(settings).items() if value is None} <= MAY_BE_NONE
        assert SIDES[side](settings) == settings


@pytest.mark.parametrize("name", sorted({item.name for item in fields(TrainSettings)} - MAY_BE_NONE))
def test_what_is_left_open_is_refused(name: str) -> None:
    """Wherever it could be left open: the others have a default of their own."""
    if next(item for item in fields(TrainSettings) if item.name == name).default is not None:
        return
    with pytest.raises(ValueError, match=f"complete settings lack {name}"):
        replace(recipes.resolve(TrainSettings()), **{name: None})


def test_values_that_are_missing_are_named() -> None:
    with pytest.raises(ValueError, match="complete settings lack recipe, epochs, batch_size, optimizer"):
        complete(TrainSettings(), image_size=227, crop=False)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"schedule": "every_steps"}, "--schedule every_steps needs --drop-every N"),
        ({"schedule": "every_epochs"}, "--schedule every_epochs needs --drop-every N"),
        ({"schedule": "at_epochs"}, "--schedule at_epochs needs --drop-epochs"),
        ({"schedule": "at_epochs", "drop_epochs": []}, "--schedule at_epochs needs --drop-epochs"),
        ({"stored_size": 20, "image_size": 24}, "--stored-size 20 is smaller than --image-size 24"),
        ({"warmup_epochs": 2.0, "warmup_steps": 9}, "--warmup-epochs 2 and --warmup-steps 9 say the same thing"),
    ],
)
def test_settings_that_do_not_go_together(words: dict[str, Any], message: str, side: str) -> None:
    with pytest.raises(UserError, match=message):
        SIDES[side](TrainSettings(model="cifar_11pct", recipe="blog", data="synthetic", **words))


def test_a_schedule_has_only_what_it_was_given() -> None:
    constant = recipes.resolve(TrainSettings(data="synthetic"))
    with pytest.raises(ValueError, match="constant has no period"):
        _ = constant.drop_period
    with pytest.raises(ValueError, match="constant has no milestones"):
        _ = constant.milestones


def test_a_plateaus_rate_is_its_counters() -> None:
    with pytest.raises(ValueError, match="plateau_for"):
        schedules.learning_rate(recipes.resolve(TrainSettings(model="two_column")), 0, 0)


@pytest.mark.parametrize("side", SIDES)
def test_a_saved_run_has_the_settings_that_it_was_begun_with(side: str) -> None:
    again = SIDES[side](resumed(SAVED, {}))
    assert plain(again) == SAVED
    assert list(plain(again)) == list(SAVED)
    shown = as_yaml(again).splitlines()
    assert shown[:3] == ["data: folder:pictures", "data_dir: data", "holdout: 0.2"]
    assert "resume: false" not in shown


@pytest.mark.parametrize("side", SIDES)
def test_a_run_of_a_version_with_fewer_settings_is_opened(side: str) -> None:
    """As those that came later were without being asked for."""
    later = ("span_columns", "cpu_convolution", "parallel", "group_size", "changed_data", "plateau_cooldown")
    later += ("ablate", "validation", "init_from", "freeze", "new_layer_learning_rate_factor")
    later += ("label_smoothing", "clip_norm", "accumulate", "ema", "patience")
    later += ("warmup_epochs", "warmup_steps", "profile")
    old = {name: value for name, value in SAVED.items() if name not in later}
    assert plain(SIDES[side](resumed(old, {}))) == SAVED


def test_the_reference_refuses_what_only_jax_has() -> None:
    others = {"parallel": "zero", "cpu_convolution": "xla", "coordinator": "host:1", "group_size": 2}
    others |= {"num_processes": 2, "process_id": 0}
    only = {item.name for item in fields(TrainSettings) if item.metadata.get("only") == "jax_alexnet"}
    assert only == set(others)
    for name, value in others.items():
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is for jax_alexnet"):
            resolved_settings.resolve(TrainSettings(**{name: value}))
