"""Dropout masks that depend on an example's place in the global batch, not on the process that computes it."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from torch_ref.layers import Dropout

# SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): its n-th number is a
# function of n, so any part of the stream can be had without the rest, alike on CPUs and GPUs.
_GAMMA, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


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
    share = _shifted(numbers, 40).to(torch.float32) / 2**24  # in [0, 1), exact
    return (share >= rate).reshape(x.shape)


def splitmix64(seed: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Numbers `first` to `first + count` of SplitMix64's stream: their 64 bits as int64 (count,)."""
    places = torch.arange(first + 1, first + 1 + count, device=device)
    state = places * _signed(_GAMMA) + _signed(seed)  # modulo 2**64, as int64 wraps
    state = (state ^ _shifted(state, 30)) * _signed(_FIRST)
    state = (state ^ _shifted(state, 27)) * _signed(_SECOND)
    return state ^ _shifted(state, 31)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shifted right with zeros coming in, which int64's own shift doesn't do."""
    return (numbers >> bits) & (2 ** (64 - bits) - 1)
