"""How a map lies that `torch_ref` flattens: channels first, where Flax has them last."""

from __future__ import annotations

from torch import nn

from parity.kinds import layouts


def flattened_map(model: nn.Module, path: str, image_size: tuple[int, int]) -> layouts.Layout | None:
    """Layout of the rows of the first fully connected layer; None for the others."""
    first = next(name for name, child in model.named_children() if isinstance(child, nn.Linear))
    if path != first:
        return None
    layer = model.get_submodule(path)
    height, width = model.map_size(image_size)  # type: ignore[operator]
    channels = int(layer.in_features) // (height * width)  # type: ignore[arg-type]
    return layouts.Layout(map_shape=(channels, height, width))


def dropped_map(model: nn.Module, dropout: str, image_size: tuple[int, int]) -> layouts.Layout | None:
    """Layout of what a dropout layer of the reference is given, where that is a flattened map; None elsewhere."""
    names = [child for child, _ in model.named_children()]
    first = next(n for n, m in model.named_children() if isinstance(m, nn.Linear))
    return flattened_map(model, first, image_size) if names.index(dropout) < names.index(first) else None
