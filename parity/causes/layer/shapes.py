"""Naming why a layer can't run with the other side's weights: their shapes say it."""

from __future__ import annotations

from collections.abc import Mapping

from parity.causes.layer.parameters import Cause
from parity.kinds import registry
from parity.kinds.kernels import kernel_differences

Shape = tuple[int, ...]


def explain(kind: str, flax: Mapping[str, Shape], torch: Mapping[str, Shape]) -> list[Cause]:
    """Causes of a difference in the shapes of a layer's weights.

    Args:
        kind: name of the layer's.
        flax: shapes that the Flax layer wants for its input, by Flax name.
        torch: shapes that PyTorch's weights have in Flax's layout, by Flax name.
    """
    found = []
    for name in sorted({*flax, *torch}):
        if name not in torch or name not in flax:
            side, other = ("torch", "Flax's") if name not in torch else ("jax", "PyTorch's")
            found.append(Cause(f"{name}_missing", side, f"there is no {name}, {other} layer has one"))
        elif name == "kernel" and flax[name] != torch[name]:
            differences = registry.named(kind).shape_differences or kernel_differences
            found += [Cause(key, "between", text) for key, text in differences(flax[name], torch[name])]
    if found:
        return found
    return [
        Cause(f"{name}_shape", "between", f"{name} has shape {flax[name]} in Flax, {torch[name]} in PyTorch")
        for name in flax
        if flax[name] != torch[name]
    ]
