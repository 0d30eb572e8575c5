"""A trained network in a few lines of Python: `load_run(DIR).predict(["picture.jpg"])`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from alexnet_io.command_line.flags import one_of
from alexnet_io.command_line.printing import printable
from alexnet_io.data.decoding import Resizing, resize
from alexnet_io.data.given_pictures import Pictures, listed, pixels
from alexnet_io.data.sources.synset_names import readable
from alexnet_io.errors import UserError
from alexnet_io.exports import folders
from alexnet_io.weights import shipped
from jax_alexnet import steps
from jax_alexnet.devices import set_precision
from jax_alexnet.files.exported import open_network, with_names
from jax_alexnet.files.finished_run import TrainedNetwork
from jax_alexnet.layer_specs import Dropout
from jax_alexnet.recipes import choose_variant

_AT_ONCE = 32


def load_run(
    where: str | Path,
    *,
    checkpoint: str = "best",
    model: str | None = None,
    devices: str = "1",
    precision: str | None = None,
) -> "LoadedNetwork":
    """A trained network with all that it needs: weights, preprocessing, its classes' names.

    Args:
        where: the directory that training wrote; a file of weights: an export, a .safetensors, .npz or .pth file; a
            folder of a model hub's layout; or the name of weights that come with the project, see `python -m
            jax_alexnet.weights`.
        checkpoint: of a run, `best` or `newest`.
        model: the network that a file is for, where it doesn't say.
        devices: all, a count, or ids such as 0,2.
        precision: of the arithmetic, instead of the one that it was trained in.

    Raises:
        UserError: no network there that can be used; the message says what to pass.
    """
    path = Path(where).expanduser()
    one_of("checkpoint", checkpoint, ("best", "newest"))
    run, file = (path, None) if path.is_dir() and not folders.is_folder(path) else (None, path)
    if run is None and not path.exists() and len(path.parts) > 1 and not path.suffix:  # can't be a name
        raise UserError(
            f"there is no {printable(path)}: pass the directory that training wrote (its --output), a file of weights, "
            f"or one of the weights that come with the project ({', '.join(shipped.names())})"
        )
    with _jax_as_it_was():
        network = open_network(run, file, model=model, checkpoint=checkpoint, devices=devices, precision=precision)
        return LoadedNetwork(with_names(network, None), precision or network.settings.precision)


class LoadedNetwork:
    """A trained network. Made by `load_run`.

    Attributes:
        class_names: in the order of the outputs.
        variables: {"params": {layer: {"kernel", "bias"}}}, as `AlexNet.apply` takes them.
        model: the Flax module.
        settings: which decided what it is and how its input is made.
    """

    def __init__(self, network: TrainedNetwork, precision: str) -> None:
        self.class_names = list(network.class_names)
        self.variables = {"params": network.params}
        self.model, self.settings = network.model, network.settings
        self._network, self._precision = network.for_inference(), precision
        self._eval_step = self._network.eval_step
        self._feature_steps: dict[str, Any] = {}

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that `features` gives, in order."""
        return tuple(row.name for row in choose_variant(self.settings).layers if not isinstance(row, Dropout))

    def probabilities(self, pictures: Pictures) -> NDArray[np.float64]:
        """The probability of each class: (pictures, classes), rows that sum to 1.

        Args:
            pictures: one or several: paths of image files, or arrays of uint8 (height, width, 3) in RGB, of any
                size; (n, height, width, 3) is n of them. As in files there may be greyscale, (height, width), and
                alpha, which is dropped. They are resized, cropped and normalised as the network's training images
                were.

        Raises:
            UserError: a file that can't be read, or an array that is no picture.
        """
        logits = self._through(self._eval_step, pictures, lambda found: found[0]).astype(np.float64)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def predict(self, pictures: Pictures, top: int = 5) -> list[list[tuple[str, float]]]:
        """The `top` likeliest classes of each picture with their probabilities, the likeliest first.

        ImageNet's synsets have names that people can read: `tench (n01440764)`.

        Args:
            pictures: see `probabilities`.
            top: how many classes; all where there are fewer.

        Raises:
            UserError: see `probabilities`; or less than one class.
        """
        if top < 1:
            raise UserError(f"top is {top}: at least 1 class can be told")
        found = self.probabilities(pictures)
        order = np.argsort(-found, axis=1, kind="stable")[:, :top]
        names = [readable(name) for name in self.class_names]
        return [[(names[i], float(row[i])) for i in best] for row, best in zip(found, order, strict=True)]

    def features(self, pictures: Pictures, layer: str = "fc7") -> NDArray[Any]:
        """What a layer puts out for each picture: (pictures, units) or (pictures, height, width, channels), float32.

        In a network that computes in float64 it is that. `fc7` is the layer itself; what follows its ReLU, the paper's
        image features, is `relu7`.

        Args:
            pictures: see `probabilities`.
            layer: one of `layers`.

        Raises:
            UserError: see `probabilities`; or no such layer.
        """
        one_of(f"{self.settings.model}'s layer", layer, self.layers)
        if layer not in self._feature_steps:
            network = self._network
            step = steps.make_feature_step(network.model, network.augmentation, network.mesh, layer)
            self._feature_steps[layer] = step
        return self._through(self._feature_steps[layer], pictures, lambda found: found)

    def _through(self, step: Any, pictures: Pictures, wanted: Any) -> NDArray[Any]:
        """What a compiled step makes of pictures, a batch of one size at a time, so that it is compiled once."""
        every, rows, network = listed(pictures), [], self._network
        size = -(-_AT_ONCE // network.mesh.devices.size) * network.mesh.devices.size
        with _jax_as_it_was():
            set_precision(self._precision)
            for start in range(0, len(every), size):
                images = np.stack([self._stored(picture) for picture in every[start : start + size]])
                padded = np.concatenate([images, np.zeros((size - len(images), *images.shape[1:]), np.uint8)])
                batch = steps.DeviceBatch(padded, np.zeros(size, np.int32), np.ones(size, np.float32))
                found = wanted(step(network.params, steps.split(batch, network.mesh), network.statistics))
                rows.append(np.asarray(found)[: len(images)])
        return np.concatenate(rows)

    def _stored(self, picture: str | Path | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture as the network's training images were stored."""
        side = self.settings.stored_size
        name = "image" if isinstance(picture, np.ndarray) else printable(picture)
        return resize(pixels(picture), Resizing(side, side, side), name)


@contextlib.contextmanager
def _jax_as_it_was() -> Iterator[None]:
    """Undo what computing in another precision changes for JAX as a whole."""
    names = ("jax_enable_x64", "jax_default_matmul_precision")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
