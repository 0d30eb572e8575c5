"""What became of planted bugs, and the harness's score."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = "parity-mutants/1"

VERDICTS = KILLED, SURVIVED, EQUIVALENT, NOT_EXERCISED = "killed", "survived", "equivalent", "not_exercised"


@dataclass
class Outcome:
    """What became of one mutant.

    Attributes:
        id: of the mutant; likewise number, title and side.
        verdict: `killed`, `survived`, `equivalent` or `not_exercised`.
        layer: named first by the harness; None if nothing was found.
        stage: of that finding.
        cause: named first, in words; likewise cause_key.
        layer_right: whether it is a layer where the bug may be seen first.
        cause_right: whether the cause is the planted bug.
        detail: why it counts as equivalent, or what it needs.
    """

    id: str
    number: int
    title: str
    side: str
    verdict: str
    layer: str | None = None
    stage: str | None = None
    cause: str | None = None
    cause_key: str | None = None
    layer_right: bool = False
    cause_right: bool = False
    detail: str = ""

    @property
    def line(self) -> str:
        """The outcome in a line of a terminal."""
        marks = f"{'layer' if self.layer_right else 'LAYER'} {'cause' if self.cause_right else 'CAUSE'}"
        found = f"{self.layer} {self.stage}: {self.cause or 'no cause'}" if self.layer else self.detail
        return f"{self.id:34} {self.verdict:13} {marks if self.verdict == KILLED else '':12} {found}"


@dataclass
class PairOutcome:
    """What became of two mutants planted together.

    Attributes:
        ids: of both.
        layers: where divergences were found, in order; likewise causes, short names.
        causes: see `layers`.
        layers_right: whether a divergence was found where each bug may be seen first.
        causes_right: whether each bug is among the causes.
    """

    ids: tuple[str, str]
    layers: list[str]
    causes: list[str]
    layers_right: bool
    causes_right: bool

    @property
    def line(self) -> str:
        """The outcome in a line of a terminal."""
        marks = (
            f"{'both layers' if self.layers_right else 'LAYERS'}, {'both causes' if self.causes_right else 'CAUSES'}"
        )
        return f"{' + '.join(self.ids):60} {marks}: {', '.join(self.layers)}; {', '.join(self.causes)}"


@dataclass
class Score:
    """The outcomes of a set of mutants, and of some of them planted two at a time."""

    outcomes: list[Outcome]
    pairs: list[PairOutcome] = field(default_factory=list)

    def count(self, verdict: str) -> int:
        """Mutants with that verdict."""
        return Counter(o.verdict for o in self.outcomes)[verdict]

    def share(self, what: str) -> float:
        """Of the killed mutants, those of which the layer or the cause was named rightly."""
        killed = [o for o in self.outcomes if o.verdict == KILLED]
        return sum(getattr(o, what) for o in killed) / len(killed) if killed else 0.0

    @property
    def summary(self) -> str:
        """The score in words."""
        counts = ", ".join(f"{self.count(v)} {v.replace('_', ' ')}" for v in VERDICTS)
        text = (
            f"{len(self.outcomes)} mutants: {counts}; right layer first {self.share('layer_right'):.1%}, "
            f"right cause first {self.share('cause_right'):.1%}"
        )
        if self.pairs:
            layers, causes = (sum(getattr(p, what) for p in self.pairs) for what in ("layers_right", "causes_right"))
            text += f"\n{len(self.pairs)} pairs of mutants: both layers named {layers} times, both causes {causes}"
        return text

    @property
    def exit_code(self) -> int:
        """0 if every mutant that could be exercised was killed or is equivalent, and named well enough; else 1."""
        return 0 if self.passed else 1

    @property
    def passed(self) -> bool:
        """No mutant survived, the layer is right in 95% and the cause in 80%; of two at once both are named."""
        named = all(pair.layers_right and pair.causes_right for pair in self.pairs)
        killed = not self.count(SURVIVED) and self.share("layer_right") >= 0.95 and self.share("cause_right") >= 0.8
        return killed and named

    def as_json(self) -> dict[str, Any]:
        """Counts, shares and all outcomes."""
        return {
            "schema": SCHEMA,
            KILLED: self.count(KILLED),
            SURVIVED: self.count(SURVIVED),
            EQUIVALENT: self.count(EQUIVALENT),
            NOT_EXERCISED: self.count(NOT_EXERCISED),
            "layer_right": self.share("layer_right"),
            "cause_right": self.share("cause_right"),
            "mutants": [asdict(o) for o in self.outcomes],
            "pairs": [asdict(p) for p in self.pairs],
        }

    def write_json(self, path: str | Path) -> None:
        """Write `as_json` to a file."""
        Path(path).write_text(json.dumps(self.as_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
