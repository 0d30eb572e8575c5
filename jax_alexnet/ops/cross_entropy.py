"""Cross-entropy of logits with class numbers, whose gradient needs no scatter."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def smoothed_cross_entropy(logits: Array, labels: Array | np.ndarray, smoothing: float) -> Array:
    """Cross-entropy with labels of which a share is spread evenly over all classes, their own among them.

    Args:
        logits: (batch, classes), float32 or float64.
        labels: (batch,) integers; the loss of one that isn't a class is NaN.
        smoothing: the share, 0 to 1.

    Returns:
        (batch,) in the dtype of `logits`.
    """
    numbers, own = _numbers(logits, labels)
    targets = optax.smooth_labels((numbers == own).astype(logits.dtype), smoothing)
    there = (own >= 0) & (own < logits.shape[-1])
    return jnp.where(there[:, 0], optax.softmax_cross_entropy(logits, targets), jnp.nan)


def right_logit(logits: Array, labels: Array | np.ndarray) -> Array:
    """The logit of each example's own class (batch,), exactly; NaN where the label isn't a class."""
    numbers, own = _numbers(logits, labels)
    chosen = jnp.where(numbers == own, logits, 0)
    there = (own >= 0) & (own < logits.shape[-1])
    return jnp.where(there[:, 0], jnp.sum(chosen, axis=-1), jnp.nan)


def _numbers(logits: Array, labels: Array | np.ndarray) -> tuple[Array, Array]:
    """The classes' numbers (1, classes) and each example's own (batch, 1), of one dtype."""
    own = jnp.asarray(labels)[:, None]
    own = own.astype(np.promote_types(own.dtype, np.int32))
    return jnp.arange(logits.shape[-1], dtype=own.dtype)[None], own


def rank(logits: Array, labels: Array | np.ndarray) -> Array:
    """How many classes come before each example's own (batch,): those with a larger logit, or an equal one before it.

    So ties are broken as a stable sort would. A logit that is NaN comes before all numbers, as PyTorch sorts it; an own
    class that there isn't, or whose logit is NaN, comes after more classes than there are.
    """
    right, (numbers, own) = right_logit(logits, labels)[:, None], _numbers(logits, labels)
    before = ~((logits < right) | ((logits == right) & (numbers >= own)))
    return jnp.where(jnp.isnan(right[:, 0]), jnp.iinfo(jnp.int32).max, jnp.sum(before, axis=-1, dtype=jnp.int32))
