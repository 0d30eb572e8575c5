"""Writing a folder as model hubs have it; `folders` says what lies in it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet_io.exports.description import Description
from alexnet_io.exports.folders import CONFIG, FILES, README, WEIGHTS
from alexnet_io.files import atomic_file
from alexnet_io.weights.card import Card


def write(path: Path, description: Description, made_by: str, save: Callable[[Path], str]) -> None:
    """Write the folder, whole or not at all where it is new; of an old one the weights are replaced last.

    Args:
        path: the folder.
        description: of the network.
        made_by: the command, for the card.
        save: writes the file of weights, checks it, and returns how, for the card; what it raises leaves an old folder.

    Raises:
        UserError: it can't be written.
    """
    path = Path(os.path.realpath(path))
    partial = path.with_name(f".{path.name}{atomic_file.PARTIAL_SUFFIX}")
    with atomic_file.naming_the_path("write", path, "--to"):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            checked = save(partial / WEIGHTS)
            atomic_file.write_json(partial / CONFIG, config(description))
            atomic_file.write_text(partial / README, model_card(description, made_by, checked))
            if path.is_dir():
                for name in reversed(FILES):
                    os.replace(partial / name, path / name)
            else:
                os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        atomic_file.sync_directory(path.parent)


def config(description: Description) -> dict[str, Any]:
    """What `config.json` says, by the names that hubs know where they have some."""
    names = list(description.facts.class_names)
    plain = {name: value for name, value in description.plain().items() if name != "class_names"}
    return {
        "model_type": "alexnet",
        "architectures": ["AlexNet"],
        **plain,
        "num_channels": 3,
        "num_labels": len(names),
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "preprocessing": description.preprocessing,
    }


def model_card(description: Description, made_by: str, checked: str) -> str:
    """`README.md`: what it is, how it is used, where it is from.

    Args:
        description: of the network.
        made_by: the command.
        checked: how the weights were checked.
    """
    facts = description.facts
    names = ", ".join(facts.class_names[:20]) + (f" and {description.classes - 20} more" * (description.classes > 20))
    rows = {
        "network": f"`{facts.model}`"
        + (f", without what `--ablate {facts.ablate}` takes away" if facts.ablate else ""),
        "classes": f"{description.classes}: {names}" if description.named else f"{description.classes}, without names",
        "input": description.preprocessing,
        "steps": f"{facts.step:,}, in {facts.precision}",
        "names and layouts": "PyTorch's, as `torch_ref` has them",
        "made by": f"`{made_by}`",
        "checked": checked,
    }
    table = ["| | |", "| --- | --- |", *(f"| {what} | {_in_a_cell(value)} |" for what, value in rows.items())]
    use = (
        "python -m jax_alexnet.predict --weights DIR picture.jpg",
        "python -m jax_alexnet.evaluate --weights DIR --data folder:PATH",
        "python -m torch_ref.evaluate --weights DIR --data folder:PATH",
        f"python -m jax_alexnet.train --model {facts.model} --init-from DIR --data folder:PATH",
    )
    head = (
        "library_name: jax-alexnet",
        "pipeline_tag: image-classification",
        "tags:",
        "- alexnet",
        "- jax",
        "- pytorch",
    )
    lines = ["---", *head, "---", "", f"# {facts.model}", "", "With a local copy of this folder, DIR:", "", "```", *use]
    lines += ["```", "", *table, ""]
    if description.card:
        card = Card(**json.loads(description.card))
        lines += ["## Where the weights are from", "", *card.caution(), *card.table(), ""]
    return "\n".join(lines)


def _in_a_cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
