"""Rounding rules of complex numbers, transforms, sampling, grouped attention, and operations that are met less."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.test_parity_operations import assert_within_bound

Cases = dict[str, tuple[Callable[..., Tensor], Sequence[tuple[int, ...]]]]


def turned(x: Tensor) -> Tensor:
    """A rotary embedding by complex products."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    angles = torch.arange(12, dtype=x.dtype).reshape(4, 3)
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def filtered(x: Tensor, w: Tensor) -> Tensor:
    """A global filter: multiplied in the space of frequencies."""
    spectrum = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(w)
    return torch.fft.irfft2(spectrum, s=(6, 6), norm="ortho")


def stft(x: Tensor) -> Tensor:
    window = torch.hann_window(8, dtype=x.dtype)
    return torch.view_as_real(torch.stft(x, 8, 4, window=window, return_complex=True))


COMPLEX: Cases = {
    "rotary": (turned, [(2, 4, 6)]),
    "rfft": (lambda x: torch.view_as_real(torch.fft.rfft(x)), [(3, 8)]),
    "rfft of 7": (lambda x: torch.view_as_real(torch.fft.rfft(x)), [(3, 7)]),
    "real part": (lambda x: torch.fft.fft2(x).real, [(3, 8, 6)]),
    "modulus": (lambda x: torch.fft.fft(x).abs(), [(3, 8)]),
    "filter": (filtered, [(2, 6, 6), (6, 4, 2)]),
    "stft": (stft, [(1, 32)]),
    "polar": (lambda a, b: torch.view_as_real(torch.polar(a.abs(), b) + torch.complex(a, b)), [(3, 5)] * 2),
    "quotient": (lambda a, b: torch.view_as_real(torch.complex(a, b) / torch.complex(b, a)), [(3, 5)] * 2),
    "conjugate": (lambda a, b: torch.view_as_real(torch.complex(a, b).conj() * torch.complex(b, a)), [(3, 5)] * 2),
}

SAMPLED: Cases = {
    "bicubic": (lambda x: F.interpolate(x, size=(9, 5), mode="bicubic"), [(1, 2, 6, 6)]),
    "bicubic, corners": (lambda x: F.interpolate(x, size=(9, 5), mode="bicubic", align_corners=True), [(1, 2, 6, 6)]),
    "bicubic, by factors": (lambda x: F.interpolate(x, scale_factor=(1.5, 2.5), mode="bicubic"), [(1, 2, 6, 4)]),
    "bicubic, smoothed": (lambda x: F.interpolate(x, size=(3, 4), mode="bicubic", antialias=True), [(1, 2, 9, 9)]),
    "sampled": (lambda x, g: F.grid_sample(x, 0.5 * torch.tanh(g), align_corners=False), [(1, 2, 6, 6), (1, 3, 3, 2)]),
    "at the border": (
        lambda x, g: F.grid_sample(x, g, align_corners=True, padding_mode="border"),
        [(1, 2, 6, 6), (1, 3, 3, 2)],
    ),
    "affine grid": (lambda t: F.affine_grid(t, [1, 2, 4, 4], align_corners=False), [(1, 2, 3)]),
}

PLACES = torch.tensor([[1, 1], [0, 1], [2, 2]])
OTHERS: Cases = {
    "grouped attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        [(2, 4, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4)],
    ),
    "causal grouped attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
        [(2, 4, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4)],
    ),
    "cdist": (torch.cdist, [(3, 5), (4, 5)]),
    "cdist of 1": (lambda a, b: torch.cdist(a, b, p=1.0), [(3, 5), (4, 5)]),
    "select_scatter": (lambda a, b: torch.select_scatter(a * 3, b * 3, 0, 1), [(3, 5), (5,)]),
    "slice_scatter": (lambda a, b: torch.slice_scatter(a * 3, b * 3, 0, 1, 2), [(3, 5), (1, 5)]),
    "index_copy": (lambda a, b: (a * 3).index_copy(0, torch.tensor([2, 0]), b * 3), [(3, 5), (2, 5)]),
    "scatter mean": (lambda a, b: (a * 3).scatter_reduce(1, PLACES, b * 3, "mean"), [(3, 5), (3, 2)]),
    "scatter amax": (lambda a, b: (a * 3).scatter_reduce(1, PLACES, b * 3, "amax"), [(3, 5), (3, 2)]),
    "masked_scatter": (lambda a, b: (a * 3).masked_scatter(torch.eye(3, 5).bool(), b * 3), [(3, 5), (3,)]),
    "addr": (torch.addr, [(3, 5), (3,), (5,)]),
    "cross": (torch.linalg.cross, [(4, 3), (4, 3)]),
    "logit": (lambda a: torch.logit(torch.sigmoid(a)), [(3, 5)]),
    "logaddexp2": (torch.logaddexp2, [(3, 5), (3, 5)]),
    "copysign": (lambda a, b: torch.copysign(a * 3, b.detach()), [(3, 5), (3, 5)]),
    "logspace": (lambda a: a * torch.logspace(0, 1, 5, dtype=a.dtype), [(3, 5)]),
    "block_diag": (lambda a, b: torch.block_diag(a * 3, b), [(3, 5), (2, 2)]),
    "bessel": (lambda a: torch.special.i0(a) + torch.special.i0e(a), [(3, 5)]),
    "digamma": (lambda a: torch.digamma(a.abs() + 1), [(3, 5)]),
    "lp_pool": (lambda a: F.lp_pool2d(a, 2, 2), [(1, 3, 8, 8)]),
    "norm of infinity": (lambda a: a.norm(p=math.inf, dim=1), [(3, 5)]),
    "cosine": (F.cosine_similarity, [(3, 5), (3, 5)]),
}


@pytest.mark.parametrize("cases", [COMPLEX, SAMPLED, OTHERS], ids=["complex", "sampled", "others"])
def test_rules(cases: Cases, rng: np.random.Generator) -> None:
    for name, (function, shapes) in cases.items():
        assert_within_bound(name, function, [rng.normal(size=shape).astype(np.float32) for shape in shapes])
