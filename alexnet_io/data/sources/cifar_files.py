"""The two forms in which CIFAR is given out: pickled batches (what torchvision keeps) and binary records."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet_io.errors import UserError

SIDE = 32
PIXEL_BYTES = 3 * SIDE * SIDE

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Form:
    """One way in which one of the two data sets lies on disk.

    Attributes:
        folder: its name once unpacked, and inside the archive.
        archive: the file it comes in.
        train: the training files, in order.
        test: the test files.
        names: the file with the class names.
        label_key: pickles only: where a batch has its labels.
        names_key: pickles only: where the names file has the names.
        label_bytes: binary only: bytes before the pixels, the last of which is the label.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label_key: bytes = b""
    names_key: bytes = b""
    label_bytes: int = 0

    def class_names(self, read: Read) -> tuple[str, ...]:
        """The class names in the order of their labels."""
        if self.label_bytes:
            return tuple(read(self.names).decode("utf-8").split())
        names = _entry(load_pickle(read(self.names), self.names), self.names_key, self.names)
        return tuple(name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in names)

    def split(self, files: tuple[str, ...], read: Read) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (N, 32, 32, 3) and labels int64 (N,) of `files`, one after the other."""
        parse = self._binary if self.label_bytes else self._pickled
        parts = [parse(read(name), name) for name in files]
        planes = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, SIDE, SIDE)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.concatenate([labels for _, labels in parts])

    def _binary(self, data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
        record = self.label_bytes + PIXEL_BYTES
        if not data or len(data) % record:
            raise UserError(f"{name}: {len(data):,} bytes are not whole records of {record}: truncated? Get it again")
        records = np.frombuffer(data, np.uint8).reshape(-1, record)
        return records[:, self.label_bytes :], records[:, self.label_bytes - 1].astype(np.int64)

    def _pickled(self, data: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
        batch = load_pickle(data, name)
        stored, labels = _entry(batch, b"data", name), _entry(batch, self.label_key, name)
        pixels = stored.array() if isinstance(stored, _StoredArray) else None
        if pixels is None or pixels.shape != (len(labels), PIXEL_BYTES):
            raise UserError(f"{name}: expected one row of {PIXEL_BYTES} bytes for each label. Get it again")
        if not all(type(label) is int and abs(label) < 2**31 for label in labels):
            raise UserError(f"{name}: labels must be whole numbers. Get it again")
        return pixels, np.array(labels, np.int64)


CIFAR10 = (
    Form(
        "cifar-10-batches-py", "cifar-10-python.tar.gz", tuple(f"data_batch_{part}" for part in range(1, 6)),
        ("test_batch",), "batches.meta", label_key=b"labels", names_key=b"label_names",
    ),
    Form(
        "cifar-10-batches-bin", "cifar-10-binary.tar.gz", tuple(f"data_batch_{part}.bin" for part in range(1, 6)),
        ("test_batch.bin",), "batches.meta.txt", label_bytes=1,
    ),
)  # fmt: skip
CIFAR100 = (
    Form(
        "cifar-100-python", "cifar-100-python.tar.gz", ("train",), ("test",), "meta",
        label_key=b"fine_labels", names_key=b"fine_label_names",
    ),
    Form(
        "cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), ("test.bin",), "fine_label_names.txt",
        label_bytes=2,
    ),
)  # fmt: skip


class _StoredArray:
    """A NumPy array as a pickle describes it, without asking NumPy to build it."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray | None:
        """uint8 with the stored shape, or None where it is anything else."""
        try:
            _, shape, kind, fortran, raw = self.state
            raw = raw.encode("latin1") if isinstance(raw, str) else raw
            if kind.code not in ("u1", "|u1", b"u1", "uint8") or fortran:
                return None
            return np.frombuffer(raw, np.uint8).reshape(shape)
        except (TypeError, ValueError, AttributeError):
            return None


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> _StoredArray:
    """How protocol 5 describes an array."""
    stored = _StoredArray()
    stored.state = (1, shape, kind, order == "F", raw)
    return stored


class _StoredType:
    """The type of the elements of such an array."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which bytes do not have."""


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("only latin1 text is expected here")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _StoredArray(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _StoredArray(),
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _StoredArray,
    ("numpy", "dtype"): _StoredType,
    ("_codecs", "encode"): _encode,
}


class _BatchUnpickler(pickle.Unpickler):
    """Builds lists, dicts, numbers and strings, and notes down arrays; whatever else a pickle asks for is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it asks for outside objects")


def load_pickle(data: bytes, name: str) -> Any:
    """Reads a CIFAR batch without running anything that it might contain.

    Raises:
        UserError: it holds something else than plain values and arrays, or is damaged.
    """
    try:
        return _BatchUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # damaged pickles raise nearly anything
        raise UserError(
            f"{name} is not a CIFAR batch, and nothing in it was run: {error or type(error).__name__}. Get it again"
        ) from error


def _entry(batch: Any, key: bytes, name: str) -> Any:
    if isinstance(batch, dict):
        for spelling in (key, key.decode()):
            if spelling in batch and isinstance(batch[spelling], (list, _StoredArray)):
                return batch[spelling]
    raise UserError(f"{name} has no list or array {key.decode()!r}: this is not a CIFAR batch. Get it again")
