"""The settings of a run that aren't what its network and its data already say, and the flags that give them again."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from alexnet_io.command_line.complete_settings import CompleteSettings, plain
from alexnet_io.command_line.train_settings import TrainSettings

# Of one start of a program, not of the run.
_OF_A_START = ("output", "coordinator", "num_processes", "process_id")
Resolve = Callable[[TrainSettings], CompleteSettings]


def usual(saved: CompleteSettings, resolve: Resolve) -> dict[str, Any]:
    """What a run on the same data with the same network has where no other flag is given, by setting.

    Of another recipe than the network's own, what that recipe has; under `recipe` stands the network's own.

    Args:
        saved: a run's settings.
        resolve: a program's way of completing settings.
    """
    own = resolve(TrainSettings(data=saved.data, model=saved.model))
    if own.recipe == saved.recipe:
        return plain(own)
    by_recipe = resolve(TrainSettings(data=saved.data, model=saved.model, recipe=saved.recipe))
    return {**plain(by_recipe), "recipe": own.recipe}


def differing(saved: CompleteSettings, resolve: Resolve) -> dict[str, tuple[Any, Any]]:
    """The settings that were chosen, by name: the run's value, and the usual one; data and network come first."""
    program, values, without = TrainSettings(), plain(saved), usual(saved, resolve)
    chosen = {name: (values[name], getattr(program, name)) for name in ("data", "model")}
    chosen |= {name: (values[name], without[name]) for name in kept(values) if name not in chosen}
    return {name: both for name, both in chosen.items() if both[0] != both[1]}


def kept(values: Mapping[str, Any]) -> list[str]:
    """Names of the settings that a run keeps: all but what asks for something to be done, or says where."""
    actions = {item.name for item in fields(TrainSettings) if item.metadata.get("action")}
    return [name for name in values if name not in actions and name not in _OF_A_START]


def flag_words(values: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """The flags for values that aren't the usual ones; data and network are left to the caller."""
    words: list[str] = []
    for name, value in values.items():
        if name in ("data", "model") or value is None or value == usual[name]:
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value).replace(" ", "") if isinstance(value, list) else str(value)]
    return words


def command(saved: CompleteSettings, resolve: Resolve) -> list[str]:
    """The words after `python -m PACKAGE.train` that train such a run again, into a directory of its own."""
    values = plain(saved)
    flags = flag_words({name: values[name] for name in kept(values)}, usual(saved, resolve))
    return ["--model", saved.model, "--data", saved.data, *flags]
