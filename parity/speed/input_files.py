"""Decoding encoded images and filling a cache with them, without a framework, to be timed."""

from __future__ import annotations

import io
import itertools
import tempfile
import time
from pathlib import Path

from PIL import Image

from alexnet_io.data.cache import prepare_images
from alexnet_io.data.decoding import Resizing, prepare
from parity.speed import input_data, processes


class Files:
    """Encoded files: decoded from memory, or into a cache."""

    def __init__(self, source: input_data.Source, stored: int) -> None:
        self.files = input_data.encoded(source)
        self.blobs = [self.files.read(i) for i in range(len(self.files))]
        self.resizing = Resizing(stored, stored, stored)

    def time(self, what: str, images: int, cores: int = 1) -> dict[str, float]:
        """Seconds that so many images take to `decode`, to `prepare` (decode and resize) or to `fill` a cache with."""
        processes.pin(cores)
        if what == "fill":
            return self._fill(images, cores)
        work = {"decode": _decode, "prepare": self._prepare}[what]
        began = time.perf_counter()
        for data in itertools.islice(itertools.cycle(self.blobs), images):
            work(data)
        return {"seconds": time.perf_counter() - began}

    def _prepare(self, data: bytes) -> None:
        prepare(data, "image", self.resizing)

    def _fill(self, images: int, cores: int) -> dict[str, float]:
        files = input_data.repeated(self.files, images)
        with tempfile.TemporaryDirectory(prefix="filling-") as folder:
            began = time.perf_counter()
            prepare_images(files, self.resizing, Path(folder), threads=cores, max_bad=images)
            return {"seconds": time.perf_counter() - began}


def _decode(data: bytes) -> None:
    """Pillow alone, to RGB pixels."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if image.mode != "RGB":
            image.convert("RGB")
