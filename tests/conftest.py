"""Strict JAX for every test: eight virtual CPU devices, float64 available, fixed seeds."""

import os

# Before anything touches a backend: the many-device tests need devices to exist.
os.environ["XLA_FLAGS"] = " ".join(
    [*os.environ.get("XLA_FLAGS", "").split(), "--xla_force_host_platform_device_count=8"]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator, the same for every test that asks for one."""
    return np.random.default_rng(2012)
