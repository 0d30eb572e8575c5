"""The settings with which a run goes on: its own, but for those that may change."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from alexnet_io.run.run_description import read_description

# What a resumed run may change; everything else decides its numbers and stays as it was. The data may lie elsewhere:
# whether they are the same is seen by their fingerprint.
CHANGEABLE_ON_RESUME = frozenset(
    [
        "epochs",
        "steps",
        "devices",
        "parallel",
        "group_size",
        "coordinator",
        "num_processes",
        "process_id",
        "output",
        "resume",
        "strict_resume",
        "changed_data",
        "checkpoint_seconds",
        "evaluate_every",
        "accumulate",
        "patience",
        "profile",
        "tensorboard",
        "data",
        "data_dir",
        "cache_dir",
        "download",
        "dry_run",
        "print_config",
    ]
)

# Of these, what says when the run ends: it stays as the last resumption had it.
LENGTHS = ("epochs", "steps", "patience")


def planned(description: Mapping[str, Any]) -> dict[str, Any]:
    """A run's completed settings, with the end that it was last resumed to.

    Args:
        description: its run.json.
    """
    lengths = [each["lengths"] for each in description.get("resumed", []) if "lengths" in each]
    return description["settings"] | (lengths[-1] if lengths else {})


def lengths(settings: Any) -> dict[str, Any]:
    """What says when a run ends, by name."""
    return {name: getattr(settings, name) for name in LENGTHS}


def resumed(saved: dict[str, Any], given: dict[str, Any]) -> TrainSettings:
    """The settings of a saved run with those from the command line that may change.

    Args:
        saved: the run's completed settings, as `plain` wrote them.
        given: what the command line says, with parsed values.

    Raises:
        UserError: the command line contradicts the run; all differing settings are listed.
    """
    kept = {item.name: item for item in fields(TrainSettings)}
    values = {name: value for name, value in saved.items() if name in kept}
    # Where the run went on before says nothing about where it goes on now.
    values.update(dict.fromkeys(("coordinator", "num_processes", "process_id", "profile")))
    for name in ("data_dir", "cache_dir", "output"):
        values[name] = Path(values[name]) if values.get(name) else None
    differing = [
        f"--{name.replace('_', '-')} {value} (the run has {values.get(name)})"
        for name, value in given.items()
        if name not in CHANGEABLE_ON_RESUME and value != values.get(name)
    ]
    if differing:
        raise UserError(
            f"--resume can't change {'; '.join(differing)}. Leave these flags out, or start a new run with another "
            "--output."
        )
    _refuse_another_cosine(values, given)
    values.update({name: value for name, value in given.items() if name in CHANGEABLE_ON_RESUME})
    return TrainSettings(**values)


def _refuse_another_cosine(values: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse another length of a run whose learning rate falls over the whole of it."""
    for name in ("epochs", "steps") if values.get("schedule") == "cosine" else ():
        if name in given and given[name] != values.get(name):
            raise UserError(
                f"--resume can't change --{name} to {given[name]} (the run has {values.get(name)}): under --schedule "
                "cosine the learning rate falls over the whole run, and would jump. Leave the flag out; to train on, "
                "start a new run with --init-from and the directory of this one"
            )


def of_resumed_run(settings: TrainSettings, given: dict[str, Any], framework: str) -> TrainSettings:
    """The settings with which the run in `--output` goes on.

    Args:
        settings: from the command line, with `--resume`.
        given: see `resumed`.
        framework: the package that resumes; only runs that it trained itself are its own.

    Raises:
        UserError: no `--output`, no run there, another framework's, or flags that contradict it.
    """
    if settings.output is None:
        raise UserError("--resume needs --output DIR, the directory of the run to go on with")
    description = read_description(settings.output)
    trained_by = description.get("framework", "jax_alexnet")
    if trained_by != framework:
        trainer = f"python -m {trained_by}.train"
        raise UserError(f"the run in {settings.output} was trained by {trainer}: go on with that command")
    return resumed(planned(description), given)
