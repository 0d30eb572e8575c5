"""Names of classes that look alike and are not the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from alexnet_io.command_line.printing import printable


def only_in_one(first: Sequence[str], second: Sequence[str], first_name: str, second_name: str) -> list[str]:
    """What two lists of class names don't have in common, in words; empty where they have the same names.

    Names that look alike are set side by side, with what tells them apart.
    """
    rest = [sorted(set(first) - set(second)), sorted(set(second) - set(first))]
    lines = []
    for ours in list(rest[0]):
        for theirs in rest[1]:
            if how := _how_alike(ours, theirs):
                lines.append(
                    f"{printable(ours)} differs in {how} only: {_spelt(ours)} in {first_name}, {_spelt(theirs)} in "
                    f"{second_name}"
                )
                rest[0].remove(ours)
                rest[1].remove(theirs)
                break
    for where, names in zip((first_name, second_name), rest, strict=True):
        if names:
            lines.append(f"only in {where}: {some([printable(name) for name in names])}")
    return lines


def same_but_for_normalisation(names: Iterable[str]) -> list[str]:
    """Names of one list that are the same in another Unicode normal form, in words."""
    seen: dict[str, str] = {}
    found = []
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            found.append(f"{printable(name)} as {_spelt(other)} and as {_spelt(name)}")
    return found


def some(names: Sequence[str], most: int = 10) -> str:
    """The first `most` names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _how_alike(one: str, other: str) -> str:
    """In what alone two different names differ, as far as a reader may not see it; empty where one does."""
    one, other = (unicodedata.normalize("NFC", name) for name in (one, other))
    if one == other:
        return "Unicode normalisation"
    if one.casefold() == other.casefold():
        return "upper and lower case"
    one, other = ("".join(filter(_is_seen, unicodedata.normalize("NFKC", name))).casefold() for name in (one, other))
    return "spaces, invisible or look-alike characters" if one == other else ""


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Zs", "Zl", "Zp")


def _spelt(name: str) -> str:
    """The name by its code points, and its normal form where it has one of several."""
    forms = [form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, name)]
    form = {0: ", neither NFC nor NFD", 1: f", {forms[0]}" if forms else "", 2: ""}[len(forms)]
    return f"{name!a}{form}"
