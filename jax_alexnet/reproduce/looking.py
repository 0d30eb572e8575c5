"""What a trained network has learnt: filters (figure 3), neighbours in its last hidden layer (figure 4), crops."""

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_io.command_line.evaluate_settings import check_classes, data_of
from alexnet_io.command_line.printing import printable
from alexnet_io.data.sources import DataSet, Split, open_for
from alexnet_io.errors import UserError
from alexnet_io.run.crops import OF_NINE
from alexnet_io.run.plots import draw_filters
from alexnet_io.run.progress import now_and_then
from jax_alexnet.layer_specs import Dense, Dropout, Variant
from jax_alexnet.loaded import LoadedNetwork, load_run
from jax_alexnet.recipes import choose_variant
from jax_alexnet.reproduce import pictures
from jax_alexnet.reproduce.results import Result
from jax_alexnet.reproduce.running import Runner
from jax_alexnet.variants import columns_of

QUERIES, NEIGHBOURS, TOP = 8, 6, 5
QUICK_IMAGES = 2000
_AT_ONCE = 512
# The paper's errors in per cent, ILSVRC-2010: one crop and ten; section 6.1 and its footnote.
PUBLISHED_CROPS = {1: (39.0, 18.3), 10: (37.5, 17.0)}


def _run(runner: Runner, name: str) -> Path:
    """The run that `--run` names.

    Raises:
        UserError: none is named.
    """
    if runner.settings.run is None:
        found = sorted(path.parent for path in (runner.folder / "runs").glob("*/*/*/run.json"))
        there = f", such as {printable(found[0])}" if found else ": python -m jax_alexnet.train makes one"
        raise UserError(
            f"{name} looks at a run that is there: pass --run DIR, the directory that training wrote{there}"
        )
    return runner.settings.run


def _network(runner: Runner, name: str) -> tuple[Path, LoadedNetwork]:
    run = _run(runner, name)
    return run, load_run(run, devices=runner.settings.devices)


def _picture(name: str, run: Path) -> str:
    """A file's name for a picture of a run: as much of its path as is of use, and what tells it from all others."""
    place = run.expanduser().resolve()
    words = "-".join(place.parts[-2:])
    shown = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in words)[-80:]
    return f"{name}-{shown}-{zlib.crc32(os.fsencode(place)):08x}.png"


# --- figure 3 ---------------------------------------------------------------------------------------------


def perform_filters(runner: Runner, folder: Path) -> Result:
    """The first layer's kernels as pictures, one column's above the other's, and how coloured they are."""
    run, network = _network(runner, "filters")
    kernel = np.asarray(network.variables["params"]["conv1"]["kernel"], np.float64)
    columns = columns_of(choose_variant(network.settings))
    picture = _picture("filters", run)
    draw_filters(kernel, folder / picture, columns=columns)
    shares = [colour_shares(part) for part in np.split(kernel, columns, axis=3)]
    rows = [
        [
            f"column {number}" if columns > 1 else "all",
            str(len(part)),
            f"{part.mean():.2f}",
            f"{(part > 0.5).mean():.0%}",
        ]
        for number, part in enumerate(shares, start=1)
    ]
    told = " and ".join(f"{part.mean():.2f}" for part in shares)
    return Result(
        "filters",
        printable(run),
        f"{kernel.shape[3]} kernels of {kernel.shape[0]}x{kernel.shape[1]}; share that is colour: {told}",
        1,
        ["", "kernels", "mean share of a kernel's power that is colour", "kernels that are mostly colour"],
        rows,
        ["colour is what remains of a kernel once the mean of red, green and blue is taken from each tap"],
        [picture],
        {"colour_shares": [part.tolist() for part in shares]},
        runner.about(),
    )


def colour_shares(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each kernel (height, width, 3, kernels), the share of its power that differs between red, green and blue."""
    colour = kernel - kernel.mean(axis=2, keepdims=True)
    power = (kernel**2).sum(axis=(0, 1, 2))
    return np.divide((colour**2).sum(axis=(0, 1, 2)), power, out=np.zeros_like(power), where=power > 0)


# --- figure 4 ---------------------------------------------------------------------------------------------


@dataclass
class Nearest:
    """The training images nearest to each query so far: squared distances, rising, and places."""

    distances: NDArray[np.float64]
    places: NDArray[np.int64]

    @classmethod
    def none(cls, queries: int, count: int) -> "Nearest":
        """Before the first training image."""
        return cls(np.full((queries, count), np.inf), np.full((queries, count), -1))

    def add(self, queries: NDArray[Any], features: NDArray[Any], first: int) -> None:
        """Count more training images in.

        Args:
            queries: (queries, units).
            features: (images, units) of training images.
            first: place of the first of them.
        """
        found = np.stack([((features.astype(np.float64) - query) ** 2).sum(axis=1) for query in queries])
        distances = np.concatenate([self.distances, found], axis=1)
        places = np.broadcast_to(np.arange(first, first + len(features)), found.shape)
        order = np.argsort(distances, axis=1, kind="stable")[:, : self.distances.shape[1]]
        self.distances = np.take_along_axis(distances, order, axis=1)
        self.places = np.take_along_axis(np.concatenate([self.places, places], axis=1), order, axis=1)


def perform_neighbours(runner: Runner, folder: Path) -> Result:
    """Test images with their likeliest classes, and the training images nearest by the last hidden layer."""
    run, network = _network(runner, "neighbours")
    data = _data(runner, network)
    layer = last_hidden(choose_variant(network.settings))
    queries = of_all_classes(data.test.labels, QUERIES)
    images = data.test.read(queries)
    wanted = _flat(network.features(list(images), layer)).astype(np.float64)
    nearest = Nearest.none(len(queries), min(NEIGHBOURS, len(data.train)))
    for first, features in _training_features(runner, network, data.train, layer):
        nearest.add(wanted, features, first)
    picture, names = _picture("neighbours", run), data.class_names
    truth, near = data.test.labels[queries], data.train.labels[nearest.places]
    top = network.predict(list(images), TOP)
    pictures.draw_neighbours(
        folder / picture,
        [
            pictures.Query(images[i], names[truth[i]], top[i], list(data.train.read(nearest.places[i])), same)
            for i, same in enumerate((near == truth[:, None]).tolist())
        ],
    )
    share = float((near == truth[:, None]).mean())
    chance = float(np.mean([(data.train.labels == label).mean() for label in truth]))
    rows = [
        [names[truth[i]], top[i][0][0], f"{top[i][0][1]:.1%}", ", ".join(names[label] for label in near[i])]
        for i in range(len(queries))
    ]
    count = _searched(runner, data.train)
    return Result(
        "neighbours",
        printable(run),
        f"{share:.0%} of the {near.shape[1]} nearest show the same class (by chance {chance:.0%})",
        len(queries),
        ["test image of", "taken for", "with", "the nearest training images are of"],
        rows,
        [f"Euclidean distance of {layer}, {wanted.shape[1]:,} values, among {count:,} training images"],
        [picture],
        {"share_of_same_class": share, "by_chance": chance, "places": nearest.places.tolist()},
        runner.about(),
    )


def last_hidden(variant: Variant) -> str:
    """The layer whose output the last one turns into logits; what dropout leaves alone in evaluation is passed over."""
    rows = [row for row in variant.layers if not isinstance(row, Dropout)]
    if not isinstance(rows[-1], Dense):
        raise TypeError(f"{variant.name} doesn't end in a fully connected layer")
    return rows[-2].name


def of_all_classes(labels: NDArray[Any], wanted: int) -> NDArray[np.int64]:
    """Places of `wanted` images, or of all where there are fewer, from as many classes as there can be; rising."""
    count = min(wanted, len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.arange(count) * len(labels) // count])


def _data(runner: Runner, network: LoadedNetwork) -> DataSet:
    saved = network.settings
    wanted = data_of(saved, runner.settings, runner.given)  # pyright: ignore[reportArgumentType]
    data = open_for(wanted)
    check_classes(network.class_names, list(data.class_names), wanted.data)
    return data


def _searched(runner: Runner, train: Split) -> int:
    return min(QUICK_IMAGES, len(train)) if runner.settings.quick else len(train)


def _training_features(
    runner: Runner, network: LoadedNetwork, train: Split, layer: str
) -> Iterator[tuple[int, NDArray[Any]]]:
    """The place of the first of some training images, and their features (images, units), until all were seen."""
    progress, count = now_and_then(), _searched(runner, train)
    chosen = of_all_classes(train.labels, count)
    for start in range(0, count, _AT_ONCE):
        places = chosen[start : start + _AT_ONCE]
        features = _flat(network.features(list(train.read(places)), layer))
        progress(start + len(places), count, f"features of training images ({layer})")
        if len(chosen) == len(train):
            yield start, features
        else:
            for place, each in zip(places, features, strict=True):
                yield int(place), each[None]


def _flat(features: NDArray[Any]) -> NDArray[Any]:
    return features.reshape(len(features), -1)


# --- crops ------------------------------------------------------------------------------------------------


def perform_crops(runner: Runner, folder: Path) -> Result:
    """Errors on one crop and on the paper's ten, or for cuda-convnet's 24-pixel networks its nine."""
    run = _run(runner, "ten-crop")
    network = load_run(run, devices=runner.settings.devices)
    several = 9 if network.settings.model in OF_NINE else 10
    if network.settings.stored_size == network.settings.image_size:
        raise UserError(
            f"ten-crop: the network of {printable(run)} sees its images whole, {network.settings.image_size} pixels of "
            f"{network.settings.stored_size}, and there is nothing to crop: pass a run that was trained with --crop"
        )
    reports = {crops: runner.evaluate(run, crops, "best") for crops in (1, several)}
    errors = {crops: [100 * (1 - report[name]) for name in ("top1", "top5")] for crops, report in reports.items()}
    gain = [one - many for one, many in zip(errors[1], errors[several], strict=True)]
    rows = [
        [
            f"{crops} crop{'s' if crops > 1 else ''}",
            *(f"{error:.2f}" for error in both),
            f"{reports[crops]['loss']:.4f}",
            "{}/{}".format(*PUBLISHED_CROPS[crops]) if crops in PUBLISHED_CROPS else "",
        ]
        for crops, both in errors.items()
    ]
    picture = _picture("crops", run)
    pictures.draw_crops(folder / picture, errors)
    return Result(
        "ten-crop",
        printable(run),
        f"{errors[1][0]:.2f}% on one, {errors[several][0]:.2f}% on {several}: {gain[0]:+.2f} points lower",
        1,
        ["", "test error %", "top-5 error %", "loss", "published, ImageNet 2010"],
        rows,
        [f"best weights; {reports[several]['examples']:,} test images; {reports[several]['protocol']}"],
        [picture],
        {"errors": {str(crops): both for crops, both in errors.items()}},
        runner.about(),
    )
