"""Paths that are right on one machine only."""

import re

_ABSOLUTE = re.compile(r"""(?:^|[\s"'`(=:])(/\w[^\s"'`)]*/)""", re.MULTILINE)


def absolute_paths(text: str) -> list[str]:
    """Folders in a text that begin at the root; addresses of pages are none."""
    return _ABSOLUTE.findall(text)
