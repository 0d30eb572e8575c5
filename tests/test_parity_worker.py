"""What a process that runs one side of a comparison says when it can't go on; the steps run in this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

from parity.comparison import worker
from parity.comparison.environments import told
from parity.comparison.request import Request


class Scanned(nnx.Module):
    """A layer in a loop of JAX's own, where it can't be seen."""

    def __init__(self) -> None:
        self.layer = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

    def __call__(self, x: Any) -> Any:
        return jax.lax.scan(lambda state, _: (self.layer(state), None), x, jnp.arange(2))[0]


class Looped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x))


class Others(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x))


def function() -> tuple[Any, dict[str, Any]]:
    """A function and its parameters."""
    return (lambda tree, x: x @ tree["w"]), {"w": np.zeros((3, 3))}


def refusal(capsys: Any, directory: Path, flax: str, original: str) -> str:
    """What the first step that fails prints, as `parity.compare` passes it on."""
    x = np.random.default_rng(0).normal(size=(2, 3))
    request = Request(f"{__name__}:{flax}", f"{__name__}:{original}", (x,), (x,), {}, {})
    (directory / "request.json").write_text(json.dumps(request.to_json()))
    for side in ("torch", "flax"):
        np.savez(directory / f"inputs-{side}.npz", x)
    for step in ("flax-structure", "torch", "flax"):
        if worker.main([step, str(directory)]) == 2:
            return told("a warning\n" + capsys.readouterr().err)
    raise AssertionError("every step went on")


@pytest.mark.parametrize(
    ("flax", "original", "why"),
    [
        ("Scanned", "Looped", "layer (Flax) runs inside scan"),
        ("Scanned", "Others", "the layers can't be paired:\n"),
        ("function", "Looped", ":function makes a function, which has no layers"),
    ],
)
def test_what_can_be_compared_as_a_whole_alone_is_refused_with_the_reason(
    capsys: Any, tmp_path: Path, flax: str, original: str, why: str
):
    """All of the message comes through, and says what can be done."""
    message = refusal(capsys, tmp_path, flax, original)
    assert why in message
    assert message.endswith(worker.WHOLES)


def test_a_step_that_breaks_down_says_its_last_line():
    """Without a message for people."""
    assert told("Traceback\n  here\nKeyError: 'x'\n") == "KeyError: 'x'"
    assert told("") == ""
