"""The settings of `python -m jax_alexnet.reproduce`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from alexnet_io.command_line.settings import setting
from alexnet_io.command_line.train_settings import PRECISIONS, DataSettings
from jax_alexnet.reproduce.experiments import EXPERIMENTS, LIST

PROGRAM = "python -m jax_alexnet.reproduce"
_ARITHMETIC, _HOW_MUCH = "arithmetic and devices", "how much"


@dataclass(frozen=True, kw_only=True)
class ReproduceSettings(DataSettings):
    """Repeat an experiment of the paper and set the published figure beside the one found here."""

    EXAMPLES: ClassVar = (
        (LIST, "every experiment, what it costs, and the published figure"),
        ("relu-vs-tanh --quick", "a look, in a minute or two"),
        ("lrn pooling --data folder:CIFAR10 --seeds 5", "two ablations, five seeds each; the same command goes on"),
        ("neighbours --run runs/cifar", "of a network that is trained already"),
    )

    experiments: list[str] = field(
        metadata={
            "help": f"{LIST}, or any of {', '.join(EXPERIMENTS)}",
            "positional": True,
            "metavar": "EXPERIMENT",
        }
    )
    data: str = setting(
        "cifar10",
        "cifar10, folder:PATH with train/CLASS and test/CLASS, imagenet:PATH, or another source of training's",
        group="data",
        metavar="SOURCE",
    )
    quick: bool = setting(
        False, "a look at how it goes: few steps of one seed, kept apart in OUTPUT/quick", group=_HOW_MUCH
    )
    seeds: int | None = setting(
        None,
        "repetitions, with seeds 0, 1, ...",
        group=_HOW_MUCH,
        unset="3; 1 of the original recipes and the notebook",
        minimum=1,
        maximum=1000,
    )
    epochs: int | None = setting(
        None,
        "passes over the training set, instead of the experiment's own; drops of the learning rate move with the end. "
        "Of relu-vs-tanh: the most that are waited for",
        group=_HOW_MUCH,
        unset="the experiment's own",
        minimum=1,
    )
    learning_rates: list[float] | None = setting(
        None,
        "of relu-vs-tanh: what to try first; where the best is the lowest or highest, others follow",
        group=_HOW_MUCH,
        unset="'[0.002,0.004]'",
        above=0,
    )
    run: Path | None = setting(
        None, "a finished run, of filters, neighbours and ten-crop", metavar="DIR", group="the trained network"
    )
    output: Path = setting(
        Path("reproduction"), "where runs, table, pictures and page lie", metavar="DIR", group="where to"
    )
    devices: str = setting("all", "all, a count, or ids such as 0,2", group=_ARITHMETIC, metavar="WHICH")
    precision: str = setting("float32", ", ".join(PRECISIONS), group=_ARITHMETIC, choices=PRECISIONS)
