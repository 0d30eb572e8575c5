"""What layers and their weights are called: one side's names beside the other's, and the roles that they tell."""

from __future__ import annotations

import itertools
import re

from parity.kinds import parameter, registry
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
# What people call the scale and the offset of a layer of their own.
_AFFINE = {"scale": ("scale", "weight", "gamma", "g"), "bias": ("bias", "beta", "offset", "b")}
# What says no more than that a layer is one.
_AFFIXES = re.compile(
    r"^(proj|lin|linear|dense|fc|to|w|conv)_(?=[a-z])|_(proj|projection|lin|linear|layer|dense|fc|conv)$"
)
_ORDER = list(dict.fromkeys(_ROLES.values()))
ATTENTION = _ORDER[:3]


def part_name(name: str) -> str:
    """What a part of a layer that was cut is called in it: `qkv.[q]`; its name beside other paths is `q`."""
    return f"[{name}]"


def role(name: str) -> str | None:
    """Role of a projection in attention, by its name."""
    return _ROLES.get(name)


def uncut_name(path: str) -> str:
    """A path as if a layer that was cut had been parts to begin with: `attn.qkv.[q]` is `attn.q`."""
    return re.sub(r"[^./]+\.\[(.*?)\]", r"\1", path)


def alike(flax_path: str, torch_path: str) -> bool:
    """Whether two layers are called the same within their modules, or play the same role in attention."""
    names = [uncut_name(path).replace("/", ".").rpartition(".")[2].lower() for path in (flax_path, torch_path)]
    ours, theirs = (_ROLES.get(name, _AFFIXES.sub("", name).replace("_", "")) for name in names)
    return ours == theirs


def compared_names(leaves: list[Leaf], wrapped: bool, torch: bool = False) -> dict[str, str]:
    """Paths as both sides' are compared, by path; of numbers alone, none, if they are not `wrapped`."""
    roles = _roles(leaves)
    found = as_in_flax([leaf.path for leaf in leaves if torch and registry.named(leaf.kind).recurrent])
    paths = {
        leaf.path: ".".join(filter(None, roles.get(leaf.path, (uncut_name(found.get(leaf.path, leaf.path)),))))
        for leaf in leaves
    }
    names = {path: name.replace("/", ".").replace("_", ".").lower() for path, name in paths.items()}
    names = _without_tables(leaves, names)
    if wrapped:
        return names
    parts = {path: name.split(".") for path, name in names.items()}
    places = zip(*(each[:-1] for each in parts.values()), strict=False)
    common = len(list(itertools.takewhile(lambda place: len(set(place)) == 1, places)))
    inner = {path: ".".join(each[common:]) for path, each in parts.items()}
    # A layer's place among others says nothing where the others are not the same.
    return {path: name if re.search("[a-z]", name) else f"/{path}" for path, name in inner.items()}


def _without_tables(leaves: list[Leaf], names: dict[str, str]) -> dict[str, str]:
    """Parameters that are a whole table of embeddings by the table's name, unless something else is called so."""
    found = dict(names)
    for leaf in leaves:
        table = re.sub(r"\.(embedding|weight)$", "", names[leaf.path])
        if leaf.kind == parameter.KIND.name and len(leaf.shapes[parameter.VALUE]) == 2 and table not in found.values():
            found[leaf.path] = table
    return found


def in_order_of_roles(leaves: list[Leaf]) -> list[Leaf]:
    """The same with each attention's projections in one order, in the places that they have among the others."""
    roles, found = _roles(leaves), list(leaves)
    for module in {module for module, _ in roles.values()}:
        places = [i for i, leaf in enumerate(leaves) if leaf.path in roles and roles[leaf.path][0] == module]
        ordered = sorted((leaves[i] for i in places), key=lambda leaf: _ORDER.index(roles[leaf.path][1]))
        for i, leaf in zip(places, ordered, strict=True):
            found[i] = leaf
    return found


def _roles(leaves: list[Leaf]) -> dict[str, tuple[str, str]]:
    """Module and role of each leaf, by path, that is a projection beside those of query, key and value."""
    found: dict[str, tuple[str, str]] = {}
    for leaf in leaves:
        module, _, name = uncut_name(leaf.path).replace("/", ".").rpartition(".")
        if name.lower() in _ROLES:
            found[leaf.path] = module, _ROLES[name.lower()]
    modules = set(found.values())
    return {
        path: (module, role)
        for path, (module, role) in found.items()
        if all((module, other) in modules for other in _ORDER[:3])
    }


def weight_role(name: str) -> str:
    """What a weight of a layer of someone's own is: `scale`, `bias`, or its own name."""
    return next((role for role, names in _AFFINE.items() if name in names), name)
