"""Linear layers on one input that Flax has as one, joined in the copy that is run: queries, keys and values, say.

The other way round than `torch_recut`. One layer with the weights of all of them is called once, in the place of the
first; each takes its own part of what that gives. Their order in it is that of Flax's own weights where these are given
and hold the same values; else as its name says (`qkv`), or as they are registered, and side by side or block by block
as Flax's code takes them out of the result. That they get the same input is seen in a run.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parity.comparison import interleaved
from parity.comparison.layer_names import ATTENTION, part_name, role
from parity.kinds import dense, weights
from parity.kinds.leaf import Leaf
from parity.reference.torch_stand_ins import hooked, replaced

Own = Callable[[str], NDArray | None]
_MOST_PARTS = 4


@dataclass
class _Given:
    """The last input of a joined layer and its result, and which parts have taken theirs."""

    x: Tensor | None = None
    y: Tensor | None = None
    takers: set[int] = field(default_factory=set)


class Joined(nn.Module):
    """In the place of one of several Linear layers: its rows of what the layer of all of them gives."""

    def __init__(self, name: str, whole: nn.Linear, rows: Tensor, given: _Given) -> None:
        super().__init__()
        self.inner = part_name(name)
        self.add_module(self.inner, whole)
        self.rows, self.given = rows, given
        self.pattern = interleaved.pattern(rows.numpy(), whole.out_features) if bool((rows.diff() > 0).all()) else None
        self.sources: dict[str, list[tuple[str, list[int]]]] = {}  # of the whole's weights: names, and rows there

    def forward(self, x: Tensor) -> Tensor:
        """The same as the layer's own."""
        given = self.given
        if given.x is not x or id(self) in given.takers:
            given.x, given.y, given.takers = x, self.get_submodule(self.inner)(x), set()
        given.takers.add(id(self))
        result = given.y
        if result is None:
            raise RuntimeError("a joined layer gave nothing")
        rows = self.pattern
        if rows is None:
            return result[..., self.rows]
        blocks = result.shape[-1] // rows.period
        y = result.unflatten(-1, (blocks, -1)) if blocks > 1 else result
        y = y[..., rows.start : rows.stop]
        return y.flatten(-2) if blocks > 1 else y


def as_in_flax(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    kwargs: dict[str, Any],
    torch_leaves: list[Leaf],
    flax: list[Leaf],
    own: Own = lambda path: None,
) -> bool:
    """Join layers that Flax has as one; whether there were any.

    Args:
        model: changed in place.
        inputs: of its call, in its own dtype.
        kwargs: more of its arguments.
        torch_leaves: the model's leaves.
        flax: the other side's.
        own: gives the kernel that Flax's layer at a path has of its own; None where none is given.
    """
    found = list(_groups(dict(model.named_modules()), torch_leaves, flax))
    if not found:
        return False
    heard = _inputs(model, {path for _, paths in found for path in paths}, inputs, kwargs)
    made: dict[int, nn.Module] = {}
    for leaf, paths in found:
        if all(_same(heard.get(paths[0]), heard.get(path)) for path in paths[1:]):
            made |= _joined(model, leaf, paths, own(leaf.path))
    if made:
        replaced(model, made)
    return bool(made)


def _groups(
    modules: dict[str, nn.Module], torch_leaves: list[Leaf], flax: list[Leaf]
) -> Iterator[tuple[Leaf, list[str]]]:
    """Each layer of Flax's that PyTorch has none like, and the layers there whose features add up to its own."""
    lonely = [leaf for leaf in flax if leaf.kind == dense.KIND.name and not any(_like(x, leaf) for x in torch_leaves)]
    counts = Counter(id(p) for module in modules.values() for p in module.parameters(recurse=False))
    siblings: dict[tuple, list[str]] = {}
    for leaf in torch_leaves:
        module = modules.get(leaf.path)
        if type(module) is nn.Linear and not hooked(module) and counts[id(module.weight)] == 1:
            key = leaf.path.rpartition(".")[0], module.in_features, module.bias is not None
            siblings.setdefault(key, []).append(leaf.path)
    taken: set[str] = set()
    for leaf in lonely:
        for (_, inputs, biased), paths in siblings.items():
            free = [path for path in paths if path not in taken]
            group = _of(leaf, [(path, modules[path]) for path in free], inputs, biased)
            if group and _alike_above(leaf.path, group[0], len(lonely)):
                taken |= {*group}
                yield leaf, group
                break


def _like(torch_leaf: Leaf, flax_leaf: Leaf) -> bool:
    shapes = weights.flax_shapes(torch_leaf.kind, torch_leaf.shapes)
    return torch_leaf.kind == flax_leaf.kind and all(
        name in shapes and weights.fits(flax_leaf.kind, tuple(shape), shapes[name])
        for name, shape in flax_leaf.shapes.items()
    )


def _alike_above(flax_path: str, torch_path: str, several: int) -> bool:
    """Whether two layers are in modules of the same numbers, where there are several of them."""
    above = flax_path.rpartition("/")[0], torch_path.rpartition(".")[0]
    ours, theirs = ([part for part in re.split(r"[/._]", path) if part.isdigit()] for path in above)
    return several == 1 or ours == theirs or not (ours and theirs)


def _of(leaf: Leaf, layers: list[tuple[str, nn.Module]], inputs: int, biased: bool) -> list[str]:
    """Those of some layers that one of Flax's holds, in its order; none if their features don't add up to its own."""
    kernel = tuple(leaf.shapes.get("kernel", ()))
    if not kernel or kernel[0] != inputs or biased != ("bias" in leaf.shapes):
        return []
    outputs, name = int(np.prod(kernel[1:])), leaf.path.rpartition("/")[2].lower()
    names = {path: path.rpartition(".")[2].lower() for path, _ in layers}
    sizes = {path: layer.out_features for path, layer in layers if isinstance(layer, nn.Linear)}
    roles = [next((path for path in names if role(names[path]) == each), None) for each in ATTENTION]
    told = sorted((name.find(names[path].removesuffix("_proj")), path) for path in names)
    windows = (list(names)[i:j] for i in range(len(names)) for j in range(i + 2, len(names) + 1))
    for group in ([path for place, path in told if place >= 0], roles, roles[1:], *windows):
        paths = [path for path in group if path is not None]
        if 1 < len(paths) == len(group) <= _MOST_PARTS and sum(sizes[path] for path in paths) == outputs:
            return paths
    return []


def _inputs(
    model: nn.Module, paths: set[str], inputs: tuple[Tensor, ...], kwargs: dict[str, Any]
) -> dict[str, list[Tensor]]:
    """What each of these layers gets in a run."""
    heard: dict[str, list[Tensor]] = {}

    def hook(path: str) -> Any:
        return lambda module, args: heard.setdefault(path, []).append(args[0])

    handles = [model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
    # What breaks down in this run does so in the one that is recorded, which says where.
    with torch.no_grad(), contextlib.suppress(RuntimeError):
        model(*inputs, **kwargs)
    for handle in handles:
        handle.remove()
    return heard


def _same(one: list[Tensor] | None, other: list[Tensor] | None) -> bool:
    """Whether two layers got the same tensors."""
    if not one or not other or len(one) != len(other):
        return False
    return all(a is b for a, b in zip(one, other, strict=True))


def _joined(model: nn.Module, leaf: Leaf, paths: list[str], kernel: NDArray | None) -> dict[int, nn.Module]:
    """What stands for each of some layers, by identity."""
    layers = [layer for path in paths if isinstance(layer := model.get_submodule(path), nn.Linear)]
    every = torch.cat([layer.weight.detach() for layer in layers])
    sizes = [layer.out_features for layer in layers]
    order = _order(every.double().cpu().numpy(), kernel, _in_blocks(sizes, leaf))
    whole = nn.Linear(every.shape[1], every.shape[0], bias=layers[0].bias is not None, device="meta")
    whole.weight = nn.Parameter(every[order].clone(), layers[0].weight.requires_grad)
    if layers[0].bias is not None:
        whole.bias = nn.Parameter(torch.cat([x.bias.detach() for x in layers])[order].clone(), True)
    given, made, start = _Given(), {}, 0
    back, name = torch.argsort(order), leaf.path.rpartition("/")[2]
    sources: dict[str, list[tuple[str, list[int]]]] = {"weight": [], "bias": []}
    for path, layer in zip(paths, layers, strict=True):
        rows = back[start : start + layer.out_features]
        start += layer.out_features
        made[id(layer)] = Joined(name, whole, rows, given).eval()
        for each in sources:
            sources[each].append((f"{path}.{each}", rows.tolist()))
    held = {name: pieces for name, pieces in sources.items() if getattr(whole, name) is not None}
    for each in made.values():  # the whole has its path in whichever is registered first
        if isinstance(each, Joined):
            each.sources = held
    return made


def _in_blocks(sizes: list[int], leaf: Leaf) -> NDArray:
    """Which of all rows each of Flax's is, by what Flax's code takes out of its layer's result."""
    taken = [interleaved.Pattern(*each) for each in leaf.taken]
    parts = interleaved.patterns(sizes, interleaved.blocks(sizes, taken))
    return np.argsort(np.concatenate([interleaved.places(part, sum(sizes)) for part in parts]))


def _order(every: NDArray, kernel: NDArray | None, usual: NDArray) -> Tensor:
    """Which of all rows each of Flax's is, by the values of its own kernel; the usual order where that can't tell."""
    plain = torch.from_numpy(usual)
    if kernel is None or kernel.size != every.size:
        return plain
    places = {row.tobytes(): i for i, row in enumerate(every)}
    ours = np.ascontiguousarray(kernel.reshape(every.shape[1], -1).T, np.float64)
    found = [places.get(row.tobytes(), -1) for row in ours]
    return torch.tensor(found) if sorted(found) == list(range(len(every))) else plain
