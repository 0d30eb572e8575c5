"""What a data set is, told by its content: which training and test images there are, under which names and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_io.data.sources.dataset import DataSet, Split


def fingerprint(data: DataSet) -> dict[str, Any]:
    """Plain facts that are the same for two data sets if and only if they train and test alike.

    Counted in are the classes' names in order, and for each split every image's name, label and content in order.
    Where the data lie, the cache, times of change and the size to which images are brought are not. No pixel is
    read: contents were summed up when the images were decoded, to 32 bits for each.

    Returns:
        {"train": {"examples": int, "digest": str}, "test": {"examples": int, "digest": str}, "classes": int}, and
        "validation" where images are kept for it.
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    found = {name: _of_split(split, data.class_names) for name, split in splits.items() if split is not None}
    return {**found, "classes": len(data.class_names)}


def _of_split(split: Split, class_names: Sequence[str]) -> dict[str, Any]:
    hasher = hashlib.blake2b(digest_size=16)
    if split.contents is None:
        contents = split.fingerprint.encode()
    else:
        contents = np.ascontiguousarray(split.contents, "<u4").tobytes()
    labels = np.ascontiguousarray(split.labels, "<i4").tobytes()
    for part in (_joined(class_names), _joined(split.names), labels, contents):
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return {"examples": len(split), "digest": hasher.hexdigest()}


def _joined(names: Sequence[str]) -> bytes:
    return "\0".join(names).encode("utf-8", "surrogateescape")
