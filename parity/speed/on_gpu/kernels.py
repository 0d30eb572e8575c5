"""The kernels of a training step, from the profiler.

`python -m parity.speed.on_gpu.kernels WORKLOAD --model-of=GPU --json=FILE`

What the profiler timed is joined, by the names of XLA's operations, with what the same program's text says of them: the
layer and pass that each belongs to, and the time that its bytes and its arithmetic would take on a described GPU. JAX
is imported once the process is pinned: it counts the processors when it is loaded.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_io.files import atomic_file
from parity.speed import checks, processes
from parity.speed.workload import Workload

STEPS = 3  # that `Job.trace` leaves in a trace
WARM_UP = 5
LIBRARIES = {
    "cudnn": "cuDNN",
    "xmma": "cuDNN",
    "implicit_convolve": "cuDNN",
    "cublas": "cuBLAS",
    "nvjet": "cuBLAS",
    "gemm": "cuBLAS",
}


@dataclass(frozen=True)
class Event:
    """One kernel that ran.

    Attributes:
        kernel: its name on the device.
        operation: of XLA's program, that launched it.
        seconds: that it took.
    """

    kernel: str
    operation: str
    seconds: float


def events(profile: Any) -> Iterator[Event]:
    """All kernels of a profile (`jax.profiler.ProfileData`): a GPU's by its streams, a CPU's by its threads."""
    planes = list(profile.planes)
    gpus = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    for plane in gpus or planes:
        for line in plane.lines:
            if gpus and not line.name.startswith("Stream"):
                continue  # other lines repeat what the streams have, by module and by name
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if operation is not None and not event.name.startswith("end: "):
                    yield Event(event.name, str(operation), event.duration_ns / 1e9)


def summary(found: Iterable[Event], launches: Iterable[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Seconds a step, by kernel and by layer.

    Args:
        found: the kernels of so many steps.
        launches: of the program's text: `name`, `layer`, `direction`, `seconds`, `kind`.
        steps: that were traced.

    Returns:
        `kernels`: the longest first, with `name`, `operation`, `layer`, `direction`, `seconds`, `modelled`, `library`;
        `layers`: `layer`, `direction`, `seconds`, `modelled`, in the order in which they run; `seconds` of all;
        `unplaced`: seconds of kernels whose operation the program's text hasn't got.
    """
    by_name = {launch["name"]: launch for launch in launches}
    times: dict[tuple[str, str], float] = defaultdict(float)
    for event in found:
        times[event.kernel, event.operation] += event.seconds / steps
    kernels, layers = [], {}
    for launch in by_name.values():
        row = layers.setdefault(_place(launch), {"seconds": 0.0, "modelled": 0.0})
        row["modelled"] += launch["seconds"]
    unplaced = 0.0
    for (kernel, operation), seconds in times.items():
        # A CPU's profiler adds what a custom call calls.
        launch = by_name.get(operation) or by_name.get(operation.split("__")[0])
        layer, direction = _place(launch) if launch else ("", "")
        if launch:
            layers[layer, direction]["seconds"] += seconds
        else:
            unplaced += seconds
        kernels.append(
            {
                "name": kernel,
                "operation": operation,
                "layer": layer,
                "direction": direction,
                "seconds": seconds,
                "modelled": launch["seconds"] if launch else None,
                "library": library(kernel, launch["kind"] if launch else ""),
            }
        )
    return {
        "kernels": sorted(kernels, key=lambda row: -row["seconds"]),
        "layers": [{"layer": layer, "direction": d, **row} for (layer, d), row in layers.items()],
        "seconds": sum(times.values()),
        "unplaced": unplaced,
    }


def _place(launch: dict[str, Any]) -> tuple[str, str]:
    return launch["layer"] or "other", launch["direction"] or "forward"


def library(kernel: str, target: str) -> str:
    """Whose kernel it is: cuDNN's, cuBLAS's or XLA's own, by what the program calls or else by its name."""
    for word in (target.lower(), kernel.lower()):
        for sign, name in LIBRARIES.items():
            if sign in word:
                return name
    return "XLA"


def measure(workload: Workload, gpu: str) -> dict[str, Any]:
    """Trace some training steps of a workload and read the trace.

    Args:
        workload: `tuned` JAX, on one device.
        gpu: whose modelled times stand beside the measured ones; see `jax_alexnet.compiled.gpu_compiler`.
    """
    import jax

    from jax_alexnet.compiled import gpu_reading
    from jax_alexnet.compiled.gpu_settings import GpuSettings
    from parity.speed.jax_job import Job

    with tempfile.TemporaryDirectory(prefix="kernels-") as folder:
        weights = Path(folder) / "weights.npz"
        checks.write_weights(weights, workload.model, workload.image_size)
        job = Job(workload, weights)
        job.run(WARM_UP)
        job.trace(folder)
        (file,) = Path(folder).rglob("*.xplane.pb")
        found = list(events(jax.profiler.ProfileData.from_file(str(file))))
    settings = GpuSettings(
        workload.model, gpu, 1, workload.batch_size, workload.precision, image_size=workload.image_size
    )
    program = gpu_reading.read(job.program(), settings, 0, 0)
    launches = [vars(launch) for launch in program.launches]
    return {
        "schema": "parity-kernels/1",
        "settings": workload.as_json(),
        "modelled": gpu,
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "steps": STEPS,
        **summary(found, launches, STEPS),
    }


def table(found: dict[str, Any], most: int = 15) -> str:
    """By layer, then the longest kernels, in microseconds."""
    lines = [f"{'layer':12}{'pass':10}{'us':>10}{'modelled':>10}   ({found['modelled']})"]
    for row in found["layers"]:
        lines.append(
            f"{row['layer']:12}{row['direction']:10}{row['seconds'] * 1e6:>10.1f}{row['modelled'] * 1e6:>10.1f}"
        )
    lines.append(f"{'in all':22}{found['seconds'] * 1e6:>10.1f}   of them {found['unplaced'] * 1e6:.1f} in no layer's")
    lines += ["", f"{'us':>10}  {'modelled':>9}  whose    layer"]
    for row in found["kernels"][:most]:
        modelled = "-" if row["modelled"] is None else f"{row['modelled'] * 1e6:.1f}"
        where = f"{row['layer']} {row['direction']}".strip() or row["operation"]
        lines.append(
            f"{row['seconds'] * 1e6:>10.1f}  {modelled:>9}  {row['library']:7}  {where:20}  {row['name'][:60]}"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measure, print the table, write the file."""
    workload = Workload(**json.loads(arguments[0]))
    given = dict(word.removeprefix("--").split("=", 1) for word in arguments[1:])
    processes.pin(workload.threads)
    found = measure(workload, given["model-of"])
    print(table(found))
    atomic_file.write_json(Path(given["json"]), found)


if __name__ == "__main__":
    processes.told(main)
