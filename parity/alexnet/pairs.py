"""Both sides of every network of this repository, with one set of weights and one set of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alexnet_io.data import decoding
from alexnet_io.errors import UserError
from alexnet_io.weights import shipped
from jax_alexnet.files import weight_homes
from jax_alexnet.model import AlexNet
from jax_alexnet.variants import VARIANTS
from parity.alexnet import flattened, torch_weights
from parity.candidate.jax_arrays import DTYPES, placed
from parity.kinds import jax_leaves, layouts, torch_leaves
from parity.kinds.weights import weights_to_flax
from parity.reference.torch_tensors import DTYPES as TORCH_DTYPES
from torch_ref import alexnet
from torch_ref.layers import Dropout, LocalConv2d

torch_leaves.register_linear(LocalConv2d)

MODELS = tuple(VARIANTS)


@dataclass
class Pair:
    """One network, twice.

    Attributes:
        name: model id.
        flax_module: the JAX side.
        variables: its weights, in the dtype of the pair.
        torch_module: the PyTorch side, same weights, evaluation mode.
        dtype: of both.
        image_size: height and width they are built for.
    """

    name: str
    flax_module: AlexNet
    variables: dict[str, Any]
    torch_module: nn.Module
    dtype: str
    image_size: tuple[int, int]


def build(
    name: str,
    *,
    dtype: str = "float64",
    seed: int = 0,
    classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    weights: dict[str, NDArray] | None = None,
) -> Pair:
    """Both sides of a network with the same weights.

    Args:
        name: model id.
        dtype: of weights and activations.
        seed: of the weights.
        classes: the network's own if None.
        image_size: side, or height and width; the network's own if None.
        weights: PyTorch state dict as arrays (trained ones, say); drawn if None.
    """
    size = image_size or VARIANTS[name].image_size
    height, width = (size, size) if isinstance(size, int) else size
    reference = alexnet.build(name, classes=classes, image_size=(height, width)).eval()
    state = weights if weights is not None else draw_weights(reference, seed, dtype)
    module = AlexNet(variant=name, classes=classes, dtype=DTYPES[dtype], param_dtype=DTYPES[dtype])
    variables = to_flax(reference, state, (height, width), dtype)
    reference.to(TORCH_DTYPES[dtype])
    with torch.no_grad():
        for parameter_name, parameter in reference.named_parameters():
            parameter.copy_(torch.from_numpy(state[parameter_name]))
    return Pair(name, module, variables, reference, dtype, (height, width))


def draw_weights(model: nn.Module, seed: int, dtype: str = "float32") -> dict[str, NDArray]:
    """Weights and biases that make every mistake visible.

    Kernels are uniform over 65,536 levels of He's deviation, so that activations keep their scale through all
    layers and no coarser format (TF32's 10 bits, say) holds the weights exactly; nothing is symmetric, and no bias
    is near zero. In float64 they need all 53 bits: float32 weights would survive a cast to float32 and back.
    """
    rng = np.random.default_rng(seed)
    wide = np.float64 if dtype == "float64" else np.float32
    state = {}
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if name.endswith("bias"):
            value = (rng.uniform(0.1, 0.5, shape) * rng.choice([-1, 1], shape)).astype(wide)
        else:
            fan_in = np.prod(shape[3:] if len(shape) == 6 else shape[1:])
            # Bytes are drawn ten times faster than normals.
            value = np.frombuffer(rng.bytes(2 * int(np.prod(shape))), np.uint16).reshape(shape).astype(wide)
            value -= 32767.5
            value *= wide(np.sqrt(2 / fan_in) * np.sqrt(3) / 32768)
        state[name] = value
    return state


def to_flax(model: nn.Module, state: dict[str, NDArray], image_size: tuple[int, int], dtype: str) -> dict[str, Any]:
    """The reference's state dict as variables of `AlexNet`."""
    variables: dict[str, Any] = {}
    for path, leaf in torch_leaves.leaves(model).items():
        names = [name for name, _ in leaf.named_parameters()]
        if not names:
            continue
        kind = torch_leaves.kind_of(leaf)
        layout = flattened.flattened_map(model, path, image_size) if kind == "dense" else None
        arrays = weights_to_flax(kind, {name: state[f"{path}.{name}"] for name in names}, layout)
        jax_leaves.insert_leaf(variables, path, jax.tree.map(lambda x: placed(x, DTYPES[dtype]), arrays))
    return variables


def load(name: str, path: Path, dtype: str = "float64") -> Pair:
    """Both sides of a network with the weights of a file, which each side reads by itself.

    Raises:
        UserError: the file can't be read, or isn't this network's, by either side.
    """
    path = shipped.located(path, "--weights")
    params, classes = weight_homes.load(path, name)
    content = torch_weights.read(path)
    side = content.image_size or VARIANTS[name].image_size
    with torch.device("meta"):
        own = torch_weights.classes_of(content, alexnet.build(name, image_size=side))
        reference = alexnet.build(name, classes=own, image_size=side)
    state = torch_weights.state_of(content, reference, (side, side))
    pair = build(name, dtype=dtype, classes=own, image_size=side, weights=state)
    variables = {"params": jax.tree.map(lambda x: placed(x, DTYPES[dtype]), params)}
    return replace(pair, flax_module=pair.flax_module.clone(classes=classes), variables=variables)


def images(pair: Pair, batch: int, seed: int = 0) -> NDArray:
    """Random normalised images (batch, 3, height, width), float32, or float64 that no float32 holds for float64.

    Every second image is 128 times brighter: response normalisation with alpha = 1e-4 hardly moves values of unit
    scale, and a wrong constant there would drown in rounding.
    """
    rng = np.random.default_rng([seed, 1])
    wide = np.float64 if pair.dtype == "float64" else np.float32
    values = rng.standard_normal((batch, 3, *pair.image_size), wide)
    values[1::2] *= 128
    return values


def pictures(pair: Pair, folder: Path, batch: int) -> NDArray:
    """Real pictures as the networks see them: the first `batch` of a folder by name, resized, cropped, normalised.

    Returns:
        (batch, 3, height, width) float64.

    Raises:
        UserError: the folder holds too few images.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(paths) < batch:
        raise UserError(f"{folder} holds {len(paths)} images, {batch} are needed: lower --batch or name another folder")
    # Spread over the folder, whose neighbours often show the same thing.
    chosen = [paths[i * len(paths) // batch] for i in range(batch)]
    pixels = np.stack([decoding.resize_exact(decoding.read_rgb(p), pair.image_size) for p in chosen])
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    return ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)


def draw_masks(pair: Pair, batch: int, seed: int) -> dict[str, NDArray]:
    """Dropout masks, True where kept, drawn once for both sides; of the shapes that PyTorch's layers see."""
    rng = np.random.default_rng([seed, 2])
    masks: dict[str, NDArray] = {}
    width = 0
    children = list(pair.torch_module.named_children())
    for i, (name, module) in enumerate(children):
        if isinstance(module, nn.Linear):
            width = module.out_features
        if isinstance(module, Dropout):
            following = next((m for _, m in children[i:] if isinstance(m, nn.Linear)), None)
            masks[name] = rng.random((batch, following.in_features if following else width)) >= module.rate
    return masks


def mask_to_flax(pair: Pair, name: str, mask: NDArray) -> NDArray:
    """A dropout mask as Flax sees it: before the first fully connected layer PyTorch's map is flat, Flax's is not."""
    layout = flattened.dropped_map(pair.torch_module, name, pair.image_size)
    if layout is None or layout.map_shape is None:
        return mask
    channels, *spatial = layout.map_shape
    return layouts.Layout(map_shape=layout.map_shape, shape=(-1, *spatial, channels)).to_flax(mask)


def training_arguments(pair: Pair, masks: dict[str, NDArray]) -> dict[str, Any]:
    """Inject masks into the PyTorch side; returns the arguments that inject them into the Flax call."""
    for name, module in pair.torch_module.named_modules():
        if isinstance(module, Dropout):
            module.mask = torch.from_numpy(masks[name]) if name in masks else None
    ours = {name: placed(mask_to_flax(pair, name, mask)) for name, mask in masks.items()}
    return {"train": True, "dropout_masks": ours}


def with_dropout_rate(pair: Pair, rate: float) -> Pair:
    """The pair with another dropout rate on both sides: at 0.5, dropping and keeping look alike."""
    for module in pair.torch_module.modules():
        if isinstance(module, Dropout):
            module.rate = rate
    return replace(pair, flax_module=pair.flax_module.clone(dropout_rate=rate))


def run_one_side(pair: Pair, images: NDArray, side: str) -> NDArray:
    """Logits of one side alone, in evaluation mode."""
    if side == "torch":
        with torch.no_grad():
            x = torch.from_numpy(images).to(TORCH_DTYPES[pair.dtype])
            return pair.torch_module.eval()(x).double().numpy()
    x = placed(layouts.channels_last(images), DTYPES[pair.dtype])
    # A function of its own each time: JAX would take the trace of another one that compares equal, without the patch.
    return np.asarray(jax.jit(lambda v, x: pair.flax_module.apply(v, x))(pair.variables, x), np.float64)
