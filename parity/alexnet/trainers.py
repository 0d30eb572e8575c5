"""One training step of each framework behind the same four calls, in PyTorch's names and layouts.

Both get the same images, labels, dropout masks and learning rate, drawn elsewhere; neither draws anything itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet import optim, recipes
from jax_alexnet.steps import DeviceBatch, measure
from jax_alexnet.variants import VARIANTS
from parity.alexnet import pairs
from parity.alexnet.parameter_names import ParameterNames, slots
from parity.candidate.jax_arrays import DTYPES, placed
from parity.kinds import layouts
from parity.reference.torch_tensors import DTYPES as TORCH_DTYPES
from parity.reference.torch_tensors import to_numpy
from torch_ref import resolved_settings
from torch_ref.layers import Dropout
from torch_ref.optim import build_optimizer, set_learning_rate

Arrays = dict[str, NDArray]


@dataclass(frozen=True)
class Material:
    """What a run is fed: the same for both sides.

    Attributes:
        images: (steps, batch, 3, height, width).
        labels: (steps, batch) int.
        masks: one dictionary a step.
        rates: learning rate of the weights for each step.
    """

    images: NDArray
    labels: NDArray
    masks: list[Arrays]
    rates: list[float]


class TorchTrainer:
    """The reference: `torch_ref`'s network, optimizer and recipe.

    Args:
        pair: both sides of a network; the PyTorch module is trained in place.
        recipe: its name.

    Attributes:
        loss: mean cross-entropy of logits and labels; replaceable.
        optimizer: of the recipe; replaceable.
    """

    def __init__(self, pair: pairs.Pair, recipe: str) -> None:
        self.network: nn.Module = pair.torch_module
        self.dtype = TORCH_DTYPES[pair.dtype]
        self.loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
        asked = TrainSettings(model=pair.name, recipe=recipe, data="synthetic")
        self.optimizer = build_optimizer(self.network, resolved_settings.resolve(asked))
        self._start: Arrays | None = None

    def restart(self) -> None:
        """Back to the weights at the first call, and nothing remembered."""
        if self._start is None:
            self._start = self.weights()
        self.load(self._start)
        self.optimizer.state.clear()

    def gradients(self, images: NDArray, labels: NDArray, masks: Arrays) -> tuple[float, Arrays]:
        """Loss and gradients of one batch: images NCHW, masks True where kept, by layer."""
        self.network.train()
        for name, module in self.network.named_modules():
            if isinstance(module, Dropout):
                module.mask = torch.from_numpy(masks[name]) if name in masks else None
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.network(torch.from_numpy(np.ascontiguousarray(images)).to(self.dtype))
        loss = self.loss(logits, torch.from_numpy(labels).long())
        loss.backward()
        found = {n: to_numpy(p.grad).copy() for n, p in self.network.named_parameters() if p.grad is not None}
        return float(loss.detach()), found

    def update(self, gradients: Arrays, rate: float) -> None:
        """One optimizer step with these gradients and this learning rate of the weights."""
        for name, parameter in self.network.named_parameters():
            parameter.grad = torch.from_numpy(np.ascontiguousarray(gradients[name])).to(self.dtype)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.step()

    def load(self, weights: Arrays) -> None:
        """Replace all parameters."""
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(torch.from_numpy(weights[name]))

    def weights(self) -> Arrays:
        """All parameters."""
        return {name: to_numpy(p).copy() for name, p in self.network.named_parameters()}

    def slots(self) -> dict[str, Arrays]:
        """The optimizer's memories by their PyTorch keys."""
        found: dict[str, Arrays] = {}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    found.setdefault(key, {})[name] = to_numpy(value).copy()
        return found


class JaxTrainer:
    """The candidate: `jax_alexnet`'s network, optimizer and recipe.

    Args:
        pair: both sides of a network.
        recipe: its name.

    Attributes:
        loss: (logits, labels) to the mean loss of the batch; replaceable.
        optimizer: optax chain of the recipe; replaceable before the first step.
    """

    def __init__(self, pair: pairs.Pair, recipe: str) -> None:
        self.pair = pair
        self.dtype = DTYPES[pair.dtype]
        self.params: Any = pair.variables["params"]
        self._start = self.params
        self.loss: Callable[[jax.Array, jax.Array], jax.Array] = mean_loss
        settings = recipes.resolve(TrainSettings(model=pair.name, recipe=recipe, data="synthetic"))
        self.optimizer: Any = optim.make_optimizer(settings, VARIANTS[pair.name], self.params)
        self._state: Any = None
        self._gradients: Any = None
        self._update: Any = None
        self._names = ParameterNames(pair.torch_module, pair.image_size)

    def restart(self) -> None:
        """Back to the pair's weights, and nothing remembered; what was compiled stays."""
        self.params, self._state = self._start, None

    def gradients(self, images: NDArray, labels: NDArray, masks: Arrays) -> tuple[float, Arrays]:
        """As the reference's, from the same NCHW images."""
        if self._gradients is None:
            self._gradients = jax.jit(jax.value_and_grad(self._loss_of))
        loss, gradients = self._gradients(
            self.params,
            placed(layouts.channels_last(images), self.dtype),
            placed(labels),
            {name: placed(self._mask(name, mask)) for name, mask in masks.items()},
        )
        return float(loss), self.as_torch(gradients)

    def _loss_of(self, params: Any, images: jax.Array, labels: jax.Array, masks: dict[str, jax.Array]) -> jax.Array:
        module = self.pair.flax_module
        logits: Any = module.apply({"params": params}, images, train=True, dropout_masks=masks)
        return self.loss(logits, labels)

    def _mask(self, name: str, mask: NDArray) -> NDArray:
        """Masks of flattened maps, whose rows PyTorch orders C, H, W, as Flax sees the map."""
        return pairs.mask_to_flax(self.pair, name, mask)

    def update(self, gradients: Arrays, rate: float) -> None:
        """One optimizer step with these gradients and this learning rate of the weights."""
        if self._state is None:
            self._state = self.optimizer.init(self.params)
        if self._update is None:
            self._update = jax.jit(self.optimizer.update)
        tree = self.as_flax(gradients)
        updates, self._state = self._update(tree, self._state, self.params, learning_rate=jnp.asarray(rate, self.dtype))
        self.params = optax.apply_updates(self.params, updates)

    def load(self, weights: Arrays) -> None:
        """Replace all parameters."""
        self.params = self.as_flax(weights)

    def weights(self) -> Arrays:
        """All parameters, in PyTorch's names and layout."""
        return self.as_torch(self.params)

    def slots(self) -> dict[str, Arrays]:
        """The optimizer's memories by their PyTorch keys."""
        return {key: self.as_torch(tree) for key, tree in slots(self._state).items()}

    def as_torch(self, tree: Any) -> Arrays:
        """A tree of Flax's shape under PyTorch's names and in its layout."""
        return self._names.as_torch(tree)

    def as_flax(self, arrays: Arrays) -> Any:
        """The inverse of `as_torch`."""
        return jax.tree.map(lambda leaf: placed(leaf, self.dtype), self._names.as_flax(arrays))


def mean_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The training step's loss: its sum over the batch's examples, divided by their number."""
    batch = DeviceBatch(jnp.zeros((len(labels), 1, 1, 3)), labels, jnp.ones(len(labels), logits.dtype))
    metrics = measure(logits, batch)
    return metrics.loss / metrics.examples
