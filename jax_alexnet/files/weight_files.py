"""Files of weights, .safetensors, .npz and PyTorch's, read so that nothing in them can run.

PyTorch is imported for its own files alone: nothing else on this side needs it.
"""

import argparse
import io
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from alexnet_io.command_line import packages
from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import atomic_file, npz_file, tensor_file
from alexnet_io.run import network_facts

Arrays = dict[str, np.ndarray]
TORCH_ENDINGS = (".pth", ".pt", ".pth.tar", ".pt.tar", ".ckpt")

# Where training programs put the state dict among the rest, the likeliest first.
_PLACES = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params")


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        arrays: by the names in the file.
        facts: texts and numbers beside them: `model`, `image_size`, `home` in files of this project.
        description: what `network_facts` wrote, if it did.
    """

    arrays: Arrays
    facts: dict[str, str]
    description: str | None = None


def read(path: Path, name: str | None = None, flag: str = "--weights") -> Content:
    """The arrays of a file and what it states about them.

    Args:
        path: the file.
        name: says the kind by its ending; the path's own by default.
        flag: the command line's word for the file, which an error names.

    Raises:
        UserError: no such file, of another kind, damaged, or without a state dict; PyTorch isn't there to read its own.
    """
    shown, name = printable(path), (name or path.name).lower()
    if not path.is_file():
        raise UserError(f"{flag} {shown} is not a file: pass a .safetensors, .npz or .pth file")
    if name.endswith(".safetensors"):
        arrays, facts = tensor_file.read(path)
        return Content(arrays, facts, facts.get(network_facts.KEY))
    if name.endswith(".npz"):
        arrays, facts = npz_file.read(path)
        return Content(arrays, facts, facts.get(network_facts.KEY))
    if name.endswith(TORCH_ENDINGS):
        return _read_torch(path, shown)
    kinds = ", ".join(TORCH_ENDINGS)
    raise UserError(
        f"{flag} {shown}: only .safetensors and .pth files ({kinds}) and .npz are read, not {path.suffix!r}"
    )


def write(path: Path, content: Content, check: Callable[[Path], None]) -> None:
    """Write arrays and what is to be said of them, whole or not at all.

    A .safetensors file has the facts in its metadata, a .npz file as texts beside the arrays. A PyTorch file is
    {"state_dict": ..., facts}, or, for torchvision, whose users load it as it is, the state dict alone; the facts are
    then in its `_metadata`, where `load_state_dict` passes over them.

    Args:
        path: ends in .safetensors or .npz, or for PyTorch in one of `TORCH_ENDINGS`.
        content: to write.
        check: called with the written file before it takes its place.

    Raises:
        UserError: an ending that says no kind; a place that can't be written to; PyTorch isn't installed.
    """
    facts = dict(content.facts)
    if content.description is not None:
        facts[network_facts.KEY] = content.description
    kind = check_ending(path, facts["home"])
    if kind == "torch":
        written = _torch_bytes(path, content.arrays, facts)
    elif kind == "npz":
        written = npz_file.to_bytes(content.arrays, facts)
    else:
        written = tensor_file.to_bytes(content.arrays, facts, printable(path))
    atomic_file.write_bytes(path, written, flag="--to", check=check)


def check_ending(path: Path, home: str) -> str:
    """The kind of file that a name means: `safetensors`, `npz` or `torch`.

    Raises:
        UserError: its ending says none, or one that `home` can't be written to.
    """
    name = path.name.lower()
    if name.endswith((".safetensors", ".npz")):
        return "npz" if name.endswith(".npz") else "safetensors"
    if name.endswith(TORCH_ENDINGS) and home != "flax":
        return "torch"
    kinds = ", ".join(TORCH_ENDINGS)
    raise UserError(f"{printable(path)} must end in .safetensors or .npz, or for torch_ref and torchvision in {kinds}")


def _torch_bytes(path: Path, arrays: Arrays, facts: Mapping[str, str]) -> bytes:
    packages.require("torch", by=f"writing {printable(path)}")
    import torch

    state = torch.nn.Module().state_dict()  # the kind that PyTorch makes, with its _metadata
    state.update({name: _as_tensor(value) for name, value in arrays.items()})
    file = io.BytesIO()
    if facts["home"] == "torchvision":
        state._metadata[network_facts.KEY] = dict(facts)  # type: ignore[attr-defined]
        torch.save(state, file)
    else:
        torch.save({**facts, "state_dict": state}, file)
    return file.getvalue()


def _read_torch(path: Path, shown: str) -> Content:
    packages.require("torch", by=f"reading {shown}")
    import torch

    try:
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the checks of sparse tensors cost
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on what it did not write
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{shown} can't be read as plain weights and was not run ({reason}): use a state dict saved by "
            "torch.save(model.state_dict()), or .safetensors"
        ) from None
    state, around = _state_dict(loaded, shown)
    facts = {key: str(value) for level in around for key, value in level.items() if isinstance(value, str | int)}
    beside = getattr(state, "_metadata", {}).get(network_facts.KEY, {})
    facts |= beside if isinstance(beside, dict) else {}
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    arrays = {str(name): _as_array(name, value, shown) for name, value in tensors.items()}
    return Content(arrays, facts, facts.get(network_facts.KEY))


def _harmless() -> list[Any]:
    """What training programs keep beside the weights and what does nothing when it is made: numbers, options, paths."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = (type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "?"))
    paths = (pathlib.PosixPath, pathlib.PurePosixPath)
    return [argparse.Namespace, *paths, np.dtype, *kinds, scalar, (scalar, "numpy.core.multiarray.scalar")]


def _state_dict(loaded: Any, shown: str) -> tuple[Mapping[Any, Any], list[Mapping[Any, Any]]]:
    """The state dict in what a file holds, and the dicts around it, itself included."""
    found = list(_candidates(loaded, []))
    if not found:
        raise UserError(
            f"{shown} holds no state dict, neither bare nor under {', '.join(_PLACES)}: save one by "
            "torch.save(model.state_dict())"
        )
    known = [each for each in found if all(word in _PLACES for word in each[0])]
    ranked = sorted(known, key=lambda each: [_PLACES.index(word) for word in each[0]])
    if not ranked and len(found) > 1:
        places = ", ".join(".".join(each[0]) for each in found)
        raise UserError(
            f"{shown} holds several state dicts ({places}) and no word of which is meant: save the one alone by "
            "torch.save(model.state_dict())"
        )
    _, state, around = (ranked or found)[0]
    return state, around


def _candidates(
    value: Any, around: list[Mapping[Any, Any]], place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any], list[Mapping[Any, Any]]]]:
    """Dicts that name parameters, with where they are and what is around them; at most four deep."""
    if not isinstance(value, Mapping) or len(place) > 4:
        return
    import torch

    around = [*around, value]
    inner = {str(key): each for key, each in value.items() if isinstance(each, Mapping)}
    tensors = [str(key) for key, each in value.items() if isinstance(each, torch.Tensor)]
    if any(name.endswith((".weight", ".bias")) for name in tensors):
        yield place, value, around
    for key, each in inner.items():
        yield from _candidates(each, around, (*place, key))


def _as_array(name: Any, tensor: Any, shown: str) -> np.ndarray:
    import torch

    try:
        tensor = tensor.detach().resolve_neg().resolve_conj().contiguous()
        if tensor.dtype != torch.bfloat16:
            return tensor.numpy()
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"{shown} has {printable(str(name))} in a form that can't be read ({tensor.dtype}, {tensor.layout}: "
            f"{str(error).splitlines()[0]}): save it as a dense tensor of float32"
        ) from None


def _as_tensor(array: np.ndarray) -> Any:
    import torch

    plain = tensor_file.in_row_order(array).copy()
    if plain.dtype.name == "bfloat16":
        return torch.from_numpy(plain.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(plain)
