"""`python -m jax_alexnet.evaluate`: count every example of a data set once and say how well a run does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from alexnet_io.command_line import output_file
from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.settings import parse_given, run_command, setting
from alexnet_io.command_line.train_settings import MODELS, PRECISIONS, DataSettings
from alexnet_io.data.sources.class_names import only_in_one
from alexnet_io.errors import UserError
from jax_alexnet.files.network_source import check_source

PROGRAM = "python -m jax_alexnet.evaluate"
_NETWORK, _ARITHMETIC = "the trained network", "arithmetic and devices"


@dataclass(frozen=True)
class EvaluateSettings(DataSettings):
    """Evaluate a run or an export on the test images of the run's data set, or of another with the same classes."""

    EXAMPLES: ClassVar = (
        ("--run runs/cifar", "the run's best weights on its own test images"),
        ("--run runs/cifar --checkpoint newest --data folder:others", "its newest on others/test/CLASS/*.jpg"),
        ("--weights w.safetensors --data folder:others --json -", "an export, as JSON to standard output"),
    )

    data: str = setting(
        "",
        "digits, folder:PATH, cifar10, cifar100, imagenet:PATH, tfds:NAME or synthetic",
        group="data",
        metavar="SOURCE",
        unset="the run's own",
    )
    data_dir: Path = setting(
        Path("data"),
        "where data sets lie that were fetched or prepared earlier",
        group="data",
        metavar="DIR",
        unset="the run's own, or data",
    )
    cache_dir: Path | None = setting(
        None,
        "where decoded images are kept; python -m jax_alexnet.cache lists and clears it",
        group="data",
        metavar="DIR",
        unset="the run's own, or the user's cache folder",
    )
    run: Path | None = setting(None, "the directory that training wrote", group=_NETWORK, metavar="DIR")
    weights: Path | None = setting(
        None, "instead of a run: a .safetensors or .pth file; needs --data", group=_NETWORK, metavar="FILE"
    )
    model: str | None = setting(
        None, "what --weights is for: " + ", ".join(MODELS), group=_NETWORK, unset="as the file says", choices=MODELS
    )
    split: str = setting("test", "test or train", group="data", choices=("test", "train"))
    checkpoint: str = setting(
        "best", "of a run: best (highest test accuracy) or newest", group=_NETWORK, choices=("best", "newest")
    )
    batch_size: int | None = setting(
        None, "images a step, over all devices; changes the speed only", group=_ARITHMETIC, unset="128", minimum=1
    )
    devices: str = setting("all", "all, a count, or ids such as 0,2", group=_ARITHMETIC, metavar="WHICH")
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, print the report, and return the exit code."""
    settings, given = parse_given(EvaluateSettings, PROGRAM, arguments)
    check_source(settings.run, settings.weights, given)
    if settings.weights is not None and "data" not in given:
        raise UserError("--weights needs --data SOURCE, such as --data folder:PATH: the file has no pictures")
    with output_file.others_on_standard_error(settings.json):
        _evaluate(settings, given)
    return 0


def _evaluate(settings: EvaluateSettings, given: dict[str, Any]) -> None:
    from alexnet_io.data.memory import refuse_what_cannot_fit
    from alexnet_io.data.sources import open_for
    from jax_alexnet.evaluation import evaluate_split
    from jax_alexnet.files.exported import open_network, with_names
    from jax_alexnet.recipes import choose_variant
    from jax_alexnet.step_memory import step_memory

    network = open_network(
        settings.run,
        settings.weights,
        model=settings.model,
        checkpoint=settings.checkpoint,
        devices=settings.devices,
        precision=settings.precision,
    )
    wanted = _data_of(network.settings, settings, given)
    if settings.batch_size:
        precision, devices = settings.precision or wanted.precision, list(network.mesh.devices.flat)
        step = step_memory(choose_variant(wanted), wanted.image_size, precision, devices, training=False)
        refuse_what_cannot_fit(settings.batch_size, wanted.stored_size, step)
    data = open_for(wanted, measuring=settings.split == "test")
    found = list(data.class_names)
    if not network.class_names and network.model.classes == len(found):
        network = replace(network, class_names=found)  # another program's weights: classes by their places
    check_classes(with_names(network, None).class_names, found, wanted.data)
    split = data.test if settings.split == "test" else data.train
    report = evaluate_split(network.for_inference(), split, settings.batch_size)
    what = printable(settings.weights) if settings.weights else f"{network.which} weights, step {network.step}"
    print(f"{settings.split} images of {wanted.data}, central crop; {what}")
    print(report.to_text())
    if settings.json is not None:
        output_file.write_json("--json", settings.json, report.to_json())


def _data_of(saved: CompleteSettings, settings: EvaluateSettings, given: dict) -> CompleteSettings:
    """The run's settings with the data that the command line names."""
    names = ("data", "data_dir", "cache_dir", "holdout", "download")
    if "data" in given:
        saved = replace(saved, holdout=None)  # the run's share was of the run's data
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


if __name__ == "__main__":
    run_command(main)
