"""A trained network of the reference written to one file: what `python -m torch_ref.export` does."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from alexnet_io.command_line.evaluate_settings import EvaluateSettings
from alexnet_io.command_line.printing import printable
from alexnet_io.data.sources.given_names import names_for
from alexnet_io.errors import FailedRun, UserError, on_the_way
from alexnet_io.exports import command, comparison, formats
from alexnet_io.exports.comparison import Comparison
from alexnet_io.exports.description import Description
from alexnet_io.files import atomic_file
from alexnet_io.run.network_facts import NetworkFacts
from alexnet_io.weights import card as cards
from torch_ref import augment, programs, weight_file
from torch_ref.evaluation import Trained, of_file, of_run
from torch_ref.export_settings import PROGRAM, ExportSettings
from torch_ref.network import Network, layers_with_weights


@dataclass(frozen=True)
class Source:
    """What is exported, and what it computes.

    Attributes:
        trained: the network, on a CPU.
        description: of it.
        shown: where the export goes, for people.
    """

    trained: Trained
    description: Description
    shown: str

    @property
    def network(self) -> Network:
        """With its weights."""
        return self.trained.network

    @cached_property
    def images(self) -> np.ndarray:
        """The pictures that are looked at, as the network sees them: float32 (4, 3, side, side)."""
        facts = self.description.facts
        pixels = torch.from_numpy(comparison.pictures(facts.image_size)).float()
        arrays = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in facts.arrays.items()}
        return augment.normalized(pixels, facts.normalize, arrays).permute(0, 3, 1, 2).contiguous().numpy()

    @cached_property
    def logits(self) -> np.ndarray:
        """Of these pictures."""
        return self.with_weights(self.network.state_dict())

    def with_weights(self, state: dict[str, torch.Tensor]) -> np.ndarray:
        """The logits of these pictures with other weights, in float32."""
        cast = {name: value.float() for name, value in state.items()}
        with torch.no_grad():
            return torch.func.functional_call(self.network.eval(), cast, (torch.from_numpy(self.images),)).numpy()


def export(settings: ExportSettings, chosen: str) -> None:
    """Write it, and say where it is and how it was checked.

    Args:
        settings: of the command.
        chosen: the format, one of `torch_ref.export_settings.FORMATS`.

    Raises:
        UserError: no such network, or one that torchvision hasn't got.
        FailedRun: it can't be written, or is not what it was to be.
    """
    source = _opened(settings, "float32" if formats.is_program(chosen) else None)
    facts = source.description.facts
    if settings.home == "torchvision" and (facts.model != "one_weird_trick" or facts.ablate):
        what = f"{facts.model} with --ablate {facts.ablate}" if facts.ablate else facts.model
        raise UserError(f"torchvision's alexnet is one_weird_trick, not {what}: leave --home out")
    program = formats.is_program(chosen)
    with on_the_way():
        checked = (_write_program if program else _write_weights)(source, settings, chosen)
    command.say_done(settings, facts, source.trained.which, None if program else settings.home, checked)


def _opened(settings: ExportSettings, precision: str | None) -> Source:
    chosen = EvaluateSettings(
        run=settings.run,
        weights=settings.weights,
        model=settings.model,
        checkpoint=settings.checkpoint,
        precision=precision,
        devices="all",
    )
    card = None
    if settings.run is not None:
        trained = of_run(settings.run, chosen)
    else:
        trained = of_file(chosen)
        card = weight_file.read(settings.weights or Path()).stated.get(cards.KEY)
    trained.network.cpu()
    names = list(trained.class_names)
    if settings.class_names is not None:
        names = names_for(settings.class_names, names, _classes(trained.network))
    arrays = {name: value.float().cpu().numpy() for name, value in trained.statistics.items()}
    shown_names = names or [f"class {i}" for i in range(_classes(trained.network))]
    facts = NetworkFacts.of(trained.settings, shown_names, arrays, trained.step)
    imagenet = (augment.IMAGENET_MEAN, augment.IMAGENET_STD)
    return Source(trained, Description(facts, bool(names), imagenet, card), printable(settings.to))


def _classes(network: Network) -> int:
    return network.get_parameter(f"{layers_with_weights(network)[-1]}.bias").numel()


def _write_program(source: Source, settings: ExportSettings, chosen: str) -> Comparison:
    found: list[Comparison] = []
    texts = source.description.texts(channels_last=False)
    if chosen == "onnx":
        content, run, by = programs.onnx_bytes(source.network, source.images, texts), programs.run_onnx, "ONNX Runtime"
    else:
        content, run, by = programs.pt2_bytes(source.network, source.images, texts), programs.run_pt2, "torch.export"

    def check(written: Path) -> None:
        found.append(comparison.compare_program(source.logits, run(written), source.images, by, source.shown))

    atomic_file.write_bytes(Path(settings.to), content, flag="--to", check=check)
    return found[0]


def _write_weights(source: Source, settings: ExportSettings, chosen: str) -> Comparison:
    found: list[Comparison] = []
    state, about = source.network.state_dict(), source.description

    def save(path: Path) -> str:
        content = weight_file.to_bytes(path, state, about, settings.home)

        def check(written: Path) -> None:
            back = weight_file.state_for(weight_file.read(written, path.name), source.network)
            if any(not torch.equal(back[name], value) for name, value in state.items()):
                shown = source.shown
                raise FailedRun(f"{shown} did not come back as it was written, and was not put in place: try again")
            theirs, by = source.with_weights(back), "PyTorch with the weights as read back"
            found.append(comparison.compare(source.logits, theirs, by, source.shown))

        atomic_file.write_bytes(path, content, flag="--to", check=check)
        return found[0].line()

    command.write_weights(settings, chosen, about, PROGRAM, save)
    return found[0]
