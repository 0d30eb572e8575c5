"""What one call of `parity throughput --mode input` measured, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from parity.speed import machine, statistics
from parity.speed.result import told
from parity.speed.statistics import Interval

SCHEMA = "parity-input/1"

# What is asked of each rate and ratio.
READING_TARGET = 10_000.0  # images/s of 256x256 pixels
READING_SIZE = 256
FILLING_TARGET = 0.9  # of one core's decoding, on one core
TRAINING_TARGET = 0.97  # of training on a batch that is there

WORDS = {
    "reading": "warm cache, whole batches",
    "decode": "decoding alone, from memory",
    "prepare": "decoding and resizing, from memory",
    "fill": "filling the cache",
    "fill, all cores": "filling the cache, all cores",
    "cached": "training from the cache",
    "there": "training on a batch that is there",
}


@dataclass
class InputResult:
    """Everything that one call measured; `as_json` is what the file holds."""

    settings: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=machine.describe)
    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: list[dict[str, Any]] = field(default_factory=list)
    control: dict[str, Any] | None = None
    skipped: list[str] = field(default_factory=list)
    budget: dict[str, Any] | None = None

    def add(self, what: str, blocks: list[float], target: float | None = None, **facts: Any) -> None:
        """A rate: images a second of every block."""
        speed = statistics.median_interval(blocks)
        common = dict.fromkeys(("style", "compile_seconds", "peak_bytes", "ceiling_fraction", "parity"))
        self.rows.append(
            {
                **common,
                "framework": None,
                "devices": None,
                "batch_size": None,
                "precision": None,
                "mode": "input",
                "what": what,
                "images_per_second": vars(speed),
                "n": len(blocks),
                "blocks": blocks,
                "void": False,
                "target": target,
                "met": met(speed, target),
                **facts,
            }
        )

    def compare(self, what: str, over: list[float], under: list[float], target: float, **facts: Any) -> None:
        """A ratio of rates, of neighbouring blocks."""
        ratio = statistics.ratio_interval(over, under)
        self.ratios.append(
            {"what": what, **vars(ratio), "ratio": str(ratio), "target": target, "met": met(ratio, target), **facts}
        )

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "schema": SCHEMA,
            "settings": self.settings,
            "machine": self.machine,
            "rows": self.rows,
            "ratios": self.ratios,
            "aa_control": self.control,
            "skipped": self.skipped,
            "budget": self.budget,
        }

    def table(self) -> str:
        """For a terminal."""
        lines = [f"{'':58} {'images/s':>24} {'n':>4}  target"]
        for row in self.rows:
            speed = Interval(**row["images_per_second"])
            lines.append(f"{label(row):58} {speed!s:>24} {row['n']:>4}  {_judged(row)}")
        lines.append("")
        lines += [f"{ratio['what']}: {ratio['ratio']}  {_judged(ratio)}" for ratio in self.ratios]
        if self.control:
            lines.append(f"A/A control, training on a batch that is there against itself: {self.control['ratio']}")
        lines += [f"not measured: {why}" for why in self.skipped]
        return "\n".join(lines + told(self.budget))


def met(found: Interval, target: float | None) -> bool | None:
    """Whether a target is met; None if there is none, or if it lies inside the interval."""
    if target is None or found.low < target <= found.high:
        return None
    return found.low >= target


def _judged(entry: dict[str, Any]) -> str:
    if entry["target"] is None:
        return ""
    words = {True: "met", False: "MISSED", None: "inside the interval: not decided"}
    return f"{entry['target']:,g} {words[entry['met']]}"


def label(row: dict[str, Any]) -> str:
    """A row's name for people."""
    who = f"{row['framework']}: " if row["framework"] else ""
    more = f" ({row['cores']} core(s))" if row.get("cores") else ""
    return f"{who}{WORDS[row['what']]}{more}"
