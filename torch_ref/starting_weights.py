"""The weights that `--init-from` names, held to the network that is to begin with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from alexnet_io.command_line.ablations import refuse_other_ablation
from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.run.directory import CHECKPOINTS
from alexnet_io.run.fine_tuning import Beginning, Origin, located, refuse_other_network, refuse_shapes
from alexnet_io.run.run_description import read_description
from torch_ref import checkpoint, weight_file
from torch_ref.network import Network, layers_with_weights

BEST_WEIGHTS = "best/weights.safetensors"  # inside a run's directory


@dataclass(frozen=True)
class StartingWeights:
    """Weights to begin with.

    Attributes:
        state: by parameter, of every layer but a new one.
        beginning: where they are from, and what is new.
    """

    state: dict[str, Tensor]
    beginning: Beginning

    @torch.no_grad()
    def put_into(self, network: nn.Module) -> None:
        """Take the place of the network's own."""
        for name, value in self.state.items():
            network.get_parameter(name).copy_(value)


def read(settings: CompleteSettings, class_names: Sequence[str], network: nn.Module) -> StartingWeights:
    """Read what `--init-from` names.

    Args:
        settings: the run's.
        class_names: of the run's data.
        network: the run's.

    Raises:
        UserError: nothing there, weights of another network or of other shapes, or settings that don't suit them.
    """
    if not isinstance(network, Network):
        raise TypeError(f"{type(network).__name__} is none of this package's networks")
    path = located(settings.init_from or "")
    state, origin = (_of_run if path.is_dir() else _of_file)(path, settings, network)
    layers, wrong = layers_with_weights(network), []
    for name, own in network.named_parameters():
        # Of the last layer the first axis is that of the classes.
        from_axis = int(name.rpartition(".")[0] == layers[-1])
        if state[name].ndim != own.ndim or state[name].shape[from_axis:] != own.shape[from_axis:]:
            wrong.append(f"{name} has shape {tuple(state[name].shape)}, not {tuple(own.shape)}")
    refuse_shapes(origin, settings, wrong)
    beginning = Beginning.of(origin, settings, class_names, layers)
    new = f"{layers[-1]}." if beginning.new else None
    return StartingWeights({k: v for k, v in state.items() if not (new and k.startswith(new))}, beginning)


def _of_run(run: Path, settings: CompleteSettings, network: Network) -> tuple[dict[str, Tensor], Origin]:
    description, shown = read_description(run), printable(run)
    refuse_other_network(description["model"], shown, settings)
    refuse_other_ablation(description["settings"].get("ablate"), shown, settings.ablate)
    if description.get("framework") != "torch_ref":
        raise UserError(
            f"--init-from {shown} is a run of jax_alexnet, whose checkpoints PyTorch can't read: export it with python "
            f"-m jax_alexnet.export --run {shown} --to net.safetensors, and pass that file"
        )
    names, normalize = tuple(description["class_names"]), description["normalisation"].get("normalize")
    if (run / BEST_WEIGHTS).exists():
        file, which = weight_file.read(run / BEST_WEIGHTS), "best"
        state, step = weight_file.state_for(file, network), int(file.stated.get("step", 0))
    else:
        found, which = checkpoint.load_newest(run / CHECKPOINTS), "newest"
        if found is None:
            raise UserError(f"no checkpoint was finished in {shown}: let the run go on with --resume --output {shown}")
        state, step = checkpoint.evaluated_weights(found), found["step"]
    return state, Origin(f"{shown}, {which} weights", settings.model, len(names), names, normalize, step)


def _of_file(path: Path, settings: CompleteSettings, network: Network) -> tuple[dict[str, Tensor], Origin]:
    file = weight_file.read(path, flag="--init-from")
    refuse_other_network(file.model or settings.model, file.shown, settings)
    if file.facts is not None:
        refuse_other_ablation(file.facts.ablate, file.shown, settings.ablate)
    state, facts = weight_file.state_for(file, network), file.facts
    weight_file.refuse_ambiguous(file, state, settings.model)
    last = layers_with_weights(network)[-1]
    classes = len(state[f"{last}.bias"])
    known = (tuple(facts.class_names), facts.normalize, facts.step) if facts else ((), None, None)
    return state, Origin(file.shown, settings.model, classes, *known)
