"""Files of named arrays: safetensors and .npz by NumPy alone, PyTorch's by PyTorch, which is imported for them only."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import CannotConvert
from parity.mapping import tensors

TORCH_ENDINGS = (".pth", ".pt", ".pth.tar", ".ckpt", ".bin")
WRITTEN = (".safetensors", ".npz")
_NAMES = {
    "BOOL": "bool",
    **{f"{kind[0].upper()}{bits}": f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": "bfloat16",
}
# What training programs keep beside the weights, under one of these names; and what wrappers put before theirs.
_HOLDERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


def read(path: str | Path) -> dict[str, NDArray]:
    """The arrays of a file, by name.

    Raises:
        CannotConvert: it is missing, damaged or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise CannotConvert(f"{path} is not a file: give a .safetensors, .npz or PyTorch file")
    if path.name.endswith(".safetensors"):
        return _read_safetensors(path)
    if path.name.endswith(".npz"):
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise CannotConvert(f"{path} is not a readable .npz file ({error}): use another copy") from None
    if path.name.endswith(TORCH_ENDINGS):
        return _read_torch(path)
    known = ", ".join((*WRITTEN, *TORCH_ENDINGS))
    raise CannotConvert(f"{path}: files that end in {known} are read, not {path.suffix or 'others'!r}")


def to_bytes(arrays: Mapping[str, NDArray], path: str | Path) -> bytes:
    """The content of a file of these arrays, in the format that its name says.

    Raises:
        CannotConvert: another ending, or a type that the format can't hold.
    """
    name = str(path)
    plain = {key: np.asarray(array, order="C") for key, array in arrays.items()}
    if name.endswith(".npz"):
        unknown = [f"{key} ({array.dtype})" for key, array in plain.items() if array.dtype.kind not in "biufc"]
        if unknown:
            raise CannotConvert(f".npz can't hold {', '.join(unknown[:5])}: write to a .safetensors file")
        content = io.BytesIO()
        np.savez(content, **plain)  # type: ignore[arg-type]
        return content.getvalue()
    if not name.endswith(".safetensors"):
        raise CannotConvert(f"{name} must end in {' or '.join(WRITTEN)}")
    from safetensors.numpy import save

    return save({key: array.astype(array.dtype.newbyteorder("<"), copy=False) for key, array in plain.items()})


def as_arrays(state: Mapping[str, Any]) -> dict[str, NDArray]:
    """A state dict's tensors, or arrays, as arrays that share their memory; what is neither is left out."""
    return {name: _as_array(value) for name, value in state.items() if hasattr(value, "shape")}


def _as_array(value: Any) -> NDArray:
    if not hasattr(value, "detach"):
        return np.asarray(value)
    plain = value.detach().cpu()
    if str(plain.dtype) != "torch.bfloat16":
        return plain.numpy()
    import torch  # whose tensor this is; NumPy has no such type

    return plain.contiguous().view(torch.int16).numpy().view(tensors.dtype("bfloat16"))


def _read_safetensors(path: Path) -> dict[str, NDArray]:
    from safetensors import SafetensorError, deserialize

    try:
        content = deserialize(path.read_bytes())
        unknown = [f"{name} ({view['dtype']})" for name, view in content if view["dtype"] not in _NAMES]
        if unknown:
            raise ValueError(f"the types of {', '.join(unknown[:5])} aren't known")
        return {
            name: np.frombuffer(view["data"], tensors.dtype(_NAMES[view["dtype"]])).reshape(view["shape"])
            for name, view in content
        }
    except (OSError, ValueError, SafetensorError) as error:
        raise CannotConvert(f"{path} is not a readable safetensors file ({error}): use another copy") from None


def _read_torch(path: Path) -> dict[str, NDArray]:
    """Nothing in the file is run: weights only."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CannotConvert(
            f"{path} is not a PyTorch file of weights ({reason}): save model.state_dict(), by torch.save or safetensors"
        ) from None
    for name in _HOLDERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not any(hasattr(value, "shape") for value in content.values()):
        raise CannotConvert(f"{path} holds no state dict, neither itself nor under {', '.join(_HOLDERS)}")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): value for name, value in content.items()}
    return as_arrays(content)


def read_json(path: str | Path, flag: str = "") -> Any:
    """What a JSON file holds.

    Raises:
        CannotConvert: it can't be read, or isn't JSON.
    """
    shown = f"{flag} {path}".strip()
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotConvert(f"{shown} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise CannotConvert(f"{shown} is not JSON: {error}") from None
