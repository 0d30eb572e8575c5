"""State dicts as training programs leave them: anywhere in a checkpoint, under any wrapper's names; never run."""

import argparse
import pathlib

import jax
import numpy as np
import pytest
import torch

from alexnet_io.errors import UserError
from jax_alexnet.files import weight_homes
from jax_alexnet.variants import VARIANTS

MODEL = "cifar_18pct"


@pytest.fixture(scope="module")
def state():
    """A state dict of random weights, and the same as Flax parameters."""
    draw = np.random.default_rng(5)
    shapes = weight_homes.torch_shapes(VARIANTS[MODEL])
    arrays = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: torch.from_numpy(x) for name, x in arrays.items()}, weight_homes.to_flax(arrays, VARIANTS[MODEL])


def _others(state):
    return {name: value + 1 for name, value in state.items()}


CHECKPOINTS = {
    "bare": lambda s: s,
    "the ImageNet example": lambda s: {
        "epoch": 3, "arch": "alexnet", "state_dict": s, "best_acc1": torch.tensor(56.5),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "scheduler": {"last_epoch": 3, "_last_lr": [0.1]},
    },
    "all tensors": lambda s: {"epoch": torch.tensor(3), "state_dict": s, "best_acc1": torch.tensor(56.5)},
    "torchvision's reference": lambda s: {
        "model": s, "args": argparse.Namespace(lr=0.1, output_dir=pathlib.Path("x"), amp=False), "epoch": 89,
    },
    "numpy beside": lambda s: {"net": s, "acc": np.float64(95.2), "loss": np.float32(0.1), "epoch": np.int64(3)},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {}, "param_groups": []}},
    "network": lambda s: {"network": s}, "module": lambda s: {"module": s, "global_step": torch.tensor(1)},
    "nested": lambda s: {"state": {"lr": torch.tensor(0.1)}, "model": {"state_dict": s, "step": torch.tensor(4)}},
    "an average beside": lambda s: {"model_ema": _others(s), "state_dict_ema": _others(s), "model": s},
    "Lightning": lambda s: {
        "state_dict": {f"model.{name}": value for name, value in s.items()}, "pytorch-lightning_version": "2.5",
        "callbacks": {"best": {"score": torch.tensor(0.5)}}, "optimizer_states": [{"state": {}}],
    },
    "one unknown place": lambda s: {"trunk": s, "lr": torch.tensor(0.1)},
    "facts among the weights": lambda s: {**s, "epoch": 3, "note": "x", "history": [1.0]},
    "DDP": lambda s: {f"module.{name}": value for name, value in s.items()},
    "compiled": lambda s: {f"_orig_mod.{name}": value for name, value in s.items()},
    "DDP of compiled": lambda s: {"state_dict": {f"module._orig_mod.{name}": value for name, value in s.items()}},
    "compiled DDP": lambda s: {"model": {f"_orig_mod.module.{name}": value for name, value in s.items()}},
    "inside": lambda s: {name.replace(".", "._orig_mod.module."): value for name, value in s.items()},
    "averaged": lambda s: {"n_averaged": torch.tensor(4)} | {f"module.{name}": value for name, value in s.items()},
    "an attribute": lambda s: {f"self.net.module.{name}": value for name, value in s.items()},
}  # fmt: skip


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_the_state_dict_is_found_wherever_it_is(kind, state, tmp_path):
    ending = (".pth", ".pt", ".pth.tar", ".ckpt", ".PTH")[len(kind) % 5]
    file = tmp_path / f"checkpoint{ending}"
    torch.save(CHECKPOINTS[kind](state[0]), file)
    loaded, classes = weight_homes.load(file, MODEL)
    assert classes == 10
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, loaded, state[1])))
    assert weight_homes.read(file).model == MODEL


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda s: {"state": s, "other": _others(s)}, r"several state dicts \(state, other\)"),
        (lambda s: {"epoch": torch.tensor(3)}, "holds no state dict, neither bare nor under state_dict, "),
        (lambda s: {"optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}, "holds no state dict"),
        (lambda s: [*s.values()], "holds no state dict"),
        (lambda s: torch.zeros(3), "holds no state dict"),
        (lambda s: {**s, "module.conv1.weight": s["conv1.weight"]}, "keys that differ only by `module.` or"),
        (lambda s: {**s, "conv1.weight": s["conv1.weight"].to_sparse()}, "conv1.weight in a form that can't be read"),
        (lambda s: {**s, "conv1.weight": s["conv1.weight"].to(torch.float8_e5m2)}, "conv1.weight in a form that"),
        (lambda s: {**s, "best_acc1": torch.tensor(1.0)}, "unknown best_acc1"),
        (lambda s: {"state_dict": s, "model": "two_column"}, "holds weights of two_column, not of cifar_18pct"),
    ],
)
def test_what_is_no_state_dict_of_the_network_is_refused_by_name(make, said, state, tmp_path):
    torch.save(make(state[0]), tmp_path / "w.pth.tar")
    with pytest.raises(UserError, match=said) as error:
        weight_homes.load(tmp_path / "w.pth.tar", MODEL)
    assert "w.pth.tar" in str(error.value)


def test_words_of_other_programs_are_no_facts_of_ours(state, tmp_path):
    torch.save({"state_dict": state[0], "model": "alexnet", "image_size": "32x32", "home": "cloud"}, tmp_path / "w.pth")
    loaded = weight_homes.read(tmp_path / "w.pth")
    assert (loaded.model, loaded.image_size, loaded.facts) == (MODEL, 32, None)


class _Malicious:
    def __reduce__(self):
        return (open, ("marker", "w"))


@pytest.mark.parametrize("place", ["conv1.weight", "args"])
def test_a_pickle_that_runs_code_is_refused(place, state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state[0], place: _Malicious()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="was not run"):
        weight_homes.load(tmp_path / "evil.pth", MODEL)
    assert not (tmp_path / "marker").exists()
