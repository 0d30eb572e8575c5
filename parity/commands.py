"""What the commands of `python -m parity` do, once their settings are parsed."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_io.command_line import output_file, packages
from alexnet_io.command_line.settings import parse
from parity import settings
from parity.errors import CannotConvert
from parity.speed import settings as speed_settings

if TYPE_CHECKING:
    from parity.reports.report import Report

EXIT_COULD_NOT_RUN = 2


def run(command: str, arguments: list[str]) -> int:
    """Parse a command's settings and run it; returns the exit code."""
    classes = {
        "layers": settings.Layers, "grads": settings.Grads, "train": settings.Train, "runs": settings.Runs,
        "data": settings.Data, "mutants": settings.Mutants, "clean": settings.Clean, "compare": settings.Compare,
        "convert": settings.Convert,
        "throughput": speed_settings.Throughput, "profile": speed_settings.Profile,
    }  # fmt: skip
    runners: dict[str, Callable[[Any], int]] = {
        "layers": _layers, "grads": _layers, "train": _train, "runs": _runs, "data": _data,
        "mutants": _mutants, "clean": _clean, "compare": _compare, "convert": _convert,
        "throughput": _speed, "profile": _speed,
    }  # fmt: skip
    program = f"python -m parity {command}"
    chosen = parse(classes[command], program, arguments)
    packages.require(*needed(chosen), by=program)
    with output_file.others_on_standard_error(getattr(chosen, "json", None), getattr(chosen, "html", None)):
        if command not in ("compare", "convert", "throughput", "profile"):  # in another environment, or none
            start_frameworks()
        return runners[command](chosen)


def needed(chosen: Any) -> list[str]:
    """The frameworks that a command needs in this environment, by import names."""
    if getattr(chosen, "gpu", None):
        return ["jax", "flax"]
    if isinstance(chosen, settings.Convert):
        named = [str(chosen.weights), str(chosen.output)]
        by_numpy = [file.endswith((".safetensors", ".npz")) for file in named]
        return [
            *(["torch"] if not all(by_numpy) else []),
            *(["safetensors"] if any(file.endswith(".safetensors") for file in named) else []),
        ]
    asked = getattr(chosen, "frameworks", "jax,torch").split(",")
    elsewhere = {side for side in ("jax", "torch") if getattr(chosen, f"{side}_python", None)}
    here = [side for side in ("jax", "torch") if side in asked and side not in elsewhere]
    return [name for side in here for name in {"jax": ("jax", "flax"), "torch": ("torch",)}[side]]


def start_frameworks() -> None:
    """Settings that must be made before JAX touches a device: float64, no grabbing of all GPU memory."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")


def _speed(chosen: speed_settings.Throughput | speed_settings.Profile) -> int:
    from parity.speed import commands as speed

    return speed.profile(chosen) if isinstance(chosen, speed_settings.Profile) else speed.throughput(chosen)


def _layers(chosen: settings.Layers) -> int:
    from parity.alexnet import layerwise as layers

    began = time.monotonic()
    report = layers.run(
        settings.chosen_models(chosen.model),
        dtype=chosen.dtype,
        gradients=isinstance(chosen, settings.Grads),
        seed=chosen.seed,
        batch=chosen.batch,
        images=Path(chosen.images) if chosen.images else None,
        weights=Path(chosen.weights) if chosen.weights else None,
        show=lambda part: show(part, chosen),
    )
    report.settings["seconds"] = round(time.monotonic() - began, 1)
    return finish(report, chosen)


def show(part: Report, chosen: Any) -> None:
    """Print what differs in a part of a report, and its modules or with `--all` its comparisons."""
    print(f"{part.body(chosen.all)}\n", flush=True)


def finish(report: Report, chosen: Any) -> int:
    """Print the last lines, write the files that were asked for; returns the exit code."""
    print("\n".join(report.outcome()))
    print(", ".join(f"{key} {value}" for key, value in report.settings.items()))
    if chosen.json:
        output_file.write_by("--json", chosen.json, report.write_json)
    if chosen.html:
        from parity.reports import html

        output_file.write_by("--html", chosen.html, lambda file: html.write(report, file))
    if getattr(chosen, "arrays", None) and report.arrays:
        import numpy as np

        arrays = io.BytesIO()
        np.savez(arrays, **report.arrays)  # type: ignore[arg-type]
        output_file.write("--arrays", chosen.arrays, arrays.getvalue())
    return report.exit_code


def _train(chosen: settings.Train) -> int:
    from parity.alexnet import trajectory

    report = trajectory.run(
        settings.chosen_models(chosen.model),
        list(settings.RECIPES) if chosen.recipe == "all" else [chosen.recipe],
        dtype=chosen.dtype, steps=chosen.steps, runs=chosen.runs, batch=chosen.batch,
        image_size=chosen.image_size, seed=chosen.seed,
        show=lambda part: show(part, chosen),
    )  # fmt: skip
    return finish(report, chosen)


def _runs(chosen: settings.Runs) -> int:
    from parity.twins import program

    twins = program.run(
        chosen.model,
        chosen.recipe,
        chosen.schedule,
        data=chosen.data,
        seed=chosen.seed,
        image_size=chosen.image_size,
        stops=chosen.stops,
        show=lambda outcome: print(outcome, flush=True),
    )
    print("equal" if twins.equal else "DIFFERENT")
    if chosen.json:
        output_file.write_json("--json", chosen.json, twins.to_json())
    return 0 if twins.equal else 1


def _data(chosen: settings.Data) -> int:
    from parity.alexnet import data_comparison as data

    images = Path(chosen.images) if chosen.images else None
    report = data.run(images, seed=chosen.seed, pictures=chosen.pictures, dtype=chosen.dtype)
    show(report, chosen)
    return finish(report, chosen)


def _mutants(chosen: settings.Mutants) -> int:
    from parity.mutants import doubles, page, runs

    names = chosen.only.split(",") if chosen.only else ()
    score = runs.run(
        names, model=chosen.model, dtype=chosen.dtype, show=lambda outcome: print(outcome.line, flush=True)
    )
    if chosen.dtype in ("float64", "all"):
        score.pairs = doubles.run(names, model=chosen.model, show=lambda outcome: print(outcome.line, flush=True))
    print(score.summary)
    if chosen.json:
        output_file.write_by("--json", chosen.json, score.write_json)
    if chosen.html:
        output_file.write_by("--html", chosen.html, lambda file: page.write(score, file))
    return score.exit_code


def _clean(chosen: settings.Clean) -> int:
    from parity.alexnet import clean_runs

    score = clean_runs.run(chosen.runs, chosen.seed, show=lambda run: print(run.line, flush=True))
    print(score.summary)
    if chosen.json:
        output_file.write_by("--json", chosen.json, score.write_json)
    return score.exit_code


def _compare(chosen: settings.Compare) -> int:
    import numpy as np

    from parity.comparison import environments as processes
    from parity.kinds.layouts import channels_last

    mapping = _read_pairs(chosen.mapping) if chosen.mapping else None
    if chosen.inputs:
        loaded = np.load(chosen.inputs)
        arrays = (loaded,) if isinstance(loaded, np.ndarray) else tuple(loaded[name] for name in sorted(loaded.files))
    else:
        shape = tuple(int(n) for n in (chosen.shape or "").split(","))
        arrays = (np.random.default_rng(chosen.seed).standard_normal(shape),)
    report = processes.compare(
        chosen.flax or "", chosen.torch or "", arrays,
        flax_inputs=tuple(channels_last(x) if x.ndim == 4 else x for x in arrays),
        jax_python=chosen.jax_python, torch_python=chosen.torch_python, dtype=chosen.dtype,
        gradients=chosen.gradients, seed=chosen.seed, name="model", flax_kwargs={}, torch_kwargs={},
        mapping=mapping,
    )  # fmt: skip
    show(report, chosen)
    code = finish(report, chosen)
    if chosen.save_mapping:
        try:
            output_file.write("--save-mapping", chosen.save_mapping, report.mapping.text())
        except CannotConvert as error:
            print(f"--save-mapping: {error}", file=sys.stderr)
            return code or EXIT_COULD_NOT_RUN
    return code


def _read_pairs(path: str) -> Any:
    """A whole mapping, or no more than pairs of layers.

    Raises:
        CannotConvert: the file holds neither.
    """
    from parity.mapping import files
    from parity.mapping.mapping import Mapping, is_mapping

    content = files.read_json(path, "--mapping")
    if is_mapping(content):
        return Mapping.load(path)
    if isinstance(content, dict) and all(isinstance(value, str) for value in content.values()):
        return content
    raise CannotConvert(
        f"--mapping {path} must hold what --save-mapping writes, or pairs of layers: {{'flax/path': 'torch.path', ...}}"
    )


def _convert(chosen: settings.Convert) -> int:
    from parity.mapping import files
    from parity.mapping.mapping import Mapping

    file, weights, output = str(chosen.mapping), str(chosen.weights), str(chosen.output)
    mapping = Mapping.load(file)
    if mapping.comparison.get("verdict") != "equal":
        verdict = mapping.comparison.get("verdict", "unknown")
        print(f"note: the comparison that wrote {file} ended as {verdict}, not as equal", file=sys.stderr)
    given = files.read(weights)
    made = mapping.to_jax(given) if chosen.to == "jax" else mapping.to_torch(given)
    output_file.write("--output", output, files.to_bytes(made, output))
    model = mapping.jax_model if chosen.to == "jax" else mapping.torch_model
    print(f"{len(made)} tensors of {model}, {sum(array.size for array in made.values()):,} values")
    return 0
