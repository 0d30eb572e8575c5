"""`parity throughput --mode input`: how fast images come in, and whether training waits for them.

Three things, each in a process of its own: reading whole batches from the warm cache as the training loop reads them;
filling the cache beside decoding alone and beside decoding and resizing alone, of the same files on the same core; and
training on what the cache gives beside training on one batch that is there already. What is compared alternates.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alexnet_io.cache import usable_cores
from parity.speed import input_data, machine, statistics
from parity.speed.processes import Worker, flags
from parity.speed.statistics import Interval
from parity.speed.throughput import Plan
from parity.speed.workload import Workload

SCHEMA = "parity-input/1"

# What is asked of each rate and ratio.
READING_TARGET = 10_000.0  # images/s of 256x256 pixels
READING_SIZE = 256
FILLING_TARGET = 0.9  # of one core's decoding, on one core
TRAINING_TARGET = 0.97  # of training on a batch that is there

WORDS = {
    "reading": "warm cache, whole batches", "decode": "decoding alone, from memory",
    "prepare": "decoding and resizing, from memory", "fill": "filling the cache",
    "fill, all cores": "filling the cache, all cores", "cached": "training from the cache",
    "there": "training on a batch that is there",
}  # fmt: skip


@dataclass
class InputResult:
    """Everything that one call measured; `as_json` is what the file holds."""

    settings: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=machine.describe)
    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: list[dict[str, Any]] = field(default_factory=list)
    control: dict[str, Any] | None = None
    skipped: list[str] = field(default_factory=list)

    def add(self, what: str, blocks: list[float], target: float | None = None, **facts: Any) -> None:
        """A rate: images a second of every block."""
        speed = statistics.median_interval(blocks)
        common = dict.fromkeys(("style", "compile_seconds", "peak_bytes", "ceiling_fraction", "parity"))
        self.rows.append({
            **common, "framework": None, "devices": None, "batch_size": None, "precision": None, "mode": "input",
            "what": what, "images_per_second": vars(speed), "n": len(blocks), "blocks": blocks, "void": False,
            "target": target, "met": met(speed, target), **facts,
        })  # fmt: skip

    def compare(self, what: str, over: list[float], under: list[float], target: float, **facts: Any) -> None:
        """A ratio of rates, of neighbouring blocks."""
        ratio = statistics.ratio_interval(over, under)
        self.ratios.append({
            "what": what, **vars(ratio), "ratio": str(ratio), "target": target, "met": met(ratio, target), **facts,
        })  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "schema": SCHEMA, "settings": self.settings, "machine": self.machine, "rows": self.rows,
            "ratios": self.ratios, "aa_control": self.control, "skipped": self.skipped,
        }  # fmt: skip

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
        return "\n".join(lines)


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


def run(
    base: Workload, frameworks: list[str], plan: Plan, source: Callable[[Path], input_data.Source], stored: int
) -> InputResult:
    """Measure one model's input.

    Args:
        base: of everything but framework and style; `image_size` is the side of the crops.
        frameworks: `jax`, `torch` or both.
        plan: how much is measured.
        source: opens the images; gets a folder of its own, which is gone afterwards.
        stored: side of the images in the cache.
    """
    with tempfile.TemporaryDirectory(prefix="input-") as folder:
        images = source(Path(folder))
        result = InputResult({
            **base.as_json(), "mode": "input", "stored_size": stored, "images": images.name,
            "decoding_of": images.files and images.name, "rounds": plan.rounds, "block_seconds": plan.block_seconds,
        })  # fmt: skip
        plan.say(f"reading {images.name}")
        if images.files is None:
            result.skipped.append(f"filling the cache: {images.why}")
        else:
            _files(base, images, plan, stored, result)
        for framework in frameworks:
            if framework == "torch" and base.devices > 1:
                result.skipped.append(f"torch on {base.devices} devices: its processes are torchrun's; use --devices 1")
                continue
            _side(replace(base, framework=framework, style="tuned"), images, plan, stored, Path(folder), result)
        return result


def _worker(side: str, workload: Workload, images: input_data.Source, stored: int, plan: Plan, folder: Path) -> Worker:
    words = json.dumps(workload.as_json() | {"stored_size": stored}), json.dumps(images.as_json())
    python = plan.pythons.get(side) or sys.executable
    variables = flags(workload, folder) if side != "files" else {}
    return Worker(f"input of {side}", [python, "-m", "parity.speed.input_worker", side, *words], variables)


def _files(base: Workload, images: input_data.Source, plan: Plan, stored: int, result: InputResult) -> None:
    """Decoding, preparing and filling in turns on one core, then filling on all."""
    worker = _worker("files", base, images, stored, plan, Path())
    try:
        facts = {"files": worker.facts["files"], "bytes_a_file": worker.facts["bytes"] / worker.facts["files"]}

        def timed(what: str, count: int, cores: int = 1) -> float:
            return count / worker.ask("time", what=what, images=count, cores=cores)["seconds"]

        blocks: dict[str, list[float]] = {}
        kinds = ["decode", "fill", "prepare"]
        counts = {what: _enough(lambda n, what=what: n / timed(what, n), plan, 8) for what in kinds}
        for i in range(plan.rounds):
            for what in kinds if i % 2 == 0 else kinds[::-1]:
                blocks.setdefault(what, []).append(timed(what, counts[what]))
        cores = usable_cores()
        everywhere = [timed("fill", counts["fill"] * cores, cores) for _ in range(plan.rounds)]
    finally:
        worker.close()
    plan.say("decoded and filled")
    for what, speeds in blocks.items():
        result.add(what, speeds, cores=1, **facts)
    result.add("fill, all cores", everywhere, cores=cores, images_per_second_and_core=_median(everywhere) / cores)
    for under, words in (("decode", "decoding alone"), ("prepare", "decoding and resizing alone")):
        what = f"filling the cache over {words}, one core"
        result.compare(what, blocks["fill"], blocks[under], FILLING_TARGET, framework=None)


def _side(
    workload: Workload, images: input_data.Source, plan: Plan, stored: int, folder: Path, result: InputResult
) -> None:
    """A framework's reading, and its training from the cache beside training on a batch that is there."""
    worker = _worker(workload.framework, workload, images, stored, plan, folder)
    try:
        batch, seeds = workload.batch_size, iter(range(10**9))
        facts = {
            "framework": workload.framework, "style": "tuned", "devices": workload.devices, "batch_size": batch,
            "precision": workload.precision, "model": workload.model, "image_size": workload.image_size,
            "device": worker.facts["device"], "loader": worker.facts["loader"], "threads": workload.threads,
        }  # fmt: skip

        def read(steps: int) -> float:
            return float(worker.ask("read", steps=steps, seed=next(seeds))["seconds"])

        def train(steps: int, cached: bool) -> float:
            return float(worker.ask("train", steps=steps, seed=next(seeds), cached=cached)["seconds"])

        steps = _enough(read, plan, 2)
        stored_bytes = worker.facts["images"] * stored * stored * 3
        where = {"jax": "device, inside the step", "torch": "host"}[workload.framework]
        speeds = [steps * batch / read(steps) for _ in range(plan.rounds)]
        target = READING_TARGET if stored == READING_SIZE else None
        result.add("reading", speeds, target, stored_bytes=stored_bytes, crops=where, **facts)
        plan.say(f"{workload.framework}: read")
        facts["compile_seconds"] = worker.ask("start")["compile_seconds"]
        steps = _enough(lambda n: train(n, cached=False), plan, 1)
        blocks: dict[str, list[float]] = {"cached": [], "there": [], "again": []}
        for i in range(plan.rounds):
            for what in list(blocks) if i % 2 == 0 else list(blocks)[::-1]:
                blocks[what].append(steps * batch / train(steps, what == "cached"))
        facts["peak_bytes"] = worker.ask("peak")["bytes"]
    finally:
        worker.close()
    plan.say(f"{workload.framework}: trained")
    for what in ("cached", "there"):
        result.add(what, blocks[what], steps_a_block=steps, **facts)
    what = f"{workload.framework}: training from the cache over training on a batch that is there"
    result.compare(what, blocks["cached"], blocks["there"], TRAINING_TARGET, framework=workload.framework)
    if result.control is None:
        ratio = statistics.ratio_interval(blocks["again"], blocks["there"])
        result.control = {"framework": workload.framework, "ratio": str(ratio), **vars(ratio)}


def _enough(seconds: Callable[[int], float], plan: Plan, least: int) -> int:
    """How many fill a block, found by trying once with few, warm, and then with more."""
    seconds(least)
    return max(least, math.ceil(plan.block_seconds * least / max(seconds(least), 1e-9)))


def _median(values: list[float]) -> float:
    return statistics.median_interval(values).median
