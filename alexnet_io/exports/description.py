"""What an export says of itself: the network, its classes' names, its input and how that is normalised."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet_io.run import network_facts
from alexnet_io.run.network_facts import NetworkFacts
from alexnet_io.weights import card as cards

Triple = Sequence[float]


@dataclass(frozen=True)
class Description:
    """A trained network without its weights, as an export carries it.

    Attributes:
        facts: all that predicting needs; the names in it are made up where nobody knows the classes'.
        named: whether the classes' names are known.
        imagenet: mean and standard deviation of `--normalize imagenet`, on the 0..1 scale.
        card: what is known of where the weights are from, as JSON; None where nothing is.
    """

    facts: NetworkFacts
    named: bool
    imagenet: tuple[Triple, Triple]
    card: str | None = None

    @property
    def own_facts(self) -> NetworkFacts | None:
        """The facts, if they are known in full: what is read back must not hold names that were made up."""
        return self.facts if self.named else None

    @property
    def classes(self) -> int:
        """Outputs of the last layer."""
        return len(self.facts.class_names)

    @property
    def about(self) -> dict[str, str]:
        """Texts that files of weights keep besides what says the network and its input."""
        return {cards.KEY: self.card} if self.card else {}

    @property
    def normalization(self) -> str:
        """From pixels of 0..255 in RGB to the network's input, as a formula."""
        arrays = self.facts.arrays
        match self.facts.normalize:
            case "half":
                return "(pixels / 255 - 0.5) / 0.5"
            case "unit":
                return "pixels / 255"
            case "imagenet":
                mean, std = self.imagenet
                return f"(pixels / 255 - {list(mean)}) / {list(std)}"
            case "channel_mean":
                return f"pixels - {arrays['mean'].tolist()}"
            case "channel":
                return f"(pixels - {arrays['mean'].tolist()}) / {arrays['std'].tolist()}"
        return f"pixels - mean_image, of which {network_facts.KEY} has the {arrays['mean_image'].shape} float32 values"

    @property
    def preprocessing(self) -> str:
        """From a picture to the network's input, in words."""
        size, stored = self.facts.image_size, self.facts.stored_size
        return (
            f"shorter side to {stored} pixels (bilinear), central square of {stored}, of that the central {size}; RGB, "
            f"0..255; {self.normalization}"
        )

    def texts(self, channels_last: bool) -> dict[str, str]:
        """What a program says of itself: for ONNX's metadata, and for files beside or inside other programs.

        Args:
            channels_last: whether its images are (batch, height, width, 3).
        """
        facts, size = self.facts, self.facts.image_size
        shape = f"batch, {size}, {size}, 3" if channels_last else f"batch, 3, {size}, {size}"
        said = {
            "model": facts.model,
            "input": f"images: float32 ({shape}), normalised",
            "output": f"logits: float32 (batch, {self.classes})",
            "image_size": str(size),
            "stored_size": str(facts.stored_size),
            "normalize": facts.normalize,
            "preprocessing": self.preprocessing,
            **self.about,
        }
        if self.named:
            names = json.dumps(list(facts.class_names), ensure_ascii=False)
            said |= {"class_names": names, network_facts.KEY: facts.to_text()}
        return said

    def plain(self) -> dict[str, Any]:
        """The facts for a file of settings: all but arrays."""
        kept: Mapping[str, Any] = {name: value for name, value in vars(self.facts).items() if name != "arrays"}
        return {**kept, "class_names": list(self.facts.class_names)}
