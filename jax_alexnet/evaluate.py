"""`python -m jax_alexnet.evaluate`: count every example of a data set once and say how well a run does."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from alexnet_io.errors import UserError
from alexnet_io.settings import parse_given, run_command, setting
from alexnet_io.sources.class_names import only_in_one
from alexnet_io.train_settings import PRECISIONS, DataSettings, TrainSettings

PROGRAM = "python -m jax_alexnet.evaluate"


@dataclass(frozen=True)
class EvaluateSettings(DataSettings):
    """Evaluate a run on the test images of its own data set or of another with the same classes."""

    run: Path | None = setting(None, "the directory that training wrote")
    split: str = setting("test", "test or train", choices=("test", "train"))
    checkpoint: str = setting("best", "best (highest test accuracy) or newest", choices=("best", "newest"))
    batch_size: int | None = setting(None, "images a step, over all devices; changes the speed only", minimum=1)
    devices: str = setting("all", "all, a count, or ids such as 0,2")
    precision: str | None = setting(None, "arithmetic instead of the run's own", choices=PRECISIONS)
    json: Path | None = setting(None, "also write the figures to this file, as one JSON object")


def main() -> int:
    """Evaluate, print the report, and return the exit code."""
    settings, given = parse_given(EvaluateSettings, PROGRAM)
    if settings.run is None:
        raise UserError("--run is missing: pass --run DIR, the directory that training wrote (its --output)")
    from jax_alexnet.runs import saved_settings

    wanted = _data_of(saved_settings(settings.run), settings, given)
    from alexnet_io.memory import refuse_what_cannot_fit
    from alexnet_io.sources import open_for
    from jax_alexnet.devices import choose_devices, set_precision
    from jax_alexnet.evaluation import evaluate_split
    from jax_alexnet.recipes import choose_variant
    from jax_alexnet.runs import load_run
    from jax_alexnet.step_memory import step_memory

    precision, devices = settings.precision or wanted.precision, choose_devices(settings.devices)
    set_precision(precision)
    if settings.batch_size and wanted.image_size and wanted.stored_size:
        step = step_memory(choose_variant(wanted), wanted.image_size, precision, devices, training=False)
        refuse_what_cannot_fit(settings.batch_size, wanted.stored_size, step)
    network = load_run(settings.run, which=settings.checkpoint, devices=devices, precision=settings.precision)
    data = open_for(wanted, measuring=settings.split == "test")
    check_classes(network.class_names, list(data.class_names), wanted.data)
    split = data.test if settings.split == "test" else data.train
    report = evaluate_split(network.for_inference(), split, settings.batch_size)
    print(f"{settings.split} images of {wanted.data}, central crop; {settings.checkpoint} weights, step {network.step}")
    print(report.to_text())
    if settings.json is not None:
        write_json(settings.json, report.to_json())
    return 0


def _data_of(saved: TrainSettings, settings: EvaluateSettings, given: dict) -> TrainSettings:
    """The run's settings with the data that the command line names."""
    names = ("data", "data_dir", "cache_dir", "holdout", "download")
    if "data" in given:
        saved = replace(saved, holdout=None)  # the run's share was of the run's data
    return replace(saved, **{name: getattr(settings, name) for name in names if name in given})


def check_classes(trained: list[str], found: list[str], data: str) -> None:
    """Refuse a data set whose classes are not those that the run learnt, in the same order."""
    if trained == found:
        return
    differing = only_in_one(trained, found, "the run", "the data") or ["the same names in another order"]
    raise UserError(
        f"{data} has {len(found)} classes and the run {len(trained)}: they must be the same by name; "
        + "; ".join(differing)
    )


def write_json(path: Path, value: dict) -> None:
    """Write one JSON object, naming the path if that fails."""
    try:
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path} can't be written: {error.strerror}; choose another file") from None


if __name__ == "__main__":
    run_command(main)
