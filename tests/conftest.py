"""Strict JAX for every test: eight virtual CPU devices, float64 available, fixed seeds."""

import os

# Before anything touches a backend: the many-device tests need devices to exist.
os.environ["XLA_FLAGS"] = " ".join(
    [*os.environ.get("XLA_FLAGS", "").split(), "--xla_force_host_platform_device_count=8"]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def jax_as_it_was() -> Iterator[None]:
    """Undo what a command that a test ran in this process chose for JAX as a whole: precision and float64."""
    yield
    jax = sys.modules.get("jax")
    if jax is not None:
        jax.config.update("jax_enable_x64", os.environ["JAX_ENABLE_X64"] != "0")
        jax.config.update("jax_default_matmul_precision", None)


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator, the same for every test that asks for one."""
    return np.random.default_rng(2012)


@pytest.fixture(scope="session")
def gpu_compiler() -> Path:
    """The library of XLA's GPU compiler; where it isn't installed a test is skipped, but in CI it must be."""
    from alexnet_io.errors import UserError
    from jax_alexnet import gpu_compiler

    try:
        return gpu_compiler.find()
    except UserError as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
