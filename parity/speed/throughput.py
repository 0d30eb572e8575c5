"""`parity throughput`: images a second of both frameworks, in pairs that alternate.

Two comparisons and a bridge between them: `plain` against `plain` (what users write in each), `tuned` against `tuned`
(every trick on both sides), and this repository's JAX against plain PyTorch. Each pair runs in two processes of its
own on the same cores, block by block in ABBA order; ratios are of neighbouring blocks. An A/A pair, JAX against
itself, says what the machine makes of nothing.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.errors import UserError
from parity.bounds import UNIT_ROUNDOFF
from parity.processes import environment
from parity.speed import machine, statistics
from parity.speed.processes import Rival, rivals
from parity.speed.statistics import Interval
from parity.speed.workload import Workload, arithmetic

SCHEMA = "parity-throughput/1"

# Forms that plain PyTorch is tried in; the fastest speaks for it. See `torch_forms`.
PLAIN_FORMS = ("nchw-eager", "channels_last-eager", "nchw-compiled", "channels_last-compiled")

# Logits of one precision may differ by as many roundings, normwise. Some twenty layers of sums leave about a dozen in
# float32; TF32 would leave thousands. Coarser formats round inputs and results of every layer, and little else.
LOGIT_ROUNDINGS = {"float32": 256.0, "tf32": 32.0, "bfloat16": 32.0}
ROUNDOFF = UNIT_ROUNDOFF | {"tf32": 2.0**-11}


@dataclass
class Timing:
    """All that was measured of one workload.

    Attributes:
        workload: what ran.
        blocks: images a second of every block.
        facts: what its process said.
        ceilings: measured limits on the same cores.
        peak_bytes: most memory held.
    """

    workload: Workload
    blocks: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0


@dataclass
class Result:
    """Everything that one call measured; `as_json` is what the file holds."""

    settings: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=machine.describe)
    timings: dict[tuple[str, int], Timing] = field(default_factory=dict)
    ratios: list[dict[str, Any]] = field(default_factory=list)
    control: dict[str, Any] | None = None
    layers: dict[str, Any] | None = None
    trials: dict[str, float] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """One for each workload; those that compute something else than the reference are void."""
        reference = next((t for t in self.timings.values() if t.workload.framework == "torch"), None)
        best = max((t.ceilings.get("flops", 0.0) for t in self.timings.values()), default=0.0)
        found = []
        for timing in self.timings.values():
            w = timing.workload
            speed = statistics.median_interval(timing.blocks)
            flops = arithmetic(w.model, w.image_size, w.mode) * speed.median
            parity = self._parity(timing, reference)
            found.append({
                "framework": w.framework, "style": w.style, "form": w.form, "devices": w.devices,
                "batch_size": w.batch_size, "precision": w.precision, "mode": w.mode, "model": w.model,
                "image_size": w.image_size, "images_per_second": _plain(speed), "n": len(timing.blocks),
                "blocks": timing.blocks,
                "compile_seconds": timing.facts.get("compile_seconds"), "peak_bytes": timing.peak_bytes,
                "ceiling_fraction": flops / best if best else None, "flops_per_second": flops,
                "ceilings": timing.ceilings, "parity": parity, "void": parity["equal"] is False,
                "versions": timing.facts.get("versions"), "flags": timing.facts.get("flags"),
                "device": timing.facts.get("device"), "threads": w.threads,
            })  # fmt: skip
        return found

    def _parity(self, timing: Timing, reference: Timing | None) -> dict[str, Any]:
        """The logits beside the reference's, and the layers' comparison at this precision."""
        found: dict[str, Any] = {"layers": self.layers, "logits": None, "allowed": None, "equal": None}
        if reference is not None:
            ours, theirs = (np.asarray(t.facts["logits"]) for t in (timing, reference))
            precision = timing.workload.precision
            found["logits"] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
            found["allowed"] = LOGIT_ROUNDINGS[precision] * ROUNDOFF[precision]
            found["equal"] = found["logits"] <= found["allowed"] and (self.layers or {}).get("equal") is not False
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "schema": SCHEMA, "settings": self.settings, "machine": self.machine, "rows": self.rows(),
            "ratios": self.ratios, "aa_control": self.control, "plain_forms": self.trials,
        }  # fmt: skip

    def table(self) -> str:
        """For a terminal."""
        lines = [f"{'':34} {'images/s':>24} {'of ceiling':>10} {'compile':>8} {'peak GB':>8}  parity"]
        for row in self.rows():
            speed = Interval(**row["images_per_second"])
            name = f"{row['framework']} {row['style']} {row['form']} x{row['devices']}"
            share = "-" if row["ceiling_fraction"] is None else f"{row['ceiling_fraction']:.0%}"
            held = {True: "holds", False: "VOID", None: "not compared"}[row["parity"]["equal"]]
            lines.append(
                f"{name:34} {speed!s:>24} {share:>10} {row['compile_seconds']:>7.1f}s "
                f"{row['peak_bytes'] / 1e9:>8.2f}  {held}"
            )
        lines += [""] + [f"{r['verdict']} ({r['style']}, {r['devices']} device(s)): {r['ratio']}" for r in self.ratios]
        if self.control:
            lines.append(f"A/A control, JAX against itself: {self.control['ratio']}")
        return "\n".join(lines)


def _plain(interval: Interval) -> dict[str, float]:
    return {"median": interval.median, "low": interval.low, "high": interval.high}


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
    """

    rounds: int = 6
    warmup: int = 10
    block_seconds: float = 1.0
    pythons: dict[str, str | None] = field(default_factory=dict)
    say: Callable[[str], None] = lambda line: None
    trace: str | None = None


def run(
    base: Workload,
    devices: list[int],
    frameworks: list[str],
    styles: list[str],
    plan: Plan,
    *,
    check_layers: bool = True,
) -> Result:
    """Measure one model on several numbers of devices.

    Args:
        base: of everything but framework, style and devices.
        devices: numbers of them.
        frameworks: `jax`, `torch` or both.
        styles: `plain`, `tuned` or both.
        plan: how much is measured.
        check_layers: compare every layer at this precision first; needs both frameworks in this environment.
    """
    result = Result({
        **base.as_json(), "devices": devices, "rounds": plan.rounds, "warmup": plan.warmup,
        "block_seconds": plan.block_seconds, "check_layers": check_layers, "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    })  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        weights = Path(folder) / "weights.safetensors"
        write_weights(weights, base.model, base.image_size)
        if check_layers and len(frameworks) == 2:
            result.layers = _compare_layers(base, Path(folder), plan)
        form = ""
        if "torch" in frameworks and "plain" in styles:
            form = _best_form(base, weights, plan, result)
        for count in devices:
            _pairs(base, count, frameworks, styles, form, weights, plan, result)
        if "jax" in frameworks and "tuned" in styles:
            ours = replace(base, framework="jax", style="tuned", devices=devices[0])
            plan.say("A/A control")
            first, second = _alternate([ours, ours], weights, plan, trace=plan.trace)
            ratio = statistics.ratio_interval(first.blocks, second.blocks)
            result.control = {"ratio": str(ratio), **_plain(ratio)}
    return result


def _pairs(
    base: Workload, count: int, frameworks: list[str], styles: list[str], form: str, weights: Path, plan: Plan,
    result: Result,
) -> None:  # fmt: skip
    def entry(framework: str, style: str) -> Workload:
        chosen = form if (framework, style) == ("torch", "plain") else ""
        return replace(base, framework=framework, style=style, devices=count, form=chosen)

    pairs = [(style, style) for style in styles]
    if len(styles) == 2 and len(frameworks) == 2:
        pairs.append(("tuned", "plain"))
    for ours, theirs in pairs:
        rivals_ = [entry(framework, style) for framework, style in (("jax", ours), ("torch", theirs))]
        rivals_ = [w for w in rivals_ if w.framework in frameworks]
        plan.say(" against ".join(w.name for w in rivals_) + f", {count} device(s)")
        timings = _alternate(rivals_, weights, plan)
        for timing in timings:
            known = result.timings.setdefault((timing.workload.name, count), timing)
            if known is not timing:
                known.blocks += timing.blocks
        if len(timings) == 2:
            ratio = statistics.ratio_interval(timings[0].blocks, timings[1].blocks)
            style = ours if ours == theirs else f"{ours} over {theirs}"
            names = f"JAX ({ours})", f"PyTorch ({theirs})"
            result.ratios.append({
                "style": style, "devices": count, **_plain(ratio), "ratio": str(ratio),
                "verdict": statistics.verdict(ratio, *names),
            })  # fmt: skip


def _alternate(workloads: list[Workload], weights: Path, plan: Plan, trace: str | None = None) -> list[Timing]:
    """Time one or two rivals block by block."""
    with rivals(workloads, weights, plan.pythons) as started:
        timings = [Timing(rival.workload, facts=rival.facts) for rival in started]
        lengths = [_block_length(rival, plan) for rival in started]
        for order in statistics.alternation(plan.rounds):
            for i in order[: len(started)] if len(started) == 2 else (0,):
                steps = lengths[i]
                images = steps * started[i].workload.batch_size
                timings[i].blocks.append(images / started[i].run(steps))
        for rival, timing in zip(started, timings, strict=True):
            timing.ceilings, timing.peak_bytes = rival.ceilings(), rival.peak_bytes()
        if trace:
            started[0].trace(trace)
    return timings


def _block_length(rival: Rival, plan: Plan) -> int:
    seconds = rival.run(max(plan.warmup, 1)) / max(plan.warmup, 1)
    return max(1, math.ceil(plan.block_seconds / seconds))


def _best_form(base: Workload, weights: Path, plan: Plan, result: Result) -> str:
    """The memory layout and compiler setting in which plain PyTorch is fastest here."""
    for form in PLAIN_FORMS:
        chosen = replace(base, framework="torch", style="plain", form=form)
        with rivals([chosen], weights, plan.pythons) as (rival,):
            rival.run(1)
            result.trials[form] = 2 * base.batch_size / rival.run(2)
        plan.say(f"plain PyTorch, {form}: {result.trials[form]:.3g} images/s")
    return max(result.trials, key=lambda form: result.trials[form])


def _compare_layers(base: Workload, folder: Path, plan: Plan) -> dict[str, Any]:
    """`parity layers` at this precision, in a process of its own."""
    dtype = "bfloat16" if base.precision == "bfloat16" else "float32"
    if any(plan.pythons.values()):
        return {"equal": None, "why": "the frameworks live in two environments: run `parity compare` between them"}
    report = folder / "layers.json"
    command = [
        sys.executable,
        "-m",
        "parity",
        "layers",
        f"--model={base.model}",
        f"--dtype={dtype}",
        f"--json={report}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    if not report.exists():
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"the layers can't be compared: {said[-1]}; --no-check-layers times without")
    read = json.loads(report.read_text(encoding="utf-8"))
    first = read["first_divergence"]
    return {"equal": read["equal"], "exit_code": done.returncode, "first": first and first["layer"]}


def write_weights(path: Path, model: str, image_size: int) -> None:
    """The same weights for all processes: uniform, of He's deviation, in `torch_ref`'s names and layouts."""
    from safetensors.numpy import save_file

    from jax_alexnet.variants import VARIANTS
    from jax_alexnet.weights import torch_shapes

    rng = np.random.default_rng(0)
    state: dict[str, Any] = {}
    for name, shape in torch_shapes(VARIANTS[model], image_size).items():
        if name.endswith(".bias"):
            state[name] = rng.uniform(-0.1, 0.1, shape).astype(np.float32)
            continue
        fan_in = math.prod(shape[-3:] if len(shape) > 2 else shape[1:])
        reach = math.sqrt(6 / fan_in)
        state[name] = rng.uniform(-reach, reach, shape).astype(np.float32)
    save_file(state, path, {"model": model, "image_size": str(image_size), "home": "torch_ref"})
