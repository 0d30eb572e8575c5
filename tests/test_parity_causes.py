"""Every mistake made on purpose, and named: on layers small enough to try them all."""

import itertools
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from parity.causes.between import between_layers as chain_causes
from parity.causes.layer import gradients as gradient_causes
from parity.causes.layer import parameters as causes
from parity.causes.layer.parameters import Case
from parity.kinds import registry
from parity.kinds.layer import Layer, Recorded

CONV = ("Conv2d", {"stride": [2, 2], "padding": [1, 1], "groups": 2, "dilation": [1, 1]})
PLAIN_CONV = ("Conv2d", {"stride": [1, 1], "padding": [1, 1], "groups": 1, "dilation": [1, 1]})
LRN = ("LocalResponseNorm", {"size": 5, "alpha": 0.1, "beta": 0.75, "k": 2.0, "divide_by_size": True, "columns": 2})
EVEN_LRN = ("LocalResponseNorm", {"size": 2, "alpha": 0.1, "beta": 0.75, "k": 1.0, "divide_by_size": True})
POOL = ("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 0, "ceil_mode": True})
AVERAGE = ("ClippedAvgPool2d", {"kernel_size": 3, "stride": 2})


def layer(which: tuple, rng: np.random.Generator) -> Layer:
    name, settings = which
    weights: dict[str, np.ndarray] = {}
    x = rng.normal(size=(2, 8, 7, 8)) * 3
    if name == "Conv2d":
        weights = {"weight": rng.normal(size=(8, 8 // settings["groups"], 3, 3)), "bias": rng.normal(size=8)}
    if name == "Linear":
        x = rng.normal(size=(3, 24))
        weights = {"weight": rng.normal(size=(24, 24)), "bias": rng.normal(size=24)}
    if name == "LocalConv2d":
        x = rng.normal(size=(2, 4, 5, 5))
        weights = {"weight": rng.normal(size=(5, 5, 4, 4, 3, 3)), "bias": rng.normal(size=(5, 5, 4))}
    return recorded(name, settings, x, weights, map_shape=(4, 3, 2) if name == "Linear" else None)


def recorded(*call: Any, **more: Any) -> Layer:
    found = registry.layer(Recorded(*call, **more))
    assert found is not None
    return found


def case(which: tuple[str, dict[str, Any]], parts: Layer, torch_y: np.ndarray, flax_y: np.ndarray) -> Case:
    name, settings = which
    weights = dict(parts.weights)
    allowed = None if name.endswith(("MaxPool2d", "ReLU")) else 1e-13 * (1 + np.abs(torch_y))
    return Case(
        name, settings, parts.x, weights, weights, torch_y, flax_y, allowed,
        map_shape=getattr(parts, "map_shape", None),
    )  # fmt: skip


LAYERS = {
    "grouped conv": CONV,
    "conv": PLAIN_CONV,
    "dense": ("Linear", {}),
    "local": ("LocalConv2d", {"stride": 1, "padding": 1}),
    "lrn": LRN,
    "even lrn": EVEN_LRN,
    "spatial": ("SpatialResponseNorm", {"size": 3, "alpha": 0.2, "beta": 0.75, "k": 1.0}),
    "max pool": POOL,
    "average pool": AVERAGE,
    "relu": ("ReLU", {}),
}


@pytest.mark.parametrize("side", ["jax", "torch"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_mistake_is_named(name: str, side: str, rng: np.random.Generator) -> None:
    which = LAYERS[name]
    parts = layer(which, rng)
    right = parts.compute()
    tried = set()
    for mistake in parts.mistakes():
        changed = mistake.apply(parts)
        if changed is None:
            continue
        try:
            wrong = changed.compute()
        except ValueError:
            continue
        if wrong.shape == right.shape and np.allclose(wrong, right, rtol=1e-9, atol=1e-9):
            continue  # equivalent on this layer
        outputs = (right, wrong) if side == "jax" else (wrong, right)
        found = causes.explain(case(which, parts, *outputs))
        assert found, mistake
        named = {cause.key for cause in found}
        same = {
            other.key for other in parts.mistakes() if (also := other.apply(parts)) is not None and _gives(also, wrong)
        }
        assert named <= same, (mistake, found)
        assert {cause.side for cause in found} == {side}
        assert all(cause.after * 1000 <= cause.before for cause in found)
        tried.add(mistake.key)
    assert len(tried) >= 3


def _gives(parts: Layer, result: np.ndarray) -> bool:
    try:
        got = parts.compute()
    except ValueError:
        return False
    return got.shape == result.shape and np.allclose(got, result, rtol=1e-12, atol=1e-12)


def test_two_mistakes_in_one_layer_are_both_named(rng: np.random.Generator) -> None:
    parts = layer(LRN, rng)
    wrong = replace(parts, divide_by_size=False, k=1.0).compute()
    found = causes.explain(case(LRN, parts, parts.compute(), wrong))
    assert {cause.key for cause in found} == {"lrn_alpha", "lrn_k"}


@pytest.mark.parametrize("name", LAYERS)
def test_all_pairs_of_mistakes_are_tried(name: str, rng: np.random.Generator) -> None:
    tried = layer(LAYERS[name], rng).mistakes()
    assert sum(one.key != two.key for one, two in itertools.combinations(tried, 2)) <= causes.PAIR_TRIES


@pytest.mark.parametrize(("name", "keys"), [
    ("lrn", {"lrn_alpha", "lrn_k"}), ("grouped conv", {"kernel_hw_exchanged", "bias_missing"}),
    ("dense", {"kernel_transposed", "bias_sign"}), ("spatial", {"lrn_k", "lrn_beta"}),
])  # fmt: skip
def test_causes_do_not_depend_on_the_clock(
    name: str, keys: set[str], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the machine: an hour passes each time that it is asked for."""
    hours = itertools.count()
    for clock in ("monotonic", "perf_counter", "process_time", "time"):
        monkeypatch.setattr(time, clock, lambda: 3600.0 * next(hours))
    parts = layer(LAYERS[name], rng)
    wrong = parts
    for key in sorted(keys):
        wrong = next(m.apply(wrong) for m in wrong.mistakes() if m.key == key)
        assert wrong is not None
    right = parts.compute()
    found = causes.explain(case(LAYERS[name], parts, right, wrong.compute()))
    assert {cause.key for cause in found} == keys
    # One try fewer than it takes, and nothing is named: tries are what counts.
    monkeypatch.setattr(causes, "PAIR_TRIES", 0)
    assert causes.explain(case(LAYERS[name], parts, right, wrong.compute())) == []


def test_a_factor_and_a_swap_are_measured(rng: np.random.Generator) -> None:
    parts = layer(PLAIN_CONV, rng)
    right = parts.compute()
    order = np.array([0, 5, 2, 3, 4, 1, 6, 7])
    found = causes.explain(case(PLAIN_CONV, parts, right, right[:, order]))
    assert [c.key for c in found] == ["channels_permuted"]
    assert "1 holds 5, 5 holds 1" in found[0].text
    scaled = parts.with_weights(weight=parts.weights["weight"] * 1.125).compute()
    found = causes.explain(case(PLAIN_CONV, parts, right, scaled))
    assert [c.key for c in found] == ["scaled"]
    assert "the weights are scaled by 1.125" in found[0].text


def test_weights_that_differ_are_described(rng: np.random.Generator) -> None:
    parts = layer(PLAIN_CONV, rng)
    right = parts.compute()
    theirs = dict(parts.weights)

    def found(weight: np.ndarray) -> causes.Cause:
        y = parts.with_weights(weight=weight).compute()
        (cause,) = causes.explain(
            Case(*PLAIN_CONV, parts.x, theirs, theirs | {"weight": weight}, right, y, 1e-13 * (1 + np.abs(right)))
        )
        assert cause.after * 1000 <= cause.before
        return cause

    assert found(theirs["weight"].swapaxes(2, 3)).key == "kernel_hw_exchanged"
    assert found(theirs["weight"][::-1]).key == "channels_permuted"
    one = theirs["weight"].copy()
    one[3, 1, 0, 2] += 0.5
    assert found(one).key == "weight_differs"
    assert "1 of 576 values of weight differ, first at [3, 1, 0, 2]" in found(one).text


def test_nothing_is_named_without_a_counterfactual(rng: np.random.Generator) -> None:
    parts = layer(LRN, rng)
    right = parts.compute()
    assert causes.explain(case(LRN, parts, right, right + rng.normal(size=right.shape))) == []
    # Half explained isn't explained: k is wrong, and noise of a thousandth of the bug's size is left.
    wrong = replace(parts, k=1.0).compute()
    noisy = wrong + 0.01 * np.max(np.abs(wrong - right)) * rng.normal(size=right.shape)
    assert causes.explain(case(LRN, parts, right, noisy)) == []


@pytest.mark.parametrize(
    "name", ["lrn", "even lrn", "spatial", "max pool", "average pool", "relu", "grouped conv", "dense"]
)
def test_closed_form_gradients_are_the_derivatives(name: str, rng: np.random.Generator) -> None:
    """Against central differences of the forward pass, in one random direction: error below h^2."""
    parts = layer(LAYERS[name], rng)
    y = parts.compute()
    g, v = rng.normal(size=y.shape), rng.normal(size=parts.x.shape)
    h = 1e-5
    up, down = (replace(parts, x=parts.x + s * h * v).compute() for s in (1, -1))
    measured = np.sum(g * (up - down)) / (2 * h)
    found = parts.input_gradient(g)
    assert found is not None
    assert np.sum(found * v) == pytest.approx(measured, rel=1e-6)


@pytest.mark.parametrize("side", ["jax", "torch"])
@pytest.mark.parametrize("name", ["lrn", "even lrn", "spatial", "max pool", "average pool", "relu", "grouped conv"])
def test_every_wrong_gradient_is_named(name: str, side: str, rng: np.random.Generator) -> None:
    parts = layer(LAYERS[name], rng)
    if name in ("max pool", "relu"):
        parts = replace(parts, x=np.maximum(parts.x, 0))  # ties, and values on the kink
    g = rng.normal(size=parts.compute().shape)
    right = parts.input_gradient(g)
    assert right is not None
    for key, _, wrong in [*parts.gradient_mistakes(g), ("gradient_scaled", "", 1.5 * right)]:
        if np.allclose(wrong, right):
            continue
        flax, torch = (wrong, right) if side == "jax" else (right, wrong)
        (cause,) = gradient_causes.explain(parts, g, torch, flax, 1e-11)
        same = [k for k, _, w in parts.gradient_mistakes(g) if np.allclose(w, wrong, atol=1e-12)]
        assert cause.key in [key, *same]
        assert cause.side == side
    noise = right + rng.normal(size=right.shape)
    assert gradient_causes.explain(parts, g, right, noise, 1e-11)[0].key == "gradient"


def test_a_chain_of_functions_between_layers_is_searched(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3, 9, 9)) - 1.5  # some windows are negative throughout
    ops = [["relu", []], ["max_pool2d_with_indices", [[3, 3], [2, 2]]], ["view", [[2, 48]]]]
    links = chain_causes.chain(ops)
    assert links is not None
    right = chain_causes._run(links, x)
    assert right is not None
    assert right.shape == (2, 48)
    pool = {"kernel_size": 3, "stride": 2}
    wrong = {
        "pool_kind": recorded("AvgPool2d", pool, np.maximum(x, 0)).compute(),
        "relu_missing": recorded("MaxPool2d", pool, x).compute(),
        "pool_size": recorded("MaxPool2d", pool | {"kernel_size": 2}, np.maximum(x, 0)).compute(),
    }
    for key, result in wrong.items():
        found = chain_causes.explain(ops, [x], right, result.reshape(2, -1), 1e-14)
        assert [cause.key for cause in found] == [key]
    assert chain_causes.explain([["mul", []]], [x], right, right + 1, 1e-14) == []
