"""`python -m jax_alexnet.plan`: what a training step costs on GPUs that needn't be there, under each parallel scheme.

Each scheme's step is compiled for described GPUs. Messages and memory are read from the compiled program, and so is
the work of a GPU, whose time is modelled launch by launch: the longer of moving its bytes at the memory's full
bandwidth and of computing its convolutions and products, each multiplication counted, at the full rate. `--step-ms`
takes a measured step on one GPU instead and scales all schemes' work by the same factor. Messages take their bytes over
a ring's bandwidth, see `collectives.py`. The time of a step is the sum of both, as if nothing overlapped; beside it
stands the longer of the two, as if everything did. Numbers of GPUs that nothing was compiled for are extrapolated, and
marked: the same program, the rings longer.

Imports NumPy and JAX when the settings are known to be right.
"""

from collections.abc import Sequence
from typing import Any

from alexnet_io.command_line import output_file
from alexnet_io.command_line.settings import parse, run_command
from jax_alexnet.compiled import gpu_compiler
from jax_alexnet.plan.settings import PROGRAM, PlanSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print and return the exit code."""
    settings = parse(PlanSettings, PROGRAM, arguments)
    gpu_compiler.find()
    with output_file.others_on_standard_error(settings.json):
        document = _published(settings) if settings.published else _planned(settings)
        if settings.json:
            output_file.write_json("--json", settings.json, document, indent=1)
    return 0


def _published(settings: PlanSettings) -> dict[str, Any]:
    from jax_alexnet.plan import published

    comparisons = published.compare(settings.bandwidth)
    print(published.table(comparisons))
    return published.as_json(comparisons)


def _planned(settings: PlanSettings) -> dict[str, Any]:
    from jax_alexnet.plan import plot, schemes, text

    with schemes.Programs(settings.model, settings.gpu, settings.precision) as programs:
        plan = schemes.on_devices(settings, programs)
        print(text.table_of_schemes(settings, plan), flush=True)
        if settings.scaling:
            schemes.add_scaling(settings, programs, plan)
            print("\n" + text.table_of_scaling(settings, plan))
        if settings.plot:
            output_file.write_by("--plot", settings.plot, lambda file: plot.draw_scaling(settings, plan, str(file)))
    return text.as_json(settings, plan)


if __name__ == "__main__":
    run_command(main)
