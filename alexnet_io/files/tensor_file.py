"""Named arrays in one .safetensors file: the one place that writes them, and the reader that takes all that it writes.

safetensors copies an array's memory as it lies and notes the shape alone, so whatever isn't in row order would come
back as other numbers. Here every array is brought into row order and little-endian bytes first.

safetensors and ml_dtypes are imported for such files alone: training speed is measured without.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import atomic_file

Arrays = dict[str, NDArray[Any]]

# safetensors' names of types, and NumPy's; those NumPy lacks are ml_dtypes'.
_TYPES = {
    "BOOL": "bool",
    **{f"{kind[0].upper()}{bits}": f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": "bfloat16",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}


def write(
    path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, object] | None = None, *, flag: str = "--output"
) -> None:
    """Replace `path` by a file of `arrays` in one step, with the permissions that the umask gives.

    The same arrays and facts always give the same bytes.

    Args:
        path: the .safetensors file.
        arrays: by name; NumPy's or what NumPy takes, of any shape, memory order, strides and byte order.
        metadata: facts beside them, written as text.
        flag: the command line's word for where the file goes, which an error names.

    Raises:
        UserError: a type that safetensors has no name for, or a place that can't be written to; nothing was changed.
    """
    atomic_file.write_bytes(path, to_bytes(arrays, metadata, shown=printable(path)), flag=flag)


def to_bytes(arrays: Mapping[str, Any], metadata: Mapping[str, object] | None = None, shown: str = "the file") -> bytes:
    """The content of such a file; see `write`. `shown` names it in an error."""
    # Imported only where files are written or read: the reference also runs beside PyTorch and NumPy alone.
    from safetensors.numpy import save

    plain = {name: in_row_order(array) for name, array in arrays.items()}
    refused = [f"{printable(name)} ({array.dtype})" for name, array in plain.items() if not _has_name(array)]
    if refused:
        raise UserError(
            f"{shown} can't hold {', '.join(refused[:5])}: safetensors takes {', '.join(sorted(_TYPES.values()))}; "
            "convert it first. Nothing was written"
        )
    return _with_sorted_facts(save(plain, {key: str(value) for key, value in (metadata or {}).items()} or None))


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays and the facts of a file.

    Raises:
        UserError: the file is missing, damaged or of another format.
    """
    from safetensors import deserialize

    try:
        content = path.read_bytes()
        arrays = {
            name: np.frombuffer(view["data"], _type(view["dtype"])).reshape(view["shape"])
            for name, view in deserialize(content)
        }
        return arrays, _header(content)[0].get("__metadata__", {})
    except Exception as error:  # safetensors raises an exception of its own kind, which is no OSError or ValueError
        raise UserError(f"{printable(path)} is not a readable safetensors file ({error}): use another copy") from None


def in_row_order(array: Any) -> NDArray[Any]:
    """The same values with the last axis varying fastest, little-endian; a copy only where they lie otherwise."""
    array = np.asarray(array, order="C")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _has_name(array: NDArray[Any]) -> bool:
    return array.dtype.name in _TYPES.values()


def _type(name: str) -> np.dtype[Any]:
    import ml_dtypes

    if name not in _TYPES:
        raise ValueError(f"its type {name} is not known")
    numpy_name = _TYPES[name]
    return np.dtype(getattr(ml_dtypes, numpy_name, numpy_name)).newbyteorder("<")


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """The JSON object at a file's beginning, and where the arrays begin."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), end


def _with_sorted_facts(content: bytes) -> bytes:
    """The same file with its facts in order: safetensors writes them in another one each time."""
    header, end = _header(content)
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[end:]))
