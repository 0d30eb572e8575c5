"""Whether a resumed run is given the data that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alexnet_io.errors import UserError

_NAMES = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class OtherData:
    """A resumed run goes on with other data, as its user asked for.

    Attributes:
        warning: what that means, for the user.
        other_steering_images: whether the accuracies that choose the best can't be compared with those from now on.
    """

    warning: str
    other_steering_images: bool


def refuse_other_data(
    saved: dict[str, Any] | None, now: dict[str, Any], step: int, steps_per_epoch: int, allowed: bool
) -> OtherData | None:
    """Compare what a checkpoint says of its data with the data at hand.

    Args:
        saved: `fingerprint` of the data that the run was trained on; None in checkpoints that don't say.
        now: `fingerprint` of the data at hand.
        step: steps the run has done.
        steps_per_epoch: with the data at hand.
        allowed: whether the user wants to go on all the same.

    Returns:
        None if the data are the same, or the checkpoint doesn't say.

    Raises:
        UserError: they differ, and `allowed` is False.
    """
    if saved is None or saved == now:
        return None
    splits = [split for split in _NAMES if split in saved and split in now]
    words = [_difference(split, saved[split], now[split]) for split in splits if saved[split] != now[split]]
    if saved["classes"] != now["classes"]:
        words.append(f"{saved['classes']} classes then, {now['classes']} now")
    found = "; ".join(words)
    epoch, rest = divmod(step, steps_per_epoch)
    meaning = (
        f"the {step} steps done then count as {epoch} epochs and {rest} steps of {steps_per_epoch} to an epoch, and "
        "schedules and orders go on from there"
    )
    if not allowed:
        raise UserError(
            f"the data are not those that the run was trained on ({found}): pass the run's own --data, or start a new "
            f"run with another --output. --changed-data goes on all the same: {meaning}"
        )
    steering = "validation" if "validation" in now else "test"
    other = saved.get(steering) != now[steering]
    best = f"; the best is chosen anew, among accuracies on the new {steering} images" if other else ""
    return OtherData(f"warning: going on with other data ({found}): {meaning}{best}", other)


def _difference(split: str, saved: dict[str, Any], now: dict[str, Any]) -> str:
    name = _NAMES[split]
    if saved["examples"] != now["examples"]:
        return f"{saved['examples']} {name} images then, {now['examples']} now"
    return f"{now['examples']} {name} images as then, but other pictures, names or labels"
