"""A run's network written to one file: what `python -m jax_alexnet.export` does."""

from pathlib import Path

import jax
import numpy as np

from alexnet_io.command_line import packages
from alexnet_io.command_line.printing import printable
from alexnet_io.errors import on_the_way
from alexnet_io.run.network_facts import NetworkFacts
from jax_alexnet.files import weight_files, weights
from jax_alexnet.files.exported import say_fallback
from jax_alexnet.files.finished_run import load_run, saved_settings


def export(run: Path, file: Path, checkpoint: str, home: str) -> None:
    """Write it, and say where it is.

    Args:
        run: the directory that training wrote.
        file: .safetensors, or .pth for PyTorch.
        checkpoint: `best` or `newest`.
        home: whose names and layouts: `flax`, `torch_ref` or `torchvision`.

    Raises:
        UserError: no such run, or a file that this home doesn't have.
    """
    saved = saved_settings(run)
    model = saved.model
    if weight_files.check_ending(file, home) == "torch":
        packages.require("torch", by=f"--to {printable(file)}")
    weights.check_home(home, model, saved.ablate)
    network = load_run(run, which=checkpoint, devices=jax.devices()[:1])
    say_fallback(network, checkpoint)
    facts = NetworkFacts.of(network.settings, network.class_names, network.statistics, network.step)
    params = jax.tree.map(np.asarray, network.params)
    with on_the_way():
        weights.save(file, params, model, facts.image_size, home, facts)
    print(f"{model}, {network.which} weights, step {network.step}, for {home}: {printable(file)}")
