"""The trained network that a command means: of a run, or of a file alone, an export or any program's state dict."""

import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.evaluate_settings import EvaluateSettings
from alexnet_io.command_line.picture_settings import PictureSettings
from alexnet_io.command_line.printing import printable
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.sources.given_names import names_for
from alexnet_io.errors import UserError
from jax_alexnet import augment, steps
from jax_alexnet.devices import choose_devices, data_mesh, set_precision
from jax_alexnet.files import weight_homes
from jax_alexnet.files.finished_run import TrainedNetwork, load_run, saved_settings
from jax_alexnet.ops.cpu import onednn
from jax_alexnet.recipes import resolve
from jax_alexnet.run_setup import make_model


def open_network(
    run: Path | None, file: Path | None, *, model: str | None, checkpoint: str, devices: str, precision: str | None
) -> TrainedNetwork:
    """What `--run`, or else `--weights`, names.

    On standard error it is said whether oneDNN computes it, and if a run has no best weights where these are meant.

    Args:
        run: the directory that training wrote; None for a file.
        file: see `load_weights`; likewise `model`.
        model: see `file`.
        checkpoint: of a run, `best` or `newest`.
        devices: what to compute on, see `choose_devices`.
        precision: of the arithmetic, instead of the one that it was trained in.

    Raises:
        UserError: no network there that can be used.
    """
    if run is None:
        network = load_weights(file or Path(), model=model, devices=devices, precision=precision)
    else:
        set_precision(precision or saved_settings(run).precision)
        network = load_run(run, which=checkpoint, devices=choose_devices(devices), precision=precision)
        say_fallback(network, checkpoint)
    device = network.mesh.devices.flat[0].platform
    print(onednn.status(network.model.dtype, network.model.cpu_convolution, device), file=sys.stderr)
    return network


def open_asked(settings: EvaluateSettings | PictureSettings) -> TrainedNetwork:
    """The network that a command's settings name; see `open_network`."""
    return open_network(
        settings.run,
        settings.weights,
        model=settings.model,
        checkpoint=settings.checkpoint,
        devices=settings.devices,
        precision=settings.precision,
    )


def say_fallback(network: TrainedNetwork, asked: str) -> None:
    """Say on standard error that a run has no best weights yet, where these were asked for."""
    if network.which != asked:
        print(f"note: the run has no {asked} weights yet: these are its {network.which}", file=sys.stderr)


def load_weights(path: Path, *, model: str | None = None, devices: str, precision: str | None = None) -> TrainedNetwork:
    """The network that a file describes; one that describes none is fed as its recipe says, which is said aloud.

    It has no class names where the file has none.

    Args:
        path: .safetensors or .pth, or a name, see `weights.read`.
        model: the network that the weights are for, where the file doesn't say.
        devices: what to compute on, see `choose_devices`.
        precision: of the arithmetic, instead of the file's own; float32 where it has none.

    Raises:
        UserError: unusable weights, or a file without the normalisation that its network needs.
    """
    loaded = weight_homes.read(path, model)
    facts, shown = loaded.facts, printable(path)
    if facts is not None:
        settings = resolve(facts.settings(precision or facts.precision))
    else:
        settings = fed_as_usual(shown, loaded, precision or "float32")
    dtype = set_precision(settings.precision)
    mesh = data_mesh(choose_devices(devices))
    stored = np.float64 if settings.precision == "float64" else np.float32
    return TrainedNetwork(
        settings=settings,
        class_names=list(facts.class_names) if facts else [],
        model=make_model(settings, loaded.classes, dtype),
        params=steps.replicate(jax.tree.map(lambda leaf: np.array(leaf, stored), loaded.params), mesh),
        augmentation=augment.Augmentation.of(settings),
        statistics=steps.replicate(facts.arrays if facts else {}, mesh),
        mesh=mesh,
        step=facts.step if facts else 0,
        which="file",
    )


def fed_as_usual(shown: str, loaded: weight_homes.Loaded, precision: str) -> CompleteSettings:
    """The settings of a network of which only the weights are known; what is assumed goes to standard error."""
    # Of a data set of which nothing is known: digits would have sizes of their own.
    known = TrainSettings(data="synthetic", model=loaded.model, image_size=loaded.image_size, precision=precision)
    settings = resolve(known)
    if augment.needs_statistics(augment.Augmentation.of(settings)):
        raise UserError(
            f"{shown} doesn't hold the mean of its training set, which {loaded.model} removes from pictures: predict "
            "from the run with --run DIR, or from an export of it, which has all that is needed"
        )
    print(
        f"note: {shown} says nothing of its input: fed as --recipe {settings.recipe} does, --normalize "
        f"{settings.normalize}, {settings.image_size} pixels from {settings.stored_size}",
        file=sys.stderr,
    )
    return settings


def with_names(network: TrainedNetwork, path: Path | None) -> TrainedNetwork:
    """The network with names for its classes, where its file has none.

    Args:
        network: from `load_weights`.
        path: text file with a name a line, or `imagenet`, where no file of that name lies, for ImageNet's synsets;
            `class 0`, `class 1`, ... if None.

    Raises:
        UserError: names that the file has already; a file that can't be read or has too few or many lines.
    """
    classes = network.model.classes or len(network.class_names)
    if path is None:
        return network if network.class_names else replace(network, class_names=[f"class {i}" for i in range(classes)])
    return replace(network, class_names=names_for(path, network.class_names, classes))
