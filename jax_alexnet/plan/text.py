"""A plan as tables to read, and as JSON."""

import importlib.metadata
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from jax_alexnet.compiled import gpu_compiler
from jax_alexnet.compiled.hlo import COLLECTIVES
from jax_alexnet.plan.costs import Cost, group_of
from jax_alexnet.plan.schemes import Plan
from jax_alexnet.plan.settings import PlanSettings

MODELLED = (
    "Compiled and modelled, nothing was run. work: of each launch the longer of its bytes and its arithmetic, at the\n"
    "data sheet's full rates; messages: a ring's bytes over its bandwidth, no latency; step: both, one after the\n"
    "other; overlapped: the longer of the two."
)


def table_of_schemes(settings: PlanSettings, plan: Plan) -> str:
    """The schemes on the GPUs asked for: bytes, memory, times, and which is best."""
    n, memory = settings.devices, gpu_compiler.GPUS[settings.gpu].memory
    kinds = [kind for kind in COLLECTIVES if any(kind in cost.by_kind for cost in plan.costs)]
    lines = [
        f"{settings.model}, {settings.precision}, {settings.images(n):,} images on each of {n} {settings.gpu}, "
        f"{n * settings.images(n):,} in all; {_speeds(plan, n)}",
        MODELLED,
        f"work scaled by {plan.slowdown:.2f}: {settings.step_ms:g} ms were measured on one GPU\n"
        if settings.step_ms
        else "",
        f"{'':9}"
        + "".join(f"{kind:>16}" for kind in kinds)
        + f"{'sends':>9}{'memory':>9}{'work':>9}{'messages':>10}{'step':>9}{'overlapped':>12}{'images/s':>12}",
        f"{'scheme':9}"
        + f"{'MB':>16}" * len(kinds)
        + f"{'MB':>9}{'GB':>9}{'ms':>9}{'ms':>10}{'ms':>9}{'ms':>12}{'':>12}",
    ]
    for cost in plan.costs:
        lines.append(
            f"{cost.scheme:9}"
            + "".join(f"{cost.by_kind.get(kind, 0) / 1e6:>16.3f}" for kind in kinds)
            + f"{cost.sent / 1e6:>9.1f}{cost.memory / 1e9:>9.2f}{cost.compute * 1e3:>9.2f}"
            f"{cost.communication * 1e3:>10.2f}{cost.seconds * 1e3:>9.2f}{cost.overlapped * 1e3:>12.2f}"
            f"{cost.images_per_second:>12,.0f}"
        )
    lines += ["", *(f"{name}: {why}" for name, why in plan.misfits.items())]
    lines += [
        f"{cost.scheme} doesn't fit: it needs {cost.memory / 1e9:.1f} GB of {memory / 1e9:.1f} GB; use a smaller "
        "--batch-size"
        for cost in plan.costs
        if cost.memory > memory
    ]
    best = best_of(plan.costs, memory)
    if best:
        lines.append(f"best: {best.scheme}, {best.seconds * 1e3:.2f} ms a step, {best.images_per_second:,.0f} images/s")
    if plan.crossover is not None:
        lines.append(
            f"on {n} GPUs{_groups(settings)} hybrid sends less than data up to a global batch of "
            f"{plan.crossover:,.0f} images "
            f"(programs for {settings.images(n)} and {2 * settings.images(n)} images a GPU)"
        )
    return "\n".join(lines)


def table_of_scaling(settings: PlanSettings, plan: Plan) -> str:
    """Images a second and efficiency of every scheme by number of GPUs, and the best."""
    names = list(dict.fromkeys(name for row in plan.scaling.values() for name in row))
    one, memory = plan.scaling[1]["data"], gpu_compiler.GPUS[settings.gpu].memory
    costs = [cost for row in plan.scaling.values() for cost in row.values()]
    notes = [_speeds(plan, max(plan.scaling))]
    if any(cost.compiled_for != cost.devices for cost in costs):
        notes.append("* extrapolated from fewer GPUs: the same program, longer rings")
    if any(efficiency(cost, one, overlapped=True) > 1 for cost in costs):
        notes.append("above 100%: a GPU has less of the weights to update than one alone")
    lines = [
        f"images/s and efficiency, {settings.batch}; nothing overlapped, in brackets the efficiency if everything were",
        *notes,
        "",
        f"{'GPUs':>5}" + "".join(f"{name:>28}" for name in names) + "   best",
    ]
    for n, row in plan.scaling.items():
        cells = "".join(f"{_cell(row[name], one) if name in row else '-':>28}" for name in names)
        best = best_of(row.values(), memory)
        lines.append(f"{n:>5}{cells}   {best.scheme if best and n > 1 else '-'}")
    return "\n".join(lines)


def best_of(costs: Iterable[Cost], memory: int) -> Cost | None:
    """The fastest step, nothing overlapped, of those that fit into a GPU's memory."""
    return min((cost for cost in costs if cost.memory <= memory), key=lambda cost: cost.seconds, default=None)


def efficiency(cost: Cost, one: Cost, *, overlapped: bool = False) -> float:
    """Images a second over those of as many GPUs that needn't talk."""
    seconds = cost.overlapped if overlapped else cost.seconds
    return cost.images / seconds / (one.images / one.seconds)


def as_json(settings: PlanSettings, plan: Plan) -> dict[str, Any]:
    """Everything, as JSON can hold it; bytes and seconds."""
    rows = [cost for row in plan.scaling.values() for cost in row.values()]
    return {
        "schema": "plan/1",
        "settings": asdict(settings),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
        "gpu": asdict(gpu_compiler.GPUS[settings.gpu]),
        "links": asdict(plan.links),
        "slowdown": plan.slowdown,
        "schemes": [_entry(cost) for cost in plan.costs],
        "misfits": plan.misfits,
        "crossover": plan.crossover,
        "scaling": [
            {
                **_entry(cost),
                "efficiency": efficiency(cost, plan.scaling[1]["data"]),
                "efficiency_overlapped": efficiency(cost, plan.scaling[1]["data"], overlapped=True),
            }
            for cost in rows
        ],
    }


def _entry(cost: Cost) -> dict[str, Any]:
    return {
        **asdict(cost),
        "extrapolated": cost.compiled_for != cost.devices,
        "seconds": cost.seconds,
        "overlapped": cost.overlapped,
        "images_per_second": cost.images_per_second,
        "sent": cost.sent,
        "by_kind": cost.by_kind,
    }


def _groups(settings: PlanSettings) -> str:
    group = group_of("hybrid", settings.devices, settings.devices_per_machine, settings.group_size)
    return "" if group == settings.devices else f", in groups of {group},"


def _cell(cost: Cost, one: Cost) -> str:
    mark = "*" if cost.compiled_for != cost.devices else " "
    full = efficiency(cost, one, overlapped=True)
    return f"{cost.images_per_second:,.0f}{mark}{efficiency(cost, one):>5.0%} ({full:.0%})"


def _speeds(plan: Plan, devices: int) -> str:
    inside = f"{plan.links.bandwidth / 1e9:g} GB/s a GPU"
    if devices <= plan.links.machine:
        return inside
    if plan.links.network == plan.links.bandwidth:
        return f"{inside}, between machines of {plan.links.machine} too"
    return f"{inside}, {plan.links.network / 1e9:g} GB/s a GPU between machines of {plan.links.machine}"
