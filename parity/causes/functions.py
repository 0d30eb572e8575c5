"""Mistakes in the functions between layers: one for another, left out, in another place, with other settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.causes.attempts import Attempt, Problem, value
from parity.causes.graph import Region
from parity.causes.graph_nodes import Node, run
from parity.causes.node_kinds import ITEM, SOURCES
from parity.causes.numpy_operations import softmax
from parity.causes.numpy_table import CannotRun
from parity.kinds import registry
from parity.kinds.activation import CURVES
from parity.kinds.layer import Layer, Recorded

CURVED = frozenset(
    {
        "relu",
        "relu6",
        "silu",
        "tanh",
        "sigmoid",
        "mish",
        "selu",
        "hardswish",
        "hardsigmoid",
        "softsign",
        "tanhshrink",
        "gelu",
        "leaky_relu",
        "elu",
        "softplus",
        "hardtanh",
        "clamp",
        "clamp_min",
        "exp",
        "square",
        "pow",
        "abs",
    }
)
# Curved, but no activations; activations that are put where there should be none.
_ARITHMETIC = frozenset({"clamp", "clamp_min", "exp", "square", "pow", "abs"})
_USUAL = frozenset({"relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "softplus", "elu", "leaky_relu"})
_PRODUCTS = frozenset({"linear", "addmm", "convolution", "_convolution"})
_UNARY = CURVED | {
    "neg",
    "sqrt",
    "rsqrt",
    "log",
    "log1p",
    "sin",
    "cos",
    "clamp_max",
    "erf",
    "reciprocal",
    "expm1",
    "_softmax",
    "_log_softmax",
    "roll",
    "flip",
    "constant_pad_nd",
    "native_layer_norm",
    "layer_norm",
}
EPSILONS = (1e-5, 1e-6, 1e-3, 1e-12, 1e-8, 1e-7, 1e-4, 0.0)
_SLOPES = (0.01, 0.1, 0.2, 0.3, 1 / 3, 0.05, 0.25)
# Functions that are taken for each other.
_RELATED = {
    "log1p": ("log", "log2"),
    "log": ("log1p", "log2"),
    "log2": ("log",),
    "expm1": ("exp",),
    "exp": ("expm1", "exp2"),
    "sqrt": ("square", "rsqrt"),
    "rsqrt": ("sqrt", "reciprocal"),
    "square": ("sqrt", "abs"),
    "sin": ("cos",),
    "cos": ("sin",),
}
WORDS = {"_softmax": "softmax", "_log_softmax": "log softmax", "relu": "ReLU", "gelu": "GELU", "silu": "SiLU"}


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each function, the last one first."""
    region = problem.region
    for place in reversed(region.operations):
        node = region.node(place)
        start = node.argument("self") if node.argument("self") is not None else node.argument("input")
        if start is None or not isinstance(region.value(start), np.ndarray):
            continue
        words = WORDS.get(node.op, node.op)
        yield from _numbers(region, place)
        layer = _layer(region, place)
        if layer is not None:
            yield from _of_layer(region, place, start, layer)
        if node.op in _UNARY and isinstance(region.value(place), np.ndarray):
            if region.value(start).shape == region.value(place).shape:
                text = f"{words} is left out ({problem.words(start)} goes on as it is)"
                yield Attempt(f"{node.op.strip('_')}_missing", text, {place: lambda get, start=start: get(start)})
                twice = _again(region, place, start)
                if twice is not None:
                    strange = node.op in _ARITHMETIC or node.op in ("sqrt", "rsqrt", "reciprocal")
                    yield Attempt("applied_twice", f"{words} is applied twice", {place: value(twice)}, strange)
            yield from _settings(region, place, start, words)
        for other in _RELATED.get(node.op, ()):
            changed = Node(other, {"self": {"node": start}})
            change = {place: lambda get, changed=changed: run(changed, get)}
            yield Attempt(f"{other}_for_{node.op}", f"{other} stands for {words}", change)
        if node.op in CURVED:
            yield from _others(region, place, start, words)
    yield from _too_many(problem)


def _others(region: Region, place: int, start: int, words: str) -> Iterator[Attempt]:
    """Another function of one value, or shares along some axis."""
    x = region.value(start)
    for key, curve in CURVES.items():
        text = f"{curve.words} stands for {words}"
        strange = region.node(place).op in _ARITHMETIC
        yield Attempt(f"activation_{key}", text, {place: lambda get, of=curve.function: of(get(start))}, strange)
    for axis in (a for a in range(x.ndim) if x.shape[a] > 1):  # over one value it gives ones: nothing then
        text = f"a softmax over axis {axis} of {list(x.shape)} stands for {words}"
        shares = {place: value(softmax({"self": x, "dim": axis}))}
        yield Attempt("activation_softmax", text, shares, region.node(place).op in _ARITHMETIC)


def _layer(region: Region, place: int) -> Layer | None:
    node = region.node(place)
    known = registry.operation(node.op)
    if known is None:
        return None
    plain = [v for k, v in node.args.items() if k not in ("self", "input") and not isinstance(v, dict)]
    settings = known.settings(plain)
    start = node.argument("self")
    if settings is None or start is None:
        return None
    return registry.layer(Recorded(known.class_name, settings, region.value(start)))


def _numbers(region: Region, place: int) -> Iterator[Attempt]:
    """Another number where the operation takes one: a norm's epsilon, a slope; whether a kernel is mirrored."""
    node = region.node(place)
    known = {"eps": ("epsilon", "epsilon", EPSILONS), "negative_slope": ("slope", "the negative slope", _SLOPES)}
    for name, (key, words, numbers) in known.items():
        own = node.args.get(name)
        for number in numbers if isinstance(own, float) else ():
            if number != own:
                text = f"{words} is {number:g}, not {own:g}"
                yield Attempt(
                    key, text, {place: lambda get, name=name, number=number: run(node, get, **{name: number})}
                )
    if node.op in ("argmin", "argmax"):
        other = {"argmin": "argmax", "argmax": "argmin"}[node.op]
        text = f"the {'largest' if other == 'argmax' else 'smallest'} value is chosen, not the other way round"
        yield Attempt("extreme_exchanged", text, {place: lambda get: run(Node(other, node.args), get)})
    weight = node.argument("weight")
    if node.op in ("convolution", "_convolution") and weight is not None:
        axes = tuple(range(2, np.ndim(region.value(weight))))
        for chosen in [axes, *([(axis,) for axis in axes] if len(axes) > 1 else [])]:
            where = "in all directions" if chosen == axes else f"along axis {chosen[0] - 2}"
            yield Attempt(
                "kernel_flipped",
                f"the kernel is mirrored {where}",
                {place: lambda get, axes=chosen: run(node, get, weight=np.flip(get(weight), axes))},
            )
        if len(axes) == 2:
            yield Attempt(
                "kernel_transposed",
                "the kernel's height and width are exchanged",
                {place: lambda get: run(node, get, weight=np.swapaxes(get(weight), 2, 3))},
            )


def _of_layer(region: Region, place: int, start: int, layer: Layer) -> Iterator[Attempt]:
    """The mistakes that people make in a layer of this kind."""
    known = registry.operation(region.node(place).op)
    title = known.title if known is not None else ""
    several = not isinstance(region.value(place), np.ndarray)
    for mistake in layer.mistakes():
        if mistake.key in ("missing",):
            continue

        def change(get: Any, mistake: Any = mistake) -> Any:
            changed = mistake.apply(replace(layer, x=get(start)))
            if changed is None:
                raise ValueError(mistake.key)
            return [changed.compute(), np.zeros(0)] if several else changed.compute()

        named = title.lower() in mistake.text.lower()
        yield Attempt(mistake.key, mistake.text if named else f"{title}: {mistake.text}", {place: change})


def _again(region: Region, place: int, start: int) -> NDArray | None:
    try:
        result = region.changed({start: value(region.value(place))}, place)
    except (CannotRun, ValueError, IndexError, TypeError):
        return None
    return result if isinstance(result, np.ndarray) else None


def _settings(region: Region, place: int, start: int, words: str) -> Iterator[Attempt]:
    """Other settings of functions that are no layers' own."""
    node, x = region.node(place), region.value(start)
    if node.op in ("_softmax", "_log_softmax"):
        own = int(node.args["dim"]) % x.ndim
        for axis in (a for a in range(x.ndim) if a != own and x.shape[a] > 1):
            powers = np.exp(x - x.max(axis=axis, keepdims=True))
            shares = powers / powers.sum(axis=axis, keepdims=True)
            made = np.log(shares) if node.op == "_log_softmax" else shares
            yield Attempt("softmax_axis", f"{words} runs over axis {axis}, not {own}", {place: value(made)})
    if node.op == "roll":
        shifts, dims = tuple(node.args["shifts"]), tuple(node.args["dims"])
        text = "values are rolled the other way"
        yield Attempt("roll_sign", text, {place: value(np.roll(x, tuple(-s for s in shifts), dims))})
        for i, dim in enumerate(dims if len(dims) > 1 else ()):
            made = np.roll(x, shifts[:i] + shifts[i + 1 :], dims[:i] + dims[i + 1 :])
            yield Attempt("roll_axis", f"values aren't rolled along axis {dim}", {place: value(made)})
        for moved in (1, -1):
            made = np.roll(x, tuple(s + moved for s in shifts), dims)
            yield Attempt("roll_shift", f"values are rolled by {moved:+d}", {place: value(made)})
    if node.op == "gelu":
        for key in ("gelu", "gelu_tanh", "gelu_quick"):
            yield Attempt(
                f"activation_{key}", f"GELU: {CURVES[key].words} stands for it", {place: value(CURVES[key].function(x))}
            )


def _standardised(x: NDArray, axis: int, epsilon: float) -> NDArray:
    apart = x - x.mean(axis, keepdims=True)
    return apart / np.sqrt(np.mean(apart**2, axis, keepdims=True) + epsilon)


def _squared(region: Region, place: int) -> bool:
    """Whether a node gives squares."""
    node = region.node(place)
    square = node.op == "mul" and node.args.get("self") == node.args.get("other")
    return square or node.op == "square" or (node.op == "pow" and node.args.get("exponent") == 2)


def _too_many(problem: Problem) -> Iterator[Attempt]:
    """A function where there is none: on what comes from a layer, on an operand, on what is handed on."""
    region = problem.region
    for place in reversed([p for p in region.places if region.of_data(p)]):
        node = region.node(place)
        values = region.value(place)
        if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.floating):
            continue
        if node.op in ("sum", "mean") and any(_squared(region, p) for p in node.parents):
            text = f"the root of {problem.words(place)} is taken: a length, where PyTorch has its square"
            change = {place: lambda get, place=place: np.sqrt(region.anew(place, get))}
            yield Attempt("root_added", text, change)
        if node.op in _PRODUCTS:  # of a function's own layers, where the usual ones are put
            for key, curve in ((key, CURVES[key]) for key in CURVES if key in _USUAL):
                text = f"{curve.words} is applied to {problem.words(place)}, where PyTorch applies nothing"
                change = {place: lambda get, place=place, of=curve.function: of(region.anew(place, get))}
                yield Attempt("relu_added" if key == "relu" else f"{key}_added", text, change)
        if (
            node.op not in SOURCES
            and node.op not in ("add", "sub", "mul", "div", ITEM, "mean", "cat")
            and place != region.sink
        ):
            continue
        for key, curve in CURVES.items():
            if key != "identity":
                text = f"{curve.words} is applied to {problem.words(place)}, where PyTorch applies nothing"
                name = "relu_added" if key == "relu" else f"{key}_added"
                change = {place: lambda get, place=place, of=curve.function: of(region.anew(place, get))}
                yield Attempt(name, text, change, key not in _USUAL)
        inside = place != region.sink and node.op not in _PRODUCTS  # where it may well wipe out what is wrong
        for axis in (a for a in range(-1, -values.ndim, -1) if values.shape[a] > 1):
            text = f"a softmax is applied to {problem.words(place)}, where PyTorch applies nothing"
            shares = softmax({"self": values, "dim": axis})
            yield Attempt("softmax_added", text, {place: value(shares)}, inside)
            text = text.replace("softmax", "log softmax")
            yield Attempt("softmax_added", text, {place: value(np.log(shares))}, inside)
        for axis in (-1, 1) if values.ndim > 2 else (-1,):
            for epsilon in EPSILONS[:2]:
                text = f"{problem.words(place)} goes through a norm without scale over axis {axis}"
                change = {place: lambda get, p=place, a=axis, e=epsilon: _standardised(region.anew(p, get), a, e)}
                yield Attempt("norm_added", f"{text}, where PyTorch applies nothing", change, True)
        yield Attempt(
            "norm_added",
            f"{problem.words(place)} is normalised to length 1",
            {place: value(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12))},
            True,
        )
