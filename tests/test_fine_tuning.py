"""Beginning with another run's weights: what is taken, what is new, what stays, in both training programs."""

import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch

import alexnet_io.run.loop as loop_module
from alexnet_io.command_line.resumed_settings import of_resumed_run
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from alexnet_io.run import fine_tuning
from alexnet_io.run.run_description import read_description
from jax_alexnet import export, recipes
from jax_alexnet import optim as jax_optim
from jax_alexnet import train_command as jax_training
from jax_alexnet.files import starting_weights as jax_starting
from jax_alexnet.files import weight_homes
from jax_alexnet.files.finished_run import load_run
from jax_alexnet.files.weight_layouts import to_torch
from jax_alexnet.variants import VARIANTS, layers_with_weights
from torch_ref import checkpoint as torch_checkpoint
from torch_ref import optim as torch_optim
from torch_ref import resolved_settings
from torch_ref import starting_weights as torch_starting
from torch_ref import train_command as torch_training
from torch_ref.alexnet import build
from torch_ref.network import layers_with_weights as torch_layers

RESOLVE = {"jax": recipes.resolve, "torch": resolved_settings.resolve}
TRAIN = {"jax": jax_training.train, "torch": torch_training.train}
PAPER = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
# Four steps of a network that is computed in no time.
SMALL: dict[str, Any] = {
    "model": "cifar_18pct", "recipe": "torchvision", "image_size": 16, "batch_size": 8, "steps": 2, "epochs": 1,
    "normalize": "half", "devices": "1", "learning_rate": 0.01,
}  # fmt: skip
DATA = "synthetic:classes={},train=16,test=9"


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Drawing takes as long as a run, and nothing here looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module.pictures, "draw", lambda *_: None)
        yield


def settings(**words: Any) -> TrainSettings:
    return TrainSettings(**{**SMALL, "data": DATA.format(5), **words})


# --- which layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        ("conv1", ["conv1"]),
        ("conv1..conv5", ["conv1", "conv2", "conv3", "conv4", "conv5"]),
        ("conv1..fc7", list(PAPER[:-1])),
        ("fc6, conv2", ["conv2", "fc6"]),
        ("conv1 .. conv2,conv2,fc7..fc7", ["conv1", "conv2", "fc7"]),
    ],
)
def test_layers_are_named_one_by_one_or_from_one_to_another(words, layers):
    assert list(fine_tuning.frozen_layers(TrainSettings(freeze=words), PAPER)) == layers


@pytest.mark.parametrize("side", RESOLVE)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            {"freeze": "con1"},
            "has no layer 'con1' with weights; did you mean conv1. Choose from: conv1, conv2, .*, fc8;",
        ),
        ({"freeze": "conv1..fc9"}, "has no layer 'fc9' with weights"),
        ({"freeze": "relu1"}, "has no layer 'relu1' with weights"),
        ({"freeze": "conv1,"}, "has no layer '' with weights"),
        ({"freeze": "conv5..conv1"}, "conv5..conv1 runs backwards: write conv1..conv5"),
        ({"freeze": "conv1..fc8"}, "leaves nothing to train: leave out at least one of conv1"),
        ({"new_layer_learning_rate_factor": 10.0}, "pass --init-from RUN or FILE too"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_read(side, words, said):
    with pytest.raises(UserError, match=said):
        RESOLVE[side](TrainSettings(data="synthetic", **words))


@pytest.mark.parametrize("model", VARIANTS)
def test_both_sides_have_the_same_layers(model):
    with torch.device("meta"):
        assert torch_layers(build(model)) == layers_with_weights(VARIANTS[model])


# --- one step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["paper", "sgd", "adam"])
def test_frozen_layers_get_no_step_and_no_decay_and_the_new_one_its_own_rate(optimizer, rng):
    """Against float64 by hand: decay 0.1, rate 0.5, biases at twice, the last layer at four times."""
    words = {
        "optimizer": optimizer, "momentum": 0.0, "weight_decay": 0.1, "bias_learning_rate_factor": 2.0,
        "decay_biases": False, "freeze": "conv1,conv3", "init_from": "anything", "new_layer_learning_rate_factor": 4.0,
        "learning_rate": 0.5,
    }  # fmt: skip
    chosen = RESOLVE["jax"](settings(**words))
    params = {
        name: {"kernel": rng.normal(size=(2, 3)), "bias": rng.normal(size=3)} for name in layers_of("cifar_18pct")
    }
    grads = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
    ours = jax_optim.make_optimizer(chosen, VARIANTS["cifar_18pct"], params)
    updates, state = ours.update(grads, ours.init(params), params, learning_rate=np.float64(0.5))
    after: Any = optax.apply_updates(params, updates)

    network = torch.nn.Module()
    for name, leaves in params.items():
        layer = torch.nn.Module()
        layer.weight, layer.bias = (torch.nn.Parameter(torch.tensor(leaves[kind])) for kind in ("kernel", "bias"))
        network.add_module(name, layer)
    torch_optim.freeze(network, ("conv1", "conv3"))
    theirs = torch_optim.build_optimizer(network, RESOLVE["torch"](settings(**words)))
    for name, leaves in grads.items():
        layer = network.get_submodule(name)
        layer.weight.grad, layer.bias.grad = (torch.tensor(leaves[kind]) for kind in ("kernel", "bias"))
    theirs.step()

    for name, leaves in params.items():
        for kind, before in leaves.items():
            rate = 0.5 * (2 if kind == "bias" else 1) * (4 if name == "fc10" else 1)
            step = grads[name][kind] + (0.1 * before if kind == "kernel" else 0)
            step = step / (np.abs(step) + 1e-8) if optimizer == "adam" else step
            expected = before if name in ("conv1", "conv3") else before - rate * step
            torchs = network.get_parameter(f"{name}.{'weight' if kind == 'kernel' else kind}").detach().numpy()
            assert np.allclose(after[name][kind], expected, rtol=1e-13, atol=1e-13), (name, kind)
            assert np.allclose(torchs, expected, rtol=1e-13, atol=1e-13), (name, kind)
    # What doesn't learn has no memories either.
    assert not any("conv1" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(state)[0])
    assert network.get_parameter("conv1.weight") not in theirs.state


def layers_of(model: str) -> tuple[str, ...]:
    return layers_with_weights(VARIANTS[model])


def test_under_a_plateau_the_rate_is_the_one_without_a_factor():
    chosen = resolved_settings.resolve(settings(optimizer="sgd", init_from="x", freeze="conv1..conv3",
                                         new_layer_learning_rate_factor=10.0, learning_rate=0.25))  # fmt: skip
    network = build("cifar_18pct", 5, 16)
    torch_optim.freeze(network, ("conv1", "conv2", "conv3"))
    optimizer = torch_optim.build_optimizer(network, chosen)
    assert [group["lr"] for group in optimizer.param_groups] == [2.5]
    assert torch_optim.learning_rate_of(optimizer) == 0.25


# --- from runs and files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of each program on five classes."""
    root = tmp_path_factory.mktemp("runs")
    for side in RESOLVE:
        assert train(side, output=root / side) == 0
    export.main(["--run", str(root / "jax"), "--to", str(root / "export.safetensors")])
    return root


def train(side: str, **words: Any) -> int:
    chosen = settings(**words)
    if chosen.resume:
        given = {"resume": True, "output": chosen.output, "steps": chosen.steps}
        chosen = of_resumed_run(chosen, given, "jax_alexnet" if side == "jax" else "torch_ref")
    try:
        return TRAIN[side](RESOLVE[side](chosen))
    except SystemExit as end:
        return int(str(end.code))


def weights_now(side: str, run: Path) -> dict[str, np.ndarray]:
    """Of a run's newest checkpoint, in PyTorch's names and layouts."""
    if side == "torch":
        newest = torch_checkpoint.load_newest(run / "checkpoints")
        assert newest is not None
        return {name: value.numpy() for name, value in newest["state_dict"].items()}
    found = load_run(run, which="newest", devices=jax.devices()[:1])
    return to_torch(jax.tree.map(np.asarray, found.params), VARIANTS["cifar_18pct"], 16)


@pytest.mark.parametrize("side", RESOLVE)
@pytest.mark.parametrize("source", ["run", "export"])
def test_a_run_begins_with_anothers_weights_and_goes_on_without_them(side, source, runs, tmp_path, capsys):
    """On seven classes where there were five: all layers but the last, which stay as they are frozen."""
    origin = tmp_path / "origin"
    shutil.copytree(runs / side, origin) if source == "run" else shutil.copy(runs / "export.safetensors", origin)
    if source == "export":
        origin = origin.rename(tmp_path / "origin.safetensors")
    words = {"data": DATA.format(7), "init_from": str(origin), "freeze": "conv1..conv3", "output": tmp_path / "new"}
    assert train(side, **words) == 0
    said = capsys.readouterr().out
    assert f"beginning with the weights of {origin}" in said and "fc10 is new: 7 classes here, 5 there" in said
    assert "frozen: conv1, conv2, conv3; learning: fc10" in said
    began, ended = weights_now(side if source == "run" else "jax", runs / (side if source == "run" else "jax")), None
    ended = weights_now(side, tmp_path / "new")
    assert len(ended["fc10.bias"]) == 7
    for name, value in began.items():
        assert np.array_equal(ended[name], value) == (not name.startswith("fc10")), name
    about = read_description(tmp_path / "new")
    assert about["begun_with"]["new_layers"] == ["fc10"] and str(origin) in about["begun_with"]["source"]
    assert about["settings"]["freeze"] == "conv1..conv3"
    shutil.rmtree(origin) if source == "run" else origin.unlink()
    assert train(side, output=tmp_path / "new", resume=True, steps=3, epochs=None) == 0


def test_the_last_layer_is_kept_where_the_classes_are_the_same(runs, tmp_path, capsys):
    words = {"init_from": str(runs / "torch"), "freeze": "fc10", "output": tmp_path / "new"}
    assert train("torch", **words) == 0
    assert "; fc10 too: the same 5 classes" in capsys.readouterr().out
    began, ended = weights_now("torch", runs / "torch"), weights_now("torch", tmp_path / "new")
    assert np.array_equal(ended["fc10.weight"], began["fc10.weight"])
    assert read_description(tmp_path / "new")["begun_with"]["new_layers"] == []


def test_frozen_layers_stay_where_the_optimizers_memories_are_divided(runs, tmp_path):
    words = {"init_from": str(runs / "export.safetensors"), "freeze": "conv1,conv3", "optimizer": "adam"}
    assert train("jax", output=tmp_path / "new", **words, devices="2", parallel="zero") == 0
    began, ended = weights_now("jax", runs / "jax"), weights_now("jax", tmp_path / "new")
    for name, value in ended.items():
        assert np.array_equal(value, began[name]) == name.startswith(("conv1", "conv3")), name


def test_other_classes_than_as_many_make_a_new_layer():
    def reason(there, here, classes=None):
        origin = fine_tuning.Origin("x", "cifar_18pct", classes or len(there), tuple(there))
        return fine_tuning.why_last_layer_is_new(origin, here)

    assert reason(["cat", "dog"], ["cat", "dog"]) is None
    assert reason([], ["cat", "dog"], 2) is None
    assert reason(["cat", "dog"], ["dog", "cat"]) == "the same classes in another order"
    assert reason(["cat", "dog"], ["cat", "cow"]) == "2 classes here and there, but others"
    assert reason(["cat", "dog"], ["cat", "cow", "dog"]) == "3 classes here, 2 there"


@pytest.mark.parametrize("side", RESOLVE)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"init_from": "nothing"}, "--init-from nothing does not exist: pass the directory that training wrote"),
        ({"init_from": "{}"}, "is a directory with neither run.json nor model.safetensors"),
        ({"init_from": "{}/{}", "model": "cifar_13pct"}, "holds weights of cifar_18pct.* pass --model cifar_18pct"),
        ({"init_from": "{}/{}", "image_size": 24}, r"doesn't fit cifar_18pct at --image-size 24: fc10\S* has shape"),
        ({"init_from": "{}/{}", "freeze": "fc10", "data": DATA.format(6)}, "fc10 is new .6 classes here, 5 there. and"),
        ({"init_from": "{}/{}", "new_layer_learning_rate_factor": 2.0}, "no layer is new, since .* the same 5 classes"),
        ({"init_from": "{}/notes.txt"}, "notes.txt: (only .safetensors and|files of weights end in .safetensors)"),
        ({"init_from": "{}/bad.npz"}, "bad.npz is not a readable .npz file"),
        ({"init_from": "{}/two.npz", "model": "cifar_11pct"}, "its shapes fit cifar_13pct, cifar_11pct: save it again"),
    ],
)
def test_weights_that_do_not_fit_are_refused(side, words, said, runs, tmp_path, capfd):
    (runs / "notes.txt").write_text("no weights")
    (runs / "bad.npz").write_text("no weights")
    if "two" in words["init_from"]:
        with torch.device("meta"):
            shapes = {name: tuple(value.shape) for name, value in build("cifar_13pct", 5, 16).named_parameters()}
        made_up: Any = {name: np.zeros(shape) for name, shape in shapes.items()}
        np.savez(runs / "two.npz", image_size=16, **made_up)
    words = {**words, "init_from": words["init_from"].format(runs, side), "output": tmp_path / "new"}
    try:
        assert train(side, **words) == 2
        message = capfd.readouterr().err
    except UserError as error:
        message = str(error)
    assert re.search(said, message), message
    assert not (tmp_path / "new").exists()


def test_what_pytorch_cannot_read_is_refused_with_the_way_out(runs, tmp_path, capfd):
    assert train("torch", init_from=str(runs / "jax"), output=tmp_path / "new") == 2
    assert "export it with python -m jax_alexnet.export --run" in capfd.readouterr().err
    chosen = recipes.resolve(settings(init_from=str(runs / "torch")))
    found = load_run(runs / "torch", which="best", devices=jax.devices()[:1]).params
    ours = jax_starting.read(chosen, read_description(runs / "torch")["class_names"], found)
    assert ours.beginning.new is None and np.array_equal(ours.params["fc10"]["bias"], found["fc10"]["bias"])


@pytest.mark.parametrize("home", ["flax", "torch_ref"])
def test_every_kind_of_file_gives_both_programs_the_same_weights(home, runs, tmp_path):
    params = jax.tree.map(np.asarray, load_run(runs / "jax", which="best", devices=jax.devices()[:1]).params)
    state = to_torch(params, VARIANTS["cifar_18pct"], 16)
    named: Any = {f"{a}/{b}": x for a, leaves in params.items() for b, x in leaves.items()} if home == "flax" else state
    np.savez(tmp_path / "net.npz", model="cifar_18pct", image_size=16, **named)
    torch.save({"net": {f"module.{k}": torch.tensor(v) for k, v in state.items()}, "epoch": 3}, tmp_path / "net.pth")
    weight_homes.save(tmp_path / "net.safetensors", params, "cifar_18pct", 16, home)
    for name in ("net.npz", "net.safetensors", *(("net.pth",) if home == "torch_ref" else ())):
        chosen = settings(init_from=str(tmp_path / name))
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
        ours = jax_starting.read(recipes.resolve(chosen), list("abcde"), shapes)
        network = build("cifar_18pct", 5, 16)
        theirs = torch_starting.read(resolved_settings.resolve(chosen), list("abcde"), network)
        theirs.put_into(network)
        assert ours.beginning.new is theirs.beginning.new is None
        for layer, leaves in params.items():
            assert all(np.array_equal(ours.params[layer][kind], x) for kind, x in leaves.items())
        for key, value in network.named_parameters():
            assert np.array_equal(value.detach().numpy(), state[key]), key


def test_a_warning_says_that_the_input_was_another():
    chosen = settings(normalize="unit", new_layer_learning_rate_factor=10.0)
    origin = fine_tuning.Origin("x", "cifar_18pct", 5, tuple("abcde"), "half", 9)
    said = fine_tuning.Beginning(origin, "fc10", "2 classes here, 5 there").lines(chosen)
    assert said[0] == (
        "beginning with the weights of x (cifar_18pct, after 9 steps); fc10 is new: 2 classes here, 5 there; it learns "
        "at 10 times the rate"
    )
    assert said[1] == (
        "warning: these weights learnt from input of --normalize half, and this run has --normalize unit: pass "
        "--normalize half to feed them what they know"
    )
    assert len(fine_tuning.Beginning(origin, "fc10", None).lines(settings(normalize="half"))) == 1
