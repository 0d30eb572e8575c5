"""Recurrent layers' weights on their way from PyTorch to Flax: written out, read back, converted both ways."""

from pathlib import Path
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import Tensor, nn

import parity
from parity.__main__ import main
from parity.errors import CannotConvert

pytestmark = pytest.mark.usefixtures("flax_promotes")
X = np.random.default_rng(0).normal(size=(2, 3, 4))


class Original(nn.Module):
    def __init__(self, kind: str, both: bool = False) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(4, 5, batch_first=True, bidirectional=both)
        self.head = nn.Linear(10 if both else 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


class InLinen(linen.Module):
    cell: Any
    both: bool = False

    @linen.compact
    def __call__(self, x: Any) -> Any:
        rnn = linen.RNN(self.cell(5))
        rnn = linen.Bidirectional(rnn, linen.RNN(self.cell(5)), name="rnn") if self.both else rnn
        return linen.Dense(3, name="head")(rnn(x))


class InNnx(nnx.Module):
    def __init__(self, cell: Any, both: bool = False) -> None:
        rngs = nnx.Rngs(0)
        made = [nnx.RNN(cell(4, 5, rngs=rngs)) for _ in range(1 + both)]
        self.rnn = nnx.Bidirectional(*made) if both else made[0]
        self.head = nnx.Linear(10 if both else 5, 3, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(self.rnn(x))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "port"),
    [
        ("LSTM", InLinen(linen.OptimizedLSTMCell)),
        ("LSTM", InNnx(nnx.OptimizedLSTMCell, both=True)),
        ("GRU", InLinen(linen.GRUCell, both=True)),
        ("RNN", InLinen(linen.SimpleCell)),
        # The other cells of these libraries, in the layouts of those above.
        pytest.param("LSTM", InLinen(linen.LSTMCell, both=True), marks=(pytest.mark.slow, pytest.mark.matrix)),
        pytest.param("LSTM", InNnx(nnx.LSTMCell), marks=(pytest.mark.slow, pytest.mark.matrix)),
    ],
)
def test_a_recurrent_layers_mapping_converts_both_ways(kind: str, port: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = Original(kind, getattr(port, "both", False) or isinstance(getattr(port, "rnn", 0), nnx.Bidirectional))
    original = original.double()
    report = parity.compare(port, original, X)
    assert report.equal, str(report)
    report.mapping.save(tmp_path / "net.json")
    mapping = parity.Mapping.load(tmp_path / "net.json")
    assert mapping == report.mapping and not mapping.unused

    # The mapping goes back into a comparison, where what it makes is held to PyTorch's bit for bit.
    assert parity.compare(port, original, X, mapping=mapping).equal

    x = X.astype(np.float32)  # by themselves Flax's cells begin with a state in float32
    state, expected = original.float().state_dict(), original(torch.from_numpy(x)).detach().numpy()
    if isinstance(port, nnx.Module):
        nnx.update(port, mapping.to_tree(state, like=port))
        found, tree = port(jnp.asarray(x)), port
    else:
        tree = mapping.to_tree(state, like=port.init(jax.random.key(0), jnp.asarray(x)))
        found = port.apply(tree, jnp.asarray(x))
    np.testing.assert_allclose(found, expected, atol=1e-5)

    back = {name: torch.from_numpy(array) for name, array in mapping.to_torch(tree).items()}
    assert {*back} == {*state}
    original.load_state_dict(back)  # of two biases that are only summed the sum is one, and the other zero
    np.testing.assert_allclose(original(torch.from_numpy(x)).detach().numpy(), expected, atol=1e-5)


def test_from_the_command_line(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = Original("LSTM").double()
    parity.compare(InLinen(linen.OptimizedLSTMCell), original, X).mapping.save(tmp_path / "net.json")
    np.savez(tmp_path / "net.npz", **{name: tensor.numpy() for name, tensor in original.state_dict().items()})
    files = [str(tmp_path / name) for name in ("net.json", "net.npz", "flax.npz")]
    assert main(["convert", "--mapping", files[0], "--weights", files[1], "--output", files[2]]) == 0
    made = np.load(files[2])
    [hf] = [made[name] for name in made.files if name.endswith("hf/kernel")]
    assert np.array_equal(hf, original.rnn.weight_hh_l0.detach().numpy()[5:10].T)  # the second gate of i, f, g, o
    [bias] = [made[name] for name in made.files if name.endswith("hf/bias")]
    assert np.array_equal(bias, (original.rnn.bias_ih_l0 + original.rnn.bias_hh_l0).detach().numpy()[5:10])


def test_a_bias_without_a_place_is_named() -> None:
    """nnx's GRUCell has no bias inside its reset gate."""
    torch.manual_seed(0)
    report = parity.compare(InNnx(nnx.GRUCell), Original("GRU").double(), X)
    with pytest.raises(CannotConvert, match=r"rnn\.bias_hh_l0 has no place in rnn/cell"):
        _ = report.mapping
