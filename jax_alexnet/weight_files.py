"""Files of weights, .safetensors and .pth, read so that nothing in them can run."""

from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.errors import UserError
from alexnet_io.printing import printable

Arrays = dict[str, np.ndarray]


def read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The file's arrays and the facts it states."""
    if not path.is_file():
        raise UserError(f"--weights {printable(path)} is not a file: pass a .safetensors or .pth file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pth", ".pt"):
        return _read_pth(path)
    raise UserError(f"--weights {printable(path)}: only .safetensors and .pth files are read, not {path.suffix!r}")


def _read_safetensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    import ml_dtypes  # noqa: F401 (teaches NumPy bfloat16)
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 (not a dict)
    except Exception as error:
        raise UserError(f"{printable(path)} is not a readable safetensors file ({error}): use another copy") from None


def _read_pth(path: Path) -> tuple[Arrays, dict[str, str]]:
    """A state dict, bare or inside {"state_dict": ...}, with nothing run that the file might carry."""
    try:
        import torch
    except ImportError:
        raise UserError(
            f'{printable(path)} needs PyTorch to be read: pip install "jax-alexnet[torch]", or use .safetensors'
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{printable(path)} can't be read as plain weights and was not run ({reason}): use a state dict saved by "
            "torch.save(model.state_dict()), or .safetensors"
        ) from None
    facts: dict[str, str] = {}
    while isinstance(loaded, dict) and not any(isinstance(value, torch.Tensor) for value in loaded.values()):
        facts |= {key: str(value) for key, value in loaded.items() if isinstance(value, str | int)}
        inner = next(
            (loaded[key] for key in ("state_dict", "model_state_dict", "model", "module") if key in loaded), None
        )
        if not isinstance(inner, dict):
            break
        loaded = inner
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise UserError(f"{printable(path)} holds no state dict: save one by torch.save(model.state_dict())")
    facts.pop("state_dict", None)
    return {str(name): _as_numpy(value) for name, value in loaded.items()}, facts


def _as_numpy(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach().contiguous()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    import ml_dtypes

    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def write_pth(path: Path, arrays: Arrays, facts: dict[str, str]) -> None:
    """Write a state dict; beside the facts for `torch_ref`, bare for torchvision, whose loader takes no other."""
    try:
        import torch
    except ImportError:
        raise UserError('a .pth needs PyTorch: pip install "jax-alexnet[torch]", or write .safetensors') from None
    tensors = {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
    torch.save(tensors if facts["home"] == "torchvision" else {**facts, "state_dict": tensors}, path)
