"""Attention that PyTorch computes in one operation, as the operations that it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Attention in one operation: names of its queries, keys and values.
FUSED = {
    "scaled_dot_product_attention": ("query", "key", "value"),
    "_scaled_dot_product_flash_attention_for_cpu": ("query", "key", "value"),
    "_scaled_dot_product_fused_attention_overrideable": ("query", "key", "value"),
}


def taken_apart(op: str, args: dict[str, Any], first: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """A recorded operation as it is, or fused attention as the operations that it stands for: names and arguments.

    Args:
        op: its name.
        args: its arguments.
        first: place of the first node that is made.
    """
    if op not in FUSED:
        yield op, args
        return
    q, k, v = (args[name] for name in FUSED[op])
    place = first

    def node(name: str, **given: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        nonlocal place
        place += 1
        yield name, given

    def last() -> dict[str, int]:
        return {"node": place - 1}

    if args.get("enable_gqa"):
        yield from node("_as_many_heads", self=k, like=q)
        k = last()
        yield from node("_as_many_heads", self=v, like=q)
        v = last()
    yield from node("transpose", self=k, dim0=-2, dim1=-1)
    yield from node("matmul", self=q, other=last())
    scores = last()
    yield from node("_attention_scale", self=scores, query=q, scale=args.get("scale"))
    if args.get("is_causal"):
        yield from node("_causal", self=last())
    if args.get("attn_mask") is not None:
        yield from node("_masked", self=last(), mask=args["attn_mask"])
    yield from node("_softmax", self=last(), dim=-1)
    yield from node("matmul", self=last(), other=v)
    if op != "scaled_dot_product_attention":  # kernels give more than one result
        yield from node("_several", self=last())
