"""Embeddings: rows of a table, picked by whole numbers."""

from __future__ import annotations

from parity.kinds.kind import Kind, Shapes, Weight


def _in_flax(class_name: str, shapes: Shapes) -> bool:
    return "embedding" in shapes


KIND = Kind(
    name="embedding",
    torch_classes=("sparse.Embedding",),
    weights=(Weight("weight", "embedding"),),
    in_flax=_in_flax,
)
