"""What `python -m jax_alexnet.train` does with complete settings: set up, then run or only try one step."""

from collections.abc import Sequence

from alexnet_io.command_line.complete_settings import CompleteSettings, plain
from alexnet_io.command_line.resumed_settings import lengths
from alexnet_io.command_line.settings import as_yaml
from alexnet_io.data.sources.fingerprint import fingerprint
from alexnet_io.errors import on_the_way
from alexnet_io.run import averaging, machine, preflight, statistics_file, steering
from alexnet_io.run.directory import RunDirectory, new_default_directory
from alexnet_io.run.dry_run import dry_run
from alexnet_io.run.epoch_record import Callback
from alexnet_io.run.fine_tuning import begun_with, notes
from alexnet_io.run.loop import TrainingLoop
from alexnet_io.run.signals import Signals
from jax_alexnet.devices import unusable_gpu
from jax_alexnet.engine import JaxEngine, starting_weights
from jax_alexnet.parallel.distributed import Processes, joined
from jax_alexnet.recipes import choose_variant
from jax_alexnet.run_setup import Setup, prepare
from jax_alexnet.variants import layers_with_weights


def train(settings: CompleteSettings, engine: type[JaxEngine] = JaxEngine, callbacks: Sequence[Callback] = ()) -> int:
    """Train as the settings say; returns the exit code (0, or 128 + the signal that stopped it).

    Args:
        settings: of the run.
        engine: what computes; a kind of `JaxEngine` that also records, say.
        callbacks: called with an `EpochRecord` at the end of each epoch, in every process of the run. What one of them
            raises ends the run, which is saved first.

    Raises:
        UserError: something the user can mend before it begins; a FailedRun on the way: what was saved stays.
    """
    with joined(settings) as processes:
        return _train(settings, processes, engine, callbacks)


def _train(
    settings: CompleteSettings, processes: Processes, engine: type[JaxEngine], callbacks: Sequence[Callback]
) -> int:
    for warning in preflight.check(settings, packages=("orbax.checkpoint",)) if processes.first else ():
        processes.say(f"warning: {warning}")
    complaint = unusable_gpu()
    if complaint:
        processes.say(f"warning: {complaint}")
    setup = prepare(settings, processes)
    processes.say(setup.headline)
    processes.say(setup.convolutions)
    setup.start = start = None if settings.resume else starting_weights(setup)
    for line in notes(settings, start.beginning if start else None, layers_with_weights(choose_variant(settings))):
        processes.say(line)
    for line in (*averaging.notes(settings), steering.note(settings)):
        processes.say(line)
    if settings.dry_run:
        return dry_run(JaxEngine(setup, None))
    if not processes.first:
        return _run(setup, None, engine, callbacks)
    where = settings.output or new_default_directory(settings.model, settings.data)
    with RunDirectory(where, resume=settings.resume) as directory:
        return _run(setup, directory, engine, callbacks)


def _run(setup: Setup, directory: RunDirectory | None, engine: type[JaxEngine], callbacks: Sequence[Callback]) -> int:
    settings, identity = setup.settings, fingerprint(setup.data)
    kinds = [device.device_kind for device in setup.layout.mesh.devices.flat]
    computing = machine.describe(kinds, setup.processes.count)
    if directory is not None and settings.resume:
        directory.went_on(lengths=lengths(settings), machine=computing)
    if directory is not None and not settings.resume:
        statistics_file.write(directory.path, setup.statistics_arrays)
        directory.describe(
            model=settings.model,
            class_names=list(setup.data.class_names),
            normalisation={"normalize": settings.normalize},
            settings=plain(settings),
            settings_yaml=as_yaml(settings),
            data=identity,
            convolutions=setup.convolutions,
            machine=computing,
            **averaging.described(settings),
            **begun_with(setup.start.beginning if setup.start else None),
        )
    with Signals() as signals:
        loop = TrainingLoop(engine(setup, directory), settings, identity, directory, signals, callbacks)
        loop.begin()
        with on_the_way():
            return loop.go()
