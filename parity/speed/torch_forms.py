"""PyTorch's networks for timing: as users write them, and in the forms of which the fastest is its best.

A form says, with a dash between: `shifted`, LRN as shifted sums with reciprocal roots, whose backward pass a compiler
fuses (PyTorch's own LRN is a 3-d average pool and a general power); left out, LRN is `torch.nn.LocalResponseNorm`. Then
the memory format, `nchw` or `channels_last`. Then `eager`, `compiled` (on GPUs with CUDA graphs), or in inference
`frozen`: compiled with the weights as constants, which the compiler may lay out anew. On GPUs `autotuned` is compiled
with `max-autotune`, which times many kernels for each product and convolution.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref import alexnet
from torch_ref.layers import Dropout
from torch_ref.lrn import LocalResponseNorm


class UsersNorm(nn.Module):
    """`torch.nn.LocalResponseNorm`, one for each column; alpha is multiplied by the window where it isn't divided."""

    def __init__(self, norm: LocalResponseNorm) -> None:
        super().__init__()
        alpha = norm.alpha if norm.divide_by_size else norm.alpha * norm.size
        self.columns = norm.columns
        self.norm = nn.LocalResponseNorm(norm.size, alpha, norm.beta, norm.k)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if self.columns == 1:
            return self.norm(x)
        return torch.cat([self.norm(part) for part in x.chunk(self.columns, dim=1)], dim=1)


class ShiftedNorm(nn.Module):
    """LRN as a sum of shifted squares; the power 3/4 as reciprocal roots."""

    def __init__(self, norm: LocalResponseNorm) -> None:
        super().__init__()
        self.scale = norm.alpha / norm.size if norm.divide_by_size else norm.alpha
        self.size, self.beta, self.k, self.columns = norm.size, norm.beta, norm.k, norm.columns

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        batch, channels, height, width = x.shape
        wide = x.float()
        squares = (wide * wide).reshape(batch, self.columns, channels // self.columns, height, width)
        before = self.size // 2
        padded = F.pad(squares, (0, 0, 0, 0, before, self.size - 1 - before))
        total = sum(padded[:, :, i : i + channels // self.columns] for i in range(self.size))
        base = self.k + self.scale * total.reshape(x.shape)  # type: ignore[union-attr]
        if self.beta == 0.75:
            root = base.rsqrt()
            return (wide * (root * root.sqrt())).to(x.dtype)
        return (wide * base**-self.beta).to(x.dtype)


def network(model: str, classes: int, image_size: int, form: str, dropout: bool = True) -> nn.Module:
    """The reference's network with the form's norms and PyTorch's own dropout, or none."""
    found = alexnet.build(model, classes, image_size)
    norm = ShiftedNorm if form.startswith("shifted-") else UsersNorm
    for name, child in list(found.named_children()):
        if isinstance(child, LocalResponseNorm):
            setattr(found, name, norm(child))
        if isinstance(child, Dropout):
            setattr(found, name, nn.Dropout(child.rate) if dropout else nn.Identity())
    return found


def arranged(module: nn.Module, form: str) -> tuple[nn.Module, Any]:
    """The network in a form's memory layout, and the memory format of its input."""
    layout = torch.channels_last if "channels_last" in form else torch.contiguous_format
    return module.to(memory_format=layout), layout


def compiled(module: Any, form: str, gpu: bool) -> Any:
    """The network compiled, if the form says so."""
    if form.endswith("eager"):
        return module
    mode = "max-autotune" if form.endswith("autotuned") else "reduce-overhead"
    options: dict[str, Any] = dict(torch._inductor.list_mode_options(mode)) if gpu else {}
    return torch.compile(module, options=options | {"freezing": form.endswith("frozen")})
