"""The training step, lowered and compiled for GPUs that needn't be there."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet import augment, recipes, steps
from jax_alexnet import run_setup as setup
from jax_alexnet.compiled import gpu_compiler
from jax_alexnet.compiled.gpu_reading import GpuProgram, read
from jax_alexnet.compiled.gpu_settings import GpuSettings
from jax_alexnet.devices import set_precision
from jax_alexnet.optim import make_optimizer
from jax_alexnet.parallel import choose_layout
from jax_alexnet.parallel.layout import batch_spec


def compile_step(settings: GpuSettings, network: Callable[[Any], Any] | None = None) -> GpuProgram:
    """Compile the training step of a network for described GPUs and read the program.

    Args:
        settings: what to compile, and for what.
        network: makes another module of the same table from the repository's own; for comparisons.

    Raises:
        UserError: the compiler isn't installed, or the settings don't go together.
    """
    return compile_lowered(lower(settings, network), settings)


def compile_lowered(lowered: Any, settings: GpuSettings) -> GpuProgram:
    """Compile what `lower` made of the same settings, and read the program."""
    compiled = lowered.compile(compiler_options=gpu_compiler.compile_options())
    memory = compiled.memory_analysis()
    return read(compiled.as_text(), settings, memory.argument_size_in_bytes, memory.temp_size_in_bytes)


def lower(settings: GpuSettings, network: Callable[[Any], Any] | None = None) -> Any:
    """The training step on arrays that are only described, before compilation."""
    devices = gpu_compiler.described_devices(settings.gpu, settings.devices)
    batch = settings.batch_size * settings.devices
    training = recipes.resolve(
        TrainSettings(
            model=settings.model,
            precision=settings.precision,
            batch_size=batch,
            data="synthetic",
            image_size=settings.image_size,
            cpu_convolution="xla",  # nothing of it runs here
        )
    )
    variant = recipes.choose_variant(training)
    layout = choose_layout(settings.parallel, variant, devices, settings.group_size)
    model = setup.make_model(training, variant.classes, set_precision(settings.precision))
    augmentation = augment.Augmentation.of(training)
    params = jax.eval_shape(lambda: setup.init_params(model, training.image_size, 0))
    optimizer = make_optimizer(training, variant, params)
    state = steps.state_shapes(model, optimizer, training.image_size)
    side = training.stored_size

    def described(leaf: Any, spec: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(layout.mesh, spec))

    rows = batch_spec(layout.mesh)
    images = steps.DeviceBatch(
        described(jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8), rows),
        described(jax.ShapeDtypeStruct((batch,), jnp.int32), rows),
        described(jax.ShapeDtypeStruct((batch,), jnp.float32), rows),
    )
    whole = SimpleNamespace(
        mean_image=np.zeros((side, side, 3)),
        mean=np.zeros(3),
        std=np.ones(3),
        eigenvalues=np.zeros(3),
        eigenvectors=np.zeros((3, 3)),
    )
    rest = (
        jax.ShapeDtypeStruct((), jnp.float32),
        jax.eval_shape(lambda: jax.random.key(0)),
        augment.statistics_for(augmentation, whole),
    )
    step = steps.make_train_step(network(model) if network else model, optimizer, augmentation, layout)
    return step.lower(
        jax.tree.map(described, state, layout.specs(state)), images, *jax.tree.map(lambda x: described(x, P()), rest)
    )
