"""Networks with parts taken out or replaced (`--ablate`): alike in both programs, and in all that a run leaves."""

import json
from pathlib import Path
from typing import Any

import commands
import facts
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from alexnet_io.command_line.ablations import ABLATIONS, ablations
from alexnet_io.command_line.evaluate_settings import EvaluateSettings
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from alexnet_io.run.network_facts import NetworkFacts
from jax_alexnet import export, recipes, summary
from jax_alexnet import train_command as jax_training
from jax_alexnet.ablation import ablated
from jax_alexnet.files.exported import load_weights
from jax_alexnet.files.finished_run import load_run
from jax_alexnet.files.weight_layouts import to_torch
from jax_alexnet.layer_specs import Conv, Pool
from jax_alexnet.model import AlexNet
from jax_alexnet.shapes import trace
from jax_alexnet.variants import VARIANTS
from torch_ref import evaluation as torch_evaluation
from torch_ref import resolved_settings
from torch_ref import train_command as torch_training
from torch_ref.alexnet import build
from torch_ref.initialization import initialize

SIDES = {"jax": recipes.resolve, "torch": resolved_settings.resolve}
DATA = "synthetic:classes=3,train=24,test=9"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("cifar_18pct", "tanh"),
        ("cifar_18pct", "no-lrn,no-overlap"),
        ("cifar_18pct", "two-columns"),
        ("cifar_11pct", "tanh,no-lrn,no-overlap,one-column"),
        ("cifar_11pct", "two-columns"),
        ("cifar_80sec", "one-column"),
    ],
)
def test_both_programs_compute_the_same_from_the_same_weights(model: str, words: str, rng: np.random.Generator) -> None:
    """In float64, and something else than the whole network."""
    table = ablated(VARIANTS[model], words)
    side = table.image_size
    images = rng.normal(size=(2, side, side, 3))
    network = AlexNet(table, 10, "pytorch", None, jnp.float64, jnp.float64)
    variables = network.init(jax.random.key(1), jnp.asarray(images))
    ours = np.asarray(network.apply(variables, jnp.asarray(images)))
    reference = build(model, ablate=words).double().eval()
    state = to_torch(variables["params"], table)
    reference.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
    theirs = reference(torch.from_numpy(images.transpose(0, 3, 1, 2))).detach().numpy()
    assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)
    if "column" not in words:  # else the weights have other shapes
        whole = AlexNet(VARIANTS[model], 10, "pytorch", None, jnp.float64, jnp.float64)
        assert np.abs(ours - np.asarray(whole.apply(variables, jnp.asarray(images)))).max() > 1e-6


def test_one_column_of_the_papers_network_is_the_one_of_the_released_code() -> None:
    with torch.device("meta"):
        reference = build("two_column", ablate="one-column")
    table = ablated(VARIANTS["two_column"], "one-column")
    assert sum(p.numel() for p in reference.parameters()) == facts.HALF_NETWORK_PARAMETERS
    assert sum(row.parameters for row in trace(table, 224)) == facts.HALF_NETWORK_PARAMETERS
    convolutions = [row for row in table.layers if isinstance(row, Conv)]
    assert [(row.features, row.groups) for row in convolutions] == [(n, 1) for n in (48, 128, 192, 192, 256)]


def test_two_columns_are_joined_where_the_papers_are() -> None:
    """Its own network from the one of the blog, which has the same kernels in one column."""
    table = ablated(VARIANTS["single_column"], "two-columns")
    paper = {row.name: row.groups for row in VARIANTS["two_column"].layers if isinstance(row, Conv)}
    assert {row.name: row.groups for row in table.layers if isinstance(row, Conv)} == paper
    with torch.device("meta"):
        reference = build("single_column", ablate="two-columns")
    assert {name: reference.get_submodule(name).groups for name in paper} == paper


@pytest.mark.parametrize(("model", "names"), facts.WITHOUT_NORMS.items())
def test_without_norms_only_these_are_missing(model: str, names: tuple[str, ...]) -> None:
    rows = [row.name for row in ablated(VARIANTS[model], "no-lrn").layers]
    assert rows == [name for name in facts.NETWORKS[model].layers if name not in names]


@pytest.mark.parametrize("model", VARIANTS)
def test_pools_that_do_not_overlap_give_maps_of_equivalent_dimensions(model: str) -> None:
    """The paper's section 3.4; what the network sees in its paper, where the outputs of the sources are known."""
    table, expected = ablated(VARIANTS[model], "no-overlap"), facts.NETWORKS[model]
    pools = [row for row in table.layers if isinstance(row, Pool)]
    assert pools and all(row.window == row.stride == 2 for row in pools)
    shapes = {row.name: row.output_shape for row in trace(table, table.image_size)}
    for row in pools:
        channels, height, width = expected.layers[row.name].output
        assert shapes[row.name] == (height, width, channels)
    with torch.device("meta"):
        assert build(model, ablate="no-overlap")(torch.zeros(1, 3, table.image_size, table.image_size)).shape[0] == 1


def test_weights_start_by_the_networks_own_law() -> None:
    for words in ABLATIONS:
        if words == "no-lrn":
            continue
        network = build("cifar_13pct", ablate=words)
        initialize(network, "variant", seed=3)
        assert network.get_parameter("conv1.weight").std().item() == pytest.approx(1e-4, rel=0.1)


# --- words ------------------------------------------------------------------------------------------------


def test_words_come_once_and_in_one_order() -> None:
    assert ablations(None) == ()
    assert ablations("no-overlap, tanh,tanh") == ("tanh", "no-overlap")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"ablate": "tan"}, r"--ablate 'tan' is not known.*did you mean tanh.*Choose from: tanh, no-lrn"),
        ({"ablate": "tanh,"}, "--ablate '' is not known"),
        ({"ablate": "one-column,two-columns"}, "one-column or two-columns, not both"),
        ({"model": "cifar_13pct", "ablate": "no-lrn"}, "cifar_13pct has no response normalisation: leave no-lrn out"),
        ({"model": "two_column", "ablate": "two-columns"}, "two_column has two columns already"),
        ({"model": "cifar_18pct", "dropout": 0.5}, "--dropout is for networks with dropout"),
    ],
)
def test_what_makes_no_sense_is_refused_by_both(side: str, words: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SIDES[side](TrainSettings(data=DATA, **words))


# --- runs and files ---------------------------------------------------------------------------------------


def test_facts_of_a_changed_network_are_not_taken_for_a_whole_ones() -> None:
    """Versions that know nothing of it refuse its format."""
    whole = NetworkFacts("cifar_80sec", 32, 32, "half", ["a", "b"])
    changed = NetworkFacts("cifar_80sec", 32, 32, "half", ["a", "b"], ablate="tanh")
    assert json.loads(whole.to_text())["format"] == 1
    assert json.loads(changed.to_text())["format"] == 2
    assert NetworkFacts.from_text(changed.to_text(), "here") == changed
    with pytest.raises(UserError, match="impossible ablate 'relu'"):
        NetworkFacts.from_text(changed.to_text().replace("tanh", "relu"), "here")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of half the 80-second network with tanh."""
    folder = tmp_path_factory.mktemp("ablated") / "run"
    words = ("--model", "cifar_80sec", "--ablate", "one-column,tanh", "--data", DATA, "--batch-size", 8, "--epochs", 1)
    commands.run("train", *words, "--output", folder, devices=1)
    return folder


def test_a_run_goes_on_and_is_read_back_as_it_was_trained(run: Path, tmp_path: Path) -> None:
    assert json.loads((run / "run.json").read_text())["settings"]["ablate"] == "one-column,tanh"
    commands.run("train", "--resume", "--output", run, "--epochs", 2, devices=1)
    said = commands.run("evaluate", "--run", run, "--json", tmp_path / "report.json", devices=1)
    assert "9" in said.stdout
    network = load_run(run, which="best", devices=jax.devices()[:1], precision=None)
    assert network.params["conv1"]["kernel"].shape == (5, 5, 3, 16)
    refused = commands.run("train", "--resume", "--output", run, "--ablate", "tanh", devices=1, code=2)
    assert "--resume can't change --ablate tanh (the run has one-column,tanh)" in refused.stderr


def test_an_export_knows_what_it_is_of(run: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    file = tmp_path / "net.safetensors"
    assert export.main(["--run", str(run), "--to", str(file)]) == 0
    loaded = load_weights(file, devices="1")
    theirs = load_run(run, which="best", devices=jax.devices()[:1], precision=None)
    images = jnp.asarray(rng.normal(size=(2, 32, 32, 3)), jnp.float32)
    given = [net.model.apply({"params": net.params}, images) for net in (loaded, theirs)]
    assert_allclose(np.asarray(given[0]), np.asarray(given[1]), rtol=1e-6)


def test_a_whole_network_does_not_begin_with_weights_of_a_changed_one(run: Path, tmp_path: Path) -> None:
    words = {"model": "cifar_80sec", "data": DATA, "batch_size": 8, "init_from": str(run), "output": tmp_path / "other"}
    with pytest.raises(UserError, match="its network was trained with --ablate one-column,tanh: pass --ablate"):
        jax_training.train(recipes.resolve(TrainSettings(**words)))


def test_a_run_of_the_reference_is_read_back_by_both(tmp_path: Path) -> None:
    """And measured alike."""
    words = {"model": "cifar_80sec", "ablate": "one-column,tanh", "data": DATA, "batch_size": 8, "epochs": 1}
    assert (
        torch_training.train(resolved_settings.resolve(TrainSettings(**words, devices="1", output=tmp_path / "run")))
        == 0
    )
    theirs, _ = torch_evaluation.evaluate_command(EvaluateSettings(run=tmp_path / "run", devices="1"), {})
    commands.run("evaluate", "--run", tmp_path / "run", "--json", tmp_path / "ours.json", devices=1)
    ours = json.loads((tmp_path / "ours.json").read_text())
    assert ours["loss"] == pytest.approx(theirs.report.loss, rel=1e-5)


def test_the_summary_is_of_the_changed_network() -> None:
    said = summary.summarize(ablated(VARIANTS["two_column"], "one-column"))
    assert said["parameters"] == facts.HALF_NETWORK_PARAMETERS
