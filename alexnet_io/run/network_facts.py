"""What a file of weights says besides the weights, so that it suffices to predict from: one text, kept with them.

A JSON object: `format`, `model`, `image_size`, `stored_size`, `normalize`, `class_names`, `span_columns`, `precision`,
`step`, `ablate`, and `arrays`, the normalisation's, each with `dtype`, `shape` and its little-endian bytes as
`base64`. It is text so that every kind of file can carry it beside a state dict that stays one.

Input: a picture's shorter side is brought to `stored_size` and the central square cut out (Pillow's bilinear filter),
of that the central square of `image_size`, which is then normalised.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_io.command_line.ablations import ablations
from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.train_settings import MODELS, NORMALIZATIONS, PRECISIONS, TrainSettings
from alexnet_io.errors import UserError

KEY = "network_facts"  # where a file keeps the text
FORMAT = 1
ABLATED_FORMAT = 2  # of networks that versions without `ablate` would take for whole ones
# What each normalisation needs besides the pixels: float32, on the 0..255 scale.
_NEEDED = {"mean_image": ("mean_image",), "channel_mean": ("mean",), "channel": ("mean", "std")}


@dataclass(frozen=True)
class NetworkFacts:
    """A trained network without its weights.

    Attributes:
        model: the variant's name.
        image_size: side in pixels of what the network sees.
        stored_size: side in pixels of what that is cut from.
        normalize: see `--normalize`.
        class_names: in the order of the outputs.
        arrays: the normalisation's: `mean_image` (image_size, image_size, 3), `mean` (3,), `std` (3,), float32.
        span_columns: see `--span-columns`.
        precision: of the arithmetic that it was trained in.
        step: steps that it was trained for.
        ablate: see `--ablate`; None for the whole network.
    """

    model: str
    image_size: int
    stored_size: int
    normalize: str
    class_names: Sequence[str]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    span_columns: bool = False
    precision: str = "float32"
    step: int = 0
    ablate: str | None = None

    @classmethod
    def of(
        cls, settings: CompleteSettings, class_names: Sequence[str], arrays: Mapping[str, Any], step: int
    ) -> "NetworkFacts":
        """Of a run.

        Args:
            settings: the run's.
            class_names: in the order of the outputs.
            arrays: all that the run keeps of its training set; what only training needs is left out.
            step: steps done.

        Raises:
            UserError: the normalisation's arrays aren't there.
        """
        needed = _NEEDED.get(settings.normalize, ())
        facts = cls(
            settings.model,
            settings.image_size,
            settings.stored_size,
            settings.normalize,
            list(class_names),
            {name: np.asarray(arrays[name], np.float32) for name in needed if name in arrays},
            settings.span_columns,
            settings.precision,
            step,
            settings.ablate,
        )
        _check(facts, "the run's description")
        return facts

    def settings(self, precision: str) -> TrainSettings:
        """The settings that decide what the network computes, nothing random among them; a recipe fills the rest."""
        return TrainSettings(
            model=self.model,
            image_size=self.image_size,
            stored_size=self.stored_size,
            normalize=self.normalize,
            span_columns=self.span_columns,
            ablate=self.ablate,
            precision=precision,
            crop=False,
            flip=False,
            color_noise=False,
        )

    def to_text(self) -> str:
        """The JSON object; the same facts always give the same text."""
        plain = {name: value for name, value in vars(self).items() if name != "arrays"}
        arrays = {name: _array_as_text(array) for name, array in sorted(self.arrays.items())}
        number = ABLATED_FORMAT if self.ablate else FORMAT
        return json.dumps({"format": number, **plain, "class_names": list(self.class_names), "arrays": arrays})

    @classmethod
    def from_text(cls, text: str, shown: str) -> "NetworkFacts":
        """Read back, and hold every value to what it must be.

        Raises:
            UserError: damaged, or of a newer format; `shown` names the file.
        """
        damaged = f"{shown} says of its network what can't be read"
        try:
            found = json.loads(text)
            number = found.pop("format")
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise UserError(f"{damaged} ({error!r}): export it again") from None
        if number not in (FORMAT, ABLATED_FORMAT):
            read = f"{FORMAT} and {ABLATED_FORMAT}"
            raise UserError(f"{shown} has format {number!r}, this version reads {read}: update it, or export again")
        try:
            arrays = {name: _array_of_text(value) for name, value in found.pop("arrays").items()}
            facts = cls(arrays=arrays, **{name: value for name, value in found.items() if name in cls.__annotations__})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{damaged} ({error}): export it again") from None
        _check(facts, shown)
        return facts


def _check(facts: NetworkFacts, shown: str) -> None:
    """Refuse facts that no run can have."""

    def side(value: Any) -> bool:
        return type(value) is int and 1 <= value <= 4096

    names = facts.class_names
    wrong: dict[str, Callable[[], bool]] = {
        f"model {facts.model!r}": lambda: facts.model in MODELS,
        f"image_size {facts.image_size!r}": lambda: side(facts.image_size),
        f"stored_size {facts.stored_size!r}": lambda: side(facts.stored_size) and facts.stored_size >= facts.image_size,
        f"normalize {facts.normalize!r}": lambda: facts.normalize in NORMALIZATIONS,
        f"precision {facts.precision!r}": lambda: facts.precision in PRECISIONS,
        f"span_columns {facts.span_columns!r}": lambda: (
            type(facts.span_columns) is bool and (facts.model == "two_column" or not facts.span_columns)
        ),
        f"ablate {facts.ablate!r}": lambda: facts.ablate is None or _are_ablations(facts.ablate),
        f"step {facts.step!r}": lambda: type(facts.step) is int and facts.step >= 0,
        "class_names": lambda: isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names),
    }
    bad = next((what for what, holds in wrong.items() if not holds()), None)
    if bad:
        raise UserError(f"{shown} has an impossible {bad} for its network: export it again")
    shapes = {"mean_image": (facts.image_size, facts.image_size, 3), "mean": (3,), "std": (3,)}
    for name in _NEEDED.get(facts.normalize, ()):
        array = facts.arrays.get(name)
        if array is None or array.shape != shapes[name] or not np.isfinite(array).all():
            found = "no array" if array is None else f"shape {array.shape}"
            raise UserError(
                f"{shown} needs finite values of shape {shapes[name]} as {name} for --normalize {facts.normalize}, "
                f"and has {found}: export it again"
            )


def _are_ablations(words: Any) -> bool:
    try:
        return type(words) is str and bool(ablations(words))
    except UserError:
        return False


def _array_as_text(array: NDArray[Any]) -> dict[str, Any]:
    data = np.asarray(array, "<f4", order="C")
    return {"dtype": "float32", "shape": list(data.shape), "base64": base64.b64encode(data.tobytes()).decode("ascii")}


def _array_of_text(value: Mapping[str, Any]) -> NDArray[Any]:
    if value["dtype"] != "float32":
        raise ValueError(f"an array of {value['dtype']}")
    data = np.frombuffer(base64.b64decode(value["base64"], validate=True), "<f4")
    return data.reshape(value["shape"]).astype(np.float32)
