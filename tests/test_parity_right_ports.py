"""Right ports that must be equal: scalars, inputs of any rank and order, roundings of a whole pass, a batch's own."""

from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from torch import Tensor, nn

import parity
from parity.errors import CannotCompare

pytestmark = pytest.mark.usefixtures("flax_promotes")


def shaken(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.uniform_(-1, 1)
    return module


class TorchLoss(nn.Module):
    """Words and weights of theirs: whole numbers come before others."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(5, 3), nn.Linear(3, 2)

    def forward(self, words: Tensor, weights: Tensor) -> Tensor:
        rows = self.head(self.table(words) * weights[..., None])
        return (rows**2).mean()


class NnxLoss(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.table, self.head = nnx.Embed(5, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, words: Any, weights: Any) -> Any:
        return jnp.mean(self.head(self.table(words) * weights[..., None]) ** 2)


def test_a_scalar_of_words_and_their_weights(rng: np.random.Generator) -> None:
    """nnx's embedding wrote down float32 as it was made; the second input's gradient is the first one's number."""
    inputs = rng.integers(0, 5, (2, 4)), rng.normal(size=(2, 4))
    report = parity.compare(NnxLoss(), shaken(TorchLoss()), inputs)
    assert report.exit_code == 0, str(report)
    [row] = [row for row in report.rows if row.name == "input"]
    assert row.shape == (2, 4) and row.torch != 0
    assert next(row.shape for row in report.rows if row.name == "output") == ()


def test_an_embedding_of_another_dtype_is_still_told(rng: np.random.Generator) -> None:
    model = NnxLoss()
    model.table.dtype = jnp.bfloat16
    inputs = rng.integers(0, 5, (2, 4)), rng.normal(size=(2, 4))
    first = parity.compare(model, shaken(TorchLoss()), inputs).first_divergence
    assert first is not None and (first.name, first.verdict) == ("table", "dtype")


class TorchGate(nn.Module):
    """A layer whose first input are whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 3))

    def forward(self, words: Tensor, x: Tensor) -> Tensor:
        return self.weight[words] * torch.sin(x)


class Gate(linen.Module):
    @linen.compact
    def __call__(self, words: Any, x: Any) -> Any:
        return self.param("weight", linen.initializers.ones, (5, 3))[words] * jnp.sin(x)


class TorchGated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.gate = nn.Linear(3, 3), TorchGate()

    def forward(self, words: Tensor, x: Tensor) -> Tensor:
        return self.gate(words, self.enter(x))


class Gated(linen.Module):
    @linen.compact
    def __call__(self, words: Any, x: Any) -> Any:
        return Gate(name="gate")(words, linen.Dense(3, name="enter")(x))


def test_gradients_pass_a_layer_whose_first_input_has_none(rng: np.random.Generator) -> None:
    inputs = rng.integers(0, 5, 4), rng.normal(size=(4, 3))
    report = parity.compare(Gated(), shaken(TorchGated()), inputs)
    assert report.exit_code == 0, str(report)
    [row] = [row for row in report.rows if (row.name, row.stage) == ("enter", "cotangent")]
    assert row.torch != 0


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5, 6)], ids=["time", "volume"])
def test_inputs_of_any_rank_are_turned_back(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    made: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 3: nn.Conv3d}
    count = len(shape) - 2
    original = nn.Sequential(made[count](3, 4, 3, padding=1))
    ported = linen.Sequential([linen.Conv(4, (3,) * count, padding=1)])
    x = rng.normal(size=shape)
    report = parity.compare(
        ported, shaken(original), x, flax_inputs=(np.moveaxis(x, 1, -1),), mapping={"layers_0": "0"}
    )
    assert report.exit_code == 0, str(report)
    assert any(row.name == "input" and row.shape == np.moveaxis(x, 1, -1).shape for row in report.rows)


class TorchPadded(nn.Module):
    """Maps that lie channels last in memory, and a sum of many terms that cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.conv, self.second = nn.Conv2d(6, 6, 7, padding=3, groups=6), nn.Conv2d(6, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = F.pad(x + self.conv(x), (1, 1, 1, 1), mode="replicate")
        return self.second(x)


class Padded(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.LayerNorm(epsilon=1e-5, name="norm")(x)
        x = x + linen.Conv(6, (7, 7), padding=3, feature_group_count=6, name="conv")(x)
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        return linen.Conv(6, (3, 3), padding="VALID", name="second")(x)


@pytest.mark.parametrize("seed", range(3))
def test_what_a_layer_rounds_otherwise_by_itself_is_no_difference(seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(2, 6, 9, 11))
    report = parity.compare(Padded(), shaken(TorchPadded()), x, seed=seed)
    assert report.exit_code == 0, str(report)


class TorchBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Batch(linen.Module):
    epsilon: float = 1e-5
    running: bool = False

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(4, (3, 3), padding="VALID", name="conv")(x)
        return jax.nn.relu(linen.BatchNorm(use_running_average=self.running, epsilon=self.epsilon, name="bn")(x))


def test_the_batchs_own_statistics(rng: np.random.Generator) -> None:
    x, original = rng.normal(size=(3, 2, 6, 7)), shaken(TorchBatch())
    report = parity.compare(Batch(), original, x)
    assert report.exit_code == 0, str(report)
    wrong = parity.compare(Batch(1e-3), original, x).first_divergence
    assert wrong is not None and wrong.cause_keys == ["epsilon"], wrong
    wrong = parity.compare(Batch(running=True), original, x).first_divergence
    assert wrong is not None and (wrong.name, wrong.stage) == ("bn", "forward")


def test_a_port_that_cannot_run_by_itself_is_refused_by_name(rng: np.random.Generator) -> None:
    class Summed(nnx.Module):
        def __init__(self) -> None:
            self.first, self.second = (nnx.Conv(2, 2, (3, 3), padding="VALID", rngs=nnx.Rngs(0)) for _ in range(2))

        def __call__(self, x: Any) -> Any:
            return x + self.second(self.first(x))

    x = rng.normal(size=(1, 2, 6, 6))
    with pytest.raises(CannotCompare, match=r"run by itself on inputs of \(1, 6, 6, 2\): behind second, add"):
        parity.compare(Summed(), nn.Sequential(nn.Conv2d(2, 2, 3)), x)


def test_a_layer_left_out_is_told_where_it_is(rng: np.random.Generator) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.second = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.norm(self.first(x)))

    class One(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.first, self.second = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.second(self.first(x))

    report = parity.compare(One(), shaken(Two()), rng.normal(size=(3, 3)))
    first = report.first_divergence
    assert first is not None and (first.name, first.stage, first.verdict) == ("norm", "forward", "missing")
    assert first.causes == ["JAX: norm is left out"]


def test_one_norm_for_another_is_named(rng: np.random.Generator) -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.GroupNorm(1, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x))

    class Layered(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.Conv(4, (3, 3), padding="VALID", name="conv")(x)
            return linen.LayerNorm(epsilon=1e-5, name="norm")(x)

    first = parity.compare(Layered(), shaken(Grouped()), rng.normal(size=(2, 2, 5, 6))).first_divergence
    assert first is not None and (first.name, first.stage) == ("norm", "forward")
    assert "over the channels of each position, as in layer normalisation" in first.causes[0]


def test_the_first_of_two_layers_behind_one_mistake_says_what_it_is(rng: np.random.Generator) -> None:
    """PyTorch runs the one first, JAX the other."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.left, self.right = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.sigmoid(self.enter(x))
            right = self.right(x)
            return self.left(x) * right

    class Ported(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.enter = nnx.Linear(3, 4, rngs=rngs)
            self.left, self.right = nnx.Linear(4, 2, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = jnp.tanh(self.enter(x))
            left = self.left(x)
            return left * self.right(x)

    report = parity.compare(Ported(), shaken(Two()), rng.normal(size=(3, 3)), gradients=False)
    first = report.first_divergence
    assert first is not None and (first.name, first.stage) == ("right", "input")
    assert first.cause_keys == ["activation_tanh"], str(report)
    assert [row.name for row in report.divergences] == ["right"], str(report)


def test_what_was_found_before_flax_breaks_down_is_told(rng: np.random.Generator) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3), nn.LayerNorm(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.conv(x).mean((2, 3))))

    class Ported(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.LayerNorm(epsilon=1e-5, name="norm")(linen.Conv(4, (3, 3), padding="VALID", name="conv")(x))
            return linen.Dense(2, name="head")(jnp.mean(x, (1, 2)))

    report = parity.compare(Ported(), shaken(Pooled()), rng.normal(size=(2, 2, 5, 6)))
    first = report.first_divergence
    assert first is not None and (first.name, first.stage, first.verdict) == ("norm", "input", "shape")
    assert any("behind norm, where Flax breaks down on PyTorch's values" in told for told in report.not_exercised)


def test_a_dense_layer_of_sequences_has_its_bias_along_the_last_axis(rng: np.random.Generator) -> None:
    original, x = shaken(nn.Sequential(nn.Linear(6, 9))), rng.normal(size=(2, 5, 6))

    class Cubed(nnx.Linear):
        def __call__(self, inputs: Any, out_sharding: Any = None) -> Any:
            return super().__call__(inputs) ** 3

    ported = nnx.Sequential(Cubed(6, 9, rngs=nnx.Rngs(0)))
    first = parity.compare(ported, original, x, mapping={"layers/0": "0"}).first_divergence
    assert first is not None and (first.name, first.stage, first.causes) == ("layers/0", "forward", [])


class TorchChosen(nn.Module):
    """The best two of several values, and a hard sigmoid, whose gradient holds 1/6 in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, 6), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.hardsigmoid(self.enter(x)).topk(2, -1).values)


class Chosen(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.enter, self.leave = nnx.Linear(3, 6, rngs=rngs), nnx.Linear(2, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.leave(jax.lax.top_k(jax.nn.hard_sigmoid(self.enter(x)), 2)[0])


def test_choices_among_equal_values_and_pytorchs_own_float32_are_no_differences(rng: np.random.Generator) -> None:
    report = parity.compare(Chosen(), shaken(TorchChosen()), rng.normal(size=(5, 3)))
    assert report.exit_code == 0, str(report)
