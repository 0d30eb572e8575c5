"""Tensors on their way from one framework to the other: one .npy file for each, plain facts of a record in JSON.

Because every layer's activations go to the disk at once and are read back one layer at a time, neither side
holds more than two layers' activations, and either side may be another process or another virtual environment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import CannotCompare

SCHEMA = "parity-capture/2"
# Before the keys of what PyTorch gives where it keeps to the formulas of functions that it computes otherwise.
EXACT = "exact-"


def write_npz(file: Path | IO[bytes], arrays: Mapping[str, NDArray]) -> None:
    """Write named arrays into one .npz file."""
    np.savez(file, **arrays)  # type: ignore[arg-type]


class Store:
    """A directory of records, each a set of named arrays and a dictionary of facts.

    Attributes:
        directory: where the files are; created if missing.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def put(self, key: str, arrays: dict[str, NDArray], **facts: Any) -> None:
        """Write one record, replacing any of that key.

        Args:
            key: a file name without extension.
            arrays: float, int or bool arrays; bfloat16 must be given as float32, which holds it exactly.
            facts: anything that JSON can hold.
        """
        for number, array in enumerate(arrays.values()):
            np.save(self._array(key, number), np.asarray(array, order="C"), allow_pickle=False)
        content = {"schema": SCHEMA, "arrays": list(arrays), "facts": facts}
        self._facts(key).write_text(json.dumps(content), encoding="utf-8")

    def facts(self, key: str) -> dict[str, Any]:
        """The facts of a record.

        Raises:
            CannotCompare: the record is missing, or another version of this program wrote it.
        """
        return self._content(key)["facts"]

    def exists(self, key: str) -> bool:
        """Whether there is a record of that key."""
        return self._facts(key).exists()

    def has(self, key: str, name: str) -> bool:
        """Whether the record holds an array of that name."""
        return name in self.names(key)

    def array(self, key: str, name: str) -> NDArray:
        """One array of a record, read alone."""
        return np.load(self._array(key, self._content(key)["arrays"].index(name)), allow_pickle=False)

    def names(self, key: str) -> list[str]:
        """Names of a record's arrays; none if there is no such record."""
        return sorted(self._content(key)["arrays"]) if self.exists(key) else []

    def arrays(self, key: str, prefix: str) -> dict[str, NDArray]:
        """The arrays whose names start with `prefix`, by the rest of their names."""
        return {n.removeprefix(prefix): self.array(key, n) for n in self.names(key) if n.startswith(prefix)}

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Keys of all records that start with `prefix`, in order."""
        yield from sorted(p.stem for p in self.directory.glob(f"{prefix}*.json"))

    def _content(self, key: str) -> dict[str, Any]:
        try:
            content = json.loads(self._facts(key).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CannotCompare(
                f"{self.directory} holds no capture {key!r} ({error}); capture the reference first"
            ) from error
        if content.get("schema") != SCHEMA:
            raise CannotCompare(
                f"{self._facts(key)} has schema {content.get('schema')!r}, this program reads {SCHEMA!r}"
            )
        return content

    def _array(self, key: str, number: int) -> Path:
        return self.directory / f"{key}.{number}.npy"

    def _facts(self, key: str) -> Path:
        return self.directory / f"{key}.json"
