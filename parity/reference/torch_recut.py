"""Linear layers and convolutions cut as Flax has them, in the copy that is run.

A projection that holds several (`qkv`, `gate_up`) becomes those that Flax calls one by one, on the same input; a
convolution of one pixel becomes the Linear layer that it is where Flax has a `Dense`. Only what Flax has no layer for
is cut, and the results are put together again as the layer gave them: the function stays, its places don't. Whether the
parts lie side by side or block by block is seen in a run, by what PyTorch's code takes out of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from parity.comparison import interleaved
from parity.comparison.layer_names import ATTENTION, part_name, role
from parity.kinds import dense, weights
from parity.kinds.leaf import Leaf
from parity.reference import torch_taken
from parity.reference.torch_stand_ins import hooked, replaced

Wholes = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


Sizes = tuple[tuple[str, int], ...]  # names and features of the parts, in the order of their rows


class Recut(nn.Module):
    """Linear layers on one input, in the place of a layer that holds all of them, in so many blocks."""

    def __init__(self, whole: Wholes, sizes: Sizes, blocks: int = 1) -> None:
        super().__init__()
        self.moved, self.blocks = not isinstance(whole, nn.Linear), blocks
        self.parts: dict[str, tuple[Any, ...]] = {}
        held = ("weight", "bias") if whole.bias is not None else ("weight",)
        rows = interleaved.patterns([size for _, size in sizes], blocks)
        for (name, size), each in zip(sizes, rows, strict=True):
            made = nn.Linear(whole.weight.shape[1], size, bias=whole.bias is not None, device="meta")
            made.weight = _rows(whole.weight.flatten(1), whole.weight, each)
            if whole.bias is not None:
                made.bias = _rows(whole.bias, whole.bias, each)
            self.add_module(part_name(name), made)
            place = each if blocks > 1 else each[:2]
            self.parts |= {f"{part_name(name)}.{one}": (one, *place) for one in held}

    def forward(self, x: Tensor) -> Tensor:
        """The same function as the whole's."""
        x = x.movedim(1, -1) if self.moved else x
        results = [layer(x) for layer in self.children()]
        if self.blocks > 1:
            results = [y.unflatten(-1, (self.blocks, -1)) for y in results]
        y = torch.cat(results, -1) if len(results) > 1 else results[0]
        y = y.flatten(-2) if self.blocks > 1 else y
        return y.movedim(-1, 1) if self.moved else y


def as_in_flax(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    kwargs: dict[str, Any],
    torch_leaves: list[Leaf],
    flax: list[Leaf],
) -> bool:
    """Cut layers that Flax has in parts, or as `Dense`; whether there were any.

    Args:
        model: changed in place.
        inputs: of its call, in its own dtype.
        kwargs: more of its arguments.
        torch_leaves: its own.
        flax: the other side's.
    """
    modules = dict(model.named_modules())
    shared = {id(p) for p in model.parameters() if sum(p is q for m in modules.values() for q in own(m)) > 1}
    made: dict[int, nn.Module] = {}
    cuts = {
        path: sizes
        for path, sizes in _cuts(modules, torch_leaves, flax)
        if not hooked(modules[path]) and not any(id(p) in shared for p in own(modules[path]))
    }
    several = [path for path, sizes in cuts.items() if len(sizes) > 1]
    taken = torch_taken.taken(model, several, inputs, kwargs) if several else {}
    for path, sizes in cuts.items():
        if isinstance(whole := modules[path], Wholes):
            blocks = interleaved.blocks([size for _, size in sizes], taken.get(path, ()))
            made[id(whole)] = Recut(whole, sizes, blocks).eval()
    if made:
        replaced(model, made)
    return bool(made)


def own(module: nn.Module) -> list[nn.Parameter]:
    """A module's parameters beside its children's."""
    return list(module.parameters(recurse=False))


def _rows(source: Tensor, parameter: Tensor, rows: interleaved.Pattern) -> nn.Parameter:
    places = torch.from_numpy(interleaved.places(rows, len(source)))
    return nn.Parameter(source.detach()[places].clone(), parameter.requires_grad)


def _cuts(modules: dict[str, nn.Module], torch_leaves: list[Leaf], flax: list[Leaf]) -> Iterator[tuple[str, Sizes]]:
    """Path of each layer of PyTorch's that has none like it in Flax, but parts or a `Dense` there; and its parts."""
    lonely = [
        leaf for leaf in torch_leaves if _features(modules.get(leaf.path)) and not any(_like(leaf, x) for x in flax)
    ]
    free = [leaf for leaf in flax if leaf.kind == dense.KIND.name and not any(_like(x, leaf) for x in lonely)]
    taken: set[str] = set()
    linear = [leaf for leaf in torch_leaves if leaf.kind == dense.KIND.name]
    for features, wholes in _by_features(lonely, modules):
        same = [leaf for leaf in free if _sizes(leaf, features[0]) == features[1] and _biased(leaf) == features[2]]
        spare = len(same) - sum(any(_like(leaf, x) for x in same[:1]) for leaf in linear)
        if wholes[0].kind != dense.KIND.name and spare >= len(wholes):
            for leaf in wholes:
                yield leaf.path, ((leaf.path.rpartition(".")[2], features[1]),)
            continue
        groups = [g for g in (_group(each, features, wholes[0], taken) for each in _siblings(free)) if g]
        if len(groups) == len(wholes):
            for leaf, group in zip(wholes, groups, strict=True):
                taken |= {part.path for part in group}
                named = [(part.path.rpartition("/")[2], _sizes(part, features[0])) for part in group]
                yield leaf.path, tuple(named)


Features = tuple[int, int, bool]


def _by_features(leaves: list[Leaf], modules: dict[str, nn.Module]) -> Iterator[tuple[Features, list[Leaf]]]:
    """Layers with as many inputs and outputs, and called the same; in the order in which they are registered."""

    def key(leaf: Leaf) -> Any:
        return _features(modules[leaf.path]), leaf.kind, leaf.path.rpartition(".")[2]

    for (features, *_), group in groupby(sorted(leaves, key=key), key):
        yield features, sorted(group, key=leaves.index)


def _features(module: nn.Module | None) -> Features | None:
    """Inputs, outputs and whether there is a bias, of a Linear layer or what is one for each pixel."""
    if type(module) is nn.Linear:
        return module.in_features, module.out_features, module.bias is not None
    if type(module) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d) or not isinstance(module, Wholes):
        return None
    ones = {*module.kernel_size, *module.stride, module.groups} == {1}  # type: ignore[misc]
    plain = ones and module.padding not in ("same",) and not any(module.padding)  # type: ignore[arg-type]
    return (module.weight.shape[1], module.weight.shape[0], module.bias is not None) if plain else None


def _like(torch_leaf: Leaf, flax_leaf: Leaf) -> bool:
    shapes = weights.flax_shapes(torch_leaf.kind, torch_leaf.shapes)
    return torch_leaf.kind == flax_leaf.kind and all(
        name in shapes and weights.fits(flax_leaf.kind, tuple(shape), shapes[name])
        for name, shape in flax_leaf.shapes.items()
    )


def _biased(leaf: Leaf) -> bool:
    return "bias" in leaf.shapes


def _sizes(leaf: Leaf, inputs: int) -> int:
    """Outputs of a `Dense`, or of one of several axes, with so many inputs; 0 if it has another number of these."""
    kernel = tuple(leaf.shapes.get("kernel", ()))
    ends = [i for i in range(1, len(kernel)) if math.prod(kernel[:i]) == inputs]
    return math.prod(kernel[ends[0] :]) if ends else 0


def _siblings(leaves: list[Leaf]) -> list[list[Leaf]]:
    """Layers of one module each, as they are run."""
    groups: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.path.rpartition("/")[0], []).append(leaf)
    return list(groups.values())


def _group(siblings: list[Leaf], features: Features, whole: Leaf, taken: set[str]) -> list[Leaf]:
    """The parts of a layer among one module's: by their names in its own, by roles in attention, else by order."""
    inputs, outputs, biased = features
    fit = [x for x in siblings if _sizes(x, inputs) and _biased(x) == biased and x.path not in taken]
    called = whole.path.rpartition(".")[2].lower()
    if role(called) is not None:
        return []  # one projection of attention, of another size than Flax's
    names = [x.path.rpartition("/")[2].lower() for x in fit]
    in_name = sorted((called.find(n.removesuffix("_proj")), x.path) for n, x in zip(names, fit, strict=True))
    by_path = {x.path: x for x in fit}
    projections = [next((x for x, n in zip(fit, names, strict=True) if role(n) == r), None) for r in ATTENTION]
    windows = (fit[i:j] for i in range(len(fit)) for j in range(i + 2, len(fit) + 1))
    for parts in (projections, projections[1:], [by_path[path] for place, path in in_name if place >= 0], *windows):
        found = [part for part in parts if part is not None]
        if len(found) == len(parts) > 1 and sum(_sizes(part, inputs) for part in found) == outputs:
            return found
    return []
