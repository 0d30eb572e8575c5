"""PyTorch's layers in plain lists and dictionaries, which PyTorch doesn't see: held as it would, in a copy.

Parameters of such layers are in no state dict, follow no `.to()`, and no optimizer gets them. What they compute is
compared all the same.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from parity.errors import CannotCompare

_SHOWN = 4


def registered(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The model, or a copy where it holds layers or parameters in plain lists, tuples or dictionaries; their paths.

    Those are `nn.ModuleList`, `nn.ModuleDict`, `nn.ParameterList` and `nn.ParameterDict` in the copy. Lists of what
    the model has registered anyway are left as they are.

    Raises:
        CannotCompare: layers lie there among other things, or under keys that are no names.
    """
    if not any(_unseen(value, _seen(model)) for module in model.modules() for value in vars(module).values()):
        return model, []
    made, found = copy.deepcopy(model), []
    waiting = [("", made)]
    done: set[int] = set()
    while waiting:
        path, module = waiting.pop(0)
        if id(module) in done:
            continue
        done.add(id(module))
        for name, value in list(vars(module).items()):
            if not name.startswith("_") and _unseen(value, _seen(made)):
                where = f"{path}.{name}" if path else name
                container = _container(value, where)
                delattr(module, name)
                setattr(module, name, container)
                found += [f"{where}.{part}" for part in (dict(container.named_children()) or _names(container))]
        waiting += [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
    return made, found


def told(paths: list[str]) -> str:
    """What a report says of such layers."""
    shown = ", ".join(paths[:_SHOWN]) + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
    return (
        f"saving, loading and training of PyTorch's {shown}: they lie in a plain list, tuple or dictionary, so that no "
        "state dict and no optimizer holds their parameters; hold them in nn.ModuleList or the like"
    )


def _seen(model: nn.Module) -> set[int]:
    """Modules and parameters that are registered."""
    return {id(module) for module in model.modules()} | {id(parameter) for parameter in model.parameters()}


def _unseen(value: Any, seen: set[int]) -> bool:
    """Whether a list, tuple or dictionary holds a module or a parameter that isn't registered."""
    if isinstance(value, dict):
        return any(_unseen_part(each, seen) for each in value.values())
    return isinstance(value, (list, tuple)) and any(_unseen_part(each, seen) for each in value)


def _unseen_part(value: Any, seen: set[int]) -> bool:
    return _unseen(value, seen) if not isinstance(value, (nn.Module, nn.Parameter)) else id(value) not in seen


def _container(value: Any, where: str) -> nn.Module:
    """A list, tuple or dictionary as PyTorch's own."""
    parts = list(value.values()) if isinstance(value, dict) else list(value)
    named = not isinstance(value, dict) or all(isinstance(key, str) and key and "." not in key for key in value)
    if named and parts and all(isinstance(part, nn.Parameter) for part in parts):
        return nn.ParameterDict(value) if isinstance(value, dict) else nn.ParameterList(parts)
    if not named or not all(isinstance(part, (nn.Module, list, tuple, dict)) for part in parts):
        raise CannotCompare(
            f"PyTorch's {where} is a plain {type(value).__name__} that holds layers or parameters among other things, "
            "which PyTorch doesn't register: no state dict and no optimizer has their parameters. Hold the layers in "
            "nn.ModuleList or nn.ModuleDict (parameters in nn.ParameterList), and the rest beside it."
        )
    modules = [part if isinstance(part, nn.Module) else _container(part, where) for part in parts]
    return nn.ModuleDict(dict(zip(value, modules, strict=True))) if isinstance(value, dict) else nn.ModuleList(modules)


def _names(container: nn.Module) -> list[str]:
    return [name for name, _ in container.named_parameters(recurse=False)]
