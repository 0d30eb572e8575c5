"""The settings of a run's report, the same for both frameworks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

from alexnet_io.command_line.evaluate_settings import SPLITS, EvaluateSettings
from alexnet_io.command_line.flags import setting
from alexnet_io.command_line.train_settings import DataSettings
from alexnet_io.errors import UserError

PAGE = "report.html"
_NETWORK, _ARITHMETIC, _PAGE = "the trained network", "arithmetic and devices", "the page"


_data = partial(setting, group="data")


@dataclass(frozen=True)
class ReportSettings(DataSettings):
    """Write all that is to be seen of a run as one HTML page: a run that has ended, was stopped, or goes on."""

    EXAMPLES: ClassVar = (
        ("runs/cifar", "into runs/cifar/report.html"),
        ("runs/cifar --output cifar.html --data folder:elsewhere", "the run's pictures lie elsewhere now"),
        ("runs/cifar --no-evaluate", "from what the run has written down, at once"),
    )

    runs: list[Path] = field(
        default_factory=list,
        metadata={"help": "the directory that training wrote, one", "positional": True, "metavar": "RUN"},
    )
    output: str | None = setting(
        None, "the page", group=_PAGE, metavar="FILE", unset=f"{PAGE} in the run's directory", writes="text"
    )
    evaluate: bool = setting(
        True, "measure the weights on the pictures, for classes, confusions and mistakes", group=_PAGE
    )
    mistakes: int = setting(12, "wrong guesses that are shown, the surest first", group=_PAGE, minimum=0, maximum=200)
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
        None, "where decoded images are kept", metavar="DIR", unset="the run's own, or the user's cache folder"
    )
    split: str = _data("test", "test, train, or validation of a run that keeps images for it", choices=SPLITS)
    checkpoint: str = setting(
        "best",
        "best (highest validation or test accuracy) or newest",
        group=_NETWORK,
        choices=("best", "newest"),
    )
    batch_size: int | None = setting(
        None, "images a step, over all devices; changes the speed only", group=_ARITHMETIC, unset="128", minimum=1
    )
    devices: str = setting("all", "all, a count, or ids such as 0,2", group=_ARITHMETIC, metavar="WHICH")

    def __post_init__(self) -> None:
        if len(self.runs) > 1:
            raise UserError(f"one run has one page, and {len(self.runs)} were named: call it once for each")

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self.runs[0]

    @property
    def page(self) -> str:
        """Where the page goes."""
        return self.output if self.output is not None else str(self.run / PAGE)

    @property
    def evaluation(self) -> EvaluateSettings:
        """Of the evaluation that the page shows."""
        return EvaluateSettings(
            run=self.run,
            split=self.split,
            checkpoint=self.checkpoint,
            batch_size=self.batch_size,
            devices=self.devices,
            data=self.data,
            data_dir=self.data_dir,
            cache_dir=self.cache_dir,
            holdout=self.holdout,
            download=self.download,
        )
