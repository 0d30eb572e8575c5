"""The PyTorch reference knows nothing of the side that is held to it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "torch_ref").glob("*.py")
    if not path.stem.startswith("__")
)
STRANGERS = ("jax", "jaxlib", "flax", "optax", "jax_alexnet", "parity")


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in a fresh process after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("modules", [MODULES], ids=["all"])
def test_importing_the_reference_loads_no_stranger(modules: list[str]) -> None:
    assert "torch_ref.alexnet" in modules
    loaded = loaded_by("import torch_ref, " + ", ".join(modules))
    assert "torch" in loaded
    assert not loaded & set(STRANGERS)


def test_importing_the_package_loads_nothing() -> None:
    assert not loaded_by("import torch_ref") & {"torch", "numpy", *STRANGERS}
