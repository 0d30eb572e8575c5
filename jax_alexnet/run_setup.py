"""Everything a run needs before its first step, built from complete settings: data, network, steps, devices."""

import functools
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.data.batches import Batch, steps_in_epoch
from alexnet_io.data.image_statistics import training_statistics
from alexnet_io.data.sources import DataSet, open_for
from alexnet_io.errors import UserError
from alexnet_io.run import batch_parts, statistics_file, steering
from alexnet_io.run.fine_tuning import Beginning
from alexnet_io.run.progress import now_and_then
from jax_alexnet import augment, steps
from jax_alexnet.devices import check_batch, choose_devices, set_precision
from jax_alexnet.layer_specs import Conv
from jax_alexnet.model import AlexNet
from jax_alexnet.ops.cpu import calibration, onednn, proof
from jax_alexnet.optim import make_optimizer
from jax_alexnet.parallel import Layout, choose_layout, hybrid
from jax_alexnet.parallel.distributed import Processes
from jax_alexnet.parallel.layout import mesh_share
from jax_alexnet.recipes import choose_variant
from jax_alexnet.schedules import shares
from jax_alexnet.shapes import trace
from jax_alexnet.step_memory import step_memory

BEST = "best"  # inside a run's directory: the weights that did best on the images that steer the run


class Start(Protocol):
    """Weights from elsewhere; see `files.starting_weights.StartingWeights`."""

    @property
    def beginning(self) -> Beginning:
        """Where they are from, and what is new."""
        ...

    def put_into(self, fresh: Any) -> Any:
        """A network's fresh weights, with these in their place."""
        ...


@dataclass
class Setup:
    """What training and its evaluations share."""

    settings: CompleteSettings
    data: DataSet
    model: AlexNet
    layout: Layout
    processes: Processes
    augmentation: augment.Augmentation
    statistics_arrays: dict[str, np.ndarray]  # the normalisation's, as the run's directory keeps them
    statistics: dict[str, jax.Array]  # the same on the devices
    train_step: Any
    eval_step: Any
    optimizer: Any
    batch_size: int
    headline: str
    start: "Start | None" = None  # weights to begin with, instead of all fresh ones

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return self.layout.mesh

    @property
    def share(self) -> tuple[int, int]:
        """(i, n): this process loads part i of n of each global batch."""
        return mesh_share(self.mesh)

    @property
    def convolutions(self) -> str:
        """Whether oneDNN computes convolutions, and if not, why; and which forms are the fastest: in a line."""
        platform, cpu = self.mesh.devices.flat[0].platform, self.model.cpu_convolution
        line = onednn.status(self.model.dtype, cpu, platform)
        if platform != "cpu" or cpu != "auto" or self._largest_convolution < calibration.LEAST_OPERATIONS:
            return line
        forms = calibration.status(jnp.dtype(self.model.dtype).name)
        return f"{line}; {forms}" if forms else line

    @property
    def _largest_convolution(self) -> int:
        """Arithmetic of it, a device and step."""
        variant = choose_variant(self.settings)
        convolutions = {row.name for row in variant.layers if isinstance(row, Conv)}
        rows = trace(variant, self.settings.image_size)
        macs = max((row.macs for row in rows if row.name in convolutions), default=0)
        return 2 * macs * -(-self.batch_size // self.mesh.size)

    @functools.cached_property
    def key(self) -> jax.Array:
        """Root of the randomness inside steps; made once, since making it would take a GPU longer than a small step."""
        return jax.random.fold_in(jax.random.key(self.settings.seed), 1)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that cover the training set, the short last one included."""
        return steps_in_epoch(len(self.data.train), self.batch_size)

    def evaluable(self, params: Any) -> "Weighted":
        """This setup with weights, ready to be evaluated."""
        params = steps.in_compute_dtype(params, self.model)
        return Weighted(list(self.data.class_names), self.mesh, self.eval_step, params, self.statistics)

    def new_state(self) -> steps.TrainState:
        """Fresh weights, or those to begin with, and optimizer state on all devices."""
        params = init_params(self.model, self.settings.image_size, self.settings.seed)
        params = params if self.start is None else self.start.put_into(params)
        return self.layout.place(steps.fresh_state(params, self.optimizer, steps.StepOptions.of(self.settings)))

    def state_shapes(self) -> steps.TrainState:
        """What `new_state` makes, without making it."""
        options = steps.StepOptions.of(self.settings)
        return steps.state_shapes(self.model, self.optimizer, self.settings.image_size, options)

    def on_devices(self, batch: Batch) -> steps.DeviceBatch:
        """A host batch split over the devices."""
        return steps.split(steps.DeviceBatch(batch.images, batch.labels, batch.weights), self.mesh)


@dataclass
class Weighted:
    """A network with weights; see `evaluation.Evaluable`."""

    class_names: list[str]
    mesh: Mesh
    eval_step: Any
    params: Any
    statistics: dict[str, jax.Array]


def init_params(model: AlexNet, image_size: int, seed: int) -> Any:
    """Fresh weights {layer: {"kernel", "bias"}} for square images of `image_size` pixels."""
    return _init(model, image_size, jax.random.key(seed))


@partial(jax.jit, static_argnums=(0, 1))  # of equal networks compiled once
def _init(model: AlexNet, image_size: int, key: jax.Array) -> Any:
    return model.init(key, jnp.zeros((1, image_size, image_size, 3), model.dtype))["params"]


def make_model(settings: CompleteSettings, classes: int, dtype: jnp.dtype) -> AlexNet:
    """The network that settings describe; whether oneDNN computes it is looked for in their cache directory."""
    proof.keep_in(settings.cache_dir)
    wide = jnp.dtype(jnp.float64) if settings.precision == "float64" else jnp.dtype(jnp.float32)
    return AlexNet(
        choose_variant(settings),
        classes,
        settings.weight_init,
        settings.dropout,
        dtype,
        wide,
        settings.cpu_convolution,  # type: ignore[arg-type]
    )


def prepare(settings: CompleteSettings, processes: Processes | None = None) -> Setup:
    """Check everything, open the data, and build the compiled steps (compiled at their first call).

    Raises:
        UserError: an image size the network can't take, devices that aren't there, a scheme that doesn't fit, a
            batch they can't share or that can't fit into memory, data that can't be used, oneDNN asked for where it
            can't be used.
    """
    variant = choose_variant(settings)
    trace(variant, settings.image_size)
    dtype = set_precision(settings.precision)
    devices = choose_devices(settings.devices)
    layout = choose_layout(settings.parallel, variant, devices, settings.group_size)
    check_batch(settings.batch_size, layout.batch_parts)
    batch_parts.refuse_uneven(settings, layout.batch_parts)
    _check_scheme(settings, layout)
    processes = processes or Processes()
    _check_convolutions(settings, dtype)
    data = open_for(
        settings,
        step=step_memory(
            variant,
            settings.image_size,
            settings.precision,
            list(layout.mesh.devices.flat),
            processes.count,
            parts=settings.accumulate,
        ),
        say=processes.say,
    )
    shares(settings, steps_in_epoch(len(data.train), settings.batch_size), [0])  # refuses a warmup without an end
    model = make_model(settings, len(data.class_names), dtype)
    augmentation = augment.Augmentation.of(settings)
    shapes = jax.eval_shape(lambda: init_params(model, settings.image_size, 0))
    optimizer = make_optimizer(settings, variant, shapes)
    parameters = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    arrays = _statistics(settings, augmentation, data)
    return Setup(
        settings=settings,
        data=data,
        model=model,
        layout=layout,
        processes=processes,
        augmentation=augmentation,
        statistics_arrays=arrays,
        statistics=steps.replicate(arrays, layout.mesh),
        train_step=steps.make_train_step(model, optimizer, augmentation, layout, steps.StepOptions.of(settings)),
        eval_step=steps.make_eval_step(model, augmentation, layout),
        optimizer=optimizer,
        batch_size=settings.batch_size,
        headline=(
            f"{settings.model}, {parameters:,} parameters, recipe {settings.recipe}, {settings.precision}; "
            f"{steering.counts(data)} in {len(data.class_names)} classes at "
            f"{settings.image_size} pixels; batches of {settings.batch_size} on {len(devices)} {devices[0].platform} "
            f"device(s){_how(layout, processes)}"
        ),
    )


def _check_scheme(settings: CompleteSettings, layout: Layout) -> None:
    if settings.accumulate > 1 and hybrid.PART in layout.mesh.axis_names:
        raise UserError(
            f"--accumulate {settings.accumulate} can't go with --parallel hybrid, whose fully connected layers take "
            "the images of all devices at once: choose --parallel data, zero or columns, or leave --accumulate out"
        )


def _check_convolutions(settings: CompleteSettings, dtype: jnp.dtype) -> None:
    proof.keep_in(settings.cache_dir)
    if settings.cpu_convolution == "onednn" and (reason := onednn.reason_against(dtype)):
        raise UserError(f"--cpu-convolution onednn can't be had: {reason}; take auto, winograd or xla")


def _how(layout: Layout, processes: Processes) -> str:
    axes = " x ".join(f"{size} {name}" for name, size in layout.mesh.shape.items())
    words = f", shared by {layout.scheme} ({axes})" if layout.mesh.size > 1 else ""
    return words + (f", in {processes.count} processes" if processes.count > 1 else "")


def _statistics(settings: CompleteSettings, augmentation: augment.Augmentation, data: DataSet) -> dict[str, np.ndarray]:
    """The normalisation's arrays: measured for a new run, and those of its beginning for one that goes on."""
    if not augment.needs_statistics(augmentation):
        return {}
    if settings.resume and settings.output is not None:
        return statistics_file.read(settings.output)
    return augment.statistics_for(augmentation, training_statistics(data.train, now_and_then()))
