"""What a comparison has to know of a PyTorch model before it runs: its leaves and their weights; a copy to change.

Imports PyTorch and NumPy only, so that it also runs in a process or a virtual environment without JAX.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parity.kinds import embedding, parameter, torch_leaves
from parity.kinds.leaf import Leaf
from parity.reference.torch_tensors import DTYPES, tensors_in, to_numpy


def structure(model: nn.Module, inputs: tuple[Tensor, ...] = (), kwargs: dict[str, Any] | None = None) -> list[Leaf]:
    """What the matching of layers needs to know of every leaf, in order of registration.

    Args:
        model: in evaluation mode.
        inputs: of its call, which shows what is idle; without any, nothing is.
        kwargs: more arguments of the call.
    """
    ran = _run_by(model, inputs, kwargs or {}) if inputs else None
    found = []
    for path, module in torch_leaves.leaves(model).items():
        shapes = {name: tuple(t.shape) for name, t in torch_leaves.state_of(module).items()}
        idle = ran is not None and id(module) not in ran
        if not shapes and ran is not None and any(results > 1 for results, _ in ran.get(id(module), ())):
            continue  # with several results and no weights it is code between layers
        kind = torch_leaves.kind_of(module)
        calls = ran.get(id(module), []) if ran is not None and kind == embedding.KIND.name else []
        looked_up = tuple(rows for _, rows in calls)
        found.append(Leaf(path, type(module).__name__, kind, shapes, idle, looked_up=looked_up))
    for path, tensor in torch_leaves.owned(model).items():
        found.append(Leaf(path, "Parameter", parameter.KIND.name, {parameter.VALUE: tuple(tensor.shape)}))
    return found


def _run_by(
    model: nn.Module, inputs: tuple[Tensor, ...], kwargs: dict[str, Any]
) -> dict[int, list[tuple[int, int]]] | None:
    """Of modules that a call of the model runs, by identity, how many tensors each call gives, and values it takes.

    None if the model breaks down.
    """
    ran: dict[int, list[tuple[int, int]]] = {}

    def look(module: nn.Module, args: Any, result: Any) -> None:
        taken = args[0].numel() if args and isinstance(args[0], Tensor) else 0
        ran.setdefault(id(module), []).append((len(tensors_in(result)), taken))

    handles = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with torch.no_grad():
            model(*inputs, **kwargs)
    except (RuntimeError, IndexError):
        return None  # the run that is recorded says where
    finally:
        for handle in handles:
            handle.remove()
    return ran


def prepared(model: nn.Module, dtype: str) -> nn.Module:
    """A copy in evaluation mode and in the run's dtype, with the hooks that hang on the model's parameters."""
    copied = copy.deepcopy(model).to(DTYPES[dtype]).eval()
    parameters = dict(copied.named_parameters(remove_duplicate=False))
    done: set[int] = set()
    for name, original in model.named_parameters(remove_duplicate=False):
        if id(original) in done:
            continue
        done.add(id(original))
        # Copies of modules keep theirs, copies of tensors don't.
        for hook in (original._backward_hooks or {}).values():
            parameters[name].register_hook(hook)
        for hook in (getattr(original, "_post_accumulate_grad_hooks", None) or {}).values():
            parameters[name].register_post_accumulate_grad_hook(hook)
    return copied


def weights_reader(model: nn.Module) -> Callable[[str], dict[str, NDArray]]:
    """Gives a leaf's parameters and statistics by its path, as arrays."""
    leaves, owned = torch_leaves.leaves(model), torch_leaves.owned(model)

    def read(path: str) -> dict[str, NDArray]:
        if path in owned:
            return {parameter.VALUE: to_numpy(owned[path])}
        return {name: to_numpy(t) for name, t in torch_leaves.state_of(leaves[path]).items()}

    return read
