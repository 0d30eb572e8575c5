"""What a run begins with when it begins with another's weights: where these lie, what of them is used, what stays.

Framework-free: each framework reads the weights and holds them to its own network by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.suggestions import nearest
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from alexnet_io.exports import folders
from alexnet_io.run.run_description import DESCRIPTION
from alexnet_io.weights import shipped

ENDINGS = (".safetensors", ".npz", ".pth", ".pt", ".pth.tar", ".pt.tar", ".ckpt")
_RANGE = ".."


@dataclass(frozen=True)
class Origin:
    """What is known of weights that a run begins with.

    Attributes:
        shown: where they were read, for people.
        model: the network that they are for.
        classes: outputs of their last layer.
        class_names: of these outputs; empty where nobody says.
        normalize: how their network's input was normalised; None where nobody says.
        step: steps that they were trained for; None where nobody says.
    """

    shown: str
    model: str
    classes: int
    class_names: tuple[str, ...] = ()
    normalize: str | None = None
    step: int | None = None


def located(text: str) -> Path:
    """What `--init-from` names: a run's directory, or the file of weights that is meant; see `shipped.located`.

    Raises:
        UserError: there is neither.
    """
    path, shown = Path(text).expanduser(), printable(text)
    if path.is_file() or folders.is_folder(path):
        return shipped.located(path, "--init-from")
    if (path / DESCRIPTION).is_file():
        return path
    if path.is_dir():
        raise UserError(
            f"--init-from {shown} is a directory with neither {DESCRIPTION} nor {folders.WEIGHTS}: pass the directory "
            "that training wrote (its --output), or a file of weights"
        )
    names = shipped.names()
    if text in names:
        return shipped.located(path, "--init-from")
    raise UserError(
        f"--init-from {shown} does not exist: pass the directory that training wrote (its --output), a file of "
        f"weights ({', '.join(ENDINGS)}), or one of the weights that come with the project ({', '.join(names)})"
        f"{nearest(text, names)}"
    )


def frozen_layers(settings: TrainSettings, layers: Sequence[str]) -> tuple[str, ...]:
    """The layers that `--freeze` names, in the network's order.

    Args:
        settings: of the run.
        layers: all of the network's that have weights, in its order.

    Raises:
        UserError: a layer that there isn't, a range that runs backwards, or nothing left to train.
    """
    if settings.freeze is None:
        return ()
    chosen: set[str] = set()
    for item in settings.freeze.split(","):
        first, dots, last = (word.strip() for word in item.partition(_RANGE))
        ends = [_place(word, layers, settings.model) for word in ((first, last) if dots else (first,))]
        if ends[0] > ends[-1]:
            raise UserError(f"--freeze {first}{_RANGE}{last} runs backwards: write {last}{_RANGE}{first}")
        chosen |= set(layers[ends[0] : ends[-1] + 1])
    if len(chosen) == len(layers):
        raise UserError(
            f"--freeze {settings.freeze} leaves nothing to train: leave out at least one of {', '.join(layers)}"
        )
    return tuple(name for name in layers if name in chosen)


def _place(word: str, layers: Sequence[str], model: str) -> int:
    if word not in layers:
        raise UserError(
            f"--freeze: {model} has no layer {word!r} with weights{nearest(word, layers)}. Choose from: "
            f"{', '.join(layers)}; several as in {layers[0]}{_RANGE}{layers[-2]} or {layers[0]},{layers[1]}"
        )
    return list(layers).index(word)


def refuse_what_needs_weights(settings: TrainSettings) -> None:
    """Refuse settings that say something of weights to begin with where there are none.

    Raises:
        UserError: as said.
    """
    if settings.init_from is None and settings.new_layer_learning_rate_factor != 1:
        raise UserError(
            "--new-layer-learning-rate-factor is for the last layer that is new beside weights from elsewhere: pass "
            "--init-from RUN or FILE too, or leave it out"
        )


def refuse_other_network(origin_model: str, shown: str, settings: TrainSettings) -> None:
    """Refuse weights of another network than the run's.

    Raises:
        UserError: as said, with the network that they are for.
    """
    if origin_model != settings.model:
        raise UserError(
            f"--init-from {shown} holds weights of {origin_model}, and this run trains {settings.model}: pass --model "
            f"{origin_model}"
        )


def why_last_layer_is_new(origin: Origin, class_names: Sequence[str]) -> str | None:
    """Why the weights of the last layer can't be those of `origin`, in words; None where they can."""
    here = list(class_names)
    if origin.classes != len(here):
        return f"{len(here)} classes here, {origin.classes} there"
    if origin.class_names and list(origin.class_names) != here:
        same = sorted(origin.class_names) == sorted(here)
        return "the same classes in another order" if same else f"{len(here)} classes here and there, but others"
    return None


def refuse_shapes(origin: Origin, settings: TrainSettings, wrong: Sequence[str]) -> None:
    """Refuse weights that don't fit the run's network.

    Args:
        origin: of the weights.
        settings: the run's.
        wrong: what doesn't fit, an array each.

    Raises:
        UserError: where anything is wrong.
    """
    if wrong:
        more = f" and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        raise UserError(
            f"--init-from {origin.shown} doesn't fit {settings.model} at --image-size {settings.image_size}: "
            f"{'; '.join(wrong[:6])}{more}. Pass the image size that they were made for, or other weights"
        )


@dataclass(frozen=True)
class Beginning:
    """What a run makes of the weights that it begins with.

    Attributes:
        origin: of the weights.
        last: the last layer's name.
        new: why it begins afresh; None where it has the origin's weights.
    """

    origin: Origin
    last: str
    new: str | None

    @classmethod
    def of(
        cls, origin: Origin, settings: TrainSettings, class_names: Sequence[str], layers: Sequence[str]
    ) -> Beginning:
        """Decide it.

        Args:
            origin: of the weights, which fit but for the last layer.
            settings: the run's.
            class_names: of its data.
            layers: all of the network's that have weights, in its order.

        Raises:
            UserError: the last layer is new and frozen, or has a learning rate of its own and is not new.
        """
        last, new = layers[-1], why_last_layer_is_new(origin, class_names)
        if new and last in frozen_layers(settings, layers):
            raise UserError(f"--freeze {settings.freeze}: {last} is new ({new}) and would stay random: leave it out")
        if not new and settings.new_layer_learning_rate_factor != 1:
            raise UserError(
                f"--new-layer-learning-rate-factor: no layer is new, since {origin.shown} has the same "
                f"{origin.classes} classes: leave it out"
            )
        return cls(origin, last, new)

    def lines(self, settings: TrainSettings) -> list[str]:
        """What is to be said of it."""
        origin = self.origin
        steps = "" if origin.step is None else f", after {origin.step} steps"
        kept = (
            f"the same {origin.classes} classes" if origin.class_names else f"as many classes there, {origin.classes}"
        )
        last = f"{self.last} is new: {self.new}" if self.new else f"{self.last} too: {kept}"
        if self.new and settings.new_layer_learning_rate_factor != 1:
            last += f"; it learns at {settings.new_layer_learning_rate_factor:g} times the rate"
        said = [f"beginning with the weights of {origin.shown} ({origin.model}{steps}); {last}"]
        if origin.normalize is not None and origin.normalize != settings.normalize:
            said.append(
                f"warning: these weights learnt from input of --normalize {origin.normalize}, and this run has "
                f"--normalize {settings.normalize}: pass --normalize {origin.normalize} to feed them what they know"
            )
        return said

    def facts(self) -> dict[str, Any]:
        """For run.json."""
        origin = self.origin
        return {
            "source": origin.shown,
            "model": origin.model,
            "classes": origin.classes,
            "step": origin.step,
            "new_layers": [self.last] if self.new else [],
        }


def notes(settings: TrainSettings, beginning: Beginning | None, layers: Sequence[str]) -> list[str]:
    """What is to be said before a run's first step: with which weights it begins, and which of them stay.

    Args:
        settings: the run's.
        beginning: of a run that begins with another's weights.
        layers: all of the network's that have weights, in its order.
    """
    said = beginning.lines(settings) if beginning else []
    frozen = frozen_layers(settings, layers)
    if frozen:
        learning = ", ".join(name for name in layers if name not in frozen)
        said.append(f"frozen: {', '.join(frozen)}; learning: {learning}")
    return said


def begun_with(beginning: Beginning | None) -> dict[str, Any]:
    """What run.json says of it: nothing of a run that begins with fresh weights."""
    return {"begun_with": beginning.facts()} if beginning else {}
