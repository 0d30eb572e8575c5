"""`python -m parity compare`: any Flax module and any PyTorch module, by name, in processes of their own."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from alexnet_io.command_line import output_file
from parity import settings
from parity.comparison import environments
from parity.errors import CannotConvert
from parity.kinds.layouts import channels_last
from parity.mapping import files
from parity.mapping.mapping import Mapping, is_mapping
from parity.reports.output import finish, show
from parity.reports.report import EXIT_COULD_NOT_RUN


def compare(chosen: settings.Compare) -> int:
    """Compare, print, write the files that were asked for; returns the exit code."""
    arrays = _inputs(chosen)
    report = environments.compare(
        chosen.flax or "",
        chosen.torch or "",
        arrays,
        flax_inputs=tuple(channels_last(x) if x.ndim == 4 else x for x in arrays),
        jax_python=chosen.jax_python,
        torch_python=chosen.torch_python,
        dtype=chosen.dtype,
        gradients=chosen.gradients,
        seed=chosen.seed,
        name="model",
        flax_kwargs={},
        torch_kwargs={},
        mapping=_read_pairs(chosen.mapping) if chosen.mapping else None,
    )
    show(report, chosen)
    code = finish(report, chosen)
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
