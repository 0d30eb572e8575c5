"""The settings of an evaluation, the same for both frameworks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from alexnet_io.command_line import output_file
from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.flags import setting
from alexnet_io.command_line.network_source import NetworkSource, WhichCheckpoint, network_setting
from alexnet_io.command_line.train_settings import PRECISIONS, DataSettings
from alexnet_io.data.sources.class_names import only_in_one
from alexnet_io.errors import UserError

if TYPE_CHECKING:
    from alexnet_io.data.sources.dataset import DataSet, Split
    from alexnet_io.run.evaluation_report import EvaluationReport

_ARITHMETIC = "arithmetic and devices"
_data = partial(setting, group="data")
SPLITS = ("test", "train", "validation")
# The paper's section 4.1: the four corner patches, the central one, and their horizontal reflections. cuda-convnet's
# multiview test of its 24-pixel CIFAR networks: three rows and three columns of patches, none mirrored.
PROTOCOLS = {
    1: "central crop",
    10: "probabilities averaged over 10 crops: four corners, centre, and their mirror images",
    9: "probabilities averaged over 9 crops: three rows of three, none mirrored",
}


@dataclass(frozen=True)
class MeasuredData(DataSettings):
    """The images that a trained network is measured on: its run's own, if nothing else is said."""

    data: str = _data(
        "",
        "digits, folder:PATH, cifar10, cifar100, imagenet:PATH, tfds:NAME or synthetic",
        metavar="SOURCE",
        unset="the run's own",
    )
    data_dir: Path = _data(
        Path("data"),
        "where data sets lie that were fetched or prepared earlier",
        metavar="DIR",
        unset="the run's own, or data",
    )
    cache_dir: Path | None = _data(
        None,
        "where decoded images are kept; python -m jax_alexnet.cache lists and clears it",
        metavar="DIR",
        unset="the run's own, or the user's cache folder",
    )
    split: str = _data("test", "test, train, or validation of a run that keeps images for it", choices=SPLITS)


@dataclass(frozen=True)
class MeasuringDevices:
    """Where it is measured, and how many images at a time."""

    batch_size: int | None = setting(
        None, "images a step, over all devices; changes the speed only", group=_ARITHMETIC, unset="128", minimum=1
    )
    devices: str = setting("all", "all, a count, or ids such as 0,2", group=_ARITHMETIC, metavar="WHICH")


@dataclass(frozen=True)
class EvaluateSettings(MeasuringDevices, WhichCheckpoint, NetworkSource, MeasuredData):
    """Evaluate a run or an export on the test images of the run's data set, or of another with the same classes."""

    EXAMPLES: ClassVar = (
        ("--run runs/cifar", "the run's best weights on its own test images"),
        ("--run runs/cifar --checkpoint newest --data folder:others", "its newest on others/test/CLASS/*.jpg"),
        ("--run runs/two_column --crops 10", "as the paper reports it, over ten crops of each image"),
        ("--weights w.safetensors --data folder:others --json -", "an export, as JSON to standard output"),
    )

    weights: Path | None = network_setting(
        None,
        "instead of a run: a .safetensors, .npz or .pth file, a folder as export --format hub leaves it, or a name "
        "that python -m jax_alexnet.weights lists; needs --data",
        metavar="FILE|NAME",
    )
    crops: int = setting(
        1,
        "crops of each image: 1 (central), 10 (corners, centre and their mirror images), 9 (cuda-convnet's of its "
        "24-pixel networks)",
        group="data",
        choices=tuple(PROTOCOLS),
        metavar="1|10|9",
    )
    precision: str | None = setting(
        None, ", ".join(PRECISIONS), group=_ARITHMETIC, unset="what it was trained in", choices=PRECISIONS
    )
    json: str | None = setting(
        None,
        "write the figures to this file too, as one JSON object",
        group="reporting",
        metavar="FILE",
        writes="text",
    )


def data_of(saved: CompleteSettings, settings: EvaluateSettings, given: dict) -> CompleteSettings:
    """The run's settings with the data that the command line names."""
    names = ("data", "data_dir", "cache_dir", "holdout", "download")
    if "data" in given:
        saved = replace(saved, holdout=None, validation=None)  # the run's shares were of the run's data
    return replace(saved, **{name: getattr(settings, name) for name in names if name in given})


def check_classes(trained: list[str], found: list[str], data: str) -> None:
    """Refuse a data set whose classes are not those that the network learnt, in the same order."""
    if trained == found:
        return
    differing = only_in_one(trained, found, "the network", "the data") or ["the same names in another order"]
    raise UserError(
        f"{data} has {len(found)} classes and the network {len(trained)}: they must be the same by name; "
        + "; ".join(differing)
    )


def split_of(data: DataSet, name: str) -> Split:
    """The split that `--split` names.

    Raises:
        UserError: no images were kept for validation.
    """
    if name == "validation":
        if data.validation is None:
            raise UserError("--split validation: the run keeps no images for it; choose from: test, train")
        return data.validation
    return data.test if name == "test" else data.train


def write_report(report: EvaluationReport, settings: EvaluateSettings, data: str, weights: str) -> None:
    """Print what was found, with what of and how, and write it where `--json` says."""
    protocol = PROTOCOLS[settings.crops]
    print(f"{settings.split} images of {data}, {protocol}; {weights}")
    print(report.to_text())
    if settings.json is not None:
        found = {**report.to_json(), "split": settings.split, "crops": settings.crops, "protocol": protocol}
        output_file.write_json("--json", settings.json, found)
