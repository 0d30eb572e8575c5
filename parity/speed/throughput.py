"""`parity throughput`: images a second of both frameworks, in pairs that alternate.

Two comparisons and a bridge between them: `plain` against `plain` (what users write in each), `tuned` against `tuned`
(this repository's JAX against the fastest of all PyTorch's forms), and this repository's JAX against plain PyTorch.
Each pair runs in two processes of its own on the same cores, block by block in ABBA order; ratios are of neighbouring
blocks. An A/A pair, JAX against itself, says what the machine makes of nothing.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jax_alexnet.gpus import listed_gpus
from parity.speed import checks, layer_profile, statistics
from parity.speed.measuring_plan import Plan
from parity.speed.processes import OverBudget, Rival, rivals
from parity.speed.result import Result, Timing
from parity.speed.workload import PLAIN_FORMS, SOON, TUNED_FORM, Workload, best_forms

# Beside a pair: two of users' forms are compiled for the first time, two of the others; in inference four.
_PLAIN_TRIALS_WEIGHT = 3.0
_BEST_TRIALS_WEIGHT = {"train": 3.0, "infer": 5.0}

# Checking a form compiles it once more, without dropout, and takes a few steps.
_CHECK_COMPILES = 1.5
# What `Budget` calls a process of PyTorch alone, which is ready long before a pair is.
_FORM = "form"


def run(base: Workload, devices: list[int], frameworks: list[str], styles: list[str], plan: Plan) -> Result:
    """Measure one model on several numbers of devices.

    Args:
        base: of everything but framework, style and devices.
        devices: numbers of them.
        frameworks: `jax`, `torch` or both.
        styles: `plain`, `tuned` or both.
        plan: how much is measured.
    """
    result = Result(
        {
            **base.as_json(),
            "devices": devices,
            "rounds": plan.rounds,
            "warmup": plan.warmup,
            "block_seconds": plan.block_seconds,
            "check_layers": plan.check_layers,
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        }
    )
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        _Measuring(base, frameworks, Path(folder), plan, result).all(devices, styles)
    result.budget = plan.budget.as_json()
    return result


@dataclass
class _Measuring:
    """One call on its way.

    Attributes:
        forms: of PyTorch by style: the fastest that was found.
        compile_seconds: of a workload's first process: later ones find what PyTorch compiled.
        untried: forms of PyTorch by style, for which the time of trials was too short.
    """

    base: Workload
    frameworks: list[str]
    folder: Path
    plan: Plan
    result: Result
    forms: dict[str, str] = field(default_factory=lambda: {"plain": PLAIN_FORMS[0], "tuned": TUNED_FORM})
    compile_seconds: dict[tuple[str, int], float] = field(default_factory=dict)
    untried: list[tuple[str, str]] = field(default_factory=list)

    def all(self, devices: list[int], styles: list[str]) -> None:
        """Every part that was asked for, as far as the time goes; where it is short, first what is ready soon."""
        plan, both = self.plan, len(self.frameworks) == 2
        # What matters most first, for where time is short.
        pairs = [(style, style) for style in styles[::-1]]
        if both and len(styles) == 2:
            pairs.insert(1, ("tuned", "plain"))
        layers, trials = plan.check_layers and both, "torch" in self.frameworks and "plain" in styles
        best = "torch" in self.frameworks and "tuned" in styles
        control = "jax" in self.frameworks and "tuned" in styles
        todo = [(count, *pair) for count in devices for pair in pairs]
        hurried = plan.budget.seconds < math.inf
        eager = hurried and "torch" in self.frameworks
        plan.budget.parts = (
            eager
            + layers
            + trials * _PLAIN_TRIALS_WEIGHT
            + best * _BEST_TRIALS_WEIGHT[self.base.mode]
            + len(todo)
            + control
            + plan.profile
        )
        checks.write_weights(self.weights, self.base.model, self.base.image_size)
        if eager:
            theirs = styles[0]
            self._pair(devices[0], styles[-1], theirs, SOON[theirs])
        elif hurried:
            self._pair(*todo.pop(0))
        if layers:
            self._layers()
        if trials:
            self._try_forms("plain", PLAIN_FORMS, _PLAIN_TRIALS_WEIGHT)
        if best:
            usual = self.forms["plain"] if trials else "channels_last-compiled"
            forms = best_forms(usual, self.base.mode, autotuned=bool(listed_gpus()) and not hurried)
            if hurried:  # what is ready soon comes first
                forms.sort(key=lambda form: not form.endswith("eager"))
            self._try_forms("tuned", forms, _BEST_TRIALS_WEIGHT[self.base.mode])
        for count, ours, theirs in todo:
            self._pair(count, ours, theirs)
        if control:
            self._control(devices[0])
        if plan.profile:
            self._profile()
        self._try_what_is_left()

    @property
    def weights(self) -> Path:
        """File of the weights that all share."""
        return self.folder / "weights.npz"

    @property
    def reference(self) -> Path:
        """File of what the reference gives, once PyTorch has run."""
        return self.folder / "reference.npz"

    def _layers(self) -> None:
        ends = self.plan.budget.begin("comparison of the layers")
        if ends is None:
            return
        seconds = ends - self.plan.budget.used()
        self.result.layers = checks.layers(self.base, self.folder, self.plan.pythons, seconds)
        if self.result.layers is None:
            self.plan.budget.cut.append("comparison of the layers: not finished, for lack of time")

    def _try_forms(self, style: str, forms: Sequence[str], weight: float) -> None:
        """Find the form in which PyTorch is fastest here, for `plain` among users' own."""
        budget, trials = self.plan.budget, self.result.trials[style]
        ends = budget.begin(f"forms of {style} PyTorch", weight, kind=_FORM)
        if ends is None:
            return
        for form in forms:
            if (trials and budget.used() >= ends) or not budget.has_time_for(_FORM):
                self.untried.append((style, form))
            else:
                self._try(style, form)
        self.forms[style] = max(trials, key=lambda form: trials[form], default=self.forms[style])

    def _try_what_is_left(self) -> None:
        """Forms for which no time was left, in what the pairs left over: their speed is told, and judges nothing."""
        for style, form in self.untried:
            if self.plan.budget.has_time_for(_FORM):
                self._try(style, form)
            else:
                self.plan.budget.cut.append(f"{style} PyTorch, {form}: not tried, for lack of time")

    def _try(self, style: str, form: str) -> None:
        """Time some steps of a form, if they end in time."""
        budget, trials, began = self.plan.budget, self.result.trials[style], self.plan.budget.used()
        chosen = replace(self.base, framework="torch", style=style, form=form)
        try:
            with rivals([chosen], self.weights, self.plan.pythons, budget.left) as (rival,):
                self._compiled(rival)
                rival.run(1)
                budget.set_up(budget.used() - began, _FORM)
                steps = max(2, math.ceil(self.plan.block_seconds / rival.run(1)))
                trials[form] = steps * self.base.batch_size / rival.run(steps)
        except OverBudget as over:
            budget.cut.append(f"{style} PyTorch, {form}: {over}")
            return
        self.plan.say(f"{style} PyTorch, {form}: {trials[form]:.3g} images/s")

    def _entry(self, framework: str, style: str, count: int, form: str | None = None) -> Workload:
        form = (form or self.forms[style]) if framework == "torch" else ""
        return replace(self.base, framework=framework, style=style, devices=count, form=form)

    def _pair(self, count: int, ours: str, theirs: str, form: str | None = None) -> None:
        """Time a pair, or one alone where the other's framework isn't asked for.

        Args:
            count: of devices.
            ours: JAX's style.
            theirs: PyTorch's.
            form: of PyTorch; the fastest that was found if None.
        """
        wanted = [self._entry("jax", ours, count), self._entry("torch", theirs, count, form)]
        wanted = [w for w in wanted if w.framework in self.frameworks]
        name = f"{' against '.join(w.name for w in wanted)}, {count} device(s)"
        timings = self._alternate(wanted, name)
        for timing in timings:
            known = self.result.timings.setdefault((timing.workload.name, count), timing)
            if known is not timing:
                known.blocks += timing.blocks
        if len(timings) == 2:
            other = theirs if form is None else f"{theirs}, {form}"
            style = ours if ours == other else f"{ours} over {other}"
            words = f"JAX ({ours})", f"PyTorch ({other})"
            ratio = statistics.ratio_interval(timings[0].blocks, timings[1].blocks)
            self.result.ratios.append(
                {
                    "style": style,
                    "devices": count,
                    **vars(ratio),
                    "n": len(timings[0].blocks),
                    "ratio": str(ratio),
                    "verdict": statistics.verdict(ratio, *words),
                }
            )

    def _control(self, count: int) -> None:
        ours = self._entry("jax", "tuned", count)
        found = self._alternate([ours, ours], "A/A control", trace=self.plan.trace)
        if found:
            ratio = statistics.ratio_interval(found[0].blocks, found[1].blocks)
            self.result.control = {"ratio": str(ratio), **vars(ratio), "n": len(found[0].blocks)}

    def _alternate(self, workloads: list[Workload], name: str, trace: str | None = None) -> list[Timing]:
        """Time one or two rivals block by block; none if there was no time to."""
        plan, budget = self.plan, self.plan.budget
        ends = budget.begin(name)
        if ends is None:
            return []
        plan.say(name)
        began, done = budget.used(), list[Timing]()
        try:
            with rivals(workloads, self.weights, plan.pythons, budget.left) as started:
                timings = [Timing(rival.workload, facts=rival.facts) for rival in started]
                new = [r for r in started if (r.workload.name, r.workload.devices) not in self.result.timings]
                for rival in started:
                    self._compiled(rival)
                lengths = [self._block_length(rival) for rival in started]
                budget.set_up(budget.used() - began)
                later = sum(_CHECK_COMPILES * self._compiled(rival) for rival in new)
                self._rounds(started, timings, lengths, name, ends - later)
                for rival, timing in zip(started, timings, strict=True):
                    timing.ceilings, timing.peak_bytes = rival.ceilings(), rival.peak_bytes()
                done = timings
                for rival in new[::-1]:  # PyTorch first: the reference comes from its process
                    self._check(rival, timings[started.index(rival)])
                if trace:
                    started[0].trace(trace)
        except OverBudget as over:
            budget.cut.append(f"{name}: {over}")
        return done

    def _rounds(self, started: list[Rival], timings: list[Timing], lengths: list[int], name: str, ends: float) -> None:
        budget, rounds, longest = self.plan.budget, self.plan.rounds, 0.0
        for i, order in enumerate(statistics.alternation(rounds)):
            if not budget.another_round(name, i, rounds, longest, ends):
                return
            began = budget.used()
            for place in order if len(started) == 2 else (0,):
                images = lengths[place] * started[place].workload.batch_size
                # While the other was timed, this one's free memory may have gone back to the system, or from a virtual
                # machine to its host: fetching 3 GB again took 2 s. Training, which never waits, doesn't pay that.
                started[place].run(1)
                timings[place].blocks.append(images / started[place].run(lengths[place]))
            longest = max(longest, budget.used() - began)

    def _block_length(self, rival: Rival) -> int:
        warmup = max(self.plan.warmup, 1)
        return max(1, math.ceil(self.plan.block_seconds * warmup / rival.run(warmup)))

    def _compiled(self, rival: Rival) -> float:
        """Seconds that compiling took in the first process of this kind, which its facts say from now on."""
        key = rival.workload.name, rival.workload.devices
        first = self.compile_seconds.setdefault(key, rival.facts["compile_seconds"])
        rival.facts["compile_seconds"] = first
        return first

    def _check(self, rival: Rival, timing: Timing) -> None:
        """Hold what was timed to the reference, which the first PyTorch process gives."""
        file, wanted = self.folder / "outcome.npz", rival.workload.framework == "torch" and not self.reference.exists()
        if rival.workload.framework == "jax" and not self.reference.exists():
            return
        rival.check(file, self.reference if wanted else None)
        timing.parity = checks.compare(
            file, self.reference, rival.workload.precision, training=rival.workload.mode == "train"
        )

    def _profile(self) -> None:
        """Time by layer, of the tuned style."""
        ends = self.plan.budget.begin("time by layer")
        if ends is None:
            return
        self.plan.say("time by layer")
        chosen = replace(self.base, style="tuned", mode="train", form="")
        found = layer_profile.run(chosen, self.frameworks, self.plan.pythons, self.plan.budget.left)
        self.plan.budget.cut += found.pop("cut")
        self.result.profile = found
