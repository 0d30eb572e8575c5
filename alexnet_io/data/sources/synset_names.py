"""Names that people can read of ImageNet's classes, which data sets call by their synsets, such as n01440764.

The synset remains the class's name wherever networks and data are held to each other; this is for showing it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

_FILE = Path(__file__).with_name("imagenet_classes.txt")


@cache
def names() -> Mapping[str, str]:
    """A short English name for each of ILSVRC-2012's 1,000 synsets, in the order of its labels."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    rows = (line.partition(" ") for line in lines if not line.startswith("#"))
    return MappingProxyType({synset: name for synset, _, name in rows})


def readable(name: str) -> str:
    """`tench (n01440764)` for a synset that is known; any other class name as it is."""
    found = names().get(name)
    return f"{found} ({name})" if found else name
