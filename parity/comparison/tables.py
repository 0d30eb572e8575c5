"""Tables of embeddings of which one side makes other use: called elsewhere how often, indexed, or owned as parameters.

Such a table is no layer then, on neither side: its weight is paired like any that a module owns, and what is looked up
in it belongs to the code between the layers.
"""

from __future__ import annotations

from parity.comparison.layer_names import compared_names
from parity.kinds import embedding, parameter, registry
from parity.kinds.leaf import Leaf


def looked_up_otherwise(flax: list[Leaf], torch: list[Leaf]) -> list[str]:
    """Flax's tables that are called another number of times than PyTorch's of the same name, for as many rows in all.

    One side looks up in parts what the other looks up joined or stacked. Another number of rows may be a mistake, and
    is compared as it is.
    """
    theirs = {name: leaf for leaf, name in _named(torch, torch=True)}
    found = []
    for leaf, name in _named(flax):
        other = theirs.get(name)
        if other is not None and leaf.looked_up and other.looked_up and sum(leaf.looked_up) == sum(other.looked_up):
            found += [leaf.path] if len(leaf.looked_up) != len(other.looked_up) else []
    return found


def uncalled(flax: list[Leaf], torch: list[Leaf]) -> list[str]:
    """PyTorch's layers whose only weight is in Flax one that the code between the layers uses.

    A table of embeddings that is indexed, or multiplied with for the last layer, instead of called; or a parameter of a
    module's own, such as one of positions. A Linear layer is among them where it shares the weight with such a table,
    and Flax has no layer for it.

    Returns:
        Their paths; such a layer is no leaf then, and its weight is paired like any that a module owns.
    """
    owned = {tuple(leaf.shapes[parameter.VALUE]) for leaf in torch if leaf.kind == parameter.KIND.name}
    tables = {leaf.path: tuple(leaf.shapes[parameter.VALUE]) for leaf in flax if leaf.kind == parameter.KIND.name}
    tables = {path: shape for path, shape in tables.items() if path.endswith("/embedding") or shape not in owned}
    called = {leaf.path: tuple(leaf.shapes["weight"]) for leaf in torch if _is_table(leaf)}
    names = {name: leaf.path for leaf, name in _named(torch, torch=True)}
    ours = {name for _, name in _named(flax)}
    free = {path: shape for path, shape in called.items() if not any(names.get(n) == path for n in ours)}
    named = {path: names.get(_name(path)) for path in tables}
    found = {other for path, other in named.items() if other is not None and called[other] == tables[path]}
    left = [shape for path, shape in tables.items() if named[path] not in found]
    for shape in dict.fromkeys(left):
        same = [path for path, other in free.items() if other == shape and path not in found]
        if len(same) == left.count(shape):
            found |= {*same}
    return [path for path in called if path in found]


def _is_table(leaf: Leaf) -> bool:
    return registry.named(leaf.kind).name == embedding.KIND.name


def _named(leaves: list[Leaf], torch: bool = False) -> list[tuple[Leaf, str]]:
    """The tables among leaves, each with its name as both sides' are compared."""
    names = compared_names(leaves, True, torch)
    return [(leaf, names[leaf.path]) for leaf in leaves if _is_table(leaf)]


def _name(path: str) -> str:
    """What a table would be called, were it a layer, by the path of its weight."""
    return path.removesuffix("/embedding").replace("/", ".").replace("_", ".").lower()
