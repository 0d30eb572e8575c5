"""Local response normalisation, written from the formulas.

Across maps (paper, section 3.3)::

    y_i = x_i / (k + a * sum_{j in W(i)} x_j^2) ^ beta

``a`` is alpha itself in the paper and in TensorFlow, and alpha/size in cuda-convnet, Caffe and PyTorch.
W(i) is a window of ``size`` channels around i, clipped at the first and the last channel; an even window
has its extra channel on the left (cuda-convnet, PyTorch) or on the right (ONNX).

The same map (cuda-convnet's ``rnorm``) sums over a size x size neighbourhood of pixels in one map instead.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_io.errors import UserError


def local_response_norm(
    x: Tensor,
    *,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    divide_by_size: bool = True,
    even: str = "left",
    columns: int = 1,
) -> Tensor:
    """Normalise every value by its neighbours in the other maps.

    Args:
        x: Maps of shape (N, C, ...), channels second.
        size: Number of channels in the window; may exceed the number of channels.
        alpha: Weight of the sum of squares.
        beta: Exponent.
        k: Added to the weighted sum. With k = 0 a window of zeros is undefined (0/0).
        divide_by_size: Use alpha/size (cuda-convnet, Caffe, PyTorch) rather than alpha (the paper).
        even: The side where an even window has its extra channel, "left" or "right".
        columns: Number of equal channel blocks that windows do not cross.

    Returns:
        Tensor of the shape and dtype of ``x``; float16 and bfloat16 are computed in float32.

    Raises:
        UserError: A setting is out of range, or the columns do not divide the channels.
    """
    _check_window(size, even)
    channels = x.shape[1]
    if columns < 1 or channels % columns:
        raise UserError(f"{columns} columns do not divide {channels} channels; choose a divisor of {channels}")
    wide = _widen(x)
    # alpha first: alpha * x * x stays finite where x * x alone would overflow.
    squares = (alpha / size if divide_by_size else alpha) * wide * wide
    per_column = squares.reshape(x.shape[0], columns, channels // columns, *x.shape[2:])
    total = _window_sum(per_column, dim=2, size=size, even=even).reshape(x.shape)
    return (wide * (k + total) ** -beta).to(x.dtype)


def spatial_response_norm(
    x: Tensor, *, size: int, alpha: float, beta: float, k: float = 1.0, even: str = "left"
) -> Tensor:
    """Normalise every value by its size x size neighbourhood in the same map.

    Written from cuda-convnet's documentation: ``y = x / (k + alpha/size^2 * sum x^2) ^ beta``, windows clipped
    at the borders. The kernel of the 2012 release is not public, so k = 1 is an assumption there.

    Args:
        x: Maps of shape (N, C, H, W).
        size: Side of the neighbourhood in pixels.
        alpha: Weight of the sum of squares before the division by size^2.
        beta: Exponent.
        k: Added to the weighted sum.
        even: The side where an even window has its extra pixel, "left" (and top) or "right" (and bottom).

    Returns:
        Tensor of the shape and dtype of ``x``; float16 and bfloat16 are computed in float32.
    """
    _check_window(size, even)
    wide = _widen(x)
    squares = alpha / size**2 * wide * wide
    rows = _window_sum(squares, dim=2, size=size, even=even)
    total = _window_sum(rows, dim=3, size=size, even=even)
    return (wide * (k + total) ** -beta).to(x.dtype)


class LocalResponseNorm(nn.Module):
    """`local_response_norm` as a layer."""

    def __init__(
        self,
        size: int,
        *,
        alpha: float,
        beta: float,
        k: float,
        divide_by_size: bool = True,
        even: str = "left",
        columns: int = 1,
    ) -> None:
        super().__init__()
        _check_window(size, even)
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.divide_by_size = divide_by_size
        self.even = even
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        """Normalise maps of shape (N, C, ...)."""
        return local_response_norm(
            x,
            size=self.size,
            alpha=self.alpha,
            beta=self.beta,
            k=self.k,
            divide_by_size=self.divide_by_size,
            even=self.even,
            columns=self.columns,
        )

    def extra_repr(self) -> str:
        """Settings, for printing."""
        return (
            f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, "
            f"divide_by_size={self.divide_by_size}, even={self.even!r}, columns={self.columns}"
        )


class SpatialResponseNorm(nn.Module):
    """`spatial_response_norm` as a layer."""

    def __init__(self, size: int, *, alpha: float, beta: float, k: float = 1.0, even: str = "left") -> None:
        super().__init__()
        _check_window(size, even)
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.even = even

    def forward(self, x: Tensor) -> Tensor:
        """Normalise maps of shape (N, C, H, W)."""
        return spatial_response_norm(x, size=self.size, alpha=self.alpha, beta=self.beta, k=self.k, even=self.even)

    def extra_repr(self) -> str:
        """Settings, for printing."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, even={self.even!r}"


def _window_sum(x: Tensor, *, dim: int, size: int, even: str) -> Tensor:
    """Sum over a clipped window along one dimension: shifted copies, added.

    No running sum: subtracting a large value again would wipe out the small ones beside it.
    """
    length = x.shape[dim]
    before, after = (size // 2, (size - 1) // 2) if even == "left" else ((size - 1) // 2, size // 2)
    before, after = min(before, length - 1), min(after, length - 1)
    padding = [0, 0] * (x.ndim - 1 - dim) + [before, after]
    padded = F.pad(x, padding)
    total = padded.narrow(dim, 0, length)
    for start in range(1, before + after + 1):
        total = total + padded.narrow(dim, start, length)
    return total


def _widen(x: Tensor) -> Tensor:
    """Float16 and bfloat16 as float32; wider types as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _check_window(size: int, even: str) -> None:
    if size < 1:
        raise UserError(f"a window of {size} is empty; the size must be at least 1")
    if even not in ("left", "right"):
        raise UserError(f"even={even!r} is not a side; choose 'left' (PyTorch, cuda-convnet) or 'right' (ONNX)")
