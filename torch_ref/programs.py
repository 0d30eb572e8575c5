"""A network of the reference as a program that runs without this project: ONNX, or what `torch.export` saves.

ONNX Runtime is imported for ONNX alone.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torch_ref.network import Network

IMAGES, LOGITS = "images", "logits"
OPSET = 18

Run = Callable[[np.ndarray], np.ndarray]  # logits (n, classes) of images (n, 3, height, width)


def onnx_bytes(network: Network, images: np.ndarray, texts: Mapping[str, str]) -> bytes:
    """The network as an ONNX file, batches of any size.

    Args:
        network: on a CPU.
        images: some that it takes, float32 (n, 3, height, width).
        texts: the file's metadata.
    """
    with _as_tracing_wants_it():
        program: Any = torch.onnx.export(
            network.float().eval(),
            (torch.from_numpy(images),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[IMAGES],
            output_names=[LOGITS],
            dynamic_shapes=_any_batch(),
            verbose=False,
        )
    model = program.model_proto
    for name, text in texts.items():
        model.metadata_props.add(key=name, value=text)
    return model.SerializeToString()


def run_onnx(path: Path) -> Run:
    """The file run by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run([LOGITS], {IMAGES: images})[0])


def pt2_bytes(network: Network, images: np.ndarray, texts: Mapping[str, str]) -> bytes:
    """The network as `torch.export.save` writes it, batches of any size; the texts are its `extra_files`."""
    file = io.BytesIO()
    with _as_tracing_wants_it():
        given = (torch.from_numpy(images),)
        program = torch.export.export(network.float().eval(), given, dynamic_shapes=_any_batch(), strict=False)
        torch.export.save(program, file, extra_files=dict(texts))
    return file.getvalue()


def run_pt2(path: Path) -> Run:
    """The file run by PyTorch."""
    with open(path, "rb") as file:
        module = torch.export.load(io.BytesIO(file.read())).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images)).numpy()

    return run


def _any_batch() -> dict[str, dict[int, Any]]:
    return {IMAGES: {0: torch.export.Dim("batch")}}


@contextlib.contextmanager
def _as_tracing_wants_it() -> Iterator[None]:
    """Settings of GPUs' convolutions as PyTorch begins with them, and its exporters' warnings about themselves unheard.

    `torch.export` asks for the rounding of products in the old way, and PyTorch refuses to answer where it was set in
    the new one, as `processes.set_precision` does. What is traced here runs on a CPU, and the program has no such
    setting.
    """
    convolutions: Any = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    before, convolutions.fp32_precision = convolutions.fp32_precision, torch.backends.cudnn.rnn.fp32_precision  # pyright: ignore
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        convolutions.fp32_precision = before
