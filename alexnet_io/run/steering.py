"""Which images steer a run: its schedule, where that is a plateau, and the choice of its best weights."""

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.sources.dataset import DataSet


def split_of(settings: TrainSettings) -> str:
    """The split on which they act: `validation`, or `test` where no images are kept for it."""
    return "test" if settings.validation is None else "validation"


def counts(data: DataSet) -> str:
    """How many images a run has, in words."""
    validation = f"{len(data.validation):,} validation and " if data.validation else ""
    return f"{len(data.train):,} training{', ' if validation else ' and '}{validation}{len(data.test):,} test images"


def note(settings: TrainSettings) -> str:
    """What is to be said of it before a run's first step."""
    steered = "the best weights are chosen"
    if settings.schedule == "plateau":
        steered += " and the learning rate is lowered"
    if settings.patience is not None:
        steered += " and the end of the run is decided"
    if settings.validation is None:
        return f"no --validation: {steered} by the test images, so figures on these flatter the run"
    return f"{steered} by the validation images; the test images are evaluated once, at the end"
