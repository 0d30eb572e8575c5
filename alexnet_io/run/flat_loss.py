"""Noticing that a network learns nothing: its loss stays where guessing would be."""

import math

_NEAR, _STEPS = 0.01, 1000


def watched(since: int | None, step: int, loss: float, classes: int) -> tuple[int | None, str | None]:
    """Follow the loss by one step.

    Args:
        since: the step since which it has been within 0.01 of ln(classes), as returned for the step before.
        step: this one.
        loss: mean cross-entropy of this step, in nats.
        classes: how many there are.

    Returns:
        The new `since`, and a warning for the user at the step at which it has lasted for 1000 steps.
    """
    chance = math.log(classes)
    if abs(loss - chance) > _NEAR:
        return None, None
    since = step if since is None else since
    if step - since != _STEPS:
        return since, None
    return since, (
        f"warning: for {_STEPS} steps the loss has not left {chance:.3f}, that of guessing. Try another "
        "--learning-rate, --weight-init caffe (biases of 0.1) or --weight-init pytorch"
    )
