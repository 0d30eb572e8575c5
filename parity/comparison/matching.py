"""Which PyTorch layer is which Flax layer: by name where names agree, else by kind, shape and order."""

from __future__ import annotations

from collections import defaultdict

from parity.errors import CannotCompare, LayersUnseen
from parity.kinds import parameter, registry, weights
from parity.kinds.leaf import Leaf
from parity.kinds.recurrence import as_in_flax

# What attention's projections are called, Flax's names first.
_ROLES = {
    name: role
    for role, names in {
        "query": ("query", "q", "q_proj", "query_proj", "q_lin", "to_q", "wq"),
        "key": ("key", "k", "k_proj", "key_proj", "k_lin", "to_k", "wk"),
        "value": ("value", "v", "v_proj", "value_proj", "v_lin", "to_v", "wv"),
        "out": ("out", "o", "out_proj", "o_proj", "out_lin", "to_out", "wo"),
    }.items()
    for name in names
}
_ORDER = list(dict.fromkeys(_ROLES.values()))


def match(flax: list[Leaf], torch: list[Leaf], given: dict[str, str] | None = None) -> dict[str, str]:
    """Pair leaves with parameters, and those without where their names agree.

    In this order: pairs that the caller gives; equal names and kinds (`features.0` equals `features_0` and
    `features/0`, and beside a key and a value `q_proj` equals `query`); position, attention's projections in the order
    of their roles, if what is left has the same kinds and shapes in the same order on both sides; kind and
    shape, where only one leaf of each side has them. Anything else is a choice that only a person can make.

    Args:
        flax: leaves in order of execution.
        torch: leaves in order of registration.
        given: Flax path to PyTorch path.

    Returns:
        Flax path to PyTorch path.

    Raises:
        CannotCompare: a leaf has no partner, or several, each named.
    """
    flax_by_path = {leaf.path: leaf for leaf in flax}
    torch_by_path = {leaf.path: leaf for leaf in torch}
    pairs: dict[str, str] = {}
    for flax_path, torch_path in (given or {}).items():
        for path, known, side in ((flax_path, flax_by_path, "Flax"), (torch_path, torch_by_path, "PyTorch")):
            if path not in known:
                raise CannotCompare(f"mapping names {path!r}, no leaf of the {side} model; it has {', '.join(known)}")
        pairs[flax_path] = torch_path
    names, ours_named = {name: path for path, name in _names(torch, torch=True).items()}, _names(flax)
    taken = set(pairs.values())
    for leaf in flax:
        partner = names.get(ours_named[leaf.path])
        if leaf.path in pairs or partner is None or partner in taken:
            continue
        # Shapes may differ: a wrong padding shows in the first fully connected layer's inputs, and is to be found
        # where it is, not to be refused here.
        # So may a bias, or a norm's scale, that one side lacks.
        (kind, names_here), (other, names_there) = _parts(leaf), _parts(torch_by_path[partner], torch=True)
        if kind == other and {*names_here} ^ {*names_there} <= {"bias", "scale"}:
            pairs[leaf.path] = partner
            taken.add(partner)
    ours = [leaf for leaf in flax if leaf.shapes and leaf.path not in pairs]
    theirs = [leaf for leaf in torch if leaf.shapes and leaf.path not in taken]
    pairs |= _by_shape(ours, theirs)
    return pairs


def _by_shape(ours: list[Leaf], theirs: list[Leaf]) -> dict[str, str]:
    lined_up = list(zip(_by_role(ours), _by_role(theirs), strict=False))
    if len(ours) == len(theirs) and all(_fits(x, y) for x, y in lined_up):
        return {x.path: y.path for x, y in lined_up}
    groups: dict[tuple, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for leaf in ours:
        like = next((_signature_torch(other) for other in theirs if _same(leaf, other)), None)
        groups[like or _signature_flax(leaf)][0].append(leaf.path)
    for leaf in theirs:
        groups[_signature_torch(leaf)][1].append(leaf.path)
    pairs, problems = {}, []
    for signature, (a, b) in groups.items():
        if len(a) == len(b) == 1:
            pairs[a[0]] = b[0]
        elif not a or not b:
            side, names = ("Flax", b) if not a else ("PyTorch", a)
            problems.append(f"{_described(signature)} {', '.join(names)}: nothing like it in the {side} model")
        else:
            problems.append(f"{_described(signature)}: Flax {', '.join(a)} could be PyTorch {', '.join(b)}")
    if problems:
        raise LayersUnseen(
            "the layers can't be paired:\n  " + "\n  ".join(problems) + "\n"
            "Say which is which with mapping={'flax/path': 'torch.path', ...}." + _hint(ours, theirs)
        )
    return pairs


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
    same = ours.kind == theirs.kind and {*ours.shapes} == {*shapes}
    return same and all(weights.fits(ours.kind, tuple(shape), shapes[name]) for name, shape in ours.shapes.items())


def _parts(leaf: Leaf, torch: bool = False) -> tuple:
    """Kind and names of parameters, in Flax's words."""
    names = weights.flax_shapes(leaf.kind, leaf.shapes) if torch else leaf.shapes
    return leaf.kind, tuple(sorted(names))


def _roles(leaves: list[Leaf]) -> dict[str, tuple[str, str]]:
    """Module and role of each leaf, by path, that is a projection beside those of query, key and value."""
    found: dict[str, tuple[str, str]] = {}
    for leaf in leaves:
        module, _, name = leaf.path.replace("/", ".").rpartition(".")
        if name.lower() in _ROLES:
            found[leaf.path] = module, _ROLES[name.lower()]
    modules = set(found.values())
    return {
        path: (module, role)
        for path, (module, role) in found.items()
        if all((module, other) in modules for other in _ORDER[:3])
    }


def _by_role(leaves: list[Leaf]) -> list[Leaf]:
    """The same with each attention's projections in one order, in the places that they have among the others."""
    roles, found = _roles(leaves), list(leaves)
    for module in {module for module, _ in roles.values()}:
        places = [i for i, leaf in enumerate(leaves) if leaf.path in roles and roles[leaf.path][0] == module]
        ordered = sorted((leaves[i] for i in places), key=lambda leaf: _ORDER.index(roles[leaf.path][1]))
        for i, leaf in zip(places, ordered, strict=True):
            found[i] = leaf
    return found


def _names(leaves: list[Leaf], torch: bool = False) -> dict[str, str]:
    """Paths as both sides' are compared, by path."""
    roles = _roles(leaves)
    found = as_in_flax([leaf.path for leaf in leaves if torch and registry.named(leaf.kind).recurrent])
    paths = {
        leaf.path: ".".join(filter(None, roles.get(leaf.path, (found.get(leaf.path, leaf.path),)))) for leaf in leaves
    }
    return {path: name.replace("/", ".").replace("_", ".").lower() for path, name in paths.items()}


def _signature_flax(leaf: Leaf) -> tuple:
    shapes = {name: tuple(shape) for name, shape in leaf.shapes.items()}
    return leaf.kind, tuple(sorted(shapes.items()))


def _signature_torch(leaf: Leaf) -> tuple:
    return leaf.kind, tuple(sorted(weights.flax_shapes(leaf.kind, leaf.shapes).items()))


def _described(signature: tuple) -> str:
    kind, shapes = signature
    return f"{kind} with " + ", ".join(f"{name} {shape}" for name, shape in shapes)
