"""A PyTorch model run again with its gradients changed in one place: not stopped, stopped, or passed on another way.

Functions are counted as the model calls them, so a place is the number of a call. What a call gives stays what it was;
only what flows back through it becomes another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

_STOPS = frozenset({"detach", "detach_", "data"})
_CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": nn.functional.gelu,
    "gelu_tanh": lambda x: nn.functional.gelu(x, approximate="tanh"),
    "silu": nn.functional.silu,
    "softplus": nn.functional.softplus,
    "hardtanh": nn.functional.hardtanh,
    "identity": lambda x: x,
}
_MOST_WORDS = 3
_SUMS, _PRODUCTS = ("add", "radd", "sub", "rsub"), ("mul", "rmul", "multiply")


class Call(NamedTuple):
    """A function that the model has called.

    Attributes:
        number: of the call.
        name: of the function.
        tensors: the places among its arguments of tensors through which a gradient flows.
        behind: names of the parameters that each of these follows from, and the result.
        words: what each of these is, and the result.
        alike: those of them whose shape is the result's.
        makers: of each of these the call that gave it; None of parameters and inputs.
        numbers: that it was given besides.
    """

    number: int
    name: str
    tensors: tuple[int, ...]
    behind: tuple[frozenset[str], ...]
    words: tuple[str, ...]
    alike: tuple[int, ...]
    makers: tuple[int | None, ...]
    numbers: tuple[float, ...]

    @property
    def stops(self) -> bool:
        """Whether it stops gradients."""
        return self.name in _STOPS


Change = Callable[[Callable[..., Any], list[Any], Callable[[list[Any]], Any]], Any]


class Edit(NamedTuple):
    """A change to what flows back.

    Attributes:
        key: short name of the mistake; its words.
        text: see `key`.
        changes: by the number of a call, what becomes of it: from its function, the tensors among its arguments, and
            what calls it with others.
        linear: whether the change takes a gradient away, so that a factor of it may be looked for.
    """

    key: str
    text: str
    changes: dict[int, Change]
    linear: bool = False


class _Made(NamedTuple):
    """A tensor, kept so that its identity isn't another's; the parameters behind it, what it is, what gave it."""

    tensor: Tensor
    behind: frozenset[str]
    words: str
    maker: int | None


@dataclass
class Watched(TorchFunctionMode):
    """While active, calls are counted, and changed as an edit says.

    Attributes:
        changes: by the number of a call.
        names: of parameters and inputs, by their identity.
        calls: what was called; only where `names` are known.
        used: the last call that took each parameter.
        work: elements that were computed.
    """

    changes: dict[int, Change] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)
    work: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._count = 0
        self._made: dict[int, _Made] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        leaves, tree = tree_flatten((args, kwargs or {}))
        at = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]
        tensors = [leaves[i] for i in at]
        number, self._count = self._count, self._count + 1

        def called(others: list[Any]) -> Any:
            for i, other in zip(at, others, strict=True):
                leaves[i] = other
            some, named = tree_unflatten(leaves, tree)
            return func(*some, **named)

        change = self.changes.get(number)
        result = called(tensors) if change is None else change(func, tensors, called)
        if self.names:
            numbers = tuple(float(x) for x in leaves if isinstance(x, (int, float)) and not isinstance(x, bool))
            self._note(number, _name(func), tensors, numbers, result)
        return result

    def _note(self, number: int, name: str, tensors: list[Tensor], numbers: tuple[float, ...], result: Any) -> None:
        results = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor)]
        if not results:
            return
        known = [self._known(t) for t in tensors]
        self.used |= {self.names[id(t)]: number for t in tensors if id(t) in self.names}
        self.work += sum(t.numel() for t in results)
        behind = frozenset[str]().union(*(each.behind for each in known))
        words = _words(name, [each.words for each in known])
        for each in results:
            if not any(each is t for t in tensors):
                self._made[id(each)] = _Made(each, behind, words, number)
        flows = tuple(i for i, t in enumerate(tensors) if t.is_floating_point() and known[i].behind)
        if flows:
            call = Call(
                number,
                name,
                flows,
                (*(known[i].behind for i in flows), behind),
                (*(known[i].words for i in flows), words),
                tuple(i for i in flows if tensors[i].shape == results[0].shape),
                tuple(known[i].maker for i in flows),
                numbers,
            )
            self.calls.append(call)

    def _known(self, tensor: Tensor) -> _Made:
        if id(tensor) in self.names:
            name = self.names[id(tensor)]
            return _Made(tensor, frozenset({name}), name, None)
        return self._made.get(id(tensor)) or _Made(tensor, frozenset(), "a constant", None)


def _name(func: Any) -> str:
    owner = getattr(func, "__self__", None)  # of a property, which is asked for by `__get__`
    name = getattr(func, "__name__", "")
    return getattr(owner, "__name__", name) if name == "__get__" else name


def _words(name: str, parts: list[str]) -> str:
    weights = [part for part in parts if part.endswith(".weight")]
    if weights:
        return f"the output of {weights[0].removesuffix('.weight')}"
    if name in _STOPS or name in (
        "__getitem__",
        "permute",
        "reshape",
        "view",
        "transpose",
        "to",
        "contiguous",
        "T",
        "mT",
    ):
        return parts[0] if parts else "a constant"
    short = [part if part.count("(") < 2 else f"what {part.partition('(')[0]} gives" for part in parts]
    return f"{name.strip('_')}({', '.join(short[:_MOST_WORDS])})"


def edits(calls: list[Call], wrong: frozenset[str]) -> Iterator[Edit]:
    """Changes that may be the mistake, the likeliest first.

    Args:
        calls: of the model.
        wrong: names of the parameters whose gradients differ: only a place that all of them lead to can be it.
    """
    stops = [call for call in calls if call.stops]
    stopped = {call.number for call in stops}
    for call in calls:
        if stopped.intersection(call.makers):  # of x + stopped(round(x) - x), which gives round(x) a gradient
            text = f"the gradient is stopped at {call.words[-1]}"
            yield Edit("gradient_stopped", text, {call.number: _stopping(None)}, linear=False)
    for call in stops:
        text = f"the gradient flows into {call.words[0]}, where PyTorch stops it"
        yield Edit("gradient_not_stopped", text, {call.number: _unstopped})
    if len(stops) > 1:
        text = f"the gradient flows on in all {len(stops)} places where PyTorch stops it"
        yield Edit("gradient_not_stopped", text, {call.number: _unstopped for call in stops})
    ways = [
        (call, place, behind, words)
        for call in reversed(calls)
        if not call.stops
        for place, behind, words in zip((*call.tensors, None), call.behind, call.words, strict=True)
        if wrong <= behind
    ]
    yield from _factors(calls)
    for call, place, _, words in ways:
        where = f"stopped at {words}" + ("" if place is None else f" where {call.name.strip('_')} takes it")
        yield Edit("gradient_stopped", f"the gradient is {where}", {call.number: _stopping(place)}, True)
    for stop in stops:
        for call in reversed(calls):
            for place, words in zip(call.tensors, call.words, strict=False):
                if not call.stops:
                    text = f"the gradient is stopped at {words}, in PyTorch at {stop.words[0]}"
                    changes = {stop.number: _unstopped, call.number: _stopping(place)}
                    yield Edit("gradient_stopped_elsewhere", text, changes)
    for call, place, _, words in ways:
        if place in call.alike and len(call.tensors) == 1:
            for name in _CURVES:
                other = "nothing at all" if name == "identity" else name
                text = f"the gradient passes {call.name.strip('_')} of {words} as if it were {other}"
                key = "straight_through" if name == "identity" else "gradient_function"
                yield Edit(key, f"wrong gradient: {text}", {call.number: _curved(name)})


def _factors(calls: list[Call]) -> Iterator[Edit]:
    """Of a sum the number that multiplies one term multiplies the other one: equal terms give the same sum."""
    by_number = {call.number: call for call in calls}
    for call in calls:
        for place, maker in zip(call.tensors, call.makers, strict=True):
            made = None if maker is None else by_number.get(maker)
            if call.name.strip("_") not in _SUMS or len(call.tensors) != 2 or made is None:
                continue
            if made.name.strip("_") not in _PRODUCTS or len(made.tensors) != 1 or len(made.numbers) != 1:
                continue
            number, other = made.numbers[0], call.words[1 - call.tensors.index(place)]
            text = f"{other} is multiplied by {number:.6g}, in PyTorch {made.words[0]}"
            if number not in (0.0, 1.0):
                yield Edit("factors_exchanged", text, {call.number: _moved_factor(place, number)})


def _moved_factor(place: int, number: float) -> Change:
    def change(func: Any, tensors: list[Any], called: Callable[[list[Any]], Any]) -> Any:
        return called([x / number if i == place else x * number for i, x in enumerate(tensors)])

    return change


def _unstopped(func: Any, tensors: list[Any], called: Callable[[list[Any]], Any]) -> Any:
    """The tensor itself, as a view so that nothing takes it for the same."""
    return tensors[0].view_as(tensors[0])


def _stopping(place: int | None) -> Change:
    """A call whose tensor at a place, or whose result, lets no gradient through."""

    def change(func: Any, tensors: list[Any], called: Callable[[list[Any]], Any]) -> Any:
        if place is None:
            return tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, called(tensors))
        return called([x.detach() if i == place else x for i, x in enumerate(tensors)])

    return change


def _curved(name: str) -> Change:
    """A call that gives the same, and whose gradient is another function's."""

    def change(func: Any, tensors: list[Any], called: Callable[[list[Any]], Any]) -> Any:
        other = _CURVES[name](tensors[0])
        return called([x.detach() for x in tensors]) + (other - other.detach())

    return change
