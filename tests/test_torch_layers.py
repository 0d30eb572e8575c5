"""The PyTorch reference's own layers against the float64 loops and published reports."""

import numpy as np
import oracles
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from alexnet_io.errors import UserError
from torch_ref.layers import CeilConv2d, ClippedAvgPool2d, Dropout, LocalConv2d, ceil_output_size


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_ceil_sizes_are_those_of_clipped_windows(kernel: int, stride: int) -> None:
    for size in range(1, 20):
        windows = oracles.pool_size(size, kernel, stride, ceil=True)
        assert ceil_output_size(size, kernel, stride) == max(windows, 0)
        if windows > 0:
            pooled = torch.nn.MaxPool2d(kernel, stride, ceil_mode=True)(torch.ones(1, 1, size, size))
            assert pooled.shape[2] == windows


def test_no_window_starts_beyond_the_input() -> None:
    """https://github.com/pytorch/pytorch/issues/45357."""
    assert ceil_output_size(6, 1, 2) == 3


@pytest.mark.parametrize("size", [(5, 6), (6, 7), (7, 8), (8, 5)])
@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 0, 1), (2, 0, 2), (3, 1, 1), (4, 0, 1), (4, 2, 2)])
def test_ceil_convolution(
    rng: np.random.Generator, size: tuple[int, int], stride: int, padding: int, groups: int
) -> None:
    layer = CeilConv2d(4, 6, 5, stride=stride, padding=padding, groups=groups).double()
    x = rng.normal(size=(2, 4, *size))
    assert layer.bias is not None
    expected = oracles.conv(
        x,
        layer.weight.detach().numpy(),
        layer.bias.detach().numpy(),
        stride=stride,
        padding=padding,
        groups=groups,
        ceil=True,
    )
    assert_allclose(layer(torch.tensor(x)).detach().numpy(), expected, rtol=1e-11, atol=1e-13)


def test_average_pool_divides_by_the_clipped_area() -> None:
    """https://github.com/google/flax/pull/2451: 4.75, 15.25 and 12 at the edges would be the bug."""
    y = ClippedAvgPool2d(2, 3)(torch.arange(49.0).reshape(1, 1, 7, 7))
    assert_array_equal(y[0, 0].numpy(), [[4, 7, 9.5], [25, 28, 30.5], [42.5, 45.5, 48]])


@pytest.mark.parametrize("size", [(2, 2), (3, 4), (5, 8), (16, 12)])
def test_average_pool(rng: np.random.Generator, size: tuple[int, int]) -> None:
    x = rng.normal(size=(2, 3, *size))
    y = ClippedAvgPool2d(3, 2)(torch.tensor(x))
    assert_allclose(y.numpy(), oracles.avg_pool(x, 3, 2, ceil=True), rtol=1e-13, atol=1e-15)


def test_max_pool_never_sees_its_padding() -> None:
    """https://github.com/pytorch/pytorch/issues/41294, and the overhang of the ceil mode used here."""
    x = torch.tensor([-1.0, -2.0, -3.0]).reshape(1, 1, 1, 3)
    assert_array_equal(torch.nn.MaxPool2d((1, 3), 1, padding=(0, 1))(x).flatten(), [-1, -1, -2])
    x = -torch.arange(1.0, 17.0).reshape(1, 1, 4, 4)
    y = torch.nn.MaxPool2d(3, 2, ceil_mode=True)(x)
    assert_array_equal(y[0, 0], [[-1, -3], [-9, -11]])


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (1, 0), (2, 1)])
def test_local_convolution(rng: np.random.Generator, stride: int, padding: int) -> None:
    layer = LocalConv2d(3, 4, 3, map_size=(5, 6), stride=stride, padding=padding).double()
    x = rng.normal(size=(2, 3, 5, 6))
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    expected = oracles.local_conv(x, weight, bias, stride=stride, padding=padding)
    assert expected.shape[2:] == layer.output_size
    assert_allclose(layer(torch.tensor(x)).detach().numpy(), expected, rtol=1e-12, atol=1e-14)


def test_local_convolution_is_built_for_one_map_size() -> None:
    layer = LocalConv2d(3, 4, 3, map_size=(5, 6), padding=1)
    with pytest.raises(UserError, match=r"\(3, 5, 6\).*\(3, 6, 5\)"):
        layer(torch.ones(1, 3, 6, 5))
    with pytest.raises(UserError, match="5x5 window does not fit a map of 4x9"):
        LocalConv2d(3, 4, 5, map_size=(4, 9))


def test_dropout_rate_is_the_probability_of_dropping() -> None:
    """https://github.com/karpathy/convnetjs/pull/106: a rate taken for its complement shows only away from 0.5."""
    layer = Dropout(0.1)
    layer.generator = torch.Generator().manual_seed(0)
    x = torch.ones(20_000, dtype=torch.float64)
    y = layer(x)
    assert_allclose(np.unique(y.numpy()), [0, 10 / 9], rtol=1e-15)
    dropped = (y == 0).double().mean().item()
    assert abs(dropped - 0.1) < 4 * (0.1 * 0.9 / 20_000) ** 0.5
    assert not torch.equal(layer(x), y)
    layer.generator.manual_seed(0)
    assert torch.equal(layer(x), y)
    assert layer.eval()(x) is x


def test_dropout_rate_holds_in_bfloat16() -> None:
    """bfloat16 has 256 values between 1/2 and 1, too few for a rate of 1/1000."""
    torch.manual_seed(0)
    y = Dropout(0.001)(torch.ones(1_000_000, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert abs((y == 0).double().mean().item() - 0.001) < 4 * (0.001 / 1_000_000) ** 0.5


def test_dropout_takes_a_mask(rng: np.random.Generator) -> None:
    layer = Dropout(0.75).double()
    x = torch.tensor(rng.normal(size=(4, 5)), requires_grad=True)
    layer.mask = torch.tensor(rng.random((4, 5)) < 0.25)
    y = layer(x)
    assert torch.equal(y, torch.where(layer.mask, 4 * x, torch.zeros_like(x)))
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 4.0 * layer.mask)
    assert "mask" not in layer.state_dict()
    assert layer.eval()(x) is x


@pytest.mark.parametrize(
    "mask", [torch.ones(2, 3), torch.ones(3, 2, dtype=torch.bool), torch.ones(3, dtype=torch.bool)]
)
def test_dropout_refuses_a_mask_that_does_not_fit(mask: torch.Tensor) -> None:
    layer = Dropout()
    layer.mask = mask
    with pytest.raises(UserError, match=r"torch.bool of shape \(2, 3\)"):
        layer(torch.ones(2, 3))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_dropout_refuses_a_rate_out_of_range(rate: float) -> None:
    with pytest.raises(UserError, match=f"{rate}.*\\[0, 1\\)"):
        Dropout(rate)
