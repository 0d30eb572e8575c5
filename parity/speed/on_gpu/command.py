"""What `python -m parity gpu` does, once its settings are parsed. Imports no framework: each part has a process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from alexnet_io.errors import UserError
from alexnet_io.files import atomic_file
from jax_alexnet.gpus import listed_gpus
from parity.speed.on_gpu import page, running
from parity.speed.on_gpu.parts import chosen_parts, parts
from parity.speed.settings import OnGpu

SCHEMA = "parity-gpu/1"


def gpu(chosen: OnGpu) -> int:
    """Run the parts and keep both files up to date after each; 1 if one of them wasn't done, else 0."""
    output = Path(chosen.output)
    with tempfile.TemporaryDirectory(prefix="parity-gpu-") as folder:
        asked = chosen_parts(parts(chosen, Path(folder)), chosen.parts)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--output {chosen.output} can't be made ({error.strerror}): name another folder"
            ) from error
        found: dict[str, Any] = {"schema": SCHEMA, "settings": vars(chosen), "parts": []}
        for outcome in running.run(asked, chosen.seconds, Path(folder), _say, on_gpu=bool(listed_gpus())):
            found["parts"].append(outcome.as_json())
            _write(output, found)
    print(f"\n{page.text(found)}\n\n{output / 'index.html'} and {output / 'results.json'} have the rest")
    return int(any(part["state"] != running.DONE for part in found["parts"]))


def _say(line: str) -> None:
    print(line, flush=True)


def _write(output: Path, found: dict[str, Any]) -> None:
    """Both files, after every part: what comes later may take the machine down."""
    atomic_file.write_json(output / "results.json", found)
    atomic_file.write_text(output / "index.html", page.render(found))
