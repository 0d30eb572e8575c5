"""Whether what is timed computes what the reference computes: logits, and in training the first update.

The reference is `torch_ref` itself, eager and in the same precision. What is held to it is the form that is timed:
compiled where that is compiled, with every trick; only dropout, whose masks the frameworks draw differently, is left
out. The first update of SGD with momentum is the gradient, with weight decay, summed over all devices.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jax_alexnet.files.weight_homes import torch_shapes
from jax_alexnet.variants import VARIANTS
from parity.bounds.judging import judge_worst
from parity.bounds.magnitudes import UNIT_ROUNDOFF
from parity.comparison.environments import environment
from parity.speed.workload import Workload

# Logits of one precision may differ by as many roundings, normwise. Some twenty layers of sums leave about a dozen in
# float32; TF32 would leave thousands. Coarser formats round inputs and results of every layer, and little else.
LOGIT_ROUNDINGS = {"float32": 256.0, "tf32": 32.0, "bfloat16": 32.0}
ROUNDOFF = UNIT_ROUNDOFF | {"tf32": 2.0**-11}

# Updates may lie further apart: rounding decides on which side of a kink a unit near it lies, of a pool's maximum or a
# ReLU's 0, and each that changes sides takes its whole gradient along. If a share e of the units does, the gradient
# moves by about the root of e: by 0.004 in float32 and 0.3 in bfloat16, conv1's most. A broken backward pass is off by
# the gradient itself, 1 or more.
UPDATE_ALLOWED = {"float32": 2.0**-6, "tf32": 0.25, "bfloat16": 0.7}
IMAGES = 4  # of which logits are compared
LOGITS = "logits"  # beside the parameters' names in a file of outcomes


def compare(file: Path, reference: Path, precision: str, *, training: bool = False) -> dict[str, Any]:
    """Distances of two files of outcomes, normwise: `logits`, `update` (of the worst parameter), what is allowed.

    Args:
        file: .npz with `logits` (n, classes) and, in training, the velocity of each parameter in `torch_ref`'s layout.
        reference: likewise.
        precision: of both.
        training: whether there must be updates.
    """
    ours, theirs = _read(file), _read(reference)
    allowed = LOGIT_ROUNDINGS[precision] * ROUNDOFF[precision]
    own, other = ({LOGITS: side.pop(LOGITS)} if LOGITS in side else {} for side in (ours, theirs))
    logits = judge_worst(own, other, allowed)
    update = judge_worst(ours, theirs, UPDATE_ALLOWED[precision]) if training or ours or theirs else None
    return {
        "logits": logits.error,
        "allowed": allowed,
        "update": update and update.error,
        "update_of": update and update.name,
        "update_allowed": UPDATE_ALLOWED[precision],
        "equal": logits.equal and (update is None or update.equal),
    }


def _read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def layers(base: Workload, folder: Path, pythons: dict[str, str | None], seconds: float) -> dict[str, Any] | None:
    """`parity layers` at this precision, in a process of its own; None if it takes longer than so many seconds."""
    dtype = "bfloat16" if base.precision == "bfloat16" else "float32"
    if any(pythons.values()):
        return {"equal": None, "why": "the frameworks live in two environments: run `parity compare` between them"}
    report = folder / "layers.json"
    words = ["layers", f"--model={base.model}", f"--dtype={dtype}", f"--json={report}"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "parity", *words],
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
            timeout=None if seconds == math.inf else seconds,
        )
    except subprocess.TimeoutExpired:
        return None
    if not report.exists():
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"equal": None, "why": said[-1].removeprefix("error: ")}
    read = json.loads(report.read_text(encoding="utf-8"))
    first = read["first_divergence"]
    return {"equal": read["equal"], "exit_code": done.returncode, "first": first and first["layer"]}


def write_weights(path: Path, model: str, image_size: int) -> None:
    """The same weights for all processes: uniform, of He's deviation, .npz in `torch_ref`'s names and layouts."""
    rng = np.random.default_rng(0)
    state: dict[str, Any] = {}
    for name, shape in torch_shapes(VARIANTS[model], image_size).items():
        if name.endswith(".bias"):
            state[name] = rng.uniform(-0.1, 0.1, shape).astype(np.float32)
            continue
        fan_in = math.prod(shape[-3:] if len(shape) > 2 else shape[1:])
        reach = math.sqrt(6 / fan_in)
        state[name] = rng.uniform(-reach, reach, shape).astype(np.float32)
    np.savez(path, **state)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """What `write_weights` wrote."""
    return _read(path)
