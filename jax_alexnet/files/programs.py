"""A trained network as a program that runs without this project: ONNX, or StableHLO as `jax.export` writes it.

ONNX Runtime is imported for ONNX alone.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

import jax_alexnet
from alexnet_io.exports.description import Description
from jax_alexnet.files import onnx_graph
from jax_alexnet.model import AlexNet

# Whose compilers read the program; what each has for itself is left out of it.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
BESIDE = ".json"  # after the whole name of a StableHLO file: what it says of itself

Run = Callable[[np.ndarray], np.ndarray]


def onnx_bytes(model: AlexNet, params: Mapping[str, Mapping[str, Any]], description: Description) -> bytes:
    """The network as an ONNX file; see `onnx_graph`."""
    side, classes = description.facts.image_size, description.classes
    if isinstance(model.variant, str):
        raise TypeError(f"{model.variant} is a name, not a table")
    graph = onnx_graph.graph_of(model.variant, params, side, classes)
    return onnx_graph.to_bytes(graph, side, classes, description.texts(False), jax_alexnet.__version__)


def run_onnx(path: Path) -> Run:
    """The file's logits (n, classes) of images (n, height, width, 3), by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        given = {onnx_graph.IMAGES: np.ascontiguousarray(images.transpose(0, 3, 1, 2))}
        return np.asarray(session.run([onnx_graph.LOGITS], given)[0])

    return run


def stablehlo_bytes(model: AlexNet, params: Mapping[str, Mapping[str, Any]], description: Description) -> bytes:
    """The network with its weights as `jax.export` serialises it: XLA's operations only, batches of any size."""
    side, held = description.facts.image_size, {"params": jax.tree.map(np.asarray, params)}
    (batch,) = export.symbolic_shape("batch")

    def logits(images: jax.Array) -> jax.Array:
        return model.apply(held, images)  # type: ignore[return-value]

    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    return bytes(export.export(jax.jit(logits), platforms=PLATFORMS)(images).serialize())


def run_stablehlo(path: Path) -> Run:
    """The file's logits of images, both as above, by what JAX compiles of it here."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: np.asarray(call(jnp.asarray(images)))


@contextlib.contextmanager
def in_float32() -> Any:
    """Plain float32, whatever the network was trained in: no 64-bit types, no products of fewer bits."""
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        yield
