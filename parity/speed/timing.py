"""The least of several times: what nothing else on the machine disturbed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

REPEATS = 5


def least(function: Callable[[], Any], wait: Callable[[Any], Any]) -> float:
    """Seconds of the fastest of `REPEATS` calls, after one that warms up.

    Args:
        function: to time.
        wait: returns when what the function gave is computed.
    """
    wait(function())
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        wait(function())
        found.append(time.perf_counter() - began)
    return min(found)
