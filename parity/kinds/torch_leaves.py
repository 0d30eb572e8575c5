"""PyTorch modules of any kind: which are leaves, what they hold, how many terms a linear one sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from parity.errors import CannotCompare
from parity.kinds import registry

# Classes outside PyTorch that were declared as linear.
_LINEAR: set[type[nn.Module]] = set()
# What holds parameters for another module, and computes nothing itself.
_HOLDERS = nn.ParameterList, nn.ParameterDict


def register_linear(module_class: type[nn.Module]) -> None:
    """Declare a layer of one's own as linear in its input and in its weights, which gives it the sharper bound."""
    _LINEAR.add(module_class)


def is_linear(module: nn.Module) -> bool:
    """Whether the layer is known to be linear in its input and in its weights."""
    kind = registry.by_class(_classes(module))
    return (kind is not None and kind.linear) or isinstance(module, tuple(_LINEAR))


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    """Modules without children, by path, in the order of registration; a shared module by its first path.

    Raises:
        CannotCompare: a module is of a kind that can't be compared.
    """
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        if (refused := registry.refusal(_classes(module), registry.REFUSED_IN_TORCH)) is not None:
            name, why = refused
            raise CannotCompare(f"{name} at {path or 'the top'!r} (PyTorch) can't be compared: {why}")
        if next(module.children(), None) is None and not isinstance(module, _HOLDERS):
            found[path] = module
    return found


def owned(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that modules own beside their children's, by path and name; see `parity.kinds.parameter`.

    One that several modules share is the first one's.
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        if next(module.children(), None) is not None or isinstance(module, _HOLDERS):
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in seen:
                    found[f"{path}.{name}" if path else name] = parameter
                seen.add(id(parameter))
    return found


def kind_of(module: nn.Module) -> str:
    """Name of the module's kind, as far as parameters tell: `other` if none is known, `plain` without parameters."""
    kind = registry.by_class(_classes(module))
    if kind is not None and kind.weights:
        return kind.name
    return registry.by_shapes({name: tuple(p.shape) for name, p in module.named_parameters()}).name


def is_own(module: nn.Module) -> bool:
    """Whether a layer is of a class of someone's own, whose code says what it computes."""
    return registry.by_class(_classes(module)) is None or not type(module).__module__.startswith("torch.")


def _classes(module: nn.Module) -> list[str]:
    return registry.classes_of(module, "torch.nn.modules")


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating-point buffers of a leaf, detached; none of a layer of no known kind without parameters.

    The buffers of such a layer (frequencies of a rotation, say) are constants, which the other side needn't hold.
    """
    named = [*module.named_parameters(), *module.named_buffers()]
    if registry.by_class(_classes(module)) is None and next(module.parameters(), None) is None:
        return {}
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
    kind = registry.by_class(_classes(module))
    if kind is not None and kind.terms is not None:
        return kind.terms(settings_of(module)) + int(getattr(module, "bias", None) is not None)
    ones = [torch.ones_like(x, dtype=torch.float32).requires_grad_(torch.is_grad_enabled()) for x in inputs]
    return int(call(module, ones, _ones(module)).max())


def gradient_terms(module: nn.Module, inputs: list[Tensor], cotangent: Tensor) -> dict[str, int]:
    """Terms summed for one element of each gradient of a linear layer: by parameter name, and `input`."""
    kind = registry.by_class(_classes(module))
    if kind is not None and kind.gradient_terms is not None:
        return kind.gradient_terms(settings_of(module), tuple(cotangent.shape))
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
