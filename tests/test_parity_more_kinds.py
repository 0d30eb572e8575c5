"""Windows in any number of directions, padding, resizing, softmax, embeddings, own norms: values, gradients, causes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from parity.causes.layer import related
from parity.causes.layer.parameters import Case, explain
from parity.kinds import registry, torch_leaves
from parity.kinds.layer import Layer, Recorded

ROW, LINE, MAP, VOLUME = (5, 6), (2, 4, 9), (2, 4, 7, 8), (2, 4, 4, 5, 6)
MODULES: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), LINE),
    (nn.Conv2d(4, 4, 3, padding=(2, 1), dilation=(2, 1), groups=4, bias=False), MAP),
    (nn.Conv2d(4, 6, (3, 5), padding="same", dilation=(1, 2)), MAP),
    (nn.Conv3d(4, 4, (2, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), groups=2), VOLUME),
    (nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), LINE),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), MAP),
    (nn.ConvTranspose3d(4, 2, 2, stride=2, bias=False), VOLUME),
    (nn.MaxPool1d(3, 2, padding=1), LINE),
    (nn.MaxPool2d(2, 2, dilation=2), MAP),
    (nn.MaxPool3d((1, 2, 2)), VOLUME),
    (nn.AvgPool1d(2, ceil_mode=True), LINE),
    (nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), MAP),
    (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), MAP),
    (nn.AvgPool3d(2, 1), VOLUME),
    (nn.ConstantPad2d((1, 2, 0, -1), 0.5), MAP),
    (nn.ReflectionPad2d((1, 2, 2, 0)), MAP),
    (nn.ReplicationPad1d((2, 1)), LINE),
    (nn.CircularPad2d(1), MAP),
    (nn.Upsample(scale_factor=2), MAP),
    (nn.Upsample((5, 13), mode="nearest"), MAP),
    (nn.Upsample((5, 13), mode="nearest-exact"), MAP),
    (nn.Upsample(scale_factor=(2, 1.5), mode="bilinear"), MAP),
    (nn.Upsample((9, 5), mode="bilinear", align_corners=True), MAP),
    (nn.Upsample(scale_factor=2, mode="bicubic"), MAP),
    (nn.Upsample(13, mode="linear"), LINE),
    (nn.Softmax(1), MAP),
    (nn.LogSoftmax(-1), MAP),
    (nn.GLU(1), MAP),
    (nn.ELU(0.5), ROW),
    (nn.CELU(2.0), ROW),
    (nn.SELU(), ROW),
    (nn.LeakyReLU(0.3), ROW),
    (nn.Softplus(beta=2), ROW),
    (nn.Hardtanh(-0.5, 1), ROW),
    (nn.Softsign(), ROW),
    (nn.LogSigmoid(), ROW),
    (nn.Tanhshrink(), ROW),
    (nn.BatchNorm2d(4, eps=0.1, track_running_stats=False), MAP),
]


def parts_of(module: nn.Module, x: Tensor) -> tuple[str, dict[str, Any], dict[str, np.ndarray], Layer]:
    """Class, settings and weights as they are recorded, and the layer in NumPy."""
    state = {key: value.numpy() for key, value in torch_leaves.state_of(module).items()}
    name = registry.known_class([base.__name__ for base in type(module).__mro__])
    settings = torch_leaves.settings_of(module)
    found = registry.layer(Recorded(name, settings, x.detach().numpy(), state))
    assert found is not None
    return name, settings, state, found


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("module", "shape"), MODULES, ids=lambda each: str(each))
def test_they_are_pytorchs_and_their_mistakes_are_named(module: nn.Module, shape: tuple[int, ...]) -> None:
    module = module.double()
    x = drawn(shape).requires_grad_()
    y = module(x)
    g = drawn(tuple(y.shape), 1)
    y.backward(g)
    name, settings, state, layer = parts_of(module, x)
    right = y.detach().numpy()
    np.testing.assert_allclose(layer.compute(), right, rtol=1e-11, atol=1e-12)
    gradient = layer.input_gradient(g.numpy())
    assert gradient is not None
    np.testing.assert_allclose(gradient, x.grad, rtol=1e-11, atol=1e-12)  # type: ignore[arg-type]
    for parameter_name, parameter in module.named_parameters():
        found = layer.weight_gradient(g.numpy(), parameter_name)
        np.testing.assert_allclose(found, parameter.grad, rtol=1e-11, atol=1e-12)  # type: ignore[arg-type]
    allowed, named = 1e-12 * (1 + np.abs(right)), set()
    for mistake in layer.mistakes():
        wrong = computed(mistake.apply(layer))
        if wrong is None or (wrong.shape == right.shape and np.allclose(wrong, right, rtol=1e-9, atol=1e-9)):
            continue
        causes = explain(Case(name, settings, x.detach().numpy(), state, state, right, wrong, allowed))
        assert causes, mistake
        named.add(mistake.key)
    assert named


def computed(layer: Layer | None) -> np.ndarray | None:
    try:
        return None if layer is None else layer.compute()
    except (ValueError, IndexError):
        return None


def test_pooling_counts_what_pytorch_counts() -> None:
    """In the last window that hangs over, padding counts and what lies beyond it doesn't."""
    x = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    module = nn.AvgPool2d(3, 2, padding=1, ceil_mode=True)
    np.testing.assert_allclose(parts_of(module, x)[3].compute(), module(x).numpy(), rtol=1e-14)


def test_one_example_alone_is_not_written_out() -> None:
    x = np.ones((4, 7, 8))
    assert registry.layer(Recorded("MaxPool2d", {"kernel_size": 2}, x)) is None
    weights = {"weight": np.ones((4, 4, 3, 3))}
    assert registry.layer(Recorded("Conv2d", {"stride": [1, 1], "padding": [0, 0]}, x, weights)) is None


def test_embeddings() -> None:
    module = nn.Embedding(6, 4, padding_idx=2).double()
    words = torch.tensor([[1, 2, 5], [1, 0, 4]])
    y = module(words)
    g = drawn(tuple(y.shape))
    y.backward(g)
    _, settings, state, layer = parts_of(module, words)
    np.testing.assert_array_equal(layer.compute(), y.detach().numpy())
    np.testing.assert_allclose(layer.weight_gradient(g.numpy(), "weight"), module.weight.grad)  # type: ignore[arg-type]
    [wrong] = layer.weight_gradient_mistakes(g.numpy(), "weight")
    assert np.argwhere(wrong.gradient != layer.weight_gradient(g.numpy(), "weight"))[:, 0].tolist() == [2] * 4
    right = y.detach().numpy()
    for key, ours in (("scaled", right * 2), ("row_shifted", state["weight"][(words.numpy() + 1) % 6])):
        case = Case("Embedding", settings, words.double().numpy(), state, state, right, ours, 1e-14 * np.abs(right))
        assert [cause.key for cause in explain(case)] == [key]


class OwnNorm(nn.Module):
    def __init__(self, centred: bool, outside: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn((6,)))
        self.variance_epsilon, self.centred, self.outside = 1e-4, centred, outside

    def forward(self, x: Tensor, epsilon: float | None = None, ddof: int = 0) -> Tensor:
        epsilon = self.variance_epsilon if epsilon is None else epsilon
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        variance = (x**2).sum(-1, keepdim=True) / (x.shape[-1] - ddof)
        return self.weight * x / (variance.sqrt() + epsilon if self.outside else (variance + epsilon).sqrt())


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("outside", [True, False])
def test_someones_own_norm_is_known_by_what_it_gives(centred: bool, outside: bool) -> None:
    module, x = OwnNorm(centred, outside), drawn(ROW)
    right, state = module(x).detach().numpy(), {"weight": module.weight.detach().numpy()}

    def causes(ours: Tensor) -> list[str]:
        found = explain(
            Case(
                "OwnNorm",
                torch_leaves.settings_of(module),
                x.numpy(),
                state,
                state,
                right,
                ours.detach().numpy(),
                1e-14 * np.abs(right),
            )
        )
        return [cause.key for cause in found]

    assert causes(module(x, epsilon=1e-6)) == ["epsilon"]
    assert causes(module(x, ddof=1)) == ["variance_unbiased"]
    assert causes(OwnNorm(centred, not outside).forward(x)) != []
    assert causes(torch.sin(module(x))) == []


def test_weights_are_described_by_what_was_done_to_them(rng: np.random.Generator) -> None:
    w, rows = rng.normal(size=(4, 4)) + 3, rng.normal(size=(4, 6))
    for ours, key in (
        (w.T, "kernel_transposed"),
        (w - 1, "scale_from_one"),
        (np.sqrt(w), "root"),
        (np.exp(w), "exponential"),
        (np.ones_like(w), "not_converted"),
        (np.sin(w), "weight_differs"),
    ):
        assert related.described("weight", w, ours).key == key
    assert related.described("weight", rows, rows.T.reshape(4, 6)).key == "kernel_reshaped"
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(4, 4))
    case = Case(
        "Linear",
        {},
        x,
        {"weight": w},
        {"weight": y},
        x @ w.T,
        x @ y.T,
        1e-13 * np.ones((3, 4)),
        elsewhere=lambda: [("k_proj", "weight", y)],
    )
    [cause] = explain(case)
    assert cause.key == "weights_exchanged" and "PyTorch's weight of k_proj" in cause.text
