"""One call of a PyTorch leaf run again by itself, with its gradients and what their roundings allow."""

from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_flatten

from parity.bounds.torch_rounding import RunningError
from parity.comparison.store import Store
from parity.kinds import torch_leaves
from parity.reference.torch_call import Call
from parity.reference.torch_capture import Capture
from parity.reference.torch_tensors import DTYPES, to_numpy

# Smaller tensors stay in memory between forward and backward: a file each would cost more than it saves.
_SPILL_ELEMENTS = 1 << 16


def replay(
    capture: Capture, store: Store, call: Call, cotangent_name: str, more: dict[str, NDArray] | None = None
) -> None:
    """Differentiate one leaf call by itself and write `backward-NNNN`.

    Args:
        capture: that the call is of.
        store: with the call's input and cotangent, for the result.
        call: to run again.
        cotangent_name: in the call's `cotangent-NNNN`.
        more: arrays to write beside.
    """
    key, dtype = call.key("cotangent"), DTYPES[capture.dtype]
    inputs = _stored(store, call.key("forward"), "input.", dtype)
    cotangent = torch.from_numpy(store.array(key, cotangent_name)).to(dtype)
    module, linear = call.module, torch_leaves.is_linear(call.module)
    mode = RunningError(dtype)
    mode.suspended = linear
    state = torch_leaves.state_of(module)
    with mode:
        names, gradients = _gradients(call, inputs, state, cotangent)
    arrays = {f"gradient.{n}": to_numpy(g) for n, g in zip(names, gradients, strict=True)}
    if linear:
        terms = torch_leaves.gradient_terms(module, inputs, cotangent)
        n = {name: terms.get("input" if name.startswith("input") else name, 1) for name in names}
        absolute = _gradients(call, [x.double().abs() for x in inputs], _absolute(state), cotangent.double().abs())
        for name, magnitude in zip(*absolute, strict=True):
            arrays[f"magnitude.{name}"] = to_numpy(magnitude)
        unbounded = {}
    else:
        n = {}
        unbounded = mode.unbounded({f"error.{name}": g for name, g in zip(names, gradients, strict=True)})
        for name, gradient in zip(names, gradients, strict=True):
            tracked = mode.get(gradient)
            n[name] = tracked.depth
            if tracked.error is not None:
                arrays[f"error.{name}"] = to_numpy(tracked.error)
    del gradients
    if capture.dtype != "float64" and store is capture.store:
        exact = [x.double() if x.is_floating_point() else x for x in inputs]
        truth = _gradients(call, exact, {k: v.double() for k, v in state.items()}, cotangent.double())
        arrays |= {f"truth.{name}": to_numpy(t) for name, t in zip(*truth, strict=True)}
    facts = {"path": call.path, "kind": torch_leaves.kind_of(module), "linear": linear, "n": n, "dtype": capture.dtype}
    coarse = [list(each) for each in dict.fromkeys(mode.coarse)]
    store.put(call.key("backward"), arrays | (more or {}), **facts, coarse=coarse, unbounded=unbounded)


def _gradients(
    call: Call, inputs: list[Tensor], state: dict[str, Tensor], cotangent: Tensor
) -> tuple[list[str], list[Tensor]]:
    """Gradients of one leaf call with respect to its floating-point inputs and parameters."""
    parameters = [name for name, _ in call.module.named_parameters()]
    xs = [x.detach().clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    weights = {k: v.detach().requires_grad_(k in parameters) for k, v in state.items()}
    with torch.enable_grad():
        result = call.replay(xs, weights)
        y = next(t for t in tree_flatten(result)[0] if isinstance(t, Tensor))
    wanted = {f"input.{i}": x for i, x in enumerate(xs) if x.requires_grad}
    wanted |= {name: weights[name] for name in parameters}
    gradients = torch.autograd.grad(y, list(wanted.values()), cotangent, allow_unused=True)
    kept = [(n, g) for n, g in zip(wanted, gradients, strict=True) if g is not None]
    return [n for n, _ in kept], [g for _, g in kept]


def _absolute(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.double().abs() for k, v in state.items()}


def _stored(store: Store, key: str, prefix: str, dtype: torch.dtype) -> list[Tensor]:
    arrays = store.arrays(key, prefix)
    tensors = [torch.from_numpy(arrays[k]) for k in sorted(arrays, key=int)]
    return [t.to(dtype) if t.is_floating_point() else t for t in tensors]
