"""SplitMix64: random numbers of which any part can be had without the rest, alike on CPUs and GPUs.

Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014. Its n-th number is a function of n.
"""

import torch
from torch import Tensor

_GAMMA, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def splitmix64(seed: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Numbers `first` to `first + count` of SplitMix64's stream: their 64 bits as int64 (count,)."""
    places = torch.arange(first + 1, first + 1 + count, device=device)
    state = places * _signed(_GAMMA) + _signed(seed)  # modulo 2**64, as int64 wraps
    state = (state ^ shifted(state, 30)) * _signed(_FIRST)
    state = (state ^ shifted(state, 27)) * _signed(_SECOND)
    return state ^ shifted(state, 31)


def shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shifted right with zeros coming in, which int64's own shift doesn't do."""
    return (numbers >> bits) & (2 ** (64 - bits) - 1)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
