"""The reference at exact zeros and ties, where gradients are a matter of convention.

Random input never holds a zero before a ReLU, nor two equal maxima in a window, so that what a framework does there
stays unseen: whether zero passes the gradient, which of equal maxima gets it. After the natural run the model runs once
more, and every leaf hands on its natural output rounded to multiples of a power of two near its root mean square: small
values become 0 (and -0), neighbours become equal. Layers that are linear in their input have no such places and aren't
computed; the others, and the code between the leaves, are recorded as in the natural run, on drawn cotangents without
zeros, in the directory `ties` of the capture's store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from parity.bounds.torch_operation import MOVES
from parity.bounds.torch_rounding import RunningError
from parity.comparison.store import Store
from parity.kinds import torch_leaves
from parity.reference import torch_replay
from parity.reference.torch_call import Call
from parity.reference.torch_capture import Capture, operations
from parity.reference.torch_tensors import DTYPES, differentiable, to_numpy

# Operations that only move, select or repeat values: between leaves they have nothing to get wrong at ties.
MOVING = {*MOVES, "flatten"}


# Which of equal values these choose is no convention: code with one of them isn't compared where values are equal.
CHOOSING = {"topk", "sort", "argsort", "argmax", "argmin", "kthvalue", "median", "mode", "unique", "multinomial"}


def run(capture: Capture, inputs: tuple[Tensor, ...], seed: int) -> None:
    """Run the model at ties; after `torch_backward.run`, whose records it starts from.

    Writes the same records as that into the directory `ties`, with `passed.0` (what the leaf hands on) in those of the
    leaves, and at the end `complete`, which says whether the code between the leaves computes anything, or `abandoned`,
    which says why the model couldn't run.
    """
    store = Store(capture.store.directory / "ties")
    names = [call.key("forward") for call in capture.calls] + ["output"]
    ops = {op for name in names for op, _ in capture.store.facts(name)["ops"]}
    chosen = not ops.isdisjoint(CHOOSING)
    between = not ops <= MOVING and not chosen
    ties = _Ties(capture, store, seed, between)
    for old in ("complete", "abandoned"):  # of an earlier run in a kept workspace
        (store.directory / f"{old}.json").unlink(missing_ok=True)
    try:
        with ties.in_place(), torch.enable_grad(), ties.mode:
            result = capture.model(*(x.detach() for x in inputs), **capture.kwargs)
        if ties.count < len(capture.calls):
            raise ValueError("the model takes another way")
    except (RuntimeError, IndexError, ValueError) as error:
        store.put("abandoned", {}, why=str(error).splitlines()[0])
        return
    ties.finish([t for t in tree_flatten(result)[0] if isinstance(t, Tensor)])
    store.put("complete", {}, between=between, chosen=chosen)


def tied(y: Tensor) -> Tensor:
    """`y` rounded to multiples of the power of two nearest to its root mean square, for each example by itself."""
    if not y.is_floating_point() or y.numel() == 0:
        return y.detach().clone()
    rows = y.detach().double().reshape(len(y) if y.ndim > 1 else 1, -1)
    size = torch.nan_to_num(rows, posinf=0.0, neginf=0.0).square().mean(1, keepdim=True).sqrt()
    unit = torch.where(size > 0, torch.exp2(torch.round(torch.log2(size.clamp_min(1e-300)))), torch.ones(()).double())
    return (torch.round(rows / unit) * unit).reshape(y.shape).to(y.dtype)


class _Ties:
    """One run at ties: hooks that record what reaches each leaf, and stand-ins that hand on its tied output."""

    def __init__(self, capture: Capture, store: Store, seed: int, between: bool) -> None:
        self.capture, self.store, self.between = capture, store, between
        self.mode = RunningError(DTYPES[capture.dtype])
        self.generator = torch.Generator().manual_seed(seed + 1)
        self.count = 0
        self.own: dict[nn.Module, Any] = {}
        self.roots: list[tuple[Tensor, Tensor]] = []

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the leaves of the capture are replaced."""
        modules: list[nn.Module] = list(dict.fromkeys(self.capture.leaves.values()))
        for module in modules:
            self.own[module] = module.__dict__.get("forward")
            module.__dict__["forward"] = self._stand_in(module)
        try:
            yield
        finally:
            for module in modules:
                self._restore(module)

    def _restore(self, module: nn.Module) -> None:
        if self.own[module] is None:
            module.__dict__.pop("forward", None)
        else:
            module.__dict__["forward"] = self.own[module]

    def _stand_in(self, module: nn.Module) -> Callable:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if self.count >= len(self.capture.calls) or self.capture.calls[self.count].module is not module:
                raise ValueError("the model takes another way")
            call = self.capture.calls[self.count]
            self.count += 1
            self.mode.suspended = True
            self._restore(module)
            try:
                passed = self._recorded(call, [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)])
            finally:
                module.__dict__["forward"] = forward
            self.mode.suspended = False
            self.mode.log.clear()
            return call.with_outputs(passed)

        return forward

    def _recorded(self, call: Call, inputs: list[Tensor]) -> list[Tensor]:
        natural, key = self.capture.store, call.key("forward")
        facts = natural.facts(key) | {"ops": operations(self.mode)}
        facts["glue_depth"] = max((self.mode.get(t).depth for t in inputs), default=0)
        facts["unbounded"] = self._unbounded("glue", inputs)
        arrays = {f"input.{i}": to_numpy(t) for i, t in enumerate(inputs)}
        arrays |= self._errors("glue", inputs)
        drawn = {f"root.input.{i}": self._draw(t) for i, t in enumerate(inputs) if t.is_floating_point()}
        if self.between:
            self.roots += [(t, drawn[f"root.input.{i}"]) for i, t in enumerate(inputs) if t.requires_grad]
        dtype = DTYPES[self.capture.dtype]
        outputs = [torch.from_numpy(natural.array(key, f"output.{i}")) for i in range(len(facts["shapes"]))]
        passed = [tied(t.to(dtype) if t.is_floating_point() else t) for t in outputs]
        arrays |= {f"passed.{i}": to_numpy(t) for i, t in enumerate(passed)}
        cotangents = {f"drawn.{i}": self._draw(t) for i, t in enumerate(passed) if t.is_floating_point()}
        roots = {name: to_numpy(t) for name, t in drawn.items()}
        self.store.put(call.key("cotangent"), {name: to_numpy(t) for name, t in cotangents.items()}, depth=0)
        if torch_leaves.is_linear(call.module):
            self.store.put(key, arrays, **facts)
            self.store.put(call.key("backward"), roots, path=call.path)
        else:
            arrays |= self._alone(call, inputs, facts)
            self.store.put(key, arrays, **facts)
            if cotangents:
                torch_replay.replay(self.capture, self.store, call, "drawn.0", roots)
        return [self._tapped(call, i, t, cotangents) for i, t in enumerate(passed)]

    def _alone(self, call: Call, inputs: list[Tensor], facts: dict[str, Any]) -> dict[str, Any]:
        """What the leaf itself gives at these inputs, and what that may err by."""
        mode = RunningError(DTYPES[self.capture.dtype])
        own = [differentiable(t) for t in inputs]
        with mode:
            result = call.replay(own, torch_leaves.state_of(call.module))
        outputs = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor)]
        facts["n"] = max((mode.get(t).depth for t in outputs), default=0)
        facts["unbounded"] |= mode.unbounded({f"error.{i}": t for i, t in enumerate(outputs)})
        errors = {f"error.{i}": mode.get(t).error for i, t in enumerate(outputs)}
        found = {f"output.{i}": to_numpy(t) for i, t in enumerate(outputs)}
        return found | {name: to_numpy(error) for name, error in errors.items() if error is not None}

    def _tapped(self, call: Call, i: int, passed: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        if not passed.is_floating_point():
            return passed
        passed.requires_grad_()

        def reached(gradient: Tensor) -> None:
            tracked = self.mode.get(gradient)
            self.mode.suspended = True
            arrays = {name: to_numpy(t) for name, t in drawn.items()} | {f"cotangent.{i}": to_numpy(gradient)}
            if tracked.error is not None:
                arrays[f"cotangent_glue.{i}"] = to_numpy(tracked.error)
            unbounded = self.mode.unbounded({f"cotangent_glue.{i}": gradient})
            self.store.put(call.key("cotangent"), arrays, depth=tracked.depth, unbounded=unbounded)
            self.mode.suspended = False

        passed.register_hook(reached)
        return passed.clone()  # the model may well change it in place

    def finish(self, outputs: list[Tensor]) -> None:
        """Record what the model gives, and the way back through the code between the leaves."""
        arrays = {f"input.{i}": to_numpy(t) for i, t in enumerate(outputs)} | self._errors("glue", outputs)
        depth = max((self.mode.get(t).depth for t in outputs), default=0)
        facts = {"ops": operations(self.mode), "depth": depth, "unbounded": self._unbounded("glue", outputs)}
        self.store.put("output", arrays, **facts, coarse=[])
        drawn = [self._draw(t) for t in outputs]
        self.store.put("output_cotangent", {f"cotangent.{i}": to_numpy(g) for i, g in enumerate(drawn)})
        ways = [*self.roots, *((t, g) for t, g in zip(outputs, drawn, strict=True) if t.requires_grad)]
        if ways and self.between:
            with self.mode:
                torch.autograd.backward([t for t, _ in ways], [g for _, g in ways])
        self.roots.clear()

    def _unbounded(self, prefix: str, tensors: list[Tensor]) -> dict[str, list[str]]:
        return self.mode.unbounded({f"{prefix}.{i}": t for i, t in enumerate(tensors)})

    def _errors(self, prefix: str, tensors: list[Tensor]) -> dict[str, Any]:
        errors = {f"{prefix}.{i}": self.mode.get(t).error for i, t in enumerate(tensors)}
        return {name: to_numpy(error) for name, error in errors.items() if error is not None}

    def _draw(self, like: Tensor) -> Tensor:
        """N(0, 1) of the shape and dtype of `like`, exactly representable in bfloat16 and without zeros."""
        made = torch.randn(tuple(like.shape), generator=self.generator).to(torch.bfloat16)
        return torch.where(made == 0, torch.ones((), dtype=made.dtype), made).to(like.dtype)
