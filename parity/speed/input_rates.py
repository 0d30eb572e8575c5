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
from dataclasses import replace
from pathlib import Path

from alexnet_io.run.machine import usable_cores
from parity.speed import input_data, statistics
from parity.speed.input_result import FILLING_TARGET, READING_SIZE, READING_TARGET, TRAINING_TARGET, InputResult
from parity.speed.measuring_plan import Plan
from parity.speed.processes import OverBudget, Worker, flags
from parity.speed.workload import Workload


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
        result = InputResult(
            {
                **base.as_json(),
                "mode": "input",
                "stored_size": stored,
                "images": images.name,
                "decoding_of": images.files and images.name,
                "rounds": plan.rounds,
                "block_seconds": plan.block_seconds,
            }
        )
        plan.say(f"reading {images.name}")
        parts: dict[str, Callable[[float], None]] = {}
        if images.files is None:
            result.skipped.append(f"filling the cache: {images.why}")
        else:
            parts["filling the cache"] = lambda ends: _files(base, images, plan, stored, result, ends)
        for framework in frameworks:
            if framework == "torch" and base.devices > 1:
                result.skipped.append(f"torch on {base.devices} devices: its processes are torchrun's; use --devices 1")
                continue
            workload = replace(base, framework=framework, style="tuned")
            parts[f"reading and training of {framework}"] = lambda ends, workload=workload: _side(
                workload, images, plan, stored, Path(folder), result, ends
            )
        plan.budget.parts = len(parts)
        for name, part in parts.items():
            ends = plan.budget.begin(name)
            if ends is None:
                continue
            try:
                part(ends)
            except OverBudget as over:
                plan.budget.cut.append(f"{name}: {over}")
        result.budget = plan.budget.as_json()
        return result


def _worker(side: str, workload: Workload, images: input_data.Source, stored: int, plan: Plan, folder: Path) -> Worker:
    words = json.dumps(workload.as_json() | {"stored_size": stored}), json.dumps(images.as_json())
    python = plan.pythons.get(side) or sys.executable
    variables = flags(workload, folder) if side != "files" else {}
    return Worker(
        f"input of {side}", [python, "-m", "parity.speed.input_worker", side, *words], variables, plan.budget.left
    )


def _rounds(plan: Plan, name: str, ends: float, measure: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Images a second of everything, in an order that turns round from one round to the next."""
    found: dict[str, list[float]] = {what: [] for what in measure}
    longest, budget = 0.0, plan.budget
    for i in range(plan.rounds):
        if not budget.another_round(name, i, plan.rounds, longest, ends):
            break
        began = budget.used()
        for what in list(measure) if i % 2 == 0 else list(measure)[::-1]:
            found[what].append(measure[what]())
        longest = max(longest, budget.used() - began)
    return found


def _files(
    base: Workload, images: input_data.Source, plan: Plan, stored: int, result: InputResult, ends: float
) -> None:
    """Decoding, preparing and filling on one core, and filling on all, in turns."""
    worker = _worker("files", base, images, stored, plan, Path())
    try:
        facts = {"files": worker.facts["files"], "bytes_a_file": worker.facts["bytes"] / worker.facts["files"]}

        def timed(what: str, count: int, cores: int = 1) -> float:
            return float(worker.ask("time", what=what, images=count, cores=cores)["seconds"])

        kinds, cores = ("decode", "fill", "prepare"), usable_cores()
        counts = {what: _enough(lambda n, what=what: timed(what, n), plan, 8) for what in kinds}
        measure: dict[str, Callable[[], float]] = {
            what: lambda what=what: counts[what] / timed(what, counts[what]) for what in kinds
        }
        everywhere = counts["fill"] * cores
        measure["fill, all cores"] = lambda: everywhere / timed("fill", everywhere, cores)
        blocks = _rounds(plan, "filling the cache", ends, measure)
    finally:
        worker.close()
    for what, speeds in blocks.items():
        used = cores if what == "fill, all cores" else 1
        each = statistics.median_interval(speeds).median / used
        result.add(what, speeds, cores=used, images_per_second_and_core=each, **facts)
    for under, words in (("decode", "decoding alone"), ("prepare", "decoding and resizing alone")):
        what = f"filling the cache over {words}, one core"
        result.compare(what, blocks["fill"], blocks[under], FILLING_TARGET, framework=None)
    plan.say("decoded and filled")


def _side(
    workload: Workload,
    images: input_data.Source,
    plan: Plan,
    stored: int,
    folder: Path,
    result: InputResult,
    ends: float,
) -> None:
    """A framework's reading, and its training from the cache beside training on a batch that is there."""
    name, batch, seeds = workload.framework, workload.batch_size, iter(range(10**9))
    worker = _worker(name, workload, images, stored, plan, folder)
    try:
        facts = {
            "framework": name,
            "style": "tuned",
            "devices": workload.devices,
            "batch_size": batch,
            "precision": workload.precision,
            "model": workload.model,
            "image_size": workload.image_size,
            "device": worker.facts["device"],
            "loader": worker.facts["loader"],
            "threads": workload.threads,
        }

        def read(steps: int) -> float:
            return float(worker.ask("read", steps=steps, seed=next(seeds))["seconds"])

        def train(steps: int, cached: bool) -> float:
            return float(worker.ask("train", steps=steps, seed=next(seeds), cached=cached)["seconds"])

        batches = _enough(read, plan, 2)
        quarter = plan.budget.used() + (ends - plan.budget.used()) / 4
        speeds = _rounds(plan, f"{name}, reading", quarter, {"": lambda: batches * batch / read(batches)})[""]
        stored_bytes = worker.facts["images"] * stored * stored * 3
        where = {"jax": "device, inside the step", "torch": "host"}[name]
        target = READING_TARGET if stored == READING_SIZE else None
        result.add("reading", speeds, target, stored_bytes=stored_bytes, crops=where, **facts)
        plan.say(f"{name}: read")
        facts["compile_seconds"] = worker.ask("start")["compile_seconds"]
        steps = _enough(lambda n: train(n, cached=False), plan, 1)
        measure: dict[str, Callable[[], float]] = {
            what: lambda what=what: steps * batch / train(steps, what == "cached")
            for what in ("cached", "there", "again")
        }
        blocks = _rounds(plan, f"{name}, training", ends, measure)
        facts["peak_bytes"] = worker.ask("peak")["bytes"]
    finally:
        worker.close()
    for what in ("cached", "there"):
        result.add(what, blocks[what], steps_a_block=steps, **facts)
    what = f"{name}: training from the cache over training on a batch that is there"
    result.compare(what, blocks["cached"], blocks["there"], TRAINING_TARGET, framework=name)
    if result.control is None:
        ratio = statistics.ratio_interval(blocks["again"], blocks["there"])
        result.control = {"framework": name, "ratio": str(ratio), **vars(ratio), "n": len(blocks["there"])}
    plan.say(f"{name}: trained")


def _enough(seconds: Callable[[int], float], plan: Plan, least: int) -> int:
    """How many fill a block, found by trying once with few, warm, and then with more."""
    seconds(least)
    return max(least, math.ceil(plan.block_seconds * least / max(seconds(least), 1e-9)))
