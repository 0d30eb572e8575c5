"""The PyTorch reference's response normalisation against published values, the float64 loops and PyTorch."""

import facts
import numpy as np
import oracles
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from alexnet_io.errors import UserError
from torch_ref.lrn import (
    LocalResponseNorm,
    SpatialResponseNorm,
    local_response_norm,
    spatial_response_norm,
)

SETTINGS = [
    # Few settings that together reach every branch: even and odd, wider than the channels, columns, alpha or mean.
    {"size": 5, "alpha": 1.0, "beta": 0.75, "k": 2.0, "divide_by_size": False},
    {"size": 5, "alpha": 1.0, "beta": 0.75, "k": 1.0},
    {"size": 2, "alpha": 1.0, "beta": 0.75, "k": 1.0},
    {"size": 2, "alpha": 1.0, "beta": 0.75, "k": 1.0, "even": "right"},
    {"size": 4, "alpha": 0.7, "beta": 0.5, "k": 0.3, "even": "right", "columns": 2},
    {"size": 4, "alpha": 0.7, "beta": 1.3, "k": 0.3, "columns": 3},
    {"size": 1, "alpha": 2.0, "beta": 0.75, "k": 1.0},
    {"size": 12, "alpha": 2.0, "beta": 0.75, "k": 1.0},
    {"size": 31, "alpha": 2.0, "beta": 0.75, "k": 1.0},
    {"size": 30, "alpha": 2.0, "beta": 0.75, "k": 1.0, "even": "right", "columns": 2},
]


def column(values: tuple[float, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype).reshape(1, -1, 1, 1)


@pytest.mark.parametrize("case", facts.LRN_CASES, ids=lambda case: case.name)
def test_check_values(case: facts.LrnCase) -> None:
    y = local_response_norm(column(case.x), **case.settings._asdict())
    assert y.dtype == torch.float64
    assert_allclose(y.flatten().numpy(), case.y, rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize("settings", SETTINGS)
def test_values_and_gradients_are_the_formulas(rng: np.random.Generator, settings: dict) -> None:
    x, g = rng.normal(scale=3, size=(2, 2, 12, 3, 2))
    leaf = torch.tensor(x, requires_grad=True)
    y = LocalResponseNorm(**settings)(leaf)
    y.backward(torch.tensor(g))
    assert_allclose(y.detach().numpy(), oracles.lrn(x, **settings), rtol=1e-14)
    assert leaf.grad is not None
    bound = oracles.lrn_gradient(x, g, magnitudes=True, **settings)
    error = np.abs(leaf.grad.numpy() - oracles.lrn_gradient(x, g, **settings))
    assert np.all(error <= 32 * np.finfo(np.float64).eps * bound)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_agrees_with_pytorch(rng: np.random.Generator, size: int) -> None:
    x = torch.tensor(rng.normal(scale=10, size=(2, 7, 3, 4)))
    theirs = torch.nn.LocalResponseNorm(size, alpha=0.9, beta=0.75, k=1.5)(x)
    assert_allclose(local_response_norm(x, size=size, alpha=0.9, beta=0.75, k=1.5), theirs, rtol=1e-13)


@pytest.mark.parametrize("k", [1.0, 1e-3])
def test_tiny_and_huge_values_side_by_side_in_float32(rng: np.random.Generator, k: float) -> None:
    """A running sum would lose the 1e-8 beside the 1e5; here every value keeps float32's precision."""
    x = (10 ** rng.uniform(-8, 5, size=(4, 64, 3, 3)) * rng.choice([-1, 1], size=(4, 64, 3, 3))).astype(np.float32)
    g = rng.normal(size=x.shape).astype(np.float32)
    settings: dict = {"size": 5, "alpha": 1.0, "beta": 0.75, "k": k}
    leaf = torch.tensor(x, requires_grad=True)
    y = local_response_norm(leaf, **settings)
    y.backward(torch.tensor(g))
    assert y.dtype == torch.float32
    eps = float(np.finfo(np.float32).eps)
    assert_allclose(y.detach().numpy(), oracles.lrn(x, **settings), rtol=8 * eps)
    assert leaf.grad is not None
    error = np.abs(leaf.grad.numpy() - oracles.lrn_gradient(x, g, **settings))
    assert np.all(error <= 32 * eps * oracles.lrn_gradient(x, g, magnitudes=True, **settings))


@pytest.mark.parametrize(("dtype", "low", "high"), [(torch.float16, 110.1, 110.4), (torch.bfloat16, 109.5, 110.5)])
def test_half_precision_does_not_overflow(dtype: torch.dtype, low: float, high: float) -> None:
    """https://github.com/NVIDIA/caffe/issues/135: 300 squared is beyond float16."""
    y = local_response_norm(column((300.0,), dtype), size=5, alpha=1e-4, beta=0.75, k=2.0)
    assert y.dtype == dtype
    assert low <= y.item() <= high


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", [local_response_norm, spatial_response_norm])
def test_half_precision_rounds_once(rng: np.random.Generator, dtype: torch.dtype, norm) -> None:
    """All the arithmetic is float32's: the result is the exact one of the rounded input, rounded."""
    x = torch.tensor(rng.normal(scale=3, size=(1, 16, 4, 4))).to(dtype)
    settings: dict = {"size": 5, "alpha": 1.0, "beta": 0.75, "k": 2.0}
    exact = norm(x.double(), **settings)
    info = torch.finfo(dtype)
    subnormal = info.smallest_normal * info.eps
    assert_allclose(norm(x, **settings).double(), exact, rtol=0.51 * info.eps, atol=subnormal)


def test_squares_beyond_float32_give_zero_and_no_nan() -> None:
    """https://github.com/tensorflow/tensorflow/issues/46996."""
    x = column((-2e38, 1.0, 1e38, 1.0, 1.0, 1.0, 1.0), torch.float32).requires_grad_()
    y = local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=2.0)
    y.sum().backward()
    assert_allclose(y.detach().flatten().numpy()[:5], 0, atol=1e-15)
    # The windows of the last two hold four and three ones and nothing else.
    assert_allclose(y.detach().flatten().numpy()[5:], [2.00008**-0.75, 2.00006**-0.75], rtol=1e-6)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_normalises_channels_and_nothing_else(rng: np.random.Generator) -> None:
    """https://github.com/FluxML/Flux.jl/pull/720: one pixel's value is no matter of another's."""
    x = torch.tensor(rng.normal(size=(2, 6, 3, 3)))
    changed = x.clone()
    changed[0, :, 1, 1] = 100
    settings: dict = {"size": 5, "alpha": 1.0, "beta": 0.75, "k": 1.0}
    before, after = local_response_norm(x, **settings), local_response_norm(changed, **settings)
    after[0, :, 1, 1] = before[0, :, 1, 1]
    assert_array_equal(after, before)


def test_order_of_layers() -> None:
    """https://github.com/BVLC/caffe/issues/296: LRN before the pool is not LRN after it, nor ReLU and LRN."""
    lrn = LocalResponseNorm(5, alpha=1.0, beta=0.75, k=2.0)
    pool = torch.nn.MaxPool2d((1, 2))
    pixels = torch.tensor([[4.0, 1.0], [3.0, 9.0]], dtype=torch.float64).T.reshape(1, 2, 1, 2)
    assert_allclose(pool(lrn(pixels)).flatten(), [1.1291839, 0.9516341], atol=6e-8)
    assert_allclose(lrn(pool(pixels)).flatten(), [0.4020219, 0.9045492], atol=6e-8)
    signed = column((-3.0, 1.0))
    assert_allclose(lrn(torch.relu(signed)).flatten(), [0, 0.5535833], atol=6e-8)
    assert_allclose(torch.relu(lrn(signed)).flatten(), [0, 0.3535534], atol=6e-8)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_spatial_norm_is_the_formula(rng: np.random.Generator, size: int) -> None:
    x, g = rng.normal(scale=3, size=(2, 2, 2, 6, 5))
    settings: dict = {"size": size, "alpha": 4.0, "beta": 0.75, "k": 0.8}
    leaf = torch.tensor(x, requires_grad=True)
    y = SpatialResponseNorm(**settings)(leaf)
    y.backward(torch.tensor(g))
    assert_allclose(y.detach().numpy(), oracles.spatial_response_norm(x, **settings), rtol=1e-13)
    numeric = oracles.finite_differences(lambda v: oracles.spatial_response_norm(v, **settings), x, g)
    assert leaf.grad is not None
    assert_allclose(leaf.grad.numpy(), numeric, atol=1e-8)


def test_spatial_norm_of_float16() -> None:
    x = torch.full((1, 1, 1, 1), 300.0, dtype=torch.float16)
    y = spatial_response_norm(x, size=3, alpha=9e-4, beta=0.75, k=1.0)
    assert y.dtype == torch.float16
    assert_allclose(y.item(), 300 / 10**0.75, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 0}, ["0", "at least 1"]),
        ({"size": 2, "even": "up"}, ["'up'", "left", "right"]),
        ({"size": 3, "columns": 4}, ["4 columns", "6 channels", "divisor"]),
        ({"size": 3, "columns": 0}, ["0 columns"]),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        local_response_norm(torch.ones(1, 6, 1, 1), alpha=1.0, beta=0.75, k=1.0, **settings)
    for word in words:
        assert word in str(error.value)
