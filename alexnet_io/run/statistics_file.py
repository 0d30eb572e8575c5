"""The normalisation's arrays beside a run, so that resuming, evaluation and prediction see what training saw."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import tensor_file
from alexnet_io.run.directory import STATISTICS


def write(run: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    """Keep `arrays` in the run's directory; nothing is written where there are none."""
    if arrays:
        tensor_file.write(run / STATISTICS, arrays)


def read(run: Path) -> dict[str, NDArray[np.float32]]:
    """The arrays of the run in directory `run`.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return tensor_file.read(run / STATISTICS)[0]
    except UserError as error:
        raise UserError(
            f"the normalisation that the run in {printable(run)} was trained with can't be had: {error}"
        ) from None
