"""The weights that `--init-from` names, held to the network that is to begin with them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_io.command_line.ablations import refuse_other_ablation
from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.printing import printable
from alexnet_io.run.fine_tuning import Beginning, Origin, located, refuse_other_network, refuse_shapes
from alexnet_io.run.run_description import read_description
from jax_alexnet.files import weight_homes
from jax_alexnet.files.finished_run import saved_settings, weights_of
from jax_alexnet.recipes import choose_variant
from jax_alexnet.run_setup import make_model
from jax_alexnet.variants import layers_with_weights

Tree = Any


@dataclass(frozen=True)
class StartingWeights:
    """Weights to begin with.

    Attributes:
        params: {layer: {"kernel", "bias"}} on the host, of every layer but a new one.
        beginning: where they are from, and what is new.
    """

    params: dict[str, dict[str, np.ndarray]]
    beginning: Beginning

    def put_into(self, fresh: Tree) -> Tree:
        """A network's fresh weights, with these in their place and in their dtype."""
        there = {layer: fresh[layer] for layer in self.params}
        ours = jax.tree.map(lambda x, like: jax.device_put(np.array(x, like.dtype)), self.params, there)
        return {**fresh, **ours}


def read(settings: CompleteSettings, class_names: Sequence[str], shapes: Tree) -> StartingWeights:
    """Read what `--init-from` names.

    Args:
        settings: the run's.
        class_names: of the run's data.
        shapes: of the run's weights.

    Raises:
        UserError: nothing there, weights of another network or of other shapes, or settings that don't suit them.
    """
    path = located(settings.init_from or "")
    params, origin = _of_run(path, settings) if path.is_dir() else _of_file(path, settings)
    layers = layers_with_weights(choose_variant(settings))
    # What fits nowhere is said before what becomes of the last layer.
    wrong = [
        f"{layer}/{kind} has shape {tuple(params[layer][kind].shape)}, not {tuple(leaf.shape)}"
        for layer in layers
        for kind, leaf in shapes[layer].items()
        if tuple(params[layer][kind].shape[: _compared(layer, layers, leaf)])
        != tuple(leaf.shape[: _compared(layer, layers, leaf)])
    ]
    refuse_shapes(origin, settings, wrong)
    beginning = Beginning.of(origin, settings, class_names, layers)
    kept = layers[:-1] if beginning.new else layers
    return StartingWeights({layer: params[layer] for layer in kept}, beginning)


def _compared(layer: str, layers: Sequence[str], leaf: Any) -> int:
    """How many of an array's axes must be as long as the run's: of the last layer not the one of the classes."""
    return len(leaf.shape) - (layer == layers[-1])


def _of_run(run: Path, settings: CompleteSettings) -> tuple[Any, Origin]:
    description, saved = read_description(run), saved_settings(run)
    shown, names = printable(run), tuple(description["class_names"])
    refuse_other_network(saved.model, shown, settings)
    refuse_other_ablation(saved.ablate, shown, settings.ablate)
    model = make_model(replace(saved, cpu_convolution="auto"), len(names), jnp.dtype(jnp.float32))
    params, step, which = weights_of(run, "best", model, saved)
    origin = Origin(f"{shown}, {which} weights", saved.model, len(names), names, saved.normalize, step)
    return jax.tree.map(np.asarray, params), origin


def _of_file(path: Path, settings: CompleteSettings) -> tuple[Any, Origin]:
    loaded = weight_homes.read(
        path, settings.model, usual_size=settings.image_size, ablate=settings.ablate, flag="--init-from"
    )
    facts = loaded.facts
    if facts is not None:
        refuse_other_ablation(facts.ablate, printable(path), settings.ablate)
    names = tuple(facts.class_names) if facts else ()
    known = (names, facts.normalize, facts.step) if facts else (names, None, None)
    return loaded.params, Origin(printable(path), loaded.model, loaded.classes, *known)
