"""Files of weights for PyTorch's networks: .safetensors, .npz and PyTorch's own, of which nothing is run.

Read by this side's own means: names and layouts of other homes are brought to those of `torch_ref` here.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.exports.description import Description
from alexnet_io.files import npz_file, tensor_file
from alexnet_io.run import network_facts
from alexnet_io.run.fine_tuning import ENDINGS
from alexnet_io.run.network_facts import NetworkFacts
from alexnet_io.weights import shipped
from torch_ref.alexnet import VARIANTS, build
from torch_ref.layers import LocalConv2d
from torch_ref.network import Network, layers_with_weights

_PREFIXES = ("module.", "_orig_mod.")  # of data parallelism and torch.compile
_DEEPEST = 4  # dictionaries within dictionaries
# torchvision numbers the same layers: the convolutions at these places of `features`, the others of `classifier`.
_TORCHVISIONS = (
    *(f"features.{place}" for place in (0, 3, 6, 8, 10)),
    *(f"classifier.{place}" for place in (1, 4, 6)),
)


@dataclass(frozen=True)
class WeightFile:
    """What a file holds.

    Attributes:
        shown: its path, for people.
        tensors: by their names in the file, wrappers' prefixes taken off.
        stated: texts and numbers beside them: `model`, `image_size`, `home` in files of this project.
        facts: what it says of its network besides; None where it was not exported from a run.
    """

    shown: str
    tensors: dict[str, Tensor]
    stated: dict[str, str]
    facts: NetworkFacts | None

    @property
    def model(self) -> str | None:
        """The network that they are for: as the file says, or by torchvision's names."""
        said = self.facts.model if self.facts else self.stated.get("model")
        if said in VARIANTS:  # else a word of another program's
            return said
        return "one_weird_trick" if _is_torchvision(self.tensors) else None

    @property
    def image_size(self) -> int | None:
        """Side in pixels that they were made for, as far as the file says."""
        said = self.stated.get("image_size", "")
        return self.facts.image_size if self.facts else int(said) if said.isdecimal() else None


def read(path: Path, name: str | None = None, flag: str = "--weights") -> WeightFile:
    """Everything in a file.

    Args:
        path: the file, a folder of a model hub's layout, or the name of weights that come with the project.
        name: says the kind by its ending; the path's own by default.
        flag: the command line's word for the file, which an error names.

    Raises:
        UserError: of another kind, damaged, or without weights.
    """
    path = path if name else shipped.located(path, flag)
    shown, name = printable(path), (name or path.name).lower()
    if name.endswith((".safetensors", ".npz")):
        arrays, stated = (npz_file if name.endswith(".npz") else tensor_file).read(path)
        tensors = {key: _tensor(array) for key, array in arrays.items()}
    elif name.endswith(ENDINGS):
        tensors, stated = _read_torch(path, shown)
    else:
        raise UserError(f"{flag} {shown}: files of weights end in {', '.join(ENDINGS)}, not in {path.suffix!r}")
    text = stated.get(network_facts.KEY)
    facts = NetworkFacts.from_text(text, shown) if text else None
    return WeightFile(shown, {_bare(key): tensor for key, tensor in tensors.items()}, stated, facts)


def state_for(file: WeightFile, network: Network) -> dict[str, Tensor]:
    """The tensors under the names and in the layouts of a network of `torch_ref`.

    Args:
        file: from `read`.
        network: the network; of its shapes only what lies under a map of another size is looked at.

    Raises:
        UserError: a name that is missing or that the network has not; all are listed.
    """
    layers = layers_with_weights(network)
    state: dict[str, Tensor] = {}
    for name, tensor in file.tensors.items():
        layer, kind = _own_name(name, layers)
        if name.endswith("/kernel") and layer in layers:
            tensor = _of_flax(tensor, network.get_submodule(layer), network, layers, file.image_size)
        state[f"{layer}.{kind}"] = tensor
    wanted = [name for name, _ in network.named_parameters()]
    wrong = [f"missing {name}" for name in wanted if name not in state]
    wrong += [f"unknown {printable(name)}" for name in state if name not in wanted]
    wrong += [
        f"{name} is {state[name].dtype}" for name in wanted if name in state and not state[name].is_floating_point()
    ]
    wrong += [f"{name} has values that are not finite" for name in wanted if name in state and not _finite(state[name])]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        kind = type(network).__name__
        raise UserError(
            f"{file.shown} doesn't fit {kind}: {'; '.join(wrong[:10])}{more}. Its layers: {', '.join(layers)}"
        )
    return {name: state[name] for name in wanted}


def to_bytes(path: Path, state: Mapping[str, Tensor], description: Description, home: str) -> bytes:
    """The content of a file of weights, with all that is known of their network.

    Args:
        path: of the file: its ending says the kind.
        state: of a network of `torch_ref`.
        description: of the network.
        home: `torch_ref`, or `torchvision` for its names.
    """
    facts, name = description.facts, path.name.lower()
    stated = {**description.about, "model": facts.model, "image_size": str(facts.image_size), "home": home}
    stated["step"] = str(facts.step)
    if description.own_facts is not None:
        stated[network_facts.KEY] = description.own_facts.to_text()
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    if home == "torchvision":
        layers = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
        theirs = dict(zip(layers, _TORCHVISIONS, strict=True))
        split = {name: name.rpartition(".") for name in tensors}
        tensors = {f"{theirs[split[name][0]]}.{split[name][2]}": value for name, value in tensors.items()}
    if name.endswith((".safetensors", ".npz")):
        arrays = {name: value.numpy() for name, value in tensors.items()}
        if name.endswith(".npz"):
            return npz_file.to_bytes(arrays, stated)
        return tensor_file.to_bytes(arrays, stated, printable(path))
    content, file = nn.Module().state_dict(), io.BytesIO()  # of the kind that PyTorch makes, with its _metadata
    content.update(tensors)
    if home == "torchvision":  # whose users load it as it is; `load_state_dict` passes over the metadata
        content._metadata[network_facts.KEY] = stated  # type: ignore[attr-defined]
        torch.save(content, file)
    else:
        torch.save({**stated, "state_dict": content}, file)
    return file.getvalue()


def refuse_ambiguous(file: WeightFile, state: Mapping[str, Tensor], model: str) -> None:
    """Refuse weights that don't say which network they are for, where several have just their shapes.

    Args:
        file: from `read`.
        state: from `state_for`.
        model: the network that they are to be for.

    Raises:
        UserError: it names the networks that they fit.
    """
    if file.model is not None:
        return
    *_, bias = state.values()
    classes, size = len(bias), file.image_size
    shapes = {name: tensor.shape for name, tensor in state.items()}
    fitting = []
    for name, entry in VARIANTS.items():
        with contextlib.suppress(UserError), torch.device("meta"):
            network = build(name, classes, size or entry.image_size)
            if shapes == {key: parameter.shape for key, parameter in network.named_parameters()}:
                fitting.append(name)
    if len(fitting) > 1:
        raise UserError(
            f"{file.shown}: it doesn't say which network it is for, and its shapes fit {', '.join(fitting)}: save it "
            f"again with the entry 'model': '{model}' beside its 'state_dict', or as safetensors metadata"
        )


def _of_flax(
    kernel: Tensor, layer: nn.Module, network: Network, layers: tuple[str, ...], image_size: int | None
) -> Tensor:
    """A kernel that lies as Flax has it, as PyTorch has it."""
    if isinstance(layer, LocalConv2d) and kernel.ndim == 6:  # (H, W, kh, kw, in, out)
        return kernel.permute(0, 1, 5, 4, 2, 3)
    if isinstance(layer, nn.Conv2d) and kernel.ndim == 4:  # (kh, kw, in, out)
        return kernel.permute(3, 2, 0, 1)
    if not (isinstance(layer, nn.Linear) and kernel.ndim == 2):
        return kernel  # its shape will be refused
    first = next(name for name in layers if isinstance(network.get_submodule(name), nn.Linear))
    if network.get_submodule(first) is layer:
        height, width = network.map_size((image_size, image_size) if image_size else None)
        channels = kernel.shape[0] // (height * width)
        if channels * height * width != kernel.shape[0]:
            return kernel.T
        kernel = kernel.reshape(height, width, channels, -1).permute(2, 0, 1, 3).flatten(0, 2)
    return kernel.T


def _own_name(name: str, layers: tuple[str, ...]) -> tuple[str, str]:
    """Layer and kind of a parameter, from Flax's, torchvision's or our own name."""
    layer, _, kind = name.rpartition("/" if "/" in name else ".")
    theirs = dict(zip(_TORCHVISIONS, layers, strict=False))
    return theirs.get(layer, layer), "weight" if kind == "kernel" else kind


def _is_torchvision(names: Mapping[str, Any]) -> bool:
    return any(name.startswith(("features.", "classifier.")) for name in names)


def _read_torch(path: Path, shown: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on what it did not write
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{shown} can't be read as plain weights and was not run ({reason}): use a state dict saved by "
            "torch.save(model.state_dict()), or .safetensors"
        ) from None
    stated: dict[str, str] = {}
    for found in _dictionaries(loaded, 0):
        stated |= {str(key): str(value) for key, value in found.items() if isinstance(value, str | int)}
        beside = getattr(found, "_metadata", {}).get(network_facts.KEY, {})
        stated |= beside if isinstance(beside, dict) else {}
        tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
        if any(name.endswith((".weight", ".bias")) for name in tensors):
            return tensors, stated
    raise UserError(f"{shown} holds no state dict: save one by torch.save(model.state_dict())")


def _dictionaries(loaded: Any, depth: int) -> Iterator[Mapping[Any, Any]]:
    """The dictionaries in what was loaded, from the outermost in."""
    if isinstance(loaded, Mapping) and depth <= _DEEPEST:
        yield loaded
        for value in loaded.values():
            yield from _dictionaries(value, depth + 1)


def _bare(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
