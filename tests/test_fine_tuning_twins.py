"""Twins of both training programs that begin with other weights: equal, and different where a bug is planted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import alexnet_io.run.loop as loop_module
from alexnet_io.files import tensor_file
from jax_alexnet import optim as jax_optim
from parity.twins import against_ledger, both_sides, cases, differences, program
from parity.twins.engines import JaxPrograms
from parity.twins.sides import run_jax, run_torch
from torch_ref import optim as torch_optim
from torch_ref import run_setup as torch_setup

pytestmark = pytest.mark.usefixtures("optimized_steps")


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    """Drawing takes as long as a run, and nothing here looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module.pictures, "draw", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """Both programs on one file of made-up weights of another number of classes; conv1 frozen, fc10 new."""
    root, programs = tmp_path_factory.mktemp("twins"), JaxPrograms()
    data = "synthetic:classes=10,train=22,test=21"
    (case,) = cases.choose("cifar_18pct", "caffe", "every_steps", data, 0, root / "cache", 16)
    case = cases.fine_tuning(replace(case, settings=replace(case.settings, steps=4)), root / "weights.safetensors")
    return case, *program.twin(case, root / "straight", programs), programs, root


def test_both_programs_fine_tune_alike(twin):
    case, jax_run, torch_run, outcome, _, _ = twin
    assert outcome.equal, str(outcome)
    before, _ = tensor_file.read(Path(case.settings.init_from))
    last = jax_run.steps[-1].parameters
    for record in (jax_run, torch_run):
        for name in ("conv1.weight", "conv1.bias", "conv2.weight", "conv3.bias"):
            assert np.array_equal(record.first_parameters[name], before[name])
        assert record.first_parameters["fc10.weight"].shape[0] == 10 != before["fc10.weight"].shape[0]
        assert "fc10 is new: 10 classes here, 1 there; it learns at 3 times the rate" in record.said
        assert "frozen: conv1; learning: conv2, conv3, fc10" in record.said
        assert record.settings["freeze"] == "conv1"
    assert np.array_equal(last["conv1.weight"], before["conv1.weight"])
    assert not np.array_equal(last["conv2.weight"], before["conv2.weight"])


@pytest.mark.slow  # test_validation_split stops and kills the same loop, test_parity_runs the same programs
def test_killed_and_stopped_fine_tuning_goes_on_as_if_nothing_had_happened(twin, tmp_path):
    case, jax_run, torch_run, _, programs, _ = twin
    outcomes = list(program.disturbed(case, jax_run, torch_run, tmp_path, programs, (2,)))
    assert len(outcomes) == 4
    assert all(outcome.equal for outcome in outcomes), "\n".join(map(str, outcomes))


def decayed_though_frozen(monkeypatch):
    """The frozen layers' gradients are zero, and their optimizer goes on pulling them to zero."""
    plain = torch_setup.build_optimizer

    def build_all(network, chosen):
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        optimizer = plain(network, chosen)
        network.conv1.weight.register_hook(torch.zeros_like)
        network.conv1.bias.register_hook(torch.zeros_like)
        return optimizer

    monkeypatch.setattr(torch_setup, "build_optimizer", build_all)


def factor_on_the_first_that_learns(monkeypatch):
    plain = torch_optim.parameter_groups

    def groups(network, chosen):
        found = plain(network, replace(chosen, new_layer_learning_rate_factor=1.0))
        for group in found:
            if group["params"][0] is network.conv2.weight:
                group["params"] = [p for p in group["params"] if p is not network.conv2.weight]
                found.append({**group, "params": [network.conv2.weight], "lr_multiplier": 3.0 * group["lr_multiplier"]})
                break
        return found

    monkeypatch.setattr(torch_optim, "parameter_groups", groups)


def a_layer_that_is_left_fresh(monkeypatch):
    plain = torch_setup.read_starting_weights

    def read(*arguments):
        start = plain(*arguments)
        return replace(start, state={k: v for k, v in start.state.items() if k != "conv2.bias"})

    monkeypatch.setattr(torch_setup, "read_starting_weights", read)


@pytest.mark.parametrize(
    ("plant", "step", "quantity"),
    [
        (decayed_though_frozen, 1, "frozen weights conv1.weight"),
        (factor_on_the_first_that_learns, 1, "weights conv2.weight"),
        (a_layer_that_is_left_fresh, 0, "weights conv2.bias"),
    ],
)
def test_a_bug_in_the_reference_is_found_and_placed(twin, tmp_path, monkeypatch, plant, step, quantity):
    case, jax_run, _, _, _, _ = twin
    plant(monkeypatch)
    first = {**jax_run.first_parameters, "conv2.bias": np.full(32, 0.5)}
    record = run_torch(case.at(tmp_path / "torch"), first)
    found = [*against_ledger.from_ledger(record), *both_sides.between(jax_run, record, differences.Largest())]
    assert min(d.step for d in found) == step
    assert quantity in {d.quantity for d in found if d.step == step}, [str(d) for d in found]


def test_a_bug_in_jax_is_found_and_placed(twin, tmp_path, monkeypatch):
    """Nothing is masked, and the new layer's rate is conv2's."""
    case, _, torch_run, _, _, _ = twin
    plain = jax_optim.layers_with_weights
    monkeypatch.setattr(jax_optim, "frozen_layers", lambda *_: ())
    monkeypatch.setattr(jax_optim, "layers_with_weights", lambda variant: (*plain(variant), "conv2"))
    record = run_jax(case.at(tmp_path / "jax"), JaxPrograms())
    found = [*against_ledger.from_ledger(record), *both_sides.between(record, torch_run, differences.Largest())]
    quantities = {d.quantity for d in found if d.step == 1}
    assert {"frozen weights conv1.weight", "weights conv2.weight", "weights fc10.weight"} <= quantities
    assert "weights conv3.weight" not in quantities
