"""A finished or unfinished run read back: its settings, network, weights and normalisation.

safetensors is imported for such files alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.resumed_settings import resumed
from alexnet_io.errors import UserError
from alexnet_io.run import statistics_file
from alexnet_io.run.run_description import read_description
from jax_alexnet import augment, steps
from jax_alexnet.devices import data_mesh, set_precision
from jax_alexnet.files import checkpoint, weight_homes
from jax_alexnet.model import AlexNet
from jax_alexnet.recipes import resolve
from jax_alexnet.run_setup import BEST, init_params, make_model

WHICH = ("best", "newest")


@dataclass
class TrainedNetwork:
    """What a run learnt, on the devices of `mesh`."""

    settings: CompleteSettings
    class_names: list[str]
    model: AlexNet
    params: Any
    augmentation: augment.Augmentation
    statistics: dict[str, jax.Array]
    mesh: Mesh
    step: int
    which: str  # "best" or "newest", as found; "file" for weights that no run holds

    @property
    def eval_step(self) -> Any:
        """Compiled (params, batch, statistics) -> (logits, losses)."""
        return steps.make_eval_step(self.model, self.augmentation, self.mesh)

    def for_inference(self) -> "TrainedNetwork":
        """The same laid out for speed; see `steps.for_inference`."""
        model, params = steps.for_inference(self.model, self.params)
        return replace(self, model=model, params=params)


def saved_settings(run: Path) -> CompleteSettings:
    """The settings of the run in directory `run`; what it was begun without knowing of is as a recipe has it.

    Raises:
        UserError: there is no run, or its description is damaged.
    """
    return resolve(resumed(read_description(run)["settings"], {}))


def load_run(run: Path, *, which: str, devices: list[Any], precision: str | None = None) -> TrainedNetwork:
    """The run's network with the weights of its best or newest intact checkpoint.

    Args:
        run: the directory that training wrote.
        which: `best` (highest test accuracy) or `newest`.
        devices: what to compute on.
        precision: instead of the run's own.

    Raises:
        UserError: no run, or no intact checkpoint in it.
    """
    description = read_description(run)
    settings = saved_settings(run)
    dtype = set_precision(precision or settings.precision)
    model = make_model(settings, len(description["class_names"]), dtype)
    params, step, which = weights_of(run, which, model, settings)
    augmentation = augment.Augmentation.of(settings)
    mesh = data_mesh(devices)
    return TrainedNetwork(
        settings=settings,
        class_names=list(description["class_names"]),
        model=model,
        params=steps.replicate(params, mesh),
        augmentation=augmentation,
        statistics=steps.replicate(_statistics(Path(run), augmentation), mesh),
        mesh=mesh,
        step=step,
        which=which,
    )


def weights_of(run: Path, which: str, model: AlexNet, settings: CompleteSettings) -> tuple[Any, int, str]:
    """A run's weights on the host, the steps they are after, and which they are.

    Args:
        run: the directory that training wrote.
        which: `best` or `newest`.
        model: the run's network, of as many classes.
        settings: the run's.

    Raises:
        UserError: no intact checkpoint.
    """
    shapes = jax.eval_shape(lambda: init_params(model, settings.image_size, 0))
    if read_description(run).get("framework") == "torch_ref":
        return *_reference_weights(Path(run), which, settings, shapes), which
    # Those of a run in float64 are read as such, whatever JAX is set to here.
    wanted = np.dtype(np.float64 if settings.precision == "float64" else np.float32)
    template = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), wanted), leaf.shape), shapes)
    return _restored(Path(run), which, template, averaged=settings.ema is not None)


def _restored(run: Path, which: str, template: Any, averaged: bool) -> tuple[Any, int, str]:
    """Weights of the best or newest checkpoint, the steps they are after, and which of the two they are.

    Of a run that evaluates an average of its weights, that average: as the best it is the only one, in a checkpoint it
    lies beside the weights.
    """
    where, found, key = run.resolve() / "checkpoints", None, "params"
    if which == "best":
        found = checkpoint.restore_newest(where.with_name(BEST), {key: template}, partial=True, read_only=True)
    if found is None:  # none is the best before the first evaluation
        which, key = "newest", "average" if averaged else key
        found = checkpoint.restore_newest(where, {key: template}, partial=True, read_only=True)
    if found is None:
        raise UserError(f"no checkpoint was finished in {where}: let the run go on with --resume --output {run}")
    return found.state[key], found.step, which


def _reference_weights(run: Path, which: str, settings: CompleteSettings, shapes: Any) -> tuple[Any, int]:
    """The same of a run of the PyTorch reference, whose best weights lie in a file that needs no PyTorch."""
    path = run.resolve() / BEST / "weights.safetensors"
    if which != "best":
        raise UserError(
            f"{printable(run)} is a run of torch_ref, whose newest checkpoint only PyTorch reads: use --checkpoint best"
        )
    if not path.exists():
        raise UserError(
            f"{printable(run)} has no best weights before its first evaluation: let it go on with python -m "
            f"torch_ref.train --resume --output {printable(run)}"
        )
    from safetensors import safe_open

    params, _ = weight_homes.load(path, settings.model, settings.image_size, settings.ablate)
    with safe_open(path, framework="numpy") as file:
        step = int((file.metadata() or {}).get("step", 0))
    return jax.tree.map(lambda leaf, like: jax.device_put(np.array(leaf, like.dtype)), params, shapes), step


def _statistics(run: Path, augmentation: augment.Augmentation) -> dict[str, np.ndarray]:
    if not augment.needs_statistics(augmentation):
        return {}
    return statistics_file.read(run)
