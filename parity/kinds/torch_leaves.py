"""What the harness knows about PyTorch layers: which modules are leaves, of which kind, how many terms they sum."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from parity.errors import CannotCompare

# Linear in the input and in the weights: their bound is gamma_n (|x| * |w| + |b|).
LINEAR: set[type[nn.Module]] = {nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d}

_UNSUPPORTED: dict[type[nn.Module], str] = {
    nn.MultiheadAttention: "it computes with its projections' weights directly",
    nn.RNN: "write the loop over time out with cells of Linear layers",
    nn.LSTM: "write the loop over time out with cells of Linear layers",
    nn.GRU: "write the loop over time out with cells of Linear layers",
    nn.RNNCell: "write the cell out with Linear layers",
    nn.LSTMCell: "write the cell out with Linear layers",
    nn.GRUCell: "write the cell out with Linear layers",
    nn.ConvTranspose1d: "JAX and PyTorch disagree on its padding",
    nn.ConvTranspose2d: "JAX and PyTorch disagree on its padding",
    nn.ConvTranspose3d: "JAX and PyTorch disagree on its padding",
    nn.Bilinear: "Flax has no such layer",
}


def register_linear(module_class: type[nn.Module]) -> None:
    """Declare a layer of one's own as linear in its input and in its weights, which gives it the sharper bound."""
    LINEAR.add(module_class)


def is_linear(module: nn.Module) -> bool:
    """Whether the layer is known to be linear in its input and in its weights."""
    return isinstance(module, tuple(LINEAR))


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    """Modules without children, by path, in the order of registration; a shared module by its first path.

    Raises:
        CannotCompare: a module is of a kind that can't be compared, or owns parameters besides its children's.
    """
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        for kind, why in _UNSUPPORTED.items():
            if isinstance(module, kind):
                raise CannotCompare(f"{kind.__name__} at {path or 'the top'!r} (PyTorch) can't be compared: {why}")
        if next(module.children(), None) is None:
            found[path] = module
        elif own := [name for name, _ in module.named_parameters(recurse=False)]:
            raise CannotCompare(
                f"{type(module).__name__} at {path or 'the top'!r} (PyTorch) owns {', '.join(own)} besides its "
                f"children: move them into a module of their own"
            )
    return found


def kind_of(module: nn.Module) -> str:
    """`conv`, `dense`, `local_conv`, `batch_norm`, `layer_norm`, `group_norm`, `embedding`, `other` or `plain`."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return "conv"
    if isinstance(module, nn.Linear):
        return "dense"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return "batch_norm"
    if isinstance(module, nn.LayerNorm):
        return "layer_norm"
    if isinstance(module, nn.GroupNorm):
        return "group_norm"
    if isinstance(module, nn.Embedding):
        return "embedding"
    shapes = [tuple(p.shape) for p in module.parameters()]
    if any(len(shape) == 6 for shape in shapes):
        return "local_conv"
    return "other" if shapes else "plain"


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating-point buffers of a leaf, detached."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: t.detach() for name, t in named if t.is_floating_point()}


def settings_of(module: nn.Module) -> dict[str, Any]:
    """The plain attributes that say what a leaf computes (stride, padding, size, alpha, ...)."""
    settings: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name in ("training", "inplace", "mask", "generator"):
            continue
        if isinstance(value, (bool, int, float, str)) or (
            isinstance(value, (tuple, list)) and all(isinstance(v, (bool, int, float, str)) for v in value)
        ):
            settings[name] = value
    return settings


def terms_of(module: nn.Module, inputs: list[Tensor]) -> int:
    """Terms that a linear layer sums for one output, bias included: |x| * |w| + |b| of nothing but ones."""
    bias = int(getattr(module, "bias", None) is not None)
    if isinstance(module, nn.Linear):
        return module.in_features + bias
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return math.prod(module.kernel_size) * module.in_channels // module.groups + bias
    ones = [torch.ones_like(x, dtype=torch.float32).requires_grad_(torch.is_grad_enabled()) for x in inputs]
    return int(call(module, ones, _ones(module)).max())


def gradient_terms(module: nn.Module, inputs: list[Tensor], cotangent: Tensor) -> dict[str, int]:
    """Terms summed for one element of each gradient of a linear layer: by parameter name, and `input`."""
    batch = cotangent.numel() // cotangent.shape[1] if cotangent.ndim > 1 else 1
    if isinstance(module, nn.Linear):
        rows = cotangent.numel() // module.out_features
        return {"input": module.out_features, "weight": rows, "bias": rows}
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        reach = [math.ceil(k / s) for k, s in zip(module.kernel_size, module.stride, strict=True)]
        return {
            "input": math.prod(reach) * module.out_channels // module.groups,
            "weight": batch,
            "bias": batch,
        }
    ones = _ones(module)
    xs = [torch.ones_like(x, dtype=torch.float32).requires_grad_() for x in inputs]
    for value in ones.values():
        value.requires_grad_()
    with torch.enable_grad():
        y = call(module, xs, ones)
    grads = torch.autograd.grad(y, [*xs[:1], *ones.values()], torch.ones_like(y))
    return {name: int(g.max()) for name, g in zip(["input", *ones], grads, strict=True)}


def call(module: nn.Module, inputs: list[Any], state: dict[str, Tensor], kwargs: dict | None = None) -> Any:
    """The layer's result with another set of parameters and buffers."""
    return functional_call(module, state, tuple(inputs), kwargs or {})


def _ones(module: nn.Module) -> dict[str, Tensor]:
    return {k: torch.ones_like(v, dtype=torch.float32) for k, v in state_of(module).items()}
