"""Planted bugs between a file of weights and a network: in the converter that both reading and writing go through."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jax_alexnet.files import weight_homes
from parity.alexnet import layerwise as layers
from parity.alexnet import pairs
from parity.mutants.data import Entry, entry
from parity.mutants.planting import patched
from parity.reports.report import Report

MODEL = "cifar_18pct"


def file_mutants() -> Iterator[Entry]:
    """Two rows of the last kernel exchanged, once on the way in and once on the way out."""
    title = "two rows of the last kernel are exchanged in reading"
    yield entry("52-rows-read-jax", title, "fc10", "channels_permuted", _exchanged("to_flax"))
    title = "two rows of the last kernel are exchanged in writing"
    yield entry("52-rows-written-jax", title, "fc10", "channels_permuted", _exchanged("to_torch"))


def _exchanged(name: str) -> Callable[[], Report]:
    right = getattr(weight_homes, name)

    def wrong(*args: Any, **kwargs: Any) -> Any:
        converted = right(*args, **kwargs)
        kernel = converted["fc10"]["kernel"] if name == "to_flax" else converted["fc10.weight"]
        changed = np.array(kernel)
        changed[[3, 5]] = changed[[5, 3]]
        if name == "to_flax":
            return {**converted, "fc10": {**converted["fc10"], "kernel": changed}}
        return {**converted, "fc10.weight": changed}

    def run() -> Report:
        pair = pairs.build(MODEL, dtype="float32", seed=52)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weights.safetensors"
            weight_homes.save(file, pair.variables["params"], MODEL, 32, "torch_ref")
            with patched(weight_homes, name, wrong):
                return layers.run([MODEL], weights=file)

    return run
