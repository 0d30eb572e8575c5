"""Checkpoints of a training run: one file each, whole or absent, that `torch.load(weights_only=True)` reads."""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import UserError
from alexnet_io.files import tensor_file
from alexnet_io.files.atomic_file import naming_the_path, write_bytes

FORMAT = 1
KEPT = 2  # the newest, and the one before should the newest be damaged


def save(directory: Path, step: int, content: dict[str, Any]) -> Path:
    """Write `directory`/step-N.pt in one go, then delete all but the newest `KEPT`.

    Args:
        directory: made if missing.
        step: steps done.
        content: tensors, numbers, texts, and lists and dicts of them.

    Raises:
        UserError: the disk is full or not writable; older checkpoints are untouched.
    """
    with naming_the_path("create", directory):
        directory.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **content}, file)
    path = directory / f"step-{step:09d}.pt"
    write_bytes(path, file.getvalue())
    for old in saved(directory)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def saved(directory: Path) -> list[Path]:
    """The checkpoints in `directory`, oldest first."""
    return sorted(path for path in directory.glob("step-*.pt") if re.fullmatch(r"step-\d+\.pt", path.name))


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint onto the CPU; every byte is checked against the checksums in the file.

    Raises:
        UserError: the file is damaged or of another format.
    """
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged:
            raise ValueError(f"the checksum of {damaged} differs")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
    except Exception as error:  # zipfile and torch raise nearly anything on what they did not write
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"checkpoint {printable(path)} can't be read ({reason})") from None
    return content


def load_newest(directory: Path, *, strict: bool = False) -> dict[str, Any] | None:
    """The newest intact checkpoint, or None where none was ever finished.

    Raises:
        UserError: none is intact, or `strict` and the newest is not.
    """
    paths = saved(directory)[::-1]
    for path in paths:
        try:
            return load(path)
        except UserError as error:
            if strict:
                raise UserError(f"{error}: leave --strict-resume out to go on from the one before") from None
            print(f"warning: {error}", flush=True)
    if paths:
        raise UserError(f"no checkpoint in {printable(directory)} is intact: start a new run with another --output")
    return None


def evaluated_weights(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint that the run evaluates: their average, where it has one."""
    average = content.get("average")
    if average is None:
        return content["state_dict"]
    return {name: average[f"module.{name}"] for name in content["state_dict"]}


def save_weights(path: Path, network: nn.Module, *, model: str, image_size: int, **facts: Any) -> None:
    """Write a network's weights as safetensors, with a note of which network they are for.

    Args:
        path: its directory is made if missing.
        network: the bare network, not its DDP wrapper.
        model: the variant's name.
        image_size: side that it was built for.
        facts: further metadata.
    """
    metadata = {"model": model, "image_size": image_size, "home": "torch_ref", **facts}
    with naming_the_path("create", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    tensor_file.write(path, arrays, metadata)
