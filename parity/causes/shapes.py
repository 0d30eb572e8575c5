"""Naming why a layer can't run with the other side's weights: their shapes say it."""

from __future__ import annotations

from collections.abc import Mapping

from parity.causes.parameters import Cause

Shape = tuple[int, ...]


def explain(kind: str, flax: Mapping[str, Shape], torch: Mapping[str, Shape]) -> list[Cause]:
    """Causes of a difference in the shapes of a layer's weights.

    Args:
        kind: of the layer, see `parity.kinds.torch_leaves.kind_of`.
        flax: shapes that the Flax layer wants for its input, by Flax name.
        torch: shapes that PyTorch's weights have in Flax's layout, by Flax name.
    """
    found = []
    for name in sorted({*flax, *torch}):
        if name not in torch or name not in flax:
            side, other = ("torch", "Flax's") if name not in torch else ("jax", "PyTorch's")
            found.append(Cause(f"{name}_missing", side, f"there is no {name}, {other} layer has one"))
        elif name == "kernel" and flax[name] != torch[name]:
            found += _kernel(kind, flax[name], torch[name])
    if found:
        return found
    return [
        Cause(f"{name}_shape", "between", f"{name} has shape {flax[name]} in Flax, {torch[name]} in PyTorch")
        for name in flax
        if flax[name] != torch[name]
    ]


def _kernel(kind: str, flax: Shape, torch: Shape) -> list[Cause]:
    if len(flax) != len(torch):
        return [Cause("kernel_shape", "between", f"the kernel has shape {flax} in Flax, {torch} in PyTorch")]
    found = []
    if kind == "local_conv" and flax[:2] != torch[:2]:
        found.append(Cause("map_size", "between", f"maps are {_by(flax[:2])} in Flax, {_by(torch[:2])} in PyTorch"))
    window = slice(-4, -2)
    if flax[window] != torch[window]:
        text = f"the window is {_by(flax[window])} in Flax, {_by(torch[window])} in PyTorch"
        found.append(Cause("kernel_size", "between", text))
    ours, theirs = flax[-2], torch[-2]
    if ours != theirs:
        what = "inputs" if kind == "dense" else "input channels"
        text = f"each output sees {ours} {what} in Flax, {theirs} in PyTorch"
        whole = max(ours, theirs) % min(ours, theirs) == 0
        key = "groups" if kind == "conv" and whole else "inputs"
        found.append(Cause(key, "between", text + (": the numbers of groups differ" if key == "groups" else "")))
    if flax[-1] != torch[-1]:
        found.append(Cause("features", "between", f"there are {flax[-1]} features in Flax, {torch[-1]} in PyTorch"))
    return found


def _by(sizes: Shape) -> str:
    return "x".join(map(str, sizes))
