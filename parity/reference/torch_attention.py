"""PyTorch's MultiheadAttention with its packed weights taken apart: a Linear layer for each projection.

It computes with `in_proj_weight` itself and calls no layer, so there is nothing to cut it at. An equal module stands in
its place in the copy that is run. That it is equal is tested, on everything that the model hands to the original, in
float64: a difference in there would else be the harness's own.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        # Where the original keeps what the projections hold: name, and rows, None for all of them.
        size, self.parts = packed.embed_dim, dict[str, tuple[str, int | None, int | None]]()
        for i, name in enumerate(("q_proj", "k_proj", "v_proj")):
            rows = i * size, (i + 1) * size
            whole = packed.in_proj_weight is None
            self.parts[f"{name}.weight"] = (f"{name}_weight", None, None) if whole else ("in_proj_weight", *rows)
            self.parts[f"{name}.bias"] = ("in_proj_bias", *rows)

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


def stand_in(module: nn.Module) -> nn.Module | None:
    """An equal module for a plain `nn.MultiheadAttention`; None for any other module.

    One with hooks, with keys and values of its own (`add_bias_kv`, `add_zero_attn`) or of a class of its own stays,
    and is refused like any layer that can't be compared.
    """
    if type(module) is not nn.MultiheadAttention or module.bias_k is not None or module.add_zero_attn:
        return None
    return SeparateAttention(module)
