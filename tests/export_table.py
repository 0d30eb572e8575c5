"""Every network through every format: `python tests/export_table.py [NETWORK...]` prints the table of docs/export.md.

Weights are drawn so that activations keep their size through all layers; each export is checked by the command itself,
whose figure stands in the table. Weights in files (.safetensors, .npz, .pth, folders) come back bit for bit.
"""

import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.run.network_facts import NetworkFacts
from jax_alexnet import export as jax_export
from jax_alexnet.files import weight_homes
from jax_alexnet.recipes import resolve
from jax_alexnet.variants import VARIANTS
from torch_ref import export as torch_export

COLUMNS: dict[str, tuple[Any, str]] = {
    "ONNX, `jax_alexnet`": (jax_export, ".onnx"),
    "ONNX, `torch_ref`": (torch_export, ".onnx"),
    "StableHLO, `jax_alexnet`": (jax_export, ".stablehlo"),
    "`.pt2`, `torch_ref`": (torch_export, ".pt2"),
    "`.safetensors`, `jax_alexnet`": (jax_export, ".safetensors"),
    "`.safetensors`, `torch_ref`": (torch_export, ".safetensors"),
}


def drawn(folder: Path, model: str) -> Path:
    """A file of weights of a network at its own size, with input as its recipe has it."""
    draw, settings = np.random.default_rng(5), resolve(TrainSettings(model=model, data="synthetic"))
    side = settings.image_size
    arrays = {
        "mean_image": draw.uniform(90, 160, (side, side, 3)).astype(np.float32),
        "mean": np.array([120, 115, 100], np.float32),
        "std": np.array([60, 60, 60], np.float32),
    }
    state = {}
    for name, shape in weight_homes.torch_shapes(VARIANTS[model], side).items():
        terms = np.prod(shape[-3:]) if len(shape) > 3 else max(shape[-1:])  # of a sum; [P]'s ReLU halves their squares
        scale = np.sqrt(2 / terms) if name.endswith("weight") else 0.1
        state[name] = (scale * draw.standard_normal(shape, np.float32)).astype(np.float32)
    params = weight_homes.to_flax(state, VARIANTS[model], side)
    names = [f"name {i}" for i in range(VARIANTS[model].classes)]
    facts = NetworkFacts.of(settings, names, arrays, 7)
    path = folder / f"{model}.safetensors"
    weight_homes.save(path, params, model, side, "torch_ref", facts)
    return path


def error(program: Any, source: Path, to: Path) -> float:
    """The largest error that the command itself finds, in units of the largest logit."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert program.main(["--weights", str(source), "--to", str(to)]) == 0
    found = re.search(r"the largest error is (\S+) of the largest logit", said.getvalue())
    assert found, said.getvalue()
    return float(found[1])


def row(model: str) -> list[float]:
    """One network through all formats."""
    with tempfile.TemporaryDirectory(prefix="exports-") as name:
        source = drawn(Path(name), model)
        return [error(program, source, Path(name) / f"to{ending}") for program, ending in COLUMNS.values()]


def main(models: Sequence[str]) -> None:
    """Print the table."""
    print(f"| network | {' | '.join(COLUMNS)} |")
    print("| --- |" + " --- |" * len(COLUMNS))
    for model in models or VARIANTS:
        print(f"| `{model}` | {' | '.join(f'{each:.1e}' if each else '0' for each in row(model))} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
