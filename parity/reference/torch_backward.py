"""The reference's gradients: one backward pass through the whole model, then every leaf again by itself."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from parity.bounds import torch_exact_forms
from parity.bounds.torch_rounding import Tracked
from parity.comparison.store import EXACT, Store
from parity.kinds import parameter
from parity.reference import torch_replay, torch_ties
from parity.reference.torch_call import Call
from parity.reference.torch_capture import Capture
from parity.reference.torch_tensors import pin_precision, tensors_in, to_numpy

# Smaller tensors stay in memory between forward and backward: a file each would cost more than it saves.
_SPILL_ELEMENTS = 1 << 16


def record(capture: Capture, inputs: tuple[Tensor, ...], gradients: bool, seed: int) -> None:
    """Run the model once in full precision, and backward too if asked; see `run` for the rest."""
    pin_precision()
    (capture.store.directory / f"{EXACT}output.json").unlink(missing_ok=True)  # of an earlier run in a kept workspace
    if gradients:
        run(capture, inputs, seed=seed)
    else:
        capture.forward(inputs)
    if capture.mode.inexact and capture.store.exists("output"):
        _run_exactly(capture, inputs, gradients)


def _run_exactly(capture: Capture, inputs: tuple[Tensor, ...], gradients: bool) -> None:
    """Write `output` and `parameters-PATH` once more, behind `EXACT`, from a run that keeps to functions' formulas."""
    store = capture.store
    with torch_exact_forms.Forms(exact=True), torch.set_grad_enabled(gradients):
        outputs = tensors_in(capture.model(*inputs, **capture.kwargs))
        store.put(f"{EXACT}output", {f"input.{i}": to_numpy(y) for i, y in enumerate(outputs)})
        if gradients:
            pull(outputs, [store.array("output_cotangent", f"cotangent.{i}") for i in range(len(outputs))])
    if gradients:
        _put_parameters(capture, EXACT)


def run(capture: Capture, inputs: tuple[Tensor, ...], cotangents: list[NDArray] | None = None, seed: int = 0) -> None:
    """Forward and backward through the model, then through each leaf, written to the capture's store.

    Writes, beside the records of `Capture.forward`: `cotangent-NNNN` (the gradient that reaches each leaf call's
    output), `backward-NNNN` (what that leaf makes of it) and `parameters-PATH` (whole gradients of the leaf's
    parameters, summed over its calls).

    Args:
        capture: prepared, not yet run.
        inputs: the model's inputs, in the run's dtype.
        cotangents: gradient of the loss with respect to each output; drawn from N(0, 1) if None.
        seed: of that draw.
    """
    inputs = tuple(x.requires_grad_() if x.is_floating_point() else x for x in inputs)
    capture.model.zero_grad(set_to_none=True)
    with _spilled(capture):
        outputs = capture.forward(inputs, gradients=True)
        if not outputs:
            return
        drawn = [torch.from_numpy(c).to(y) for c, y in zip(cotangents or draw(outputs, seed), outputs, strict=True)]
        capture.store.put("output_cotangent", {f"cotangent.{i}": to_numpy(g) for i, g in enumerate(drawn)})
        with capture.mode:
            _pull(outputs, drawn)
    _put_parameters(capture)
    _put_input_gradients(capture, {i: x.grad for i, x in enumerate(inputs) if x.grad is not None})
    del outputs, drawn
    for call in capture.calls:
        if capture.store.has(call.key("cotangent"), "cotangent.0"):  # else nothing flows back through this call
            torch_replay.replay(capture, capture.store, call, "cotangent.0", _left(capture.store, call))
    torch_ties.run(capture, inputs, seed)


def _left(store: Store, call: Call) -> dict[str, NDArray]:
    """What a call handed back in the whole pass, by the names that `jax_backward` gives to the code before it."""
    keys = {key.rpartition("-")[2]: key for key in store.keys(f"{call.key('left')}-")}
    return {f"root.input.{place}": store.array(key, "gradient") for place, key in keys.items()}


def pull(outputs: list[Tensor], cotangents: list[NDArray]) -> None:
    """A backward pass from the outputs with these cotangents, as arrays."""
    _pull(outputs, [torch.from_numpy(c).to(y) for c, y in zip(cotangents, outputs, strict=True)])


def _pull(outputs: list[Tensor], cotangents: list[Tensor]) -> None:
    # An output that nothing can flow back from leaves all that leads to it without a gradient.
    ways = [(y, g) for y, g in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if ways:
        torch.autograd.backward([y for y, _ in ways], [g for _, g in ways])


def _put_input_gradients(capture: Capture, gradients: dict[int, Tensor]) -> None:
    """Write the gradients of the inputs, and what the code before the first leaves may make them err by."""
    tracked = {i: capture.mode.get(g) for i, g in gradients.items()}
    arrays = {f"gradient.{i}": to_numpy(g) for i, g in gradients.items()}
    arrays |= {f"glue.{i}": to_numpy(t.error) for i, t in tracked.items() if t.error is not None}
    unbounded = capture.mode.unbounded({f"glue.{i}": g for i, g in gradients.items()})
    depth = max((t.depth for t in tracked.values()), default=0)
    capture.store.put("input_gradient", arrays, depth=depth, unbounded=unbounded)


def _put_parameters(capture: Capture, prefix: str = "") -> None:
    """Write what the whole backward pass left in each leaf's parameters, and free it.

    Beside the gradients: the shapes of all parameters, `apart`, those whose gradient isn't this leaf's alone (other
    leaves have them too, or code between the leaves uses them) or isn't asked for, and `frozen`, the latter.
    """
    owners = Counter(id(p) for module in capture.leaves.values() for p in module.parameters())
    for path, module in capture.leaves.items():
        named = dict(module.named_parameters())
        frozen = [n for n, p in named.items() if not p.requires_grad]
        elsewhere = {n for n, p in named.items() if owners[id(p)] > 1 or f"{path}.{n}" in capture.mode.touched}
        apart = [*frozen, *sorted(elsewhere)]
        if named:
            gradients = {n: to_numpy(p.grad) for n, p in named.items() if p.grad is not None}
            shapes = {n: list(p.shape) for n, p in named.items()}
            capture.store.put(f"{prefix}parameters-{path}", gradients, shapes=shapes, apart=apart, frozen=frozen)
    for path, tensor in capture.owned.items():
        _put_owned(capture, f"{prefix}parameters-{path}", tensor)
    capture.model.zero_grad(set_to_none=True)


def _put_owned(capture: Capture, key: str, tensor: torch.nn.Parameter) -> None:
    """Write the gradient of a parameter that code between the leaves uses, and what that code may make it err by."""
    name, gradient = parameter.VALUE, tensor.grad
    facts = {"shapes": {name: list(tensor.shape)}, "apart": [], "frozen": [] if tensor.requires_grad else [name]}
    arrays, unbounded, depth = {}, {}, 0
    if gradient is not None:
        tracked = capture.mode.get(gradient)
        depth, arrays[name] = tracked.depth, to_numpy(gradient)
        if tracked.error is not None:
            arrays["glue"] = to_numpy(tracked.error)
        unbounded = capture.mode.unbounded({"glue": gradient})
    capture.store.put(key, arrays, **facts, depth=depth, unbounded=unbounded)


def draw(outputs: list[Tensor], seed: int) -> list[NDArray]:
    """Cotangents from N(0, 1), exactly representable in bfloat16 so that every lane uses the same numbers."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tuple(y.shape), generator=generator).to(torch.bfloat16).double().numpy() for y in outputs]


def _spilled(capture: Capture) -> Any:
    """Autograd's saved activations go to the disk: in memory they would be the whole model's."""
    directory = capture.store.directory / "saved"
    directory.mkdir(exist_ok=True)
    weights = {p.untyped_storage().data_ptr() for m in capture.leaves.values() for p in m.parameters()}
    numbers = itertools.count()

    def pack(tensor: Tensor) -> Tensor | tuple[Path, Tracked]:
        if tensor.numel() < _SPILL_ELEMENTS or tensor.untyped_storage().data_ptr() in weights:
            return tensor
        path = directory / f"{next(numbers)}.pt"
        with capture.mode.pause():
            torch.save(tensor.detach().contiguous(), path)
        return path, capture.mode.get(tensor)

    def unpack(saved: Tensor | tuple[Path, Tracked]) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        path, tracked = saved
        with capture.mode.pause():
            tensor = torch.load(path, weights_only=True)
        path.unlink()
        capture.mode.put(tensor, tracked)
        return tensor

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
