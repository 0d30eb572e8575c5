"""Predicted efficiency of every scheme by number of GPUs, as a picture.

matplotlib is imported for that alone.
"""

from jax_alexnet.plan.schemes import Plan
from jax_alexnet.plan.settings import PlanSettings
from jax_alexnet.plan.text import efficiency

# Told apart by colour-blind readers, too.
_COLOURS = {"data": "#0072b2", "columns": "#d55e00", "hybrid": "#009e73", "zero": "#cc79a7"}


def draw_scaling(settings: PlanSettings, plan: Plan, path: str) -> None:
    """Draw a line for each scheme, dots where a program was compiled, and write it as PNG.

    Drawn through: nothing overlaps. Dashed: everything does.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    one = plan.scaling[1]["data"]
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, colour in _COLOURS.items():
        costs = [row["data" if n == 1 else name] for n, row in plan.scaling.items() if n == 1 or name in row]
        if len(costs) < 2:
            continue
        counts = [cost.devices for cost in costs]
        axes.plot(counts, [efficiency(cost, one) for cost in costs], color=colour, label=name)
        axes.plot(counts, [efficiency(cost, one, overlapped=True) for cost in costs], color=colour, ls="--", lw=1)
        compiled = [cost for cost in costs if cost.compiled_for == cost.devices]
        axes.plot([c.devices for c in compiled], [efficiency(c, one) for c in compiled], "o", color=colour, ms=5)
    counts = list(plan.scaling)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.minorticks_off()
    axes.set_xlabel(f"{settings.gpu.upper()}s, {plan.links.machine} a machine")
    axes.set_ylabel("images/s over those of as many single GPUs")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(0, None)
    axes.set_title(
        f"{settings.model}, {settings.precision}, {settings.batch}; {plan.links.bandwidth / 1e9:g} GB/s in a machine, "
        f"{plan.links.network / 1e9:g} GB/s a GPU between\n"
        "predicted, nothing was run; dots: compiled; dashed: if all communication overlapped",
        fontsize=10,
    )
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120, format="png")
