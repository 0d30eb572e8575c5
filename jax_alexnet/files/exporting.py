"""A trained network written to one file: what `python -m jax_alexnet.export` does."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.errors import on_the_way
from alexnet_io.exports import command, comparison, formats
from alexnet_io.exports.comparison import Comparison
from alexnet_io.exports.description import Description
from alexnet_io.files import atomic_file
from alexnet_io.run.network_facts import NetworkFacts
from alexnet_io.weights import card as cards
from alexnet_io.weights import shipped
from jax_alexnet import augment
from jax_alexnet.export_settings import PROGRAM, ExportSettings
from jax_alexnet.files import programs, weight_files, weight_homes
from jax_alexnet.files.exported import load_weights, say_fallback, with_names
from jax_alexnet.files.finished_run import TrainedNetwork, load_run, saved_settings
from jax_alexnet.model import AlexNet


@dataclass(frozen=True)
class Source:
    """What is exported, and what it computes.

    Attributes:
        network: with its weights.
        description: of it.
        shown: where the export goes, for people.
    """

    network: TrainedNetwork
    description: Description
    shown: str

    @property
    def model(self) -> AlexNet:
        """The network in float32."""
        return self.network.model.clone(dtype=jnp.float32)

    @cached_property
    def params(self) -> Any:
        """Its weights on the host, in the type that they are kept in."""
        return jax.tree.map(np.asarray, self.network.params)

    @cached_property
    def images(self) -> np.ndarray:
        """The pictures that are looked at, as the network sees them: float32 (4, side, side, 3)."""
        facts = self.description.facts
        pixels = jnp.asarray(comparison.pictures(facts.image_size), jnp.float32)
        return np.asarray(augment.normalized(pixels, facts.normalize, dict(facts.arrays)), np.float32)

    @cached_property
    def run(self) -> Callable[[Any], np.ndarray]:
        """Its logits of these pictures, with any weights."""
        apply = jax.jit(self.model.apply)
        return lambda params: np.asarray(apply({"params": params}, self.images))

    @cached_property
    def logits(self) -> np.ndarray:
        """With its own weights."""
        return self.run(_in_float32(self.params))


def export(settings: ExportSettings, chosen: str) -> None:
    """Write it, and say where it is and how it was checked.

    Args:
        settings: of the command.
        chosen: the format, one of `jax_alexnet.export_settings.FORMATS`.

    Raises:
        UserError: no such network, or a file that this home doesn't have.
        FailedRun: it can't be written, or is not what it was to be.
    """
    if formats.is_file_of_weights(chosen):
        weight_files.check_ending(Path(settings.to), settings.home)
        if settings.run is not None:
            saved = saved_settings(settings.run)
            weight_homes.check_home(settings.home, saved.model, saved.ablate)
    source = _opened(settings, "float32" if formats.is_program(chosen) else None)
    with on_the_way(), programs.in_float32():
        if formats.is_program(chosen):
            checked = _write_program(source, Path(settings.to), chosen)
        else:
            checked = _write_weights(source, settings, chosen)
    home = None if formats.is_program(chosen) else settings.home
    command.say_done(settings, source.description.facts, source.network.which, home, checked)


def _opened(settings: ExportSettings, precision: str | None) -> Source:
    """The network that is meant, on one device.

    Args:
        settings: of the command.
        precision: that its weights are read in; None for its own.
    """
    if settings.run is not None:
        network = load_run(settings.run, which=settings.checkpoint, devices=jax.devices()[:1], precision=precision)
        say_fallback(network, settings.checkpoint)
        card = None
    else:
        path = shipped.located(settings.weights or Path(), "--weights")
        network = load_weights(path, model=settings.model, devices="1", precision=precision)
        card = weight_files.read(path).facts.get(cards.KEY)
    named = bool(network.class_names) or settings.class_names is not None
    network = with_names(network, settings.class_names)
    facts = NetworkFacts.of(network.settings, network.class_names, network.statistics, network.step)
    imagenet = (augment.IMAGENET_MEAN, augment.IMAGENET_STD)
    return Source(network, Description(facts, named, imagenet, card), printable(settings.to))


def _write_program(source: Source, path: Path, chosen: str) -> Comparison:
    found: list[Comparison] = []
    if chosen == "onnx":
        content = programs.onnx_bytes(source.model, source.params, source.description)
        run, by = programs.run_onnx, "ONNX Runtime"
    else:
        content = programs.stablehlo_bytes(source.model, source.params, source.description)
        run, by = programs.run_stablehlo, "JAX running the file"

    def check(written: Path) -> None:
        found.append(comparison.compare_program(source.logits, run(written), source.images, by, source.shown))
        if chosen == "stablehlo":
            beside = path.with_name(path.name + programs.BESIDE)
            atomic_file.write_json(beside, source.description.texts(True))

    atomic_file.write_bytes(path, content, flag="--to", check=check)
    return found[0]


def _write_weights(source: Source, settings: ExportSettings, chosen: str) -> Comparison:
    found: list[Comparison] = []
    facts, about = source.description.facts, source.description

    def check(params: Any) -> None:
        theirs = source.run(_in_float32(params))
        found.append(comparison.compare(source.logits, theirs, "JAX with the weights as read back", source.shown))

    def save(path: Path) -> str:
        own = about.own_facts
        weight_homes.save(path, source.params, facts.model, facts.image_size, settings.home, own, about.about, check)
        return found[0].line()

    command.write_weights(settings, chosen, about, PROGRAM, save)
    return found[0]


def _in_float32(params: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
