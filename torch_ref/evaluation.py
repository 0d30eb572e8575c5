"""What `python -m torch_ref.evaluate` does: a trained network of this side read back and measured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.evaluate_settings import EvaluateSettings, check_classes, data_of, split_of
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.resumed_settings import resumed
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.sources import DataSet, open_for
from alexnet_io.errors import UserError
from alexnet_io.run import statistics_file
from alexnet_io.run.crops import views
from alexnet_io.run.directory import CHECKPOINTS
from alexnet_io.run.evaluation import EvaluationReport
from alexnet_io.run.mistakes import Observer
from alexnet_io.run.run_description import read_description
from torch_ref import augment, checkpoint, weight_file
from torch_ref.alexnet import build
from torch_ref.network import Network
from torch_ref.processes import Processes, choose_device, set_precision
from torch_ref.resolved_settings import resolve
from torch_ref.starting_weights import BEST_WEIGHTS
from torch_ref.steps import evaluate


@dataclass(frozen=True)
class Trained:
    """A trained network, as `steps.evaluate` takes it.

    Attributes:
        settings: which decide what it computes.
        class_names: of its outputs; empty where nobody says.
        network: with its weights.
        statistics: the normalisation's arrays, and `zero`, whose dtype is the input's.
        group: this process alone, and its device.
        which: `best`, `newest`, or `file`.
        step: steps that it was trained for.
        data: what is evaluated, once it is open.
    """

    settings: CompleteSettings
    class_names: tuple[str, ...]
    network: Network
    statistics: dict[str, Tensor]
    group: Processes
    which: str
    step: int
    data: DataSet | None = None


class Found(NamedTuple):
    """A report, and of which weights."""

    report: EvaluationReport
    which: str
    step: int


def evaluate_command(settings: EvaluateSettings, given: dict[str, Any]) -> tuple[Found, str]:
    """Evaluate as the command line says; the report, and the data's name.

    Args:
        settings: of the command.
        given: those that the command line has, by name.

    Raises:
        UserError: no network there, or data that aren't its own kind.
    """
    trained = of_run(settings.run, settings) if settings.run is not None else of_file(settings)
    return measured(trained, settings, given)


def measured(
    trained: Trained, settings: EvaluateSettings, given: dict[str, Any], observe: Observer | None = None
) -> tuple[Found, str]:
    """How well a network does; the report, and the data's name.

    Args:
        trained: the network.
        settings: of the command.
        given: those that the command line has, by name.
        observe: see `steps.evaluate`.

    Raises:
        UserError: data that aren't its own kind.
    """
    wanted = data_of(trained.settings, settings, given)
    chosen = views(settings.crops, wanted)
    data = open_for(wanted, measuring=settings.split == "test")
    names = trained.class_names or data.class_names
    if len(names) != trained.network.get_parameter(f"{_last(trained.network)}.bias").numel():
        raise UserError(f"{wanted.data} has {len(names)} classes, and the weights have others: pass their own data")
    check_classes(list(names), list(data.class_names), wanted.data)
    trained = replace(trained, data=data)
    report = evaluate(trained, split_of(data, settings.split), chosen, settings.batch_size, observe)
    return Found(report, trained.which, trained.step), wanted.data


def of_run(run: Path, settings: EvaluateSettings) -> Trained:
    """The network of a run of this program.

    Raises:
        UserError: no run, another program's, or none of its weights is intact.
    """
    description, shown = read_description(run), printable(run)
    if description.get("framework") != "torch_ref":
        raise UserError(f"{shown} is a run of jax_alexnet: evaluate it with python -m jax_alexnet.evaluate")
    saved, names = resolve(resumed(description["settings"], {})), tuple(description["class_names"])
    network = _network(saved, len(names))
    arrays = statistics_file.read(run) if augment.needs_statistics(saved) else {}
    if settings.checkpoint == "best" and (run / BEST_WEIGHTS).exists():
        file = weight_file.read(run / BEST_WEIGHTS)
        state, step, which = weight_file.state_for(file, network), int(file.stated.get("step", 0)), "best"
    else:
        found, which = checkpoint.load_newest(run / CHECKPOINTS), "newest"
        if found is None:
            raise UserError(f"no checkpoint was finished in {shown}: let the run go on with --resume --output {shown}")
        state, step = checkpoint.evaluated_weights(found), found["step"]
    return _trained(saved, names, network, state, arrays, settings, which, step)


def of_file(settings: EvaluateSettings) -> Trained:
    """The network of a file of weights, fed as the file says, or as its recipe does.

    Raises:
        UserError: unusable weights, or a network whose input nobody knows.
    """
    file = weight_file.read(settings.weights or Path())
    facts, model = file.facts, settings.model or file.model
    if model is None:
        raise UserError(f"{file.shown} doesn't say which network it is for: pass --model NAME")
    if file.model not in (None, model):
        raise UserError(f"{file.shown} holds weights of {file.model}, not of {model}: pass --model {file.model}")
    if facts is not None:
        known = resolve(facts.settings(facts.precision))
    else:
        known = resolve(TrainSettings(data="synthetic", model=model, image_size=file.image_size))
        if augment.needs_statistics(known):
            raise UserError(
                f"{file.shown} doesn't hold the mean of its training set, which {model} removes from pictures: "
                "evaluate the run with --run DIR, or an export of it, which has all that is needed"
            )
    network = _network(known, None)
    state = weight_file.state_for(file, network)
    network = _network(known, len(state[f"{_last(network)}.bias"]))
    names, arrays, step = (tuple(facts.class_names), facts.arrays, facts.step) if facts else ((), {}, 0)
    return _trained(known, names, network, state, arrays, settings, "file", step)


def _network(settings: CompleteSettings, classes: int | None) -> Network:
    return build(
        settings.model, classes, settings.image_size, span_columns=settings.span_columns, ablate=settings.ablate
    )


def _last(network: Network) -> str:
    return [name for name, _ in network.named_parameters()][-1].rpartition(".")[0]


def _trained(
    saved: CompleteSettings,
    names: tuple[str, ...],
    network: Network,
    state: dict[str, Tensor],
    arrays: Mapping[str, np.ndarray],
    settings: EvaluateSettings,
    which: str,
    step: int,
) -> Trained:
    chosen = replace(saved, precision=settings.precision or saved.precision)
    dtype, device = set_precision(chosen.precision), choose_device(settings.devices)
    wrong = [name for name, own in network.named_parameters() if state[name].shape != own.shape]
    if wrong:
        raise UserError(f"the weights don't fit {saved.model} at {saved.image_size} pixels: {', '.join(wrong)}")
    network.to(device, dtype)  # before the weights come in, which may be of float64
    network.load_state_dict(state)
    held = {**arrays, "zero": np.zeros((), np.float32)}
    statistics = {name: torch.from_numpy(np.array(value)).to(device).to(dtype) for name, value in held.items()}
    return Trained(chosen, names, network, statistics, Processes(0, 1, device), which, step)
