"""The core of the suite on other versions: `python tests/versions.py newest|floor [--prepare | pytest's arguments]`.

`newest` is the newest Python on this machine with the newest packages that pip gives it; `floor` the oldest Python and
packages that pyproject.toml promises. Each has an environment of its own below .versions/, made again when
pyproject.toml or what is installed changes; `--prepare` only makes it.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TOOLS = ["pytest>=8.4", "pytest-xdist>=3.6", "hypothesis>=6.135", "psutil>=7"]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch", "torchvision")

SAY = """
import sys
from importlib.metadata import version
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in sys.argv[1:]), sep=", ")
"""

# Networks, operations, steps, a training run and its resumption, checkpoints, the comparison of layers, programs run
# operation by operation, command lines.
CORE = [
    "test_jax_networks",
    "test_jax_lrn",
    "test_jax_pooling",
    "test_jax_onednn",
    "test_jax_steps",
    "test_jax_optim",
    "test_checkpoint",
    "test_weights",
    "test_torch_networks",
    "test_torch_optim",
    "test_cli_train",
    "test_cli_commands",
    "test_console_commands",
    "test_parity_pairs",
    "test_parity_located_causes",
    "test_imports",
]


def oldest() -> tuple[int, int]:
    """The Python that pyproject.toml asks for at least."""
    major, minor = re.findall(r"\d+", PROJECT["requires-python"])[:2]
    return int(major), int(minor)


def interpreters() -> dict[tuple[int, int], str]:
    """The Pythons of this machine that run and are new enough: those on the path, and pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [str(path) for path in sorted(pyenv.glob("3.*/bin/python"))]
    candidates += [path for minor in range(11, 30) if (path := shutil.which(f"python3.{minor}"))]
    found = {}
    for path in [*candidates, sys.executable]:
        code = "import sys; print(*sys.version_info[:2])"
        said = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False).stdout.split()
        if len(said) == 2 and (version := (int(said[0]), int(said[1]))) >= oldest():
            found[version] = path
    return found


def requirements(which: str) -> list[str]:
    """What pip installs: the project with PyTorch and completion, or every package at the version that is promised."""
    if which == "newest":
        return ["--upgrade", "-e", f"{ROOT}[torch,completion]", *TOOLS]
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["torch"], *extras["completion"]]
    return ["-e", str(ROOT), *(word.replace(">=", "==") for word in wanted), *TOOLS]


def environment(which: str) -> Path:
    """The interpreter of the environment, which is made if it isn't there."""
    pythons = interpreters()
    version = max(pythons) if which == "newest" else oldest()
    if version not in pythons:
        sys.exit(f"there is no Python {version[0]}.{version[1]} on this machine, which {which} needs")
    folder = ROOT / ".versions" / f"{which}-{version[0]}.{version[1]}"
    made = folder / "made-from"
    wanted = "\n".join([*requirements(which), (ROOT / "pyproject.toml").read_text(encoding="utf-8")])
    python = folder / "bin" / "python"
    if not made.exists() or made.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([pythons[version], "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements(which)], check=True)
        made.write_text(wanted, encoding="utf-8")
    return python


def main(which: str, arguments: list[str]) -> int:
    """Make the environment, say what is in it, run the core; returns pytest's exit code."""
    python = environment(which)
    subprocess.run([python, "-c", SAY, *PACKAGES], check=True)
    if arguments == ["--prepare"]:
        return 0
    files = [f"tests/{name}.py" for name in CORE]
    command = [python, "-m", "pytest", "-n", "auto", "--maxprocesses", "2", "--dist", "loadfile", *files, *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    if sys.argv[1:2] not in (["newest"], ["floor"]):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
