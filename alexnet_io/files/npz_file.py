"""Arrays of a NumPy .npz file, read so that nothing in it can run, with the texts and numbers beside them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays by name, and as facts what has no axes and is a text or a whole number, such as `model`.

    Raises:
        UserError: the file is missing, damaged or of another format, or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as content:  # checks the sums that are in it
            found = {name: content[name] for name in content.files}
    except Exception as error:  # zipfile and NumPy raise nearly anything on what they did not write
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{printable(path)} is not a readable .npz file of plain arrays ({reason}): save one by "
            "numpy.savez(file, **{name: array})"
        ) from None
    facts = {name: str(array) for name, array in found.items() if array.ndim == 0 and array.dtype.kind in "Uiu"}
    return {name: array for name, array in found.items() if name not in facts}, facts


def to_bytes(arrays: Mapping[str, Any], facts: Mapping[str, str]) -> bytes:
    """The content of such a file; the same arrays and facts always give the same bytes."""
    file = io.BytesIO()
    texts = {name: np.asarray(text) for name, text in sorted(facts.items())}
    np.savez(file, **{name: np.asarray(array, order="C") for name, array in arrays.items()}, **texts)  # type: ignore[arg-type]
    return file.getvalue()
