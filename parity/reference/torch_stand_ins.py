"""Stock modules of PyTorch's whose packed weights are taken apart: an equal module stands in for each.

Such modules compute with packed weights themselves and call no layer, so there is nothing to cut them at. The modules
that stand in for them, in the copy that is run, call one layer for each part. That they are equal is tested, on
everything that the model hands to the originals, in float64: a difference in there would else be the harness's own.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from parity.bounds.magnitudes import normwise_limit
from parity.errors import CannotCompare
from parity.kinds.leaf import Leaf
from parity.reference import torch_attention, torch_recurrent

_MAKERS = (torch_attention.stand_in, torch_recurrent.stand_in)


def separated(
    model: nn.Module, inputs: tuple[Tensor, ...], kwargs: dict[str, Any], flax: Iterable[Leaf] = ()
) -> nn.Module:
    """The model, changed in place, with every stock module taken apart that can be.

    Those with hooks stay, and are refused like any layer that can't be compared.

    Args:
        model: a copy that may be changed, in evaluation mode.
        inputs: of its call, in float64 where they aren't integers.
        kwargs: more of its arguments.
        flax: the leaves of the other side's model.

    Raises:
        CannotCompare: a module gives something else when it is taken apart.
    """
    packed = {path: module for path, module in model.named_modules() if _made(module) is not None}
    if not packed:
        return model
    same = checked(model, list(packed), _made, inputs, kwargs)
    for path in [path for path in packed if not same.get(path, True)][:1]:
        raise CannotCompare(
            f"{type(packed[path]).__name__} at {path or 'the top'!r} (PyTorch) gives something else when its packed "
            f"weights are taken apart: write its parts out as Linear layers"
        )
    made = {id(module): new for module in packed.values() if (new := _made(module)) is not None}
    if id(model) in made:
        return torch_recurrent.alone(made[id(model)], flax)
    return replaced(model, made)


def replaced(model: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    """The model, changed in place, with other modules in the places of those of these identities."""
    if id(model) in made:
        return made[id(model)]
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in made:
                setattr(parent, name, made[id(child)])
    return model


def _made(module: nn.Module) -> nn.Module | None:
    """What stands in for a module, in evaluation mode; None if nothing does."""
    if hooked(module):
        return None
    made = next((found for maker in _MAKERS if (found := maker(module)) is not None), None)
    return None if made is None else made.eval()


def hooked(module: nn.Module) -> bool:
    """Whether hooks hang on a module, on those in it or on their parameters."""
    hooks = [
        value
        for each in (*module.modules(), *module.parameters())
        for name, value in vars(each).items()
        if "hooks" in name and "state_dict" not in name
    ]
    tensors = [p for p in module.parameters() if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None)]
    return any(hooks) or bool(tensors)


def checked(
    model: nn.Module,
    paths: list[str],
    replacement: Callable[[nn.Module], nn.Module | None],
    inputs: tuple[Tensor, ...],
    kwargs: dict[str, Any],
) -> dict[str, bool]:
    """Whether modules give the same as their replacements, on all that a run of the model hands to them.

    Args:
        model: in evaluation mode.
        paths: of the modules.
        replacement: makes a module's; None where it has none.
        inputs: of the model's call, in float64 where they aren't integers.
        kwargs: more of its arguments.

    Returns:
        By path; a module that the run doesn't reach is missing.
    """
    exact = copy.deepcopy(model).double()
    limit = normwise_limit("float64")
    found: dict[str, bool] = {}

    def held(path: str, made: nn.Module) -> Any:
        def hook(module: nn.Module, args: Any, named: Any, result: Any) -> None:
            try:
                own = made(*args, **named)
            except CannotCompare:
                raise
            except (TypeError, RuntimeError, ValueError, IndexError):  # it takes other arguments
                found[path] = False
                return
            ours, theirs = ([t for t in tree_flatten(r)[0] if isinstance(t, Tensor)] for r in (own, result))
            same = len(ours) == len(theirs) and all(map(_close, ours, theirs, [limit] * len(ours)))
            found[path] = same and found.get(path, True)

        return hook

    for path in paths:
        module = exact.get_submodule(path)
        if (made := replacement(module)) is not None:
            module.register_forward_hook(held(path, made.eval()), with_kwargs=True)
    # What breaks down in this run does so in the one that is recorded, which says where.
    with torch.no_grad(), _without_fast_path(), contextlib.suppress(RuntimeError):
        exact(*inputs, **kwargs)
    return found


def _close(ours: Tensor, theirs: Tensor, limit: float) -> bool:
    same = ours.shape == theirs.shape and torch.equal(ours.isfinite(), theirs.isfinite())
    if not same:
        return False
    finite = theirs.isfinite()
    return not finite.any() or bool((ours - theirs)[finite].abs().max() <= limit * theirs[finite].abs().max())


@contextlib.contextmanager
def _without_fast_path() -> Iterator[None]:
    """Encoder layers call their attention in here, where they might else compute without it."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
