"""`python -m parity compare`: any Flax module and any PyTorch module, by name, in processes of their own."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from alexnet_io.command_line import output_file
from parity import settings
from parity.commands.output import finish, show
from parity.comparison import environments
from parity.comparison.request import Request
from parity.errors import CannotConvert
from parity.kinds.layouts import input_to_flax
from parity.mapping import files
from parity.mapping.mapping import Mapping, is_mapping
from parity.reports.report import EXIT_COULD_NOT_RUN


def compare(chosen: settings.Compare) -> int:
    """Compare, print, write the files that were asked for; returns the exit code."""
    arrays = _inputs(chosen)
    request = Request(
        chosen.flax,
        chosen.torch,
        arrays,
        tuple(map(input_to_flax, arrays)),
        {},
        {},
        dtype=chosen.dtype,
        gradients=chosen.gradients,
        mapping=_read_pairs(chosen.mapping) if chosen.mapping else None,
        seed=chosen.seed,
    )
    report = environments.compare(request, chosen.jax_python, chosen.torch_python)
    show(report, chosen)
    code = finish(report, chosen, chosen.arrays)
    if chosen.save_mapping:
        try:
            output_file.write("--save-mapping", chosen.save_mapping, report.mapping.text())
        except CannotConvert as error:
            print(f"--save-mapping: {error}", file=sys.stderr)
            return code or EXIT_COULD_NOT_RUN
    return code


def _inputs(chosen: settings.Compare) -> tuple[NDArray, ...]:
    """The arrays of a file, or one of random numbers."""
    if chosen.inputs:
        loaded = np.load(chosen.inputs)
        return (loaded,) if isinstance(loaded, np.ndarray) else tuple(loaded[name] for name in sorted(loaded.files))
    shape = tuple(int(n) for n in (chosen.shape or "").split(","))
    return (np.random.default_rng(chosen.seed).standard_normal(shape),)


def _read_pairs(path: str) -> Mapping | dict[str, str]:
    """A whole mapping, or no more than pairs of layers.

    Raises:
        CannotConvert: the file holds neither.
    """
    content = files.read_json(path, "--mapping")
    if is_mapping(content):
        return Mapping.load(path)
    if isinstance(content, dict) and all(isinstance(value, str) for value in content.values()):
        return content
    raise CannotConvert(
        f"--mapping {path} must hold what --save-mapping writes, or pairs of layers: {{'flax/path': 'torch.path', ...}}"
    )
