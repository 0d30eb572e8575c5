"""How much `parity throughput` measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from parity.speed.budget import Budget


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: blocks of each rival in a pair.
        warmup: steps before the first block.
        block_seconds: a block has as many steps as fill this time, at least one.
        pythons: interpreter by framework; this one if None.
        say: gets a line of progress.
        trace: directory for a profiler's trace of JAX's tuned steps, taken after they were timed.
        check_layers: compare every layer at this precision first; needs both frameworks in this environment.
        profile: time every layer alone at the end.
        budget: time for everything.
    """

    rounds: int = 6
    warmup: int = 10
    block_seconds: float = 1.0
    pythons: dict[str, str | None] = field(default_factory=dict)
    say: Callable[[str], None] = lambda line: None
    trace: str | None = None
    check_layers: bool = True
    profile: bool = False
    budget: Budget = field(default_factory=Budget)
