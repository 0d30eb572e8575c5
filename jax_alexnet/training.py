"""What `python -m jax_alexnet.train` does with completed settings: set up, then run or only try one step."""

import time

import jax.numpy as jnp

from alexnet_io.run_directory import RunDirectory, new_default_directory
from alexnet_io.settings import as_yaml
from alexnet_io.signals import Signals
from alexnet_io.train_settings import TrainSettings, plain
from jax_alexnet.devices import unusable_gpu
from jax_alexnet.distributed import Processes, joined
from jax_alexnet.run import Run, order
from jax_alexnet.setup import Setup, prepare


def train(settings: TrainSettings) -> int:
    """Run completed settings; returns the exit code (0, or 128 + the signal that stopped it).

    Raises:
        UserError: something the user can mend; what was saved stays.
    """
    with joined(settings) as processes:
        return _train(settings, processes)


def _train(settings: TrainSettings, processes: Processes) -> int:
    complaint = unusable_gpu()
    if complaint:
        processes.say(f"warning: {complaint}")
    setup = prepare(settings, processes)
    processes.say(setup.headline)
    if settings.dry_run:
        return _dry_run(setup)
    if not processes.first:
        with Signals() as signals:
            return Run(setup, None, signals).go()
    where = settings.output or new_default_directory(settings.model, settings.data)
    with RunDirectory(where, resume=settings.resume) as directory, Signals() as signals:
        if not settings.resume:
            directory.describe(
                model=settings.model,
                class_names=list(setup.data.class_names),
                normalisation={"normalize": settings.normalize},
                settings=plain(settings),
                settings_yaml=as_yaml(settings),
            )
            setup.save_statistics(directory.path)
        return Run(setup, directory, signals).go()


def _dry_run(setup: Setup) -> int:
    batch = next(iter(order(setup, epoch=0, start_step=0)))
    started = time.perf_counter()
    _, metrics = setup.train_step(
        setup.new_state(),
        setup.on_devices(batch),
        jnp.asarray(setup.settings.learning_rate),
        setup.key,
        setup.statistics,
    )
    loss = float(metrics.loss) / float(metrics.examples)
    setup.processes.say(
        f"dry run: one step built and run in {time.perf_counter() - started:.1f} s, loss {loss:.4f}; nothing written"
    )
    return 0
