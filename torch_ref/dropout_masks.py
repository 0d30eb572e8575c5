"""Dropout masks that depend on an example's place in the global batch, not on the process that computes it."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from torch_ref.layers import Dropout
from torch_ref.splitmix64 import shifted, splitmix64


class DropoutMasks:
    """Gives every dropout layer of a network its mask before each pass in training.

    Args:
        network: its `Dropout` layers get the masks.
        seed: of the run.

    Attributes:
        draw: (step, place in the global batch of the first example, number of the layer, its rate, its input) to
            the mask, True where kept; replaceable, so that another framework's masks can be given to this one.
    """

    def __init__(self, network: nn.Module, seed: int) -> None:
        self.step, self.first_place = 0, 0
        self.draw: Callable[[int, int, int, float, Tensor], Tensor] = functools.partial(drawn, seed)
        layers = [layer for layer in network.modules() if isinstance(layer, Dropout)]
        for number, layer in enumerate(layers):
            layer.register_forward_pre_hook(functools.partial(self._give, number))

    def at(self, step: int, first_place: int) -> None:
        """Say which step comes next, and the place in the global batch of this process's first example."""
        self.step, self.first_place = step, first_place

    def _give(self, number: int, layer: Dropout, inputs: tuple[Tensor]) -> None:
        if layer.training:
            layer.mask = self.draw(self.step, self.first_place, number, layer.rate, inputs[0])


def drawn(seed: int, step: int, first_place: int, number: int, rate: float, x: Tensor) -> Tensor:
    """Mask of one layer in one step, of the shape and on the device of its input `x`; False for a share `rate`."""
    # The 1 keeps the key apart from those of `augment.draw`.
    key = np.random.SeedSequence([seed, step, number, 1]).generate_state(1, np.uint64)
    width = x[0].numel()
    numbers = splitmix64(int(key[0]), first_place * width, x.numel(), x.device)
    share = shifted(numbers, 40).to(torch.float32) / 2**24  # in [0, 1), exact
    return (share >= rate).reshape(x.shape)
