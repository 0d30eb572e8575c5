"""Tensors in a comparison: PyTorch's precisions, NumPy arrays as tensors and back. Imports PyTorch and NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_flatten

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def pin_precision() -> None:
    """Full float32 everywhere: TF32 is PyTorch's default for convolutions on GPUs, and JAX's for both."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def as_tensors(inputs: tuple[NDArray, ...], dtype: str) -> tuple[Tensor, ...]:
    """NumPy inputs as tensors: floating point in the run's dtype, integers as they are."""
    tensors = (torch.from_numpy(np.asarray(x, order="C")) for x in inputs)
    return tuple(t.to(DTYPES[dtype]) if t.is_floating_point() else t for t in tensors)


def to_numpy(tensor: Tensor) -> NDArray:
    """A detached copy-free array; bfloat16 and float16 become float32, which holds them exactly."""
    tensor = tensor.detach()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return tensor.cpu().numpy()


def tensors_in(result: Any) -> list[Tensor]:
    """The tensors of a result, however nested, in order."""
    return [t for t in tree_flatten(result)[0] if isinstance(t, Tensor)]


def differentiable(x: Tensor) -> Tensor:
    """A tensor of its own, from which gradients may flow back where they are on."""
    return x.detach().clone().requires_grad_(torch.is_grad_enabled() and x.is_floating_point())
