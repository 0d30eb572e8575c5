"""The parts of `parity gpu`: a command each, the most valuable first."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alexnet_io.errors import UserError
from alexnet_io.run.machine import usable_cores
from jax_alexnet.variants import VARIANTS
from parity.speed.settings import OnGpu
from parity.speed.workload import Workload

ROOT = Path(__file__).resolve().parents[3]  # that holds `tests`, in a checkout
TESTS = ROOT / "tests" / "test_gpu_runs.py"
_MEASURED = 0.85  # of a part's time is for measuring, where it can be told so; the rest for what comes before and after


@dataclass(frozen=True)
class Part:
    """One question to the machine, which a process of its own answers.

    Attributes:
        name: for `--parts` and the page.
        asks: what it finds out, in words.
        words: arguments of the interpreter, given the seconds that measuring may take.
        weight: seconds that it takes on an H100, most of them for trying cuDNN's kernels: its share of what is left.
        result: file that it leaves its findings in: JSON, or a test run's XML.
        variables: of its environment.
        only_on_gpu: nothing of it can be tried elsewhere.
    """

    name: str
    asks: str
    words: Callable[[int], list[str]]
    weight: float
    result: Path
    variables: dict[str, str]
    only_on_gpu: bool = False


def parts(chosen: OnGpu, folder: Path) -> list[Part]:
    """All of them in order.

    Args:
        chosen: the settings.
        folder: of this call alone, for what they leave behind.
    """
    models = chosen.models.split(",")
    rows = [_part(folder, "machine", "what both frameworks see", 15, lambda _: ["-m", "parity.speed.on_gpu.seen"])]
    rows += [_layers(folder, model) for model in models]
    rows += [_throughput(folder, chosen, model) for model in models]
    rows += [_kernels(folder, chosen, model) for model in models]
    rows.append(_tests(folder))
    for precision in ("float32", "tf32"):
        rows += [_throughput(folder, chosen, model, precision=precision) for model in models]
    rows += [_throughput(folder, chosen, models[0], mode="infer", batch=batch) for batch in (1, chosen.batch_size)]
    rows.append(_input(folder, chosen, models[0]))
    rows += [_alone(folder, chosen, model) for model in models]
    return rows


def _part(
    folder: Path, name: str, asks: str, weight: float, words: Callable[[int], list[str]], **variables: str
) -> Part:
    result = folder / f"{name.replace(' ', '-')}.json"
    return Part(name, asks, lambda seconds: [*words(seconds), f"--json={result}"], weight, result, variables)


def _layers(folder: Path, model: str) -> Part:
    words = ["-m", "parity", "layers", f"--model={model}", "--dtype=float32"]
    return _part(folder, f"layers {model}", "whether every layer on the GPU is PyTorch's", 70, lambda _: words)


def _throughput(
    folder: Path, chosen: OnGpu, model: str, *, precision: str = "", mode: str = "train", batch: int | None = None
) -> Part:
    """Speed of both frameworks, and whether what is timed computes the reference's; the main one with all rivals."""
    main = not precision and mode == "train"
    batch, precision = batch or chosen.batch_size, precision or chosen.precision
    words = _timed(chosen, model, mode, precision, batch, "1,all" if main else "1")
    words += ["--rounds=6"] if main else ["--rounds=4", "--style=tuned", "--no-check-layers"]
    name = " ".join(["speed", model, *([] if main else [precision]), *([] if mode == "train" else [mode, str(batch)])])
    asks = f"images a second in {precision}, memory, and the distance from the reference"
    return _part(folder, name, asks, 150 if main else 70, lambda seconds: [*words, f"--budget-seconds={seconds}"])


def _timed(chosen: OnGpu, model: str, mode: str, precision: str, batch: int, devices: str) -> list[str]:
    return [
        *("-m", "parity", "throughput", f"--model={model}", f"--mode={mode}", f"--precision={precision}"),
        *(f"--batch-size={batch}", f"--devices={devices}", f"--block-seconds={chosen.block_seconds:g}"),
    ]


def _kernels(folder: Path, chosen: OnGpu, model: str) -> Part:
    size = VARIANTS[model].image_size
    threads = usable_cores()
    workload = Workload("jax", "tuned", model, size, chosen.batch_size, chosen.precision, threads=threads)
    words = ["-m", "parity.speed.on_gpu.kernels", json.dumps(workload.as_json()), f"--model-of={chosen.modelled}"]
    asks = "the kernels of a training step, by layer and beside the modelled times"
    # Kernels that are launched as one graph are not told apart by the profiler.
    graphs = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_command_buffer=".strip()}
    return _part(folder, f"kernels {model}", asks, 45, lambda _: words, **graphs)


def _tests(folder: Path) -> Part:
    result = folder / "tests.xml"
    words = ["-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-q", f"--junitxml={result}", str(TESTS)]
    return Part("tests", "two runs bit for bit, and what else needs a GPU", lambda _: words, 150, result, {}, True)


def _input(folder: Path, chosen: OnGpu, model: str) -> Part:
    words = [*_timed(chosen, model, "input", chosen.precision, chosen.batch_size, "1"), "--rounds=4"]
    asks = "whether reading the cache keeps up with training"
    return _part(folder, "input", asks, 50, lambda seconds: [*words, f"--budget-seconds={seconds}"])


def _alone(folder: Path, chosen: OnGpu, model: str) -> Part:
    words = [
        *("-m", "parity", "profile", f"--model={model}", f"--precision={chosen.precision}"),
        f"--batch-size={chosen.batch_size}",
    ]
    return _part(folder, f"alone {model}", "each layer alone in both frameworks", 40, lambda _: words)


def measured(limit: float) -> int:
    """Seconds of a part's limit that it may measure for."""
    return max(int(limit * _MEASURED), 1)


def chosen_parts(rows: list[Part], names: str) -> list[Part]:
    """Those that the words name: a whole name is that part alone, any other word all whose names begin with it.

    Raises:
        UserError: a word that no name begins with.
    """
    if names == "all":
        return rows
    there, wanted = [row.name for row in rows], set[str]()
    for word in names.split(","):
        found = [word] if word in there else [name for name in there if word and name.startswith(word)]
        if not found:
            raise UserError(f"--parts: nothing is called {word!r}; there are {', '.join(there)}")
        wanted.update(found)
    return [row for row in rows if row.name in wanted]
