"""The NVIDIA GPUs of this machine, asked of its driver: JAX isn't imported."""

import os
import shutil
import subprocess


def listed_gpus() -> list[str]:
    """The machine's NVIDIA GPUs as `nvidia-smi` lists them, a line each; none where there is no such command."""
    if not shutil.which("nvidia-smi"):
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [] if listed.returncode else [line.strip() for line in listed.stdout.splitlines() if line.startswith("GPU ")]


def visible_gpus() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` would call the GPUs that a process started here sees, without starting JAX.

    They are those that the variable names already; else all of the machine's, by number. None where `JAX_PLATFORMS`
    asks for the CPU.
    """
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number in range(len(listed_gpus()))]
    words = [word.strip() for word in named.split(",")]
    # CUDA hides what follows a word that names no device, such as -1 or nothing.
    end = next((i for i, word in enumerate(words) if not word or word.startswith("-")), len(words))
    return words[:end]
