"""Layouts of weights, converted here and nowhere else in this package: Flax, `torch_ref`, torchvision's `alexnet`.

Every key and shape is checked before anything is copied, and values are moved bit for bit. Kernels lie as follows;
biases are the same everywhere.
    convolution   Flax (kh, kw, in, out)             PyTorch (out, in, kh, kw)
    local         Flax (H, W, kh, kw, in, out)       PyTorch (H, W, out, in, kh, kw)
    dense         Flax (in, out)                     PyTorch (out, in)
    dense on a map of H x W x C: rows follow H, W, C in Flax; columns follow C, H, W in PyTorch
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from jax_alexnet.layer_specs import Conv, Dense, LocalConv, Variant
from jax_alexnet.shapes import layer_shape, trace

Arrays = dict[str, np.ndarray]

# torchvision's names of the same layers: positions in `features` and `classifier`.
TORCHVISION = {
    "conv1": "features.0", "conv2": "features.3", "conv3": "features.6", "conv4": "features.8",
    "conv5": "features.10", "fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6",
}  # fmt: skip
_FLOATS = ("float64", "float32", "float16", "bfloat16")
_WRAPPERS = ("module", "_orig_mod")  # of data parallelism and torch.compile
_NO_WEIGHTS = "n_averaged"  # the counter of torch.optim.swa_utils.AveragedModel


@dataclass(frozen=True)
class _Slot:
    """One parameter: its place in Flax, its PyTorch name and shapes on both sides."""

    layer: str
    kind: str
    name: str
    flax_shape: tuple[int, ...]
    torch_shape: tuple[int, ...]
    to_torch: Callable[[np.ndarray], np.ndarray]
    to_flax: Callable[[np.ndarray], np.ndarray]


def to_torch(params: Mapping[str, Mapping[str, Any]], variant: Variant, image_size: int | None = None) -> Arrays:
    """Flax parameters as a `torch_ref` state dict of NumPy arrays, bit for bit.

    Args:
        params: {layer: {"kernel", "bias"}}.
        variant: the network's table.
        image_size: side in pixels that the network was made for; the variant's own by default.

    Raises:
        UserError: a layer is missing, extra or of another shape; all are listed.
    """
    given = {f"{layer}/{kind}": np.asarray(leaf) for layer, leaves in params.items() for kind, leaf in leaves.items()}
    slots = _slots(variant, image_size, _classes(given, variant, "{}/bias"))
    _check(given, {f"{slot.layer}/{slot.kind}": slot.flax_shape for slot in slots}, variant, "the Flax parameters")
    return {slot.name: np.ascontiguousarray(slot.to_torch(given[f"{slot.layer}/{slot.kind}"])) for slot in slots}


def to_flax(state: Mapping[str, np.ndarray], variant: Variant, image_size: int | None = None) -> dict[str, Arrays]:
    """A state dict of `torch_ref` or torchvision as Flax parameters, bit for bit.

    What wrappers put before names is taken off, see `own_names`; torchvision's names fit `one_weird_trick` alone.

    Raises:
        UserError: a key is missing or extra, or a shape is another's; all are listed, and nothing was copied.
    """
    given = _torch_ref_names(state, variant)
    slots = _slots(variant, image_size, _classes(given, variant, "{}.bias"))
    _check(given, {slot.name: slot.torch_shape for slot in slots}, variant, "the state dict")
    params: dict[str, Arrays] = {}
    for slot in slots:
        params.setdefault(slot.layer, {})[slot.kind] = np.ascontiguousarray(slot.to_flax(given[slot.name]))
    return params


def to_torchvision(state: Mapping[str, np.ndarray]) -> Arrays:
    """A `torch_ref` state dict of `one_weird_trick` under torchvision's names."""
    unknown = sorted({name.rpartition(".")[0] for name in state} - set(TORCHVISION))
    if unknown:
        raise UserError(f"torchvision's alexnet has no {', '.join(unknown)}: only one_weird_trick can go there")
    return {f"{TORCHVISION[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value for name, value in state.items()}


def torch_shapes(
    variant: Variant, image_size: int | None = None, classes: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a `torch_ref` state dict; the variant's own image size and classes by default."""
    return {slot.name: slot.torch_shape for slot in _slots(variant, image_size, classes or variant.classes)}


def _slots(variant: Variant, image_size: int | None, classes: int) -> list[_Slot]:
    slots: list[_Slot] = []
    shape: tuple[int, ...] = (*(2 * (image_size or variant.image_size,)), 3)
    trace(variant, shape[0], classes)  # refuses sizes that don't fit, with the smallest that does
    for row in variant.layers:
        after = layer_shape(row, shape, classes).output_shape
        if isinstance(row, Conv):
            flax = (row.window, row.window, shape[2] // row.groups, row.features)
            slots += _pair(row.name, flax, (3, 2, 0, 1), (row.features,))
        elif isinstance(row, LocalConv):
            flax = (*after[:2], row.window, row.window, shape[2], row.features)
            slots += _pair(row.name, flax, (0, 1, 5, 4, 2, 3), after)
        elif isinstance(row, Dense) and len(shape) == 3:
            slots += _dense_on_map(row.name, shape, after[0])
        elif isinstance(row, Dense):
            slots += _pair(row.name, (prod(shape), after[0]), (1, 0), after)
        shape = after
    return slots


def _pair(layer: str, flax: tuple[int, ...], axes: tuple[int, ...], bias: tuple[int, ...]) -> list[_Slot]:
    """Kernel and bias of a layer whose kernel only changes the order of its axes."""
    torch = tuple(flax[axis] for axis in axes)
    back = tuple(int(axis) for axis in np.argsort(axes))
    return [
        _Slot(
            layer, "kernel", f"{layer}.weight", flax, torch, lambda x: x.transpose(axes), lambda x: x.transpose(back)
        ),
        _Slot(layer, "bias", f"{layer}.bias", bias, bias, lambda x: x, lambda x: x),
    ]


def _dense_on_map(layer: str, shape: tuple[int, ...], features: int) -> list[_Slot]:
    height, width, channels = shape
    inputs = prod(shape)

    def to_torch(x: np.ndarray) -> np.ndarray:
        return x.reshape(height, width, channels, features).transpose(3, 2, 0, 1).reshape(features, inputs)

    def to_flax(x: np.ndarray) -> np.ndarray:
        return x.reshape(features, channels, height, width).transpose(2, 3, 1, 0).reshape(inputs, features)

    kernel = _Slot(layer, "kernel", f"{layer}.weight", (inputs, features), (features, inputs), to_torch, to_flax)
    return [kernel, _Slot(layer, "bias", f"{layer}.bias", (features,), (features,), lambda x: x, lambda x: x)]


def _classes(given: Mapping[str, np.ndarray], variant: Variant, pattern: str) -> int:
    """Outputs of the last layer as the weights have it; the variant's own where they don't say."""
    bias = given.get(pattern.format(variant.layers[-1].name))
    return int(bias.shape[0]) if bias is not None and bias.ndim == 1 and bias.size else variant.classes


def _check(given: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], variant: Variant, what: str) -> None:
    wrong = [f"missing {name}" for name in wanted if name not in given]
    wrong += [f"unknown {printable(name)}" for name in given if name not in wanted]
    for name, shape in wanted.items():
        if name in given and given[name].shape != shape:
            wrong.append(f"{name} has shape {given[name].shape}, not {shape}")
        if name in given and given[name].dtype.name not in _FLOATS:
            wrong.append(f"{name} is {given[name].dtype}, not floating point")
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise UserError(f"{what} doesn't fit {variant.name}: {'; '.join(wrong[:10])}{more}. Nothing was loaded")


def own_names(state: Mapping[str, np.ndarray]) -> Arrays:
    """The state dict without what wrappers add to its names.

    These are `module.` (data parallelism, averaged models) and `_orig_mod.` (torch.compile), wherever they stand and
    in any order, and attributes that hold the whole network, as in `model.conv1.weight`.

    Raises:
        UserError: two names become the same.
    """
    parts = {name: [part for part in name.split(".") if part not in _WRAPPERS] for name in state if name != _NO_WEIGHTS}
    while (
        parts and all(len(words) > 2 for words in parts.values()) and len({words[0] for words in parts.values()}) == 1
    ):
        parts = {name: words[1:] for name, words in parts.items()}
    plain = {".".join(words): state[name] for name, words in parts.items()}
    if len(plain) < len(parts):
        raise UserError("the state dict has keys that differ only by `module.` or `_orig_mod.`: remove one of each")
    return plain


def is_torchvision(state: Mapping[str, Any]) -> bool:
    """Whether these are torchvision's names, once `own_names` has seen them."""
    return any(name.startswith(("features.", "classifier.")) for name in state)


def _torch_ref_names(state: Mapping[str, np.ndarray], variant: Variant) -> Arrays:
    plain = own_names(state)
    if not is_torchvision(plain):
        return plain
    if variant.name != "one_weird_trick":
        raise UserError(
            f"these are weights of torchvision's alexnet, which is one_weird_trick, not {variant.name}: "
            "pass --model one_weird_trick"
        )
    ours = {theirs: name for name, theirs in TORCHVISION.items()}
    return {
        f"{ours.get(name.rpartition('.')[0], name.rpartition('.')[0])}.{name.rpartition('.')[2]}": value
        for name, value in plain.items()
    }
