"""Packages that not every installation has: which extra brings them, and the line that installs it."""

import importlib.util
import re

from alexnet_io.errors import UserError

# By import name: what people call it, and the extra of this project that brings it; "" is for what always comes.
_PACKAGES = {
    "torch": ("PyTorch", "torch"),
    "torchvision": ("torchvision", "torch"),
    "onnx": ("ONNX", "onnx"),
    "onnxruntime": ("ONNX Runtime", "onnx"),
    "onnxscript": ("ONNX Script", "onnx"),
    "shtab": ("shtab", "completion"),
    "tensorboardX": ("tensorboardX", "tensorboard"),
    "tensorflow_datasets": ("tensorflow-datasets", "tfds"),
    "tensorflow": ("TensorFlow", "tfds"),
    "array_record": ("array-record", "tfds"),
    "jax": ("JAX", ""),
    "jaxlib": ("JAX", ""),
    "flax": ("Flax", ""),
    "optax": ("Optax", ""),
    "orbax": ("Orbax", ""),
    "grain": ("Grain", ""),
    "ml_dtypes": ("ml_dtypes", ""),
    "numpy": ("NumPy", ""),
    "PIL": ("Pillow", ""),
    "sklearn": ("scikit-learn", ""),
    "yaml": ("PyYAML", ""),
    "rich": ("Rich", ""),
    "matplotlib": ("Matplotlib", ""),
    "safetensors": ("safetensors", ""),
}


def require(*names: str, by: str) -> None:
    """Refuse before anything begins if a package isn't installed. Imports none.

    Args:
        names: as they are imported.
        by: what needs them, as `python -m parity layers`.

    Raises:
        UserError: some are missing; it has the line that installs them.
    """
    missing = [name for name in names if not _is_there(name)]
    if missing:
        called = " and ".join(dict.fromkeys(_PACKAGES[name][0] for name in missing))
        raise UserError(f"{by} needs {called}, not installed here: {pip_line(*missing)}")


def pip_line(*names: str) -> str:
    """What to type to get packages, by import names."""
    extras = ",".join(sorted({_PACKAGES[name][1] for name in names} - {""}))
    return f'pip install "jax-alexnet{f"[{extras}]" if extras else ""}"'


def missing_in(error: ImportError) -> str | None:
    """A failed import as a message with the line that installs the package; None if it failed for another reason."""
    named = re.search(r"(?:No module named|import of) '?([\w.]+)", str(error))
    name = (error.name or (named[1] if named else "")).partition(".")[0]
    if name not in _PACKAGES or _is_there(name):
        return None
    return f"this needs {_PACKAGES[name][0]}, which is not installed here: {pip_line(name)}"


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # hidden on purpose, or half imported
        return False
