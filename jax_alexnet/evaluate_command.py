"""A trained network measured on a split of a data set: what `python -m jax_alexnet.evaluate` does."""

from dataclasses import replace
from typing import Any

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.evaluate_settings import EvaluateSettings, check_classes, data_of, split_of, write_report
from alexnet_io.command_line.printing import printable
from alexnet_io.data.memory import refuse_what_cannot_fit
from alexnet_io.data.sources import open_for
from alexnet_io.run.crops import views
from alexnet_io.run.evaluation_report import EvaluationReport
from alexnet_io.run.mistakes import Observer
from jax_alexnet.evaluation import evaluate_split
from jax_alexnet.files.exported import open_asked, with_names
from jax_alexnet.files.finished_run import TrainedNetwork
from jax_alexnet.recipes import choose_variant
from jax_alexnet.step_memory import step_memory


def evaluate_command(settings: EvaluateSettings, given: dict[str, Any]) -> None:
    """Measure, print the report, and write it where `--json` says.

    Args:
        settings: the command's.
        given: those that the command line has, by name.

    Raises:
        UserError: no network there, other data than its own, or no memory for such batches.
    """
    network = open_asked(settings)
    wanted = data_of(network.settings, settings, given)
    report = measured(network, wanted, settings)
    what = printable(settings.weights) if settings.weights else f"{network.which} weights, step {network.step}"
    write_report(report, settings, wanted.data, what)


def measured(
    network: TrainedNetwork, wanted: CompleteSettings, settings: EvaluateSettings, observe: Observer | None = None
) -> EvaluationReport:
    """How well a network does.

    Args:
        network: with its weights.
        wanted: which decide the data.
        settings: which decide split, crops and batches.
        observe: see `evaluate_split`.

    Raises:
        UserError: crops that the network hasn't, a batch that can't fit, data of other classes or without the split.
    """
    chosen = views(settings.crops, wanted)
    if settings.batch_size:
        precision, devices = settings.precision or wanted.precision, list(network.mesh.devices.flat)
        step = step_memory(choose_variant(wanted), wanted.image_size, precision, devices, training=False)
        refuse_what_cannot_fit(settings.batch_size, wanted.stored_size, step)
    data = open_for(wanted, measuring=settings.split == "test")
    found = list(data.class_names)
    if not network.class_names and network.model.classes == len(found):
        network = replace(network, class_names=found)  # another program's weights: classes by their places
    check_classes(with_names(network, None).class_names, found, wanted.data)
    split = split_of(data, settings.split)
    return evaluate_split(network.for_inference(), split, settings.batch_size, chosen, wanted.image_size, observe)
