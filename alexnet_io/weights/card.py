"""What is to be known of trained weights before they are used: in their file for programs, beside it for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import tensor_file

KEY = "card"  # where a file of weights keeps it, as JSON


@dataclass(frozen=True)
class Card:
    """Where weights are from, and what they are worth.

    Attributes:
        name: by which they are found.
        model: the network.
        parameters: how many.
        classes: in the order of the outputs.
        input: what the network is fed, in words.
        data: what it learnt from, in words.
        training_images: how many.
        command: that trains such a network.
        recipe: the settings that decided what it learnt.
        seed: of weights, order and draws.
        epochs: done when these weights were kept.
        planned_epochs: of the whole run.
        reached_epoch: where the run was when the file was made.
        step: optimizer steps done when these weights were kept.
        chosen_by: whose accuracy chose them, in words.
        measured_on: the images of the error, in words.
        examples: how many.
        protocol: crops and what is made of them, in words.
        top1_error: in per cent.
        top5_error: in per cent.
        loss: mean cross-entropy in nats.
        measured_by: the command that measures it again.
        versions: of what trained it.
        made_by: the command that makes the file.
    """

    name: str
    model: str
    parameters: int
    classes: Sequence[str]
    input: str
    data: str
    training_images: int
    command: str
    recipe: Mapping[str, Any]
    seed: int
    epochs: float
    planned_epochs: int
    reached_epoch: float
    step: int
    chosen_by: str
    measured_on: str
    examples: int
    protocol: str
    top1_error: float
    top5_error: float
    loss: float
    measured_by: str
    versions: Mapping[str, str]
    made_by: str

    @property
    def finished(self) -> bool:
        """Whether the run that they are from had come to its end."""
        return self.reached_epoch >= self.planned_epochs

    def to_text(self) -> str:
        """As JSON; the same card always gives the same text."""
        return json.dumps(dataclasses.asdict(self))

    def line(self) -> str:
        """In a line."""
        unfinished = "" if self.finished else f", of an unfinished run (epoch {self.epochs:g} of {self.planned_epochs})"
        error = f"{self.top1_error:.2f}% error on {self.examples:,} {self.measured_on}"
        return f"{self.name}: {self.model}, {len(self.classes)} classes, {error}{unfinished}"

    def to_markdown(self, size: int, digest: str) -> str:
        """For people.

        Args:
            size: of the file, in bytes.
            digest: its SHA-256.
        """
        file = f"{size:,} bytes, float32, SHA-256 `{digest}`"
        settings = ", ".join(f"{name} {value}" for name, value in self.recipe.items())
        end = ["", f"Settings that decided what it learnt: {settings}.", ""]
        return "\n".join([f"# {self.name}", "", *self.caution(), *self.table(file), *end])

    def caution(self) -> list[str]:
        """What must be said first, as paragraphs in Markdown."""
        if self.finished:
            return []
        return [
            f"**Of an unfinished run**: it had reached epoch {self.reached_epoch:g} of {self.planned_epochs} when "
            "this file was made, and its recipe's error is that of the end.",
            "",
        ]

    def table(self, file: str | None = None) -> list[str]:
        """What is known of the weights as lines of a table in Markdown.

        Args:
            file: what is to be said of the file that they lie in; None where they lie in another one by now.
        """
        rows = {
            "network": f"`{self.model}`, {self.parameters:,} parameters; {self.input}",
            "classes": ", ".join(self.classes),
            "data": f"{self.data}; {self.training_images:,} training images",
            "trained by": f"`{self.command}`",
            "trained for": f"{self.epochs:g} of {self.planned_epochs} epochs, {self.step:,} steps; seed {self.seed}",
            "chosen by": self.chosen_by,
            "error": f"**{self.top1_error:.2f}%** top-1, {self.top5_error:.2f}% top-5, loss {self.loss:.4f}; "
            f"{self.examples:,} {self.measured_on}, {self.protocol}",
            "measured by": f"`{self.measured_by}`",
            "runs": "one: a spread is not known",
            "versions": ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            **({"file": file} if file else {}),
            "made by": f"`{self.made_by}`",
        }
        return ["| | |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in rows.items())]


def read(path: Path) -> Card | None:
    """The card in a file of weights; None where it has none.

    Raises:
        UserError: the file or its card can't be read.
    """
    text = tensor_file.read(path)[1].get(KEY)
    if text is None:
        return None
    try:
        return Card(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise UserError(f"{printable(path)} has a card that can't be read ({error}): pack it again") from None
