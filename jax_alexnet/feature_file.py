"""A file of features of pictures: what `python -m jax_alexnet.features` writes."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.command_line import output_file
from alexnet_io.command_line.flags import one_of
from alexnet_io.command_line.picture_settings import PictureSettings
from alexnet_io.command_line.printing import printable
from alexnet_io.data.decoding import read_rgb
from alexnet_io.errors import UserError
from jax_alexnet.loaded import LoadedNetwork, load_run

_BATCH = 32


def write(settings: PictureSettings, layer: str, file: Path, paths: Sequence[Path]) -> int:
    """Write the file; returns the exit code: 1 if a picture could not be read.

    Raises:
        UserError: no network there, none of its layers, or no picture that can be read.
    """
    network = load_run(
        settings.run or settings.weights or Path(),
        checkpoint=settings.checkpoint,
        model=settings.model,
        devices=settings.devices,
        precision=settings.precision,
    )
    one_of("--layer", layer, network.layers)
    kept, features, failed = _features(network, paths, layer)
    if not kept:
        raise UserError("none of the pictures could be read: nothing was written")
    output_file.write("--output", file, _content(settings.images, layer, kept, features))
    print(f"{layer} of {len(kept)} pictures, {' x '.join(map(str, features.shape[1:]))} values each")
    return 1 if failed else 0


def _features(network: LoadedNetwork, paths: Sequence[Path], layer: str) -> tuple[list[Path], np.ndarray, int]:
    """The pictures that could be read, their features, and how many could not, which are named on standard error."""
    kept: list[Path] = []
    found: list[Any] = []
    failed = 0
    for start in range(0, len(paths), _BATCH):
        images = []
        for path in paths[start : start + _BATCH]:
            try:
                images.append(read_rgb(path))
                kept.append(path)
            except UserError as error:
                failed += 1
                print(f"error: {error}", file=sys.stderr)
        if images:
            found.append(network.features(images, layer))
    return kept, np.concatenate(found) if found else np.zeros((0, 0)), failed


def _content(images: Sequence[Path], layer: str, paths: Sequence[Path], features: np.ndarray) -> bytes:
    arrays: dict[str, Any] = {
        "paths": np.array([printable(path) for path in paths]),
        "features": features,
        "layer": np.array(layer),
    }
    classes = _classes(images, paths)
    if classes:
        arrays["classes"] = np.array([printable(name) for name in classes])
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _classes(given: Sequence[Path], paths: Sequence[Path]) -> list[str]:
    """The class of each picture, where all lie in folders of one given folder, and no deeper; else none."""
    if len(given) != 1 or not given[0].is_dir():
        return []
    places = [path.relative_to(given[0]).parts for path in paths]
    return [place[0] for place in places] if all(len(place) == 2 for place in places) else []
