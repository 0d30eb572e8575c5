"""PyTorch's MultiheadAttention with its packed weights taken apart: a Linear layer for each projection.

It computes with `in_proj_weight` itself and calls no layer, so there is nothing to cut it at. An equal module stands in
its place in the copy that is run. That it is equal is tested, on everything that the model hands to the original, in
float64: a difference in there would else be the harness's own.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from parity.bounds.magnitudes import normwise_limit
from parity.errors import CannotCompare


class SeparateAttention(nn.Module):
    """The same function of the same arguments as an `nn.MultiheadAttention` in evaluation mode, on copied weights.

    Its masks are True, or minus infinity, where nothing is to be seen. Projections work on (N, T, features).
    """

    # Encoder layers look at these before they call; without a bias here they don't pass by the module.
    in_proj_bias = None
    _qkv_same_embed_dim = True

    def __init__(self, packed: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.batch_first = packed.embed_dim, packed.num_heads, packed.batch_first
        separate = packed.q_proj_weight, packed.k_proj_weight, packed.v_proj_weight
        rows = separate if packed.in_proj_weight is None else packed.in_proj_weight.chunk(3)
        biases = (None,) * 3 if packed.in_proj_bias is None else packed.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = (_linear(w, b) for w, b in zip(rows, biases, strict=True))
        self.out_proj = _linear(packed.out_proj.weight, packed.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See `nn.MultiheadAttention`; `is_causal` says no more than the mask that comes with it."""
        single, turned = query.dim() == 2, query.dim() == 3 and not self.batch_first
        inputs = [x.unsqueeze(0) if single else x.transpose(0, 1) if turned else x for x in (query, key, value)]
        layers = self.q_proj, self.k_proj, self.v_proj
        q, k, v = (self._heads(layer(x)) for layer, x in zip(layers, inputs, strict=True))
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.reshape(q.shape[0], 1, 1, -1)
        mask = _joined(attn_mask, key_padding_mask, q.dtype)
        weights = None
        if need_weights:
            scores = (q * math.sqrt(1 / q.shape[-1])) @ k.transpose(-2, -1)
            if mask is not None:
                scores = scores.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else scores + mask
            weights = torch.softmax(scores, -1)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            seen = ~mask if mask is not None and mask.dtype == torch.bool else mask
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if single:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out.transpose(0, 1) if turned else out, weights

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _linear(weight: Tensor | None, bias: Tensor | None) -> nn.Linear:
    if weight is None:
        raise CannotCompare("a MultiheadAttention (PyTorch) lacks the weights of a projection")
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return made


def _joined(first: Tensor | None, second: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Both masks as one: of booleans if they are, else to be added to the scores."""
    given = [mask for mask in (first, second) if mask is not None]
    if len(given) < 2:
        return given[0] if given else None
    if all(mask.dtype == torch.bool for mask in given):
        return given[0] | given[1]
    added = [
        torch.zeros(mask.shape, dtype=dtype).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask
        for mask in given
    ]
    return added[0] + added[1]


def separated(model: nn.Module, inputs: tuple[Tensor, ...], kwargs: dict[str, Any]) -> nn.Module:
    """The model, changed in place, with every plain `nn.MultiheadAttention` taken apart.

    One with hooks, with keys and values of its own (`add_bias_kv`, `add_zero_attn`) or of a class of its own stays,
    and is refused like any layer that can't be compared.

    Args:
        model: a copy that may be changed, in evaluation mode.
        inputs: of its call, in float64 where they aren't integers.
        kwargs: more of its arguments.

    Raises:
        CannotCompare: a module gives something else when it is taken apart.
    """
    attention = [(p, m) for p, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)]
    packed = {path: module for path, module in attention if _is_plain(module)}
    if not packed:
        return model
    same = checked(model, list(packed), _taken_apart, inputs, kwargs)
    for path in [path for path in packed if not same.get(path, True)][:1]:
        raise CannotCompare(
            f"MultiheadAttention at {path or 'the top'!r} (PyTorch) gives something else when its packed weights are "
            f"taken apart: write its projections out as Linear layers"
        )
    return replaced(model, {id(module): _taken_apart(module) for module in packed.values()})


def replaced(model: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    """The model, changed in place, with other modules in the places of those of these identities."""
    if id(model) in made:
        return made[id(model)]
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in made:
                setattr(parent, name, made[id(child)])
    return model


def _taken_apart(module: nn.Module) -> nn.Module:
    return SeparateAttention(module).eval()  # type: ignore[arg-type]


def _is_plain(module: nn.MultiheadAttention) -> bool:
    if type(module) is not nn.MultiheadAttention or module.bias_k is not None or module.add_zero_attn:
        return False
    hooks = [
        value
        for each in (module, module.out_proj, *module.parameters())
        for name, value in vars(each).items()
        if "hooks" in name and "state_dict" not in name
    ]
    tensors = [p for p in module.parameters() if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None)]
    return not any(hooks) and not tensors


def checked(
    model: nn.Module,
    paths: list[str],
    replacement: Callable[[nn.Module], nn.Module],
    inputs: tuple[Tensor, ...],
    kwargs: dict[str, Any],
) -> dict[str, bool]:
    """Whether modules give the same as their replacements, on all that a run of the model hands to them.

    Args:
        model: in evaluation mode.
        paths: of the modules.
        replacement: makes a module's.
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
            except (TypeError, RuntimeError, ValueError, IndexError):  # it takes other arguments
                found[path] = False
                return
            ours, theirs = ([t for t in tree_flatten(r)[0] if isinstance(t, Tensor)] for r in (own, result))
            same = len(ours) == len(theirs) and all(map(_close, ours, theirs, [limit] * len(ours)))
            found[path] = same and found.get(path, True)

        return hook

    for path in paths:
        module = exact.get_submodule(path)
        module.register_forward_hook(held(path, replacement(module).eval()), with_kwargs=True)
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
