"""What one call of `parity throughput` measured: rows, ratios, and what they are held against."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from parity.speed import machine, statistics
from parity.speed.statistics import Interval
from parity.speed.workload import Workload, arithmetic

SCHEMA = "parity-throughput/1"


@dataclass
class Timing:
    """All that was measured of one workload.

    Attributes:
        workload: what ran.
        blocks: images a second of every block.
        facts: what its process said.
        ceilings: measured limits: of the same cores, or of one GPU.
        peak_bytes: most memory held.
        parity: what `checks.compare` found; None where nothing was compared.
    """

    workload: Workload
    blocks: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    parity: dict[str, Any] | None = None

    @property
    def ceiling_devices(self) -> int:
        """How often the devices together have what `ceilings` measured: CPU devices share the same cores."""
        return self.workload.devices if self.facts.get("platform") == "gpu" else 1


@dataclass
class Result:
    """Everything that one call measured; `as_json` is what the file holds."""

    settings: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=machine.describe)
    timings: dict[tuple[str, int], Timing] = field(default_factory=dict)
    ratios: list[dict[str, Any]] = field(default_factory=list)
    control: dict[str, Any] | None = None
    layers: dict[str, Any] | None = None
    trials: dict[str, dict[str, float]] = field(default_factory=lambda: {"plain": {}, "tuned": {}})
    profile: dict[str, Any] | None = None
    budget: dict[str, Any] | None = None

    def rows(self) -> list[dict[str, Any]]:
        """One for each workload; those that compute something else than the reference are void."""
        return [self._row(timing) for timing in self.timings.values()]

    def _row(self, timing: Timing) -> dict[str, Any]:
        w, facts = timing.workload, timing.facts
        speed, parity = statistics.median_interval(timing.blocks), self._parity(timing)
        flops = arithmetic(w.model, w.image_size, w.mode) * speed.median
        moved = facts.get("bytes_a_step")
        bandwidth = None if moved is None else moved * speed.median / w.batch_size
        return {
            "framework": w.framework,
            "style": w.style,
            "form": w.form,
            "devices": w.devices,
            "batch_size": w.batch_size,
            "precision": w.precision,
            "mode": w.mode,
            "model": w.model,
            "image_size": w.image_size,
            "images_per_second": vars(speed),
            "n": len(timing.blocks),
            "blocks": timing.blocks,
            "compile_seconds": facts.get("compile_seconds"),
            "peak_bytes": timing.peak_bytes,
            "flops_per_second": flops,
            "ceiling_fraction": self._share(flops, "flops", timing),
            "bytes_a_step": moved,
            "bytes_per_second": bandwidth,
            "bandwidth_fraction": self._share(bandwidth, "bytes_per_second", timing),
            "scaling_efficiency": self._efficiency(timing),
            "ceilings": timing.ceilings,
            "parity": parity,
            "void": parity["equal"] is False or not math.isfinite(speed.median),
            "versions": facts.get("versions"),
            "flags": facts.get("flags"),
            "device": facts.get("device"),
            "platform": facts.get("platform"),
            "threads": w.threads,
        }

    def _share(self, reached: float | None, limit: str, timing: Timing) -> float | None:
        """Of the highest limit that either framework measured."""
        best = max((t.ceilings.get(limit, 0.0) for t in self.timings.values()), default=0.0)
        return None if reached is None or not best else reached / (best * timing.ceiling_devices)

    def _efficiency(self, timing: Timing) -> dict[str, Any] | None:
        """Speed on N devices over N times that of one; over the fewest that were measured, at the same global batch.

        None for a workload that was measured on one number of devices.
        """
        same = {count: t for (name, count), t in self.timings.items() if name == timing.workload.name}
        if len(same) < 2:
            return None
        base = min(same)
        more = timing.workload.devices / base
        ratio = statistics.apart_interval(timing.blocks, same[base].blocks) if more > 1 else Interval(1.0, 1.0, 1.0)
        return {key: value / more for key, value in vars(ratio).items()} | {"over": base}

    def _parity(self, timing: Timing) -> dict[str, Any]:
        """What the form that was timed gives beside the reference, and the layers' comparison at this precision."""
        empty = dict.fromkeys(("logits", "allowed", "update", "update_of", "update_allowed", "equal"))
        found = {"layers": self.layers, **empty, **(timing.parity or {})}
        if found["equal"] and (self.layers or {}).get("equal") is False:
            found["equal"] = False
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "schema": SCHEMA,
            "settings": self.settings,
            "machine": self.machine,
            "rows": self.rows(),
            "ratios": self.ratios,
            "aa_control": self.control,
            "plain_forms": self.trials["plain"],
            "tuned_forms": self.trials["tuned"],
            "profile": self.profile,
            "budget": self.budget,
            "layers": self.layers,
        }

    def table(self) -> str:
        """For a terminal."""
        heads = f"{'of ceiling':>10} {'bandwidth':>9} {'scaling':>8} {'compile':>8} {'peak GB':>8}"
        lines = [f"{'':34} {'images/s':>24} {'n':>4} {heads}  parity"]
        for row in self.rows():
            speed = Interval(**row["images_per_second"])
            name = f"{row['framework']} {row['style']} {row['form']} x{row['devices']}"
            held = said(row)
            scaling = (row["scaling_efficiency"] or {}).get("median")
            lines.append(
                f"{name:34} {speed!s:>24} {row['n']:>4} {percent(row['ceiling_fraction']):>10} "
                f"{percent(row['bandwidth_fraction']):>9} {percent(scaling):>8} "
                f"{row['compile_seconds']:>7.1f}s {row['peak_bytes'] / 1e9:>8.2f}  {held}"
            )
        lines += [""] + [
            f"{r['verdict']} ({r['style']}, {r['devices']} device(s), {r['n']} rounds): {r['ratio']}"
            for r in self.ratios
        ]
        if tuned := self.trials["tuned"]:
            best = max(tuned, key=lambda form: tuned[form])
            lines.append(f"PyTorch's best form here, which tuned is: {best}, of {len(tuned)} that were tried")
        if self.control:
            lines.append(f"A/A control, JAX against itself: {self.control['ratio']} ({self.control['n']} rounds)")
        if self.layers and self.layers["equal"] is None:
            lines.append(f"the layers were not compared: {self.layers['why']}")
        return "\n".join(lines + told(self.budget))


def told(budget: dict[str, Any] | None) -> list[str]:
    """What was left out for lack of time, and what time would do."""
    return [] if budget is None else [*budget["cut"], *([budget["advice"]] if budget["advice"] else [])]


def said(row: dict[str, Any]) -> str:
    """Of a row's parity, in a word or two."""
    return "VOID" if row["void"] else "not compared" if row["parity"]["equal"] is None else "holds"


def percent(share: float | None) -> str:
    """A share, or a dash where it isn't known."""
    return "-" if share is None else f"{share:.0%}"
