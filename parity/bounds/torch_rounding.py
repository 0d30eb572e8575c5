"""Running error analysis of PyTorch code: what the roundings that really happened may add up to.

`RunningError` watches every ATen operation and carries, beside each tensor, a bound on its absolute error to
first order in the unit roundoff u: the error that its inputs bring, plus u |result| for each rounding of its own.
It gives a derived tolerance for layers and for code between layers that no table knows, forward and backward.
Copies, selections, maxima and ReLU bring no error: there, only bit-for-bit equality passes.

An operation without a rule leaves its results, and all that is computed from them, without a bound; its name goes
along.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from parity.bounds import (  # noqa: F401  each but the forms adds its rules to RULES
    torch_exact_forms,
    torch_rounding_activations,
    torch_rounding_attention,
    torch_rounding_complex,
    torch_rounding_convolution,
    torch_rounding_functions,
    torch_rounding_losses,
    torch_rounding_moves,
    torch_rounding_norms,
    torch_rounding_pooling,
    torch_rounding_resampling,
    torch_rounding_sampling,
    torch_rounding_special,
)
from parity.bounds.torch_known_errors import EXACT, KnownErrors
from parity.bounds.torch_operation import UNIT, Formula, Operation, Rule, Terms, Tracked
from parity.bounds.torch_rounding_rules import RULES, SUMS, constant, summed


class RunningError(TorchDispatchMode, KnownErrors):
    """While active, bounds the error of every floating-point tensor that is computed.

    Args:
        lane: dtype that everything is meant to be computed in. Roundings to a coarser one count as if they were to
            this; None to take every operation as it is.
        fixed: see `Operation`.

    Attributes:
        suspended: while True, results are taken as exact and nothing is computed beside them.
        log: names and plain arguments of the operations seen, oldest first; cleared by whoever reads it.
        coarse: operations on tensors of fewer bits than the lane's, (dtype, name); kept while suspended too, and
            cleared by whoever reads it.
        muted: while True, `coarse`, `inexact` and `touched` are left alone.
        watched: names of tensors by the address of their memory; `touched` holds those that an operation has used.
        inexact: whether a function gave something else than its formula, see `parity.bounds.torch_exact_forms`.
        recorder: writes the operations down as a graph, see `parity.reference.torch_graph`; None if nobody does.
    """

    def __init__(self, lane: torch.dtype | None = None, fixed: float | None = None) -> None:
        TorchDispatchMode.__init__(self)
        KnownErrors.__init__(self)
        self.fixed = fixed
        self.most = UNIT[lane] if lane is not None else 1.0
        self.coarse: list[tuple[str, str]] = []
        self.muted = False
        self.inexact = False
        self.watched: dict[int, str] = {}
        self.touched: set[str] = set()
        self.suspended = False
        self.log: list[tuple[str, list]] = []
        self.recorder: Any = None

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Within, results are taken as exact."""
        before, self.suspended = self.suspended, True
        try:
            yield
        finally:
            self.suspended = before

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not self.suspended and _name(func) not in RULES:
            with self:  # an operation that is only written in others, where autograd hasn't taken it apart
                if (parts := func.decompose(*args, **kwargs)) is not NotImplemented:
                    return parts
        # Before the call: an in-place operation overwrites what its arguments were.
        given = {} if self.suspended else {**dict(enumerate(args)), **kwargs}
        known: dict[int | str, Tracked] = {place: self._gather(arg) for place, arg in given.items()}
        recorder = None if self.suspended else self.recorder
        noted = None if recorder is None else recorder.before(func, args, kwargs)
        mutated = not self.suspended and func._schema.is_mutable
        values = tuple(a.clone() if mutated and isinstance(a, Tensor) else a for a in args)
        result = func(*args, **kwargs)
        if recorder is not None and noted is not None:
            recorder.after(noted, args[0] if args else None, result)
        outputs = list(result) if isinstance(result, (tuple, list)) else [result]
        tensors = [out for out in outputs if isinstance(out, Tensor)]
        sums = self._sums_taken(func, args)
        self._notice(func, args, kwargs, result)
        if mutated and args and isinstance(args[0], Tensor):
            self.write_in_part(args[0])
        if self.suspended:
            # A view says nothing new of the values it shares; memory used again must not keep an old bound.
            if not any(r.alias_info for r in func._schema.returns):
                self.forget(*tensors)
            return result
        given = [*args, *kwargs.values()]
        self.log.append((_name(func), [a for a in given if not isinstance(a, (Tensor, list, tuple)) or _plain(a)]))
        if any(out.is_floating_point() or out.is_complex() for out in tensors):
            self._follow_map(args, tensors[0])
            operation = Operation(func, _name(func), values, kwargs, result, most=self.most, fixed=self.fixed)
            operation.nested = _nested
            operation.terms = sums
            operation.errors = {place: k.error for place, k in known.items() if k.error is not None}
            self._record(operation, outputs, list(known.values()))
            self.set_terms(tensors[0], summed(operation) if operation.name in SUMS else None)
        return result

    def _sums_taken(self, func: Any, args: tuple) -> dict[int, Terms]:
        """The terms of the arguments of an addition; of whatever something takes, nothing is known from then on."""
        found: dict[int, Terms] = {}
        for place, arg in enumerate(args):
            for tensor in arg if isinstance(arg, (list, tuple)) else (arg,):
                if isinstance(tensor, Tensor) and (terms := self.terms(tensor)) is not None:
                    found[place] = terms
                    self.set_terms(tensor, None)
        return found if not self.suspended and _name(func) in SUMS else {}

    def _notice(self, func: Any, args: tuple, kwargs: dict, result: Any) -> None:
        if self.muted:
            return
        self.inexact = self.inexact or torch_exact_forms.departs(_name(func), result, args, kwargs)
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        given = [t for arg in args for t in (arg if isinstance(arg, (list, tuple)) else (arg,))]
        if self.watched:
            used = (t.untyped_storage().data_ptr() for t in given if isinstance(t, Tensor))
            self.touched |= {self.watched[address] for address in used if address in self.watched}
        for tensor in (*given, *outputs):
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and UNIT.get(tensor.dtype, 1.0) > self.most:
                self.coarse.append((str(tensor.dtype).removeprefix("torch."), _name(func)))
                return

    def _gather(self, arg: Any) -> Tracked:
        if isinstance(arg, Tensor):
            return self.get(arg)
        if isinstance(arg, (list, tuple)) and arg and all(isinstance(a, Tensor) for a in arg):
            known = [self.get(a) for a in arg]
            if unknown := _united(known):
                return Tracked(None, max(k.depth for k in known), unknown)
            if any(k.error is not None for k in known):
                errors = [
                    torch.zeros(a.shape, dtype=torch.float64, device=a.device) if k.error is None else k.error
                    for a, k in zip(arg, known, strict=True)
                ]
                return Tracked(errors, max(k.depth for k in known))  # type: ignore[arg-type]
        return EXACT

    def _follow_map(self, args: tuple, out: Tensor) -> None:
        source = next((a for a in args if isinstance(a, Tensor)), None)
        if source is None:
            return
        shape = self.map_shape(source) if source.shape == out.shape else None
        if out.ndim == 2 and source.ndim > 3 and source.shape[0] == out.shape[0] and source.numel() == out.numel():
            shape = tuple(source.shape[1:])
        self.set_map_shape(out, shape)

    def _record(self, operation: Operation, outputs: list[Any], known: list[Tracked]) -> None:
        depth, unknown = max((k.depth for k in known), default=0), _united(known)
        rule = RULES.get(operation.name)
        tainted = bool(unknown) and rule is not constant
        complex_numbers = torch_rounding_complex.is_complex(operation)
        unready = complex_numbers and operation.name not in torch_rounding_complex.READY
        found = None if rule is None or tainted or unready else _applied(rule, operation)
        if found is None:
            without = Tracked(None, depth, unknown or (operation.func._schema.name,))
            for out in outputs:
                if isinstance(out, Tensor) and (out.is_floating_point() or out.is_complex()):
                    self.put(out, without)
            return
        error, added = found
        # A rule gives the first result's error, or a list with one for each.
        errors = list(error) if isinstance(error, (list, tuple)) else [error]
        errors += [None] * (len(outputs) - len(errors))
        for out, bound in zip(outputs, errors, strict=True):
            if isinstance(out, Tensor) and (out.is_floating_point() or out.is_complex()):
                known_now = EXACT
                if isinstance(bound, Tensor):
                    # What is rounded may also underflow, to 0 where subnormal numbers are flushed.
                    least = torch.finfo(out.dtype).tiny if added else 0.0
                    bound = torch.where(bound > 0, bound + least, bound).expand(out.shape)
                    bound = torch.nan_to_num(bound, nan=math.inf, posinf=math.inf)  # no limit: told, and not judged
                    known_now = Tracked(bound, depth + added)
                self.put(out, known_now)


def _nested(formula: Formula, values: list[Any], errors: list[Any], unit: float) -> tuple[list[Any], int]:
    mode = RunningError(fixed=unit)
    given = [v.clone() if isinstance(v, Tensor) else v for v in values]  # one tensor in two places is two here
    for value, error in zip(given, errors, strict=True):
        if isinstance(value, Tensor) and isinstance(error, Tensor):
            mode.put(value, Tracked(error))
    with mode:
        result = formula(*given)
    tracked = [mode.get(t) for t in (result if isinstance(result, (list, tuple)) else [result])]
    if unknown := _united(tracked):
        raise ValueError(f"no bound is known for {', '.join(unknown)}")
    return [t.error for t in tracked], max(t.depth for t in tracked)


def _applied(rule: Rule, operation: Operation) -> tuple[Any, int] | None:
    """What a rule says; None where it can't: it has not met these arguments."""
    try:
        return rule(operation)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError):
        return None


def _united(known: list[Tracked]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for k in known for name in k.unknown))


def register(name: str, rule: Rule) -> None:
    """Add the rule of an ATen operation, named without `aten::`.

    A rule takes an `Operation` and returns the absolute error bound of its result (float64, or None if it is
    exact; a list for several results), and how many roundings in a row the operation itself performs.
    """
    RULES[name] = rule


def _name(func: Any) -> str:
    name = func.overloadpacket.__name__
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _plain(arg: Any) -> bool:
    return isinstance(arg, (list, tuple)) and all(isinstance(a, (int, float, bool)) for a in arg)
