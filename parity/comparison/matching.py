"""Which PyTorch layer is which Flax layer: by name where names agree, else by kind, shape and order.

What that leaves open is decided while the models run, by what each layer is given; see `parity.comparison.by_input`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from parity.comparison.layer_names import compared_names, in_order_of_roles, uncut_name, weight_role
from parity.errors import CannotCompare, LayersUnseen
from parity.kinds import parameter, registry, weights
from parity.kinds.leaf import Leaf
from parity.kinds.normalization import AFFINE


@dataclass(frozen=True)
class Pairing:
    """Which leaves belong together.

    Attributes:
        pairs: Flax path to PyTorch path.
        undecided: Flax path to the PyTorch paths of its kind and shape, where only the run can tell.
        likely: of the undecided ones those that their order tells, unless what they are given tells another.
        kinds: of the Flax leaves whose weights have other names in a PyTorch leaf of no known class, or the other way
            round, see `registry.renamed`; or whose settings put them into another order, see `Leaf.stored`.
    """

    pairs: dict[str, str]
    undecided: dict[str, list[str]] = field(default_factory=dict)
    likely: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)


def match(flax: list[Leaf], torch: list[Leaf], given: dict[str, str] | None = None) -> Pairing:
    """Pair leaves with parameters, and those without where their names agree.

    In this order: pairs that the caller gives; equal names and kinds (`features.0` equals `features_0` and
    `features/0`, and beside a key and a value `q_proj` equals `query`); position, attention's projections in the order
    of their roles, if what is left has the same kinds and shapes in the same order on both sides; kind and
    shape, where only one leaf of each side has them; parameters that modules own by the numbers in their paths.
    Where both sides have as many layers of a kind and shape, the run decides.

    Args:
        flax: leaves in order of execution.
        torch: leaves in order of registration.
        given: Flax path to PyTorch path.

    Raises:
        CannotCompare: a leaf of Flax's has no partner, or there are more on one side than on the other, each named.
    """
    flax_by_path = {leaf.path: leaf for leaf in flax}
    torch_by_path = {leaf.path: leaf for leaf in torch}
    pairs: dict[str, str] = {}
    uncut = {uncut_name(leaf.path): leaf.path for leaf in torch}
    for flax_path, torch_path in (given or {}).items():
        torch_path = torch_path if torch_path in torch_by_path else uncut.get(torch_path, torch_path)
        for path, known, side in ((flax_path, flax_by_path, "Flax"), (torch_path, torch_by_path, "PyTorch")):
            if path not in known:
                raise CannotCompare(f"mapping names {path!r}, no leaf of the {side} model; it has {', '.join(known)}")
        pairs[flax_path] = torch_path
    for wrapped in (True, False):  # as they are, then without what all of a side's paths begin with
        names = {name: path for path, name in compared_names(torch, wrapped, torch=True).items()}
        ours_named = compared_names(flax, wrapped)
        taken = set(pairs.values())
        for leaf in flax:
            partner = names.get(ours_named[leaf.path])
            if leaf.path in pairs or partner is None or partner in taken:
                continue
            # Shapes may differ: a wrong padding shows in the first fully connected layer's inputs, and is to be found
            # where it is, not to be refused here.
            # So may a bias, or a norm's scale or statistics, that one side lacks.
            (kind, names_here), (other, names_there) = _parts(leaf), _parts(torch_by_path[partner], torch=True)
            alike = _alike(kind, other) and {*names_here} ^ {*names_there} <= {"bias", "scale", "mean", "var"}
            if alike or _renamed(leaf, torch_by_path[partner]) is not None:
                pairs[leaf.path] = partner
                taken.add(partner)
    ours = [leaf for leaf in flax if leaf.shapes and leaf.path not in pairs and not leaf.idle]
    theirs = [leaf for leaf in torch if leaf.shapes and leaf.path not in taken and not leaf.idle]
    # Where every layer of Flax's has its partner by name, what is left of PyTorch's is left out in Flax, which is told.
    found = Pairing({}) if pairs and not ours else _by_shape(ours, theirs)
    pairs |= found.pairs
    partners = {path: torch_by_path[torch_path] for path, torch_path in pairs.items()}
    partners |= {path: torch_by_path[several[0]] for path, several in found.undecided.items()}
    names_of = {path: _renamed(flax_by_path[path], partner) for path, partner in partners.items()}
    kinds = {leaf.path: leaf.stored for leaf in flax if leaf.stored}
    kinds |= {path: registry.renamed(names) for path, names in names_of.items() if names is not None}
    return Pairing(pairs, found.undecided, found.likely, kinds)


def _alike(kind: str, other: str) -> bool:
    """Whether layers of two kinds may stand for each other under one name: the same, or norms of whatever kind."""
    return kind == other or all(registry.named(each).weights[: len(AFFINE)] == AFFINE for each in (kind, other))


def _by_shape(ours: list[Leaf], theirs: list[Leaf]) -> Pairing:
    lined_up = list(zip(in_order_of_roles(ours), in_order_of_roles(theirs), strict=False))
    if len(ours) == len(theirs) and all(_fits(x, y) for x, y in lined_up):
        return _in_order(lined_up)
    groups: dict[tuple, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for leaf in ours:
        like = next((_signature_torch(other) for other in theirs if _same(leaf, other)), None)
        groups[like or _signature_flax(leaf)][0].append(leaf.path)
    for leaf in theirs:
        groups[_signature_torch(leaf)][1].append(leaf.path)
    found, problems = Pairing({}), []
    for signature, (a, b) in groups.items():
        if len(a) == len(b) == 1:
            found.pairs[a[0]] = b[0]
        elif not a or not b:
            side, names = ("Flax", b) if not a else ("PyTorch", a)
            problems.append(f"{_described(signature)} {', '.join(names)}: nothing like it in the {side} model")
        elif len(a) == len(b) and signature[0] != parameter.KIND.name:
            found.undecided.update(dict.fromkeys(a, b))
        elif (owned := _by_number(a, b)) is not None:
            found.pairs.update(owned)
        else:
            problems.append(f"{_described(signature)}: Flax {', '.join(a)} could be PyTorch {', '.join(b)}")
    if problems:
        raise LayersUnseen(
            "the layers can't be paired:\n  " + "\n  ".join(problems) + "\n"
            "Say which is which with mapping={'flax/path': 'torch.path', ...}." + _hint(ours, theirs)
        )
    return found


def _in_order(lined_up: list[tuple[Leaf, Leaf]]) -> Pairing:
    """Leaves of which there is one of a kind and shape are paired; of others their order is only likely."""
    found = Pairing({})
    for ours, theirs in lined_up:
        several = [y.path for x, y in lined_up if x.kind == ours.kind and dict(x.shapes) == dict(ours.shapes)]
        if len(several) == 1 or ours.kind == parameter.KIND.name:
            found.pairs[ours.path] = theirs.path
        else:
            found.undecided[ours.path], found.likely[ours.path] = several, theirs.path
    return found


def _by_number(ours: list[str], theirs: list[str]) -> dict[str, str] | None:
    """Paths that differ in nothing but numbers, paired in the order of these; None if others are among them."""

    def name(path: str) -> str:
        return re.sub(r"\d+", "", path)

    def numbers(path: str) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", path)]

    if len(ours) != len(theirs) or len({*map(name, ours)}) > 1 or len({*map(name, theirs)}) > 1:
        return None
    return dict(zip(sorted(ours, key=numbers), sorted(theirs, key=numbers), strict=True))


def _hint(ours: list[Leaf], theirs: list[Leaf]) -> str:
    """What to do about layers that nobody can see."""
    unseen = any(leaf.kind == parameter.KIND.name for leaf in ours) or any(_stacked(leaf, theirs) for leaf in ours)
    if not unseen and not any(registry.named(leaf.kind).recurrent for leaf in theirs):
        return ""
    return (
        " Layers inside nnx.scan, nnx.vmap or nnx.remat, and recurrences written by hand, can't be seen: call them in "
        "a Python loop, or give the module's own variables, converted from PyTorch's, to compare it as a whole."
    )


def _stacked(ours: Leaf, theirs: list[Leaf]) -> bool:
    """Whether a leaf has the parameters of several of the other side's, along a first axis."""
    items = [weights.flax_shapes(leaf.kind, leaf.shapes) for leaf in theirs]
    return bool(ours.shapes) and {name: tuple(shape[1:]) for name, shape in ours.shapes.items()} in items


def _fits(ours: Leaf, theirs: Leaf) -> bool:
    """Same kind and shapes; inputs may differ where they follow the size of the map before the layer."""
    if _same(ours, theirs):
        return True
    if not registry.named(ours.kind).inputs_follow_map or _parts(ours) != _parts(theirs, torch=True):
        return False
    shapes = weights.flax_shapes(theirs.kind, theirs.shapes)
    return all(shape[-1] == shapes[name][-1] for name, shape in ours.shapes.items())


def _same(ours: Leaf, theirs: Leaf) -> bool:
    """Same kind, and shapes that hold the same values."""
    shapes = weights.flax_shapes(theirs.kind, theirs.shapes)
    if ours.kind == theirs.kind == parameter.KIND.name:  # code makes use of these: axes of one are a matter of taste
        return _without_ones(ours.shapes[parameter.VALUE]) == _without_ones(theirs.shapes[parameter.VALUE])
    if ours.kind == theirs.kind and {*ours.shapes} == {*shapes}:
        return all(weights.fits(ours.kind, tuple(shape), shapes[name]) for name, shape in ours.shapes.items())
    return _renamed(ours, theirs) is not None


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _renamed(ours: Leaf, theirs: Leaf) -> dict[str, str] | None:
    """PyTorch's names of the weights of a layer of someone's own to Flax's, where names or kinds differ, shapes don't.

    The only weight of both, or a scale and an offset, under any of their usual names. None for kinds whose weights lie
    in another order on either side: shapes wouldn't show it.
    """
    kinds = [registry.named(ours.kind), registry.named(theirs.kind)]
    other = registry.OTHER.name
    if other not in (ours.kind, theirs.kind) or not ours.shapes:
        return None
    if any(kind.linear or kind.recurrent for kind in kinds):
        return None
    if ours.kind == theirs.kind and {*ours.shapes} == {*theirs.shapes}:
        return None  # no name is another
    found = {}
    for name, shape in theirs.shapes.items():
        alike = [n for n, s in ours.shapes.items() if tuple(s) == tuple(shape) and weight_role(n) == weight_role(name)]
        if len(ours.shapes) == len(theirs.shapes) == 1:
            alike = [n for n, s in ours.shapes.items() if tuple(s) == tuple(shape)]
        if len(alike) != 1:
            return None
        found[name] = alike[0]
    return found if len({*found.values()}) == len(ours.shapes) else None


def _parts(leaf: Leaf, torch: bool = False) -> tuple:
    """Kind and names of parameters, in Flax's words."""
    names = weights.flax_shapes(leaf.kind, leaf.shapes) if torch else leaf.shapes
    return leaf.kind, tuple(sorted(names))


def _signature_flax(leaf: Leaf) -> tuple:
    shapes = {name: tuple(shape) for name, shape in leaf.shapes.items()}
    if leaf.kind == parameter.KIND.name:
        shapes = {name: _without_ones(shape) for name, shape in shapes.items()}
    return leaf.kind, tuple(sorted(shapes.items()))


def _signature_torch(leaf: Leaf) -> tuple:
    if leaf.kind == parameter.KIND.name:
        return _signature_flax(leaf)
    return leaf.kind, tuple(sorted(weights.flax_shapes(leaf.kind, leaf.shapes).items()))


def _described(signature: tuple) -> str:
    kind, shapes = signature
    return f"{kind} with " + ", ".join(f"{name} {shape}" for name, shape in shapes)
