"""Strict JAX for every test: eight virtual CPU devices, float64 available, no implicit promotion, fixed seeds."""

import atexit
import gc
import os
import shutil
import tempfile

import compiling

# Before anything touches a backend: the many-device tests need devices to exist.
os.environ["XLA_FLAGS"] = " ".join(
    [
        *os.environ.get("XLA_FLAGS", "").split(),
        "--xla_force_host_platform_device_count=8",
        "--xla_llvm_disable_expensive_passes=true",
        *compiling.flags(),
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_X64", "1")
# Arrays of different ranks or dtypes never meet unsaid: neither in a test nor in what it starts.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("MPLBACKEND", "Agg")
# One order of sums, whatever is the fastest on this machine; `test_calibration.py` turns it on.
os.environ.setdefault("JAX_ALEXNET_CALIBRATION", "off")
# A program that several tests and their processes need is compiled once in a run: JAX keeps it here, for all of them.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Where in Python each operation of a program was written takes a part of the time of lowering it, and nobody reads it.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# Processes of pytest-xdist have a processor each: more threads would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

gc.disable()  # until all is imported: see `pytest_collection_finish`


@pytest.fixture(autouse=True)
def jax_as_it_was() -> Iterator[None]:
    """Undo what a command that a test ran in this process chose for JAX as a whole: precision and float64."""
    yield
    jax = sys.modules.get("jax")
    if jax is not None:
        jax.config.update("jax_enable_x64", os.environ["JAX_ENABLE_X64"] != "0")
        jax.config.update("jax_default_matmul_precision", None)


@pytest.fixture(autouse=True, scope="module")
def own_context() -> Iterator[None]:
    """What JAX keeps while it prepares programs is kept for one file of tests."""
    yield
    compiling.forget()


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator, the same for every test that asks for one."""
    return np.random.default_rng(2012)


@pytest.fixture(scope="module")
def optimized_steps() -> Iterator[None]:
    """Training steps with quick loops, for tests in which they run for longer than compiling without saves."""
    from jax_alexnet import steps
    from jax_alexnet.devices import compiler_options

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "compiler_options", lambda platform: {**compiler_options(platform), **compiling.LOOPS})
        yield


@pytest.fixture(scope="session")
def gpu_compiler() -> Path:
    """The library of XLA's GPU compiler; where it isn't installed a test is skipped, but in CI it must be."""
    from alexnet_io.errors import UserError
    from jax_alexnet.compiled import gpu_compiler

    try:
        return gpu_compiler.find()
    except UserError as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))


# Files whose tests take longest, the longest first: at the end no process is left alone with one of them.
LONGEST = (
    "test_multiprocess.py",
    "test_torch_train_processes.py",
    "test_parity_runs.py",
    "test_parallel.py",
    "test_parity_train.py",
    "test_onednn_proof.py",
    "test_jax_derivatives.py",
    "test_parity_pairs.py",
    "test_parity_mutants.py",
    "test_reproduce.py",
    "test_parity_recurrent.py",
    "test_cli_train.py",
    "test_parity_speed_bare.py",
    "test_parity_recurrent_mapping.py",
    "test_gpu_program.py",
    "test_parity_attention_causes.py",
    "test_imagenet_recipes.py",
    "test_parity_operations.py",
    "test_parallel_bytes.py",
    "test_ablations.py",
    "test_jax_winograd.py",
    "test_parity_residual_causes.py",
    "test_jax_pooling.py",
    "test_parity_generic.py",
    "test_jax_networks.py",
    "test_parity_speed.py",
    "test_validation_split.py",
    "test_zoo.py",
    "test_jax_strict.py",
    "test_parity_attention.py",
    "test_parity_ported_pairs.py",
    "test_jax_facts.py",
    "test_shipped_weights.py",
    "test_fine_tuning_twins.py",
    "test_jax_reports.py",
    "test_fine_tuning.py",
    "test_step_options.py",
    "test_parity_commands.py",
    "test_jax_onednn.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Under `-n auto` a process more than processors: tests that wait for processes of their own leave one idle."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return processors + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; within one, and among the others, the order stays."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


def pytest_collection_finish() -> None:
    """Keep what was imported out of the garbage collector's sight: a million objects, none of which ever goes.

    And let it look less often: tracing makes objects by the million, of which few are garbage that it alone can find.
    """
    compiling.start_quickly()
    gc.freeze()
    gc.set_threshold(30_000, 20, 20)
    gc.enable()


WITHOUT_GPU = pytest.StashKey[int]()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the tests that are left out unless `-m gpu` asks for them; not where `-k` left them out."""
    for item in items:
        if item.get_closest_marker("gpu") and not item.config.option.keyword:
            item.config.stash[WITHOUT_GPU] = item.config.stash.get(WITHOUT_GPU, 0) + 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line what this machine lacked: each reason for skipping, and how many tests it concerned."""
    skipped = (report.longrepr for report in terminalreporter.stats.get("skipped", []))
    lacking = Counter(" ".join(reason.removeprefix("Skipped: ").split()) for _, _, reason in skipped)
    if count := config.stash.get(WITHOUT_GPU, 0):
        lacking["they need a GPU, run them with: python -m pytest -m gpu"] = count
    if lacking:
        parts = [f"{count} because {reason}" for reason, count in lacking.most_common()]
        terminalreporter.write_line(f"NOT RUN on this machine, {lacking.total()} tests: {'; '.join(parts)}", bold=True)


@pytest.fixture
def flax_promotes() -> Iterator[None]:
    """For modules that users write: Flax's own layers mix the dtypes of weights and inputs, as JAX lets them."""
    import jax

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
