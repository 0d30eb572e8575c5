"""Mistakes in sums and products: residual connections, layer scales, gates, factors, and terms that are left out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.bounds.judging import farthest
from parity.causes.graph.node_kinds import CONSTANT, MOVES, PARAMETER, SOURCES
from parity.causes.graph.nodes import Changes, Node, run
from parity.causes.layer.precision import coarser
from parity.causes.mistakes.attempts import Attempt, Problem, value

_MOST_NODES = 48


def handed_on(problem: Problem) -> Iterator[Attempt]:
    """Where PyTorch hands on what a layer gave, JAX hands on something else that is about."""
    if problem.region.node(problem.region.sink).op in SOURCES:
        yield from _instead(problem)


def made_elsewhere(problem: Problem) -> Iterator[Attempt]:
    """Where PyTorch computes something, JAX hands on what is about."""
    if problem.region.node(problem.region.sink).op not in SOURCES:
        yield from _instead(problem)


def _instead(problem: Problem) -> Iterator[Attempt]:
    sink = problem.region.sink
    own, moved = problem.words(sink), problem.region.node(sink).op in MOVES
    for name, array in problem.others(problem.observed):
        key, text = "order", f"{name} is handed on, in PyTorch {own}"
        if name == own and moved:  # of which words tell nothing
            key, text = "axes_order", f"{name} is handed on with its axes as they are, not moved (not transposed?)"
        if array.shape != problem.right.shape or farthest(array, problem.right) > 0:
            yield Attempt(key, text, {sink: value(array)})


def sources(problem: Problem) -> Iterator[Attempt]:
    """The code begins at something else that is about: at a layer's output before its activation, say."""
    region = problem.region
    for place in (p for p in region.places if p != region.sink and (p in region.cut or region.node(p).op in SOURCES)):
        values = region.value(place)
        if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.floating):
            for name, other in problem.others(values):
                text = f"{name} is used, in PyTorch {problem.words(place)}"
                if farthest(other, values) > 0:
                    yield Attempt("other_source", text, {place: value(other)})


def attempts(problem: Problem) -> Iterator[Attempt]:
    """Mistakes in each sum and product, the last one first; then other tensors in their places."""
    places = [
        p for p in reversed(problem.region.operations) if problem.region.node(p).op in ("add", "sub", "mul", "div")
    ]
    for place in places:
        made = _sum if problem.region.node(place).op in ("add", "sub") else _product
        yield from made(problem, place)
    for place in places:
        if problem.region.node(place).op in ("add", "sub"):
            yield from _replaced(problem, place)


def signs_of(node: Node) -> dict[str, float]:
    """What each argument of a sum or difference is multiplied by."""
    return {"self": 1.0, "other": (-1.0 if node.op == "sub" else 1.0) * float(node.args.get("alpha") or 1)}


def operands(problem: Problem, place: int) -> list[tuple[str, int]]:
    """The nodes that a sum or product takes, each with the name of the argument."""
    node = problem.region.node(place)
    return [(name, p) for name in ("self", "other") if (p := node.argument(name)) is not None]


def _sum(problem: Problem, place: int) -> Iterator[Attempt]:
    region = problem.region
    node, terms, signs = region.node(place), operands(problem, place), signs_of(problem.region.node(place))
    for name, operand in terms:
        values, words = region.value(operand), problem.words(operand)
        if not np.issubdtype(values.dtype, np.floating):
            continue

        def more(count: float, operand: int = operand, sign: float = signs[name]) -> Changes:
            return {place: lambda get: region.anew(place, get) + count * sign * get(operand)}

        yield Attempt("term_missing", f"{words} isn't added", _without(problem, place, name))
        half = region.node(operand).op in ("mul", "div") and len(region.node(operand).parents) == 1
        yield Attempt("term_twice", f"{words} is added twice", more(1.0), strange=half)
        yield Attempt("term_sign", f"{words} has the other sign", more(-2.0))
    number = node.args.get("other")
    if len(terms) == 1 and isinstance(number, (int, float)):
        start = terms[0][1]
        text = f"{number:.6g} isn't {'added to' if node.op == 'add' else 'taken from'} {problem.words(start)}"
        yield Attempt("term_missing", text, {place: lambda get: get(start)})
    if len(terms) == 2 and node.op == "sub":
        yield Attempt(
            "operands_exchanged", "a difference has the other sign", {place: lambda get: -region.anew(place, get)}
        )
    if len(terms) == 2:
        one, two = (p for _, p in terms)
        text = f"{problem.words(one)} and {problem.words(two)} are multiplied, not added"
        yield Attempt("product_for_sum", text, {place: lambda get: get(one) * get(two)})
        yield from _exchanged_numbers(problem, place, one, two)


def _without(problem: Problem, place: int, name: str) -> Changes:
    """A sum without a term: what is left of it, and not the sum less the term, whose roundings may be as large."""
    region = problem.region
    shape, signs = np.shape(region.value(place)), signs_of(region.node(place))
    rest = next((p for other, p in operands(problem, place) if other != name), None)
    if rest is None:  # but for a number
        term = region.node(place).argument(name)
        return {} if term is None else {place: lambda get: region.anew(place, get) - signs[name] * get(term)}
    sign = signs["self" if name == "other" else "other"]
    return {place: lambda get: np.broadcast_to(sign * get(rest), shape)}


def _exchanged_numbers(problem: Problem, place: int, one: int, two: int) -> Iterator[Attempt]:
    """Of a x + b y the numbers, as the momentum of a running average taken the other way round; or x or y by itself."""
    region, sign = problem.region, -1.0 if problem.region.node(place).op == "sub" else 1.0
    a, b = (region.node(p).args.get("other") if region.node(p).op == "mul" else None for p in (one, two))
    x, y = (region.node(p).argument("self") for p in (one, two))
    if x is None or y is None or a == b or region.node(place).args.get("alpha") not in (None, 1):
        return
    if not isinstance(a, (int, float)) or not isinstance(b, (int, float)):
        return
    text = f"{a:.6g} and {b:.6g}, by which {problem.words(x)} and {problem.words(y)} are multiplied, are exchanged"
    yield Attempt("factors_exchanged", text, {place: lambda get: b * get(x) + sign * a * get(y)})
    words = f"{a:.6g} times {problem.words(x)} and {b:.6g} times {problem.words(y)}"
    for alone in (x, y):
        text = f"nothing is averaged or smoothed: {problem.words(alone)} stands for the sum of {words}"
        yield Attempt("average_missing", text, {place: lambda get, alone=alone: get(alone)})


def _replaced(problem: Problem, place: int) -> Iterator[Attempt]:
    """Another tensor in the place of one that is added: a residual taken from elsewhere."""
    region = problem.region
    signs, result = signs_of(problem.region.node(place)), region.value(place)
    for name, operand in operands(problem, place):
        values, words = region.value(operand), problem.words(operand)
        if not np.issubdtype(values.dtype, np.floating):
            continue
        others = list(problem.others(values))
        others += [(problem.words(other), region.value(other)) for other in _near(problem, operand, place)]
        for other_name, other in others:
            key, text = "residual_source", f"{other_name} is added, in PyTorch {words}"
            if other_name == words:  # which tell no moves of values
                key, text = "axes_order", f"{words} is added with its axes or values in another order (not transposed?)"
            yield Attempt(key, text, {place: value(result + signs[name] * (other - values))})


def _near(problem: Problem, operand: int, place: int) -> Iterator[int]:
    """Other nodes of this region with as many values as an operand."""
    region = problem.region
    shape = region.value(operand).shape
    for other in region.places:
        if other not in (operand, place) and other < place and region.of_data(other):
            values = region.value(other)
            if isinstance(values, np.ndarray) and values.shape == shape and np.issubdtype(values.dtype, np.floating):
                yield other


def _product(problem: Problem, place: int) -> Iterator[Attempt]:
    region = problem.region
    node, parts = region.node(place), operands(problem, place)
    result = region.value(place)
    for name, operand in parts:
        rest = next((p for n, p in parts if n != name), None)
        if rest is None or (node.op == "div" and name == "self"):
            continue
        words = problem.words(operand)
        text = f"{words} is left out: nothing is {'multiplied' if node.op == 'mul' else 'divided'} by it"
        key = "scale_missing" if region.node(operand).op in (PARAMETER, CONSTANT) else "factor_missing"
        yield Attempt(key, text, {place: lambda get, rest=rest: np.broadcast_to(get(rest), result.shape)})
        if region.value(rest).shape != result.shape:
            continue
        text = f"{words} multiplies twice"
        twice = {place: lambda get, operand=operand: region.anew(place, get) * get(operand)}
        yield Attempt("factor_twice", text, twice)
        text = f"1 + {words} multiplies, not {words}"
        more = {place: lambda get, rest=rest, operand=operand: get(rest) * (1 + get(operand))}
        yield Attempt("one_added", text, more)
        one = region.value(operand)
        if node.op == "mul" and region.node(operand).op == "add":
            text = f"{words} multiplies without the number that is added to it"
            yield Attempt("one_missing", text, {place: value(region.value(rest) * (one - 1))})
    numbers = [a for a in (node.args.get("other"), node.args.get("self")) if isinstance(a, (int, float))]
    if len(parts) == 1 and numbers:
        operand = parts[0][1]
        what = f"{problem.words(operand)} isn't {'multiplied' if node.op == 'mul' else 'divided'} by {numbers[0]:.6g}"
        yield Attempt("scaled", what, {place: lambda get: get(operand)})
        factor = 1 / numbers[0] if node.op == "mul" else numbers[0]
        text = f"{problem.words(operand)} is {'divided' if node.op == 'mul' else 'multiplied'} by {numbers[0]:.6g}"
        yield Attempt("scaled", text, {place: lambda get: factor * get(operand)})
        yield from _rounded_number(problem, place, operand, float(numbers[0]))
    if len(parts) == 2:
        yield from _divided(problem, place, parts[0][1], parts[1][1])
    if len(parts) == 2 and node.op == "mul":
        one, two = (region.value(p) for _, p in parts)
        if (one + two).shape == result.shape:
            text = f"{problem.words(parts[0][1])} and {problem.words(parts[1][1])} are added, not multiplied"
            one, two = (p for _, p in parts)
            yield Attempt("sum_for_product", text, {place: lambda get: get(one) + get(two)})


def _divided(problem: Problem, place: int, one: int, two: int) -> Iterator[Attempt]:
    """A quotient in the place of a product, either way round, or the other way about."""
    if problem.region.node(place).op == "div":
        text = f"{problem.words(one)} is multiplied by {problem.words(two)}, in PyTorch divided"
        yield Attempt("product_for_quotient", text, {place: lambda get: get(one) * get(two)})
        return
    for x, y in ((one, two), (two, one)):
        text = f"{problem.words(x)} is divided by {problem.words(y)}, in PyTorch multiplied"
        yield Attempt("quotient_for_product", text, {place: lambda get, x=x, y=y: get(x) / get(y)})


def _rounded_number(problem: Problem, place: int, operand: int, number: float) -> Iterator[Attempt]:
    """The number of a product rounded to fewer bits, as an array of one value is, or one in the weights' format."""
    node = problem.region.node(place)
    name = "other" if isinstance(node.args.get("other"), (int, float)) else "self"
    for key, form in coarser("float64").items():
        fewer = float(form.rounded(np.asarray(number)))
        if fewer != number and key != "tf32":  # in which products are made, not numbers kept
            text = f"{number:.6g}, {'by' if name == 'other' else 'of'} which {problem.words(operand)} is "
            text += f"{'multiplied' if node.op == 'mul' else 'divided'}, is rounded to {form.name}"
            yield Attempt(key, text, {place: lambda get, other={name: fewer}: run(node, get, **other)})


def added(problem: Problem) -> Iterator[Attempt]:
    """Something that is about, added to a node or multiplied into it where PyTorch does nothing."""
    region = problem.region
    for place in reversed(computed(problem)):
        result = region.value(place)
        where = problem.words(place)
        for name, other in problem.others(result):
            yield Attempt("term_added", f"{name} is added to {where}", {place: value(result + other)})
        for other in _near(problem, place, place):
            text = f"{problem.words(other)} is added to {where}"
            yield Attempt("term_added", text, {place: value(result + region.value(other))})
            if region.node(place).op in ("add", "mul", "mean", "sum"):
                text = f"{problem.words(other)} multiplies {where}, which nothing does in PyTorch"
                yield Attempt("factor_added", text, {place: value(result * region.value(other))})


def computed(problem: Problem) -> list[int]:
    """Nodes of data whose values are numbers, moved ones once."""
    region = problem.region
    found = []
    for place in region.places:
        values = region.value(place)
        moved = region.node(place).op in MOVES and place != region.sink
        if not moved and region.of_data(place) and isinstance(values, np.ndarray):
            found += [place] if np.issubdtype(values.dtype, np.floating) else []
    return found[-_MOST_NODES:]
