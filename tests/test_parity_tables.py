"""Tables of embeddings that one side looks up in parts, indexes, or owns as a parameter."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import Tensor, nn

import parity
from parity.comparison import tables
from parity.kinds.leaf import Leaf

T, WIDTH = 3, 4
pytestmark = pytest.mark.usefixtures("flax_promotes")


class Original(nn.Module):
    """Two texts, joined and looked up at once, with a table of positions and one of which text it is."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions, self.texts = nn.Embedding(6, WIDTH), nn.Embedding(6, WIDTH), nn.Embedding(2, WIDTH)
        self.out = nn.Linear(WIDTH, 2)

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        x = self.words(torch.cat([one, two], 1)) + self.positions(torch.arange(2 * T))
        return self.out(x + self.texts(torch.arange(2 * T) // T))


class Ported(nnx.Module):
    """The same text by text, with positions that it owns, of which it takes slices."""

    def __init__(self, begins: int = T) -> None:
        rngs, self.begins = nnx.Rngs(0), begins
        self.words, self.texts = nnx.Embed(6, WIDTH, rngs=rngs), nnx.Embed(2, WIDTH, rngs=rngs)
        self.positions, self.out = nnx.Param(jnp.zeros((6, WIDTH))), nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, one: Any, two: Any) -> Any:
        one = self.words(one) + self.positions[:T] + self.texts.embedding[0]
        two = self.words(two) + self.positions[self.begins : self.begins + T] + self.texts.embedding[1]
        return self.out(jnp.concatenate([one, two], axis=1))


def inputs() -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 6, (2, T)), rng.integers(0, 6, (2, T))


def test_a_table_may_be_looked_up_in_parts_and_indexed() -> None:
    report = parity.compare(Ported(), Original(), inputs())
    assert report.exit_code == 0, report
    assert {"words/embedding", "positions", "texts/embedding"} <= {tensor.jax for tensor in report.mapping.tensors}
    assert {("words/embedding", "backward:value"), ("positions", "backward:value")} <= {
        (r.name, r.stage) for r in report.rows
    }


def test_slices_of_a_table_that_begin_elsewhere_have_a_cause() -> None:
    report = parity.compare(Ported(begins=0), Original(), inputs(), gradients=False)
    row = report.first_divergence
    assert row is not None and (row.name, row.stage) == ("out", "input"), report
    assert row.causes[0].startswith("JAX: places begin again after 3, in PyTorch they count on to 6"), row


def table(path: str, *looked_up: int, torch: bool = False) -> Leaf:
    return Leaf(path, "Embedding", "embedding", {"weight" if torch else "embedding": (6, 4)}, looked_up=looked_up)


@pytest.mark.parametrize(
    ("ours", "theirs", "apart"),
    [((3, 3), (6,), True), ((6,), (3, 3), True), ((3,), (6,), False), ((3, 3), (3,), False)],
)
def test_other_numbers_of_rows_are_no_lookup_in_parts(ours: tuple, theirs: tuple, apart: bool) -> None:
    found = tables.looked_up_otherwise([table("a/words", *ours)], [table("a.words", *theirs, torch=True)])
    assert found == (["a/words"] if apart else [])
