"""Functions of which PyTorch computes another form than their formula, by more than roundings, and that form put right.

Three of its kernels do in every precision. Above its threshold `softplus` gives x itself, exp(-beta x) / beta too
little, and its gradient lacks the same share; `hardsigmoid`'s gradient holds its 1/6 in float32. (Found by holding all
activations to 60 digits: `mish`, `logsigmoid`, `logaddexp` and the losses that are built on them have no such
threshold.) A port that computes the formula is right, but no roundings' bound of a whole network covers that. So where
a run really met one of them, the model is run once more with the formula in its place: how far its numbers move is what
either form may lie apart, and all that is allowed beside roundings.

A threshold below PyTorch's own is somebody's choice, which a port has to make as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SOFTPLUS_THRESHOLD = 20.0  # PyTorch's own


def _numbers(args: tuple, kwargs: dict, names: tuple[tuple[str, int, float], ...]) -> list[float]:
    return [float(args[i] if i < len(args) else kwargs.get(name, default)) for name, i, default in names]


def _softplus(result: Tensor, args: tuple, kwargs: dict) -> Tensor:
    x = args[0]
    names = ("beta", 1, 1.0), ("threshold", 2, SOFTPLUS_THRESHOLD)
    beta, threshold = _numbers(args, kwargs, names)
    above = (beta * x > threshold) & (threshold >= SOFTPLUS_THRESHOLD)
    return torch.where(above, x + torch.log1p(torch.exp(-beta * x)) / beta, result)


def _softplus_backward(result: Tensor, args: tuple, kwargs: dict) -> Tensor:
    g, x, beta, threshold = args[0], args[1], float(args[2]), float(args[3])
    above = (beta * x > threshold) & (threshold >= SOFTPLUS_THRESHOLD)
    return torch.where(above, g * torch.sigmoid(beta * x), result)


def _hardsigmoid_backward(result: Tensor, args: tuple, kwargs: dict) -> Tensor:
    return torch.where(result != 0, args[0] / 6, result)


FORMS: dict[str, Callable[[Tensor, tuple, dict], Tensor]] = {
    "softplus": _softplus,
    "softplus_backward": _softplus_backward,
    "hardsigmoid_backward": _hardsigmoid_backward,
}


def departs(name: str, result: Any, args: tuple, kwargs: dict) -> bool:
    """Whether an operation gave something else than its formula does.

    Args:
        name: without `aten::`.
        result: what it gave.
        args: what it was given.
        kwargs: likewise, by name.
    """
    return name in FORMS and not torch.equal(FORMS[name](result, args, kwargs), result)


class Forms(TorchDispatchMode):
    """While active, sees whether a function gave something else than its formula.

    Args:
        exact: give the formula's value instead.

    Attributes:
        met: whether one did; only where that isn't changed.
    """

    def __init__(self, exact: bool = False) -> None:
        super().__init__()
        self.exact, self.met = exact, False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        result = func(*args, **kwargs)
        if self.exact:
            return FORMS[name](result, args, kwargs) if name in FORMS else result
        self.met = self.met or departs(name, result, args, kwargs)
        return result
