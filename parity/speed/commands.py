"""What `python -m parity throughput` and `profile` do, once their settings are parsed.

Imports no framework but for `--gpu`: each rival runs in a process of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexnet_io.command_line import output_file
from alexnet_io.command_line.complete_settings import stored_size
from alexnet_io.errors import UserError
from alexnet_io.run.machine import usable_cores
from jax_alexnet.compiled import gpu_text
from jax_alexnet.compiled.gpu_settings import GpuSettings
from jax_alexnet.gpus import listed_gpus
from jax_alexnet.variants import VARIANTS
from parity.speed import input_data, input_page, input_rates, layer_profile, page, profile_page
from parity.speed import throughput as measuring
from parity.speed.budget import Budget
from parity.speed.measuring_plan import Plan
from parity.speed.settings import Profile, Throughput
from parity.speed.workload import Workload


def throughput(chosen: Throughput) -> int:
    """Measure, print the table, write the files; 1 if a row is void or none could be measured, else 0."""
    plan = Plan(
        rounds=chosen.rounds,
        warmup=chosen.warmup,
        block_seconds=chosen.block_seconds,
        pythons=_pythons(chosen),
        say=lambda line: print(line, flush=True),
        trace=chosen.trace,
        check_layers=chosen.check_layers,
        profile=chosen.profile,
        budget=Budget(chosen.budget_seconds),
    )
    if chosen.mode == "input":
        return _input(chosen, plan)
    styles = ["plain", "tuned"] if chosen.style == "both" else [chosen.style]
    base = _workload(chosen, chosen.mode)
    counts = device_counts(chosen.devices)
    result = measuring.run(base, counts, chosen.frameworks.split(","), styles, plan)
    found = result.as_json()
    print(f"\n{result.table()}")
    _write(chosen, found, page.render)
    return int(not found["rows"] or any(row["void"] for row in found["rows"]))


def _input(chosen: Throughput, plan: Plan) -> int:
    """`--mode input`."""
    base = _workload(chosen, "train")
    if chosen.image_size is None and base.image_size == 227:
        base = replace(base, image_size=224)  # of the paper's text, and of most networks
    counts = device_counts(chosen.devices)
    if len(counts) > 1:
        raise UserError(f"--mode input measures one number of devices at a time, not {chosen.devices}")
    stored = stored_size(base.image_size, crop=True)

    def source(folder: Path) -> input_data.Source:
        if chosen.data is None:
            return input_data.made_up(folder, chosen.images, stored)
        return input_data.given(
            chosen.data, stored, data_dir=chosen.data_dir, cache_dir=chosen.cache_dir, holdout=chosen.holdout
        )

    frameworks = chosen.frameworks.split(",")
    result = input_rates.run(replace(base, devices=counts[0]), frameworks, plan, source, stored)
    print(f"\n{result.table()}")
    _write(chosen, result.as_json(), input_page.render)
    return int(not result.rows)


def _write(chosen: Throughput | Profile, found: dict[str, Any], render: Callable[[dict[str, Any]], str]) -> None:
    """The files that were asked for."""
    if chosen.json:
        output_file.write_json("--json", chosen.json, _plain(found), indent=1)
    if chosen.html:
        output_file.write("--html", chosen.html, render(found))


def _plain(found: Any) -> Any:
    """With null for what isn't finite, which JSON can't hold."""
    if isinstance(found, dict):
        return {key: _plain(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_plain(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def profile(chosen: Profile) -> int:
    """Time every layer, print the table, write the files; with `--gpu` read a compiled program instead."""
    if chosen.gpu is not None:
        return _gpu_profile(chosen)
    result = layer_profile.run(_workload(chosen, "train"), chosen.frameworks.split(","), _pythons(chosen))
    print(layer_profile.table(result))
    _write(chosen, result, profile_page.render)
    return 0


def _gpu_profile(chosen: Profile) -> int:
    """The training step's program for GPUs that needn't be there, by layer with the modelled time."""
    from jax_alexnet.compiled.gpu_step import compile_step  # imports JAX, which the other measurements leave to workers

    settings = GpuSettings(
        model=chosen.model,
        gpu=chosen.gpu or "",
        devices=chosen.devices,
        batch_size=chosen.batch_size or 256,
        precision=chosen.precision or "bfloat16",
        parallel=chosen.parallel,
        image_size=chosen.image_size,
    )
    program = compile_step(settings)
    print(gpu_text.report(program))
    _write(chosen, gpu_text.as_json(program), profile_page.render_gpu)
    return 0


def device_counts(words: str) -> list[int]:
    """The numbers of devices that `--devices` names.

    Raises:
        UserError: not numbers from 1, or more than there are GPUs (a CPU can be divided at will).
    """
    there = len(listed_gpus())
    most = there or 1
    if words == "all":
        return sorted({1 << i for i in range(most.bit_length()) if 1 << i <= most} | {most})
    try:
        counts = [most if word == "all" else int(word) for word in words.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise UserError(f"--devices {words!r} is not all or numbers such as 1 or 1,2,4 or 1,all")
    if there and max(counts) > there:
        raise UserError(f"--devices {words} asks for {max(counts)} devices; this machine has {there} GPU(s)")
    return sorted(set(counts))


def _workload(chosen: Throughput | Profile, mode: str) -> Workload:
    size = chosen.image_size or VARIANTS[chosen.model].image_size
    style = "tuned" if chosen.style == "both" else chosen.style
    form = "nchw-eager" if style == "plain" else ""
    return Workload(
        "jax",
        style,
        chosen.model,
        size,
        chosen.batch_size or 32,
        chosen.precision or "float32",
        mode,
        threads=chosen.threads or usable_cores(),
        form=form,
    )


def _pythons(chosen: Throughput | Profile) -> dict[str, str | None]:
    return {"jax": chosen.jax_python, "torch": chosen.torch_python}
