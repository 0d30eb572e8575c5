"""`python -m jax_alexnet.features`: what a layer of a trained network puts out for pictures, in a NumPy file."""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from alexnet_io.command_line import output_file
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.settings import one_of, parse_given, positional, run_command, setting
from alexnet_io.command_line.train_settings import MODELS, PRECISIONS
from alexnet_io.errors import UserError
from jax_alexnet.files.network_source import check_source
from jax_alexnet.predict import pictures

if TYPE_CHECKING:
    import numpy as np

    from jax_alexnet.loaded import LoadedNetwork

PROGRAM = "python -m jax_alexnet.features"
_BATCH = 32
_ARITHMETIC = "arithmetic and devices"
_network = partial(setting, group="the trained network")


@dataclass(frozen=True)
class FeaturesSettings:
    """Write what a layer puts out for each picture: an .npz of paths, features and, for a folder of classes, these."""

    EXAMPLES: ClassVar = (
        ("holiday/ --run runs/two_column --layer relu7 --output holiday.npz", "the paper's features, after fc7's ReLU"),
        ("cats/ dogs/ --weights alexnet.pth --layer fc6 --output pets.npz", "of two folders, by torchvision's weights"),
    )

    images: list[Path] = positional("pictures, or folders of them at any depth", metavar="FILE")
    layer: str = setting("fc7", "whose output; fc7 is the layer itself, relu7 what follows its ReLU", group="what")
    output: Path | None = setting(None, "the .npz file; needed", metavar="FILE", group="where to", writes="binary")
    run: Path | None = _network(None, "the directory that training wrote", metavar="DIR")
    weights: Path | None = _network(
        None, "instead of a run: a .safetensors, .npz or .pth file, such as an export or torchvision's", metavar="FILE"
    )
    model: str | None = _network(
        None, "what --weights is for: " + ", ".join(MODELS), unset="as the file says", choices=MODELS
    )
    checkpoint: str = _network(
        "best", "of a run: best (highest validation or test accuracy) or newest", choices=("best", "newest")
    )
    devices: str = setting("1", "all, a count, or ids such as 0,2", group=_ARITHMETIC, metavar="WHICH")
    precision: str | None = setting(
        None, ", ".join(PRECISIONS), group=_ARITHMETIC, unset="what it was trained in", choices=PRECISIONS
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, and return the exit code: 1 if a picture could not be read."""
    settings, given = parse_given(FeaturesSettings, PROGRAM, arguments)
    check_source(settings.run, settings.weights, given)
    if settings.output is None or not settings.output.name.lower().endswith(".npz"):
        raise UserError("--output FILE is needed, and must end in .npz, such as --output features.npz")
    paths = pictures(settings.images)
    from jax_alexnet.loaded import load_run

    network = load_run(
        settings.run or settings.weights or Path(),
        checkpoint=settings.checkpoint,
        model=settings.model,
        devices=settings.devices,
        precision=settings.precision,
    )
    one_of("--layer", settings.layer, network.layers)
    kept, features, failed = _features(network, paths, settings.layer)
    if not kept:
        raise UserError("none of the pictures could be read: nothing was written")
    output_file.write("--output", settings.output, _content(settings, kept, features))
    print(f"{settings.layer} of {len(kept)} pictures, {' x '.join(map(str, features.shape[1:]))} values each")
    return 1 if failed else 0


def _features(network: "LoadedNetwork", paths: Sequence[Path], layer: str) -> tuple[list[Path], "np.ndarray", int]:
    """The pictures that could be read, their features, and how many could not, which are named on standard error."""
    import numpy as np

    from alexnet_io.data.decoding import read_rgb

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


def _content(settings: FeaturesSettings, paths: Sequence[Path], features: "np.ndarray") -> bytes:
    import numpy as np

    arrays: dict[str, Any] = {
        "paths": np.array([printable(path) for path in paths]),
        "features": features,
        "layer": np.array(settings.layer),
    }
    classes = _classes(settings.images, paths)
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


if __name__ == "__main__":
    run_command(main)
