"""What a file of the zoo says about its port, and how the two are compared."""

from __future__ import annotations

import contextlib
import importlib
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import numpy as np
import torch
from jax.experimental.compilation_cache import compilation_cache
from numpy.typing import NDArray
from torch import nn

import parity
from parity.reports.report import Report

Arrays = tuple[NDArray, ...]

MODELS = (
    "mlp",
    "convnet",
    "mobile",
    "resnet",
    "batch_statistics",
    "group_norms",
    "squeeze",
    "unet",
    "upsampling",
    "volume",
    "wavenet",
    "convnext",
    "autoencoder",
    "siamese",
    "recommender",
    "experts",
    "mixer",
    "vit",
    "swin",
    "gpt",
    "llama",
    "encoder_decoder",
    "lstm",
    "gru",
    "tree",
)


@dataclass(frozen=True)
class Port:
    """A PyTorch model and its port.

    Attributes:
        original: makes the PyTorch model.
        ported: makes the JAX model: a module of nnx or Linen, or a function of a tree of parameters and the inputs.
        inputs: PyTorch's, drawn.
        flax_inputs: JAX's from PyTorch's, where they aren't the same with channels moved last.
        converted: the JAX model's variables from PyTorch's state dict; None to let `parity` move the weights.
        mapping: pairs of layers that names don't tell.
    """

    original: Callable[[], nn.Module]
    ported: Callable[[], Any]
    inputs: Callable[[np.random.Generator], Arrays]
    flax_inputs: Callable[[Arrays], Arrays] | None = None
    converted: Callable[[dict[str, NDArray]], Any] | None = None
    mapping: dict[str, str] | None = None


@contextlib.contextmanager
def programs_kept() -> Iterator[None]:
    """JAX in float64, and compiled programs used again: comparisons of a model differ by no more than a bug.

    JAX's own cache, in a directory that goes with the end.
    """
    changed = {
        "jax_enable_x64": True,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in (*changed, "jax_compilation_cache_dir")}
    with tempfile.TemporaryDirectory(prefix="zoo-") as directory:
        for name, value in {**changed, "jax_compilation_cache_dir": directory}.items():
            jax.config.update(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def port(name: str) -> Port:
    """The port that the file of this name describes."""
    return importlib.import_module(f"examples.zoo.models.{name}").PORT


def compare(name: str, *, seed: int = 0, planted: ModuleType | None = None, **settings: Any) -> Report:
    """`parity.compare` on a model of the zoo, in float64, forward and backward.

    Args:
        name: of its file.
        seed: of weights and inputs.
        planted: the same file with a bug in its port; None for the port as it is.
        settings: more of `parity.compare`.
    """
    right = port(name)
    wrong: Port = right if planted is None else planted.PORT
    torch.manual_seed(seed)
    original = drawn(right.original(), seed)
    inputs = right.inputs(np.random.default_rng(seed))
    state = {key: value.numpy() for key, value in original.state_dict().items()}
    return parity.compare(
        wrong.ported(),
        original,
        inputs,
        variables=None if wrong.converted is None else wrong.converted(state),
        flax_inputs=None if wrong.flax_inputs is None else wrong.flax_inputs(inputs),
        mapping=right.mapping,
        name=name,
        seed=seed,
        **settings,
    )


def drawn(model: nn.Module, seed: int) -> nn.Module:
    """The model in float64, moved away from where initialisation leaves it.

    There a scale left out is one, a bias left out zero, and running statistics are those of nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var"):
                tensor.mul_(torch.exp(0.3 * noise))
            elif tensor.ndim > 1:
                tensor.add_(noise / math.sqrt(tensor[0].numel()) / 4)
            else:
                tensor.add_(noise / 4)
    return model.eval()
