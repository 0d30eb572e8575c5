"""Cross-entropy of logits with class numbers, whose gradient needs no scatter."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def cross_entropy(logits: Array, labels: Array | np.ndarray) -> Array:
    """Minus the logarithm of the softmax at the right class.

    The right logit is chosen by comparison. Taken by index, its gradient would be a scatter, which GPUs carry out
    with atomic additions.

    Args:
        logits: (batch, classes), float32 or float64.
        labels: (batch,) integers; the loss of one that isn't a class is NaN.

    Returns:
        (batch,) in the dtype of `logits`.
    """
    return jax.nn.logsumexp(logits, axis=-1) - right_logit(logits, labels)


def right_logit(logits: Array, labels: Array | np.ndarray) -> Array:
    """The logit of each example's own class (batch,), exactly; NaN where the label isn't a class."""
    classes = logits.shape[-1]
    chosen = jnp.where(jnp.arange(classes) == labels[:, None], logits, 0)
    return jnp.where((labels >= 0) & (labels < classes), jnp.sum(chosen, axis=-1), jnp.nan)
