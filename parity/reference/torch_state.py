"""What a PyTorch model's state dict holds, as a mapping has to know it. Imports PyTorch and NumPy only."""

from __future__ import annotations

from numpy.typing import NDArray
from torch import Tensor, nn

from parity.mapping.found import TorchState
from parity.reference.torch_attention import SeparateAttention
from parity.reference.torch_causal import Causal
from parity.reference.torch_fused import Apart, Turned
from parity.reference.torch_joined import Joined
from parity.reference.torch_recut import Recut
from parity.reference.torch_tensors import to_numpy


def of(model: nn.Module, compared: nn.Module | None = None) -> TorchState:
    """The state dict of a model.

    Args:
        model: as the user has it.
        compared: the copy that was compared, in which packed weights may have been taken apart, or turned.
    """
    state, buffers = model.state_dict(keep_vars=True), {name for name, _ in model.named_buffers(remove_duplicate=False)}
    same: dict[int, list[str]] = {}
    for name, tensor in state.items():
        same.setdefault(id(tensor), []).append(name)
    parts, transposed, joined = {}, [], {}
    for path, module in compared.named_modules() if compared is not None else ():
        above = f"{path}." if path else ""
        if isinstance(module, (SeparateAttention, Apart, Causal, Recut)):
            parts |= {above + name: (above + whole, *ends) for name, (whole, *ends) in module.parts.items()}
        if isinstance(module, Joined):
            joined |= {f"{above}{module.inner}.{name}": pieces for name, pieces in module.sources.items()}
        if isinstance(module, Turned):
            transposed.append(f"{above}weight")
    return TorchState(
        type(model).__name__,
        {name: tuple(tensor.shape) if isinstance(tensor, Tensor) else () for name, tensor in state.items()},
        [names for names in same.values() if len(names) > 1],
        [name for name in state if name in buffers],
        parts,
        transposed,
        joined,
    )


def arrays(model: nn.Module) -> dict[str, NDArray]:
    """The state dict's tensors as arrays, which share their memory where they can."""
    return {name: to_numpy(tensor) for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
