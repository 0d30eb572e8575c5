"""Planted bugs in the shipped training programs, around networks and optimizers that are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch.nn.functional as F

from jax_alexnet import steps as jax_steps
from parity.mutants.data import Entry, entry
from parity.mutants.planting import patched
from parity.reports.report import Report
from parity.reports.rows import Row
from parity.twins import program
from torch_ref import steps as torch_steps

SMOOTHING = 0.01


def program_mutants() -> Iterator[Entry]:
    """Losses of the shipped steps; no cause is named for a whole program, the first quantity that differs is."""
    title = "labels are smoothed by 0.01 in the shipped training step"
    jax, torch = _planted(jax_steps, "cross_entropy", _jax_smoothed), _planted(torch_steps, "_losses", _torch_smoothed)
    yield entry("60-smoothing-jax", title, "loss", (), jax)
    yield entry("60-smoothing-torch", title, "loss", (), torch)


def compare() -> Report:
    """What finds these bugs: both programs' twin runs, one short one; a row for each difference, in order."""
    found = program.run(recipe="torchvision", schedule="constant", stops=False)
    rows = [
        Row("programs", d.quantity, d.quantity, f"step {d.step}", "float64", verdict="mismatch", detail=d.text)
        for outcome in found.outcomes
        for d in outcome.differences
    ]
    return Report(rows or [Row("programs", "run", "run", "steps", "float64")])


def _planted(owner: Any, name: str, change: Callable[[Any], Any]) -> Callable[[], Report]:
    def run() -> Report:
        with patched(owner, name, change(getattr(owner, name))):
            return compare()

    return run


def _jax_smoothed(right: Any) -> Any:
    def cross_entropy(logits: Any, labels: Any) -> Any:
        every = sum(right(logits, labels * 0 + k) for k in range(logits.shape[-1])) / logits.shape[-1]
        return (1 - SMOOTHING) * right(logits, labels) + SMOOTHING * every

    return cross_entropy


def _torch_smoothed(right: Any) -> Any:
    return lambda logits, labels, smoothing: F.cross_entropy(
        logits, labels, reduction="none", label_smoothing=SMOOTHING
    )
