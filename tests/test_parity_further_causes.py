"""More mistakes in code between layers, and what is said where choices alone tell of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from parity.causes.graph.graph import Graph, Region
from parity.causes.mistakes.attempts import Attempt, Problem
from parity.causes.mistakes.connections import chosen, other_code, other_parts
from parity.causes.mistakes.numbers import measured_factors, numbers
from parity.kinds.normalization import Grouped
from tests.test_parity_code_causes import FIELDS, MAP, OTHER, A, B, causes, recorded

MASK = np.asarray([[1.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0]])
KEPT = A * MASK[:, :, None]
CODES = np.random.default_rng(1).normal(size=(9, 6))


def standard(x: Tensor, mean: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7), deviation: float = 0.2) -> Tensor:
    steps = [deviation + 0.01 * i for i in range(len(mean))]
    return (x - x.new_tensor(mean)) / x.new_tensor(steps)


def nearest(x: Tensor, factor: float = 2.0) -> Tensor:
    book = torch.from_numpy(CODES)
    return (x.pow(2).sum(-1, keepdim=True) - factor * x @ book.T + book.pow(2).sum(-1)).argmin(-1)


CASES: dict[str, tuple[Callable[..., Tensor], tuple[NDArray, ...], NDArray, str, str]] = {
    "a length of whole maps": (
        lambda x: x * 2,
        (MAP,),
        2 * MAP / np.sqrt((4 * MAP**2).sum((1, 2, 3), keepdims=True) + 1e-8),
        "norm_added",
        "divided by its length over axes [1, 2, 3]",
    ),
    "another part": (lambda x: x.unbind(1)[1] * 2, (FIELDS,), 2 * FIELDS[:, 2], "other_item", "number 2 of the parts"),
    "another place": (lambda x: x[:, 1] * 2, (FIELDS,), 2 * FIELDS[:, 2], "other_item", "number 2 of axis 1"),
    "two tables turned round": (
        standard,
        (FIELDS,),
        (FIELDS - [0.7, 0.6, 0.5, 0.4]) / [0.23, 0.22, 0.21, 0.2],
        "constant_values",
        "the same numbers in another order",
    ),
    "two other tables": (
        standard,
        (FIELDS,),
        (FIELDS - 0.5) / 0.3,
        "constant_values",
        "[0.3, 0.3, 0.3, 0.3], in PyTorch [0.2, 0.21, 0.22, 0.23]: a table that is filled otherwise",
    ),
    "all counted": (
        lambda x, m: (x * m[:, :, None]).sum(1) / m.sum(1, keepdim=True),
        (A, MASK),
        KEPT.sum(1) / 5,
        "count_of_all",
        "all 5 places are counted, in PyTorch those that a mask keeps, 2 or 3",
    ),
    "the imaginary part": (
        lambda x, y: x * y.sin() - y * x.cos(),
        (A, B),
        A * np.cos(A) + B * np.sin(B),
        "complex_part",
        "the imaginary part of the product",
    ),
    "the real part": (
        lambda x, y: x * x.cos() + y * y.sin(),
        (A, B),
        A * np.sin(B) - B * np.cos(A),
        "complex_part",
        "the real part of the product",
    ),
    "divided": (
        lambda x, y: (x * y.exp()).tanh(),
        (A, B),
        np.tanh(A / np.exp(B)),
        "quotient_for_product",
        "in PyTorch multiplied",
    ),
    "another part of the code joined": (
        lambda x, y: torch.cat([x.sin() - y.sinh(), y.sinh()], 1).tanh(),
        (A, B),
        np.tanh(np.concatenate([np.sin(A) - np.sinh(B), np.sin(A)], 1)),
        "part_source",
        "sin(the model's input 0) is joined, in PyTorch sinh(the model's input 1)",
    ),
    "all but the best": (
        lambda x: x * 2 + x.topk(2, -1)[0].sum(-1, keepdim=True),
        (A,),
        2 * A + np.sort(A)[..., -3:-1].sum(-1, keepdims=True),
        "topk_later",
        "number 2 to 3 of 6",
    ),
    "all examples": (
        lambda x: x / x.abs().amax(1, keepdim=True),
        (A,),
        A / np.abs(A).max((0, 1), keepdims=True),
        "pool_axis",
        "amax is taken over all examples, too",
    ),
    "another mistake in each part": (
        lambda x, y: torch.stack([x.sin(), y.tanh(), x * y]),
        (A, B),
        np.stack([np.cos(A), 1 / (1 + np.exp(-B)), A * B]),
        "cos_for_sin",
        "(in 2 of the 3 parts that are joined)",
    ),
    "every table looked up": (
        lambda x, y: sum((part * 0.25 + part.square()).sum() for part in (x, y, x * y)) * x,
        (A, B),
        sum((part + part**2).sum() for part in (A, B, A * B)) * A,
        "scaled",
        "isn't multiplied by 0.25, and so in all 3 places like it",
    ),
    "a term, and no turn of a loop": (
        lambda x, y: (x + y.sin() + y.cos()).tanh(),
        (MAP, OTHER),
        np.tanh(MAP + np.sin(OTHER)),
        "term_missing",
        "cos(the model's input 1) isn't added",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_mistake_is_named(name: str) -> None:
    function, inputs, observed, key, words = CASES[name]
    [found] = causes(function, inputs, observed)
    assert found.startswith(f"{key}: "), found
    assert words in found


def test_what_choices_alone_tell_isnt_said_to_be_sure() -> None:
    distances = (CODES**2).sum(-1) - A @ CODES.T
    [found] = causes(nearest, (A,), distances.argmin(-1))
    assert "isn't multiplied by 2" in found and "or, which makes the same choices, " in found
    assert found.endswith("nothing but what is chosen tells of it, so it may be yet another mistake there")
    [sure] = causes(lambda x: nearest(x) * 1.0, (A,), nearest(torch.from_numpy(A)).numpy() * 2.0)
    assert "chosen" not in sure  # values tell of what comes behind


def attempt(key: str, text: str) -> tuple[Attempt, float]:
    return Attempt(key, text, {}), 0.0


def test_layers_alike_leave_what_explains_all_of_them() -> None:
    one = [attempt("term_twice", "blocks.0.w is added twice"), attempt("scaled", "blocks.0.x isn't halved")]
    two = [attempt("sign", "blocks.1.w is negative"), attempt("scaled", "blocks.1.x isn't halved")]
    met = {"blocks/0/book": chosen.Alike(one, 1.0), "blocks/1/book": chosen.Alike(two, 2.0)}
    left = chosen.narrowed(met)
    assert {path: [each[0].text for each in alike.found] for path, alike in left.items()} == {
        "blocks/0/book": ["blocks.0.x isn't halved"],
        "blocks/1/book": ["blocks.1.x isn't halved"],
    }
    assert chosen.narrowed({**met, "head": chosen.Alike(two, 1.0)}).keys() == met.keys()
    assert chosen.narrowed({"blocks/0/book": met["blocks/0/book"]}) == {}


def region(function: Callable[..., Tensor], *inputs: NDArray) -> Region:
    recorder, sink, _ = recorded(function, *inputs)

    def load(place: int, node: Any) -> NDArray:
        return inputs[node.args["index"]] if "index" in node.args else recorder.constants[f"c.{place}"]

    graph = Graph(recorder.nodes, load)
    return Region(graph, graph.moved[sink], {})


def test_another_layers_code_is_tried_on_this_ones_values() -> None:
    """As where one function has two modes, and JAX takes the other one."""
    own = region(lambda x: (torch.arange(4.0).clamp(max=2) + x).sin(), FIELDS)
    other = region(lambda x: (torch.arange(3.0).flip(0).square() + x).cos(), FIELDS[:, :, :3])
    observed = np.cos(np.arange(4.0)[::-1] ** 2 + FIELDS)
    problem = Problem(own, observed, 1e-14, str, code=lambda: iter([("the input of far", other)]))
    [found] = [each for each in other_code.attempts(problem) if problem.left(each.changes) < 1e-14]
    assert found.text == "it is made as PyTorch makes the input of far, of its own values"
    alike = Problem(own, observed, 1e-14, str, code=lambda: iter([("the input of itself", own)]))
    assert not [*other_code.attempts(alike)]


def test_another_array_may_be_joined() -> None:
    own, far = region(lambda x, y: torch.cat([x, y.sin()], 1).tanh(), A, B), A[::-1].copy()
    observed = np.tanh(np.concatenate([A, far], 1))
    problem = Problem(own, observed, 1e-14, str, [("the output of far", lambda: far)])
    [found] = [each for each in other_parts.attempts(problem) if problem.left(each.changes) < 1e-14]
    assert found.text.startswith("the output of far is joined, in PyTorch ")


def test_no_number_is_found_behind_which_all_goes_through_one_value() -> None:
    """Whatever makes a sum what it is, some factor of one of its terms does, too."""
    own = region(lambda x, y: (x * 0.25 + y).sum() * x, A, B)
    problem = Problem(own, 0.7 * A, 1e-14, str)
    assert not [each for each in numbers.attempts(problem) if problem.left(each.changes) < 1e-14]
    assert [*measured_factors.attempts(problem)]  # of the sum itself, and of what follows


def test_any_number_of_groups_is_tried() -> None:
    scale = {"weight": np.ones(6), "bias": np.zeros(6)}
    layer = Grouped(x=MAP, weights=scale, eps=1e-5, axes=(2, 3), channel=1, groups=6)
    assert {"there are 3 groups, not 6", "there are 2 groups, not 6"} <= {each.text for each in layer.axes_mistakes()}
