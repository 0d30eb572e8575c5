"""Layers of someone's own as PyTorch's, in the copy that is run: those that hold others taken apart, others turned.

`BatchNormAct2d` of timm is a BatchNorm2d that calls its own `drop` and `act` at its end. Cut as one layer it would be
neither. An equal module stands in its place: the plain layer, and then what it holds, in order. `Conv1D` of
transformers is a Linear layer whose weight is transposed. One that gives anything else than its replacement, on all
that a run of the model hands to it, stays as it is.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from parity.kinds import registry
from parity.kinds.leaf import Leaf
from parity.reference.torch_stand_ins import checked, replaced

_TORCH = "torch.nn.modules."


class Apart(nn.Module):
    """A layer and the layers that it held, one after the other."""

    def __init__(self, fused: nn.Module) -> None:
        super().__init__()
        self.layer = _plain(fused)
        # Where the original keeps what these hold, as `torch_state` reads it.
        self.parts = {f"layer.{name}": (name, None, None) for name in self.layer.state_dict()}
        for name, child in fused.named_children():
            self.add_module(name if name != "layer" else "held", child)
            if name == "layer":
                self.parts |= {f"held.{held}": (f"layer.{held}", None, None) for held in child.state_dict()}

    def forward(self, x: Tensor) -> Tensor:
        """The same function as the whole's."""
        for child in self.children():
            x = child(x)
        return x


class Turned(nn.Linear):
    """A Linear layer in the place of one that keeps its weight transposed."""


def open_up(model: nn.Module, paths: list[str], flax: list[Leaf]) -> None:
    """Make layers no leaves, so that their weights are owned like any that the code between layers uses.

    Args:
        model: changed in place.
        paths: of the layers. Linear layers with the same weight are opened, too, if Flax has none of its shape.
        flax: the leaves of the other side.
    """
    tables = {id(model.get_parameter(f"{path}.weight")) for path in paths}
    for path, module in list(model.named_modules()):
        shared = isinstance(module, nn.Linear) and id(module.weight) in tables
        kernels = [tuple(leaf.shapes.get("kernel", ())) for leaf in flax]
        if path in paths or (shared and (module.in_features, module.out_features) not in kernels):
            module.add_module("opened", nn.Identity())


def separated(model: nn.Module, inputs: tuple[Tensor, ...], kwargs: dict[str, Any]) -> nn.Module:
    """The model, changed in place, with every such layer taken apart; see `torch_stand_ins.separated`."""
    found = {path: module for path, module in model.named_modules() if _bases(module) or _is_transposed(module)}
    if not found:
        return model
    same = checked(model, list(found), _equal, inputs, kwargs)
    return replaced(model, {id(module): _equal(module).eval() for path, module in found.items() if same.get(path)})


def _equal(module: nn.Module) -> nn.Module:
    return Apart(module) if _bases(module) else _linear(module)


def _is_transposed(module: nn.Module) -> bool:
    """Whether a layer of someone's own may be x @ weight + bias, by the shapes of its parameters."""
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    weight, bias = shapes.get("weight", ()), shapes.get("bias")
    own = next(module.children(), None) is None and registry.by_class(registry.classes_of(module, "torch.nn.modules"))
    return own is None and {*shapes} <= {"weight", "bias"} and len(weight) == 2 and bias in (None, weight[1:])


def _linear(module: nn.Module) -> nn.Module:
    """`Linear` with the weight transposed, as `Conv1D` of transformers has it."""
    weight, bias = module.get_parameter("weight"), dict(module.named_parameters()).get("bias")
    made = Turned(weight.shape[0], weight.shape[1], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().T.contiguous(), weight.requires_grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return made


def _bases(module: nn.Module) -> list[type[nn.Module]]:
    """PyTorch's classes under a class of someone's own with layers inside and no hooks; none if it isn't one."""
    hooks = any(value for name, value in vars(module).items() if "hooks" in name and "state_dict" not in name)
    if hooks or next(module.children(), None) is None or next(module.parameters(recurse=False), None) is None:
        return []
    bases = [base for base in type(module).__mro__[1:] if base.__module__.startswith(_TORCH)][:1]
    kind = registry.by_class(registry.classes_of(module, _TORCH.rstrip(".")))
    return bases if kind is not None and kind.weights else []


def _plain(fused: nn.Module) -> nn.Module:
    """PyTorch's own layer with the same parameters, statistics and settings."""
    base = _bases(fused)[0]
    made = base.__new__(base)
    nn.Module.__init__(made)
    vars(made).update({k: value for k, value in vars(fused).items() if k != "_modules" and "hooks" not in k})
    return made
