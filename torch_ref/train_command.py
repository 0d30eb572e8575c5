"""What `python -m torch_ref.train` does with complete settings: set up, then run or only try one step."""

import contextlib
from collections.abc import Sequence
from typing import Any

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
from torch_ref.engine import TorchEngine
from torch_ref.launch import said_once
from torch_ref.network import layers_with_weights
from torch_ref.processes import processes
from torch_ref.run_setup import Setup, prepare

# torchrun passes on the signals that it gets, and Ctrl-C reaches the processes by themselves as well.
ECHO_SECONDS = 2.0


def train(
    settings: CompleteSettings, engine: type[TorchEngine] = TorchEngine, callbacks: Sequence[Callback] = ()
) -> int:
    """Train as the settings say; returns the exit code (0, or 128 + the signal that stopped it).

    Args:
        settings: of the run.
        engine: what computes; a kind of `TorchEngine` that also records, say.
        callbacks: called with an `EpochRecord` at the end of each epoch, in every process of the run. What one of them
            raises ends the run, which is saved first.

    Raises:
        FailedRun: something the user can mend went wrong on the way; what was saved stays.
        SystemExit: with `launch.REFUSED` and a line on standard error before anything was begun.
    """
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(processes(settings.devices, settings.batch_size))
        with said_once():
            for warning in preflight.check(settings) if group.first else ():
                group.say(f"warning: {warning}")
            setup = prepare(settings, group)
            group.say(setup.headline)
            beginning = setup.start.beginning if setup.start else None
            for line in notes(settings, beginning, layers_with_weights(setup.network)):
                group.say(line)
            for line in (*averaging.notes(settings), steering.note(settings)):
                group.say(line)
            directory, identity = None, fingerprint(setup.data)
            if not settings.dry_run:
                directory = group.first_then_others(lambda: _directory(setup, identity) if group.first else None)
        if settings.dry_run:
            return dry_run(TorchEngine(setup, None))
        if directory is not None:
            stack.enter_context(directory)
        signals = stack.enter_context(Signals(ECHO_SECONDS))
        loop = TrainingLoop(engine(setup, directory), settings, identity, directory, signals, callbacks)
        with said_once():
            loop.begin()
        with on_the_way():
            return loop.go()


def _directory(setup: Setup, identity: dict[str, Any]) -> RunDirectory:
    """The run's directory, locked and described."""
    settings = setup.settings
    where = settings.output or new_default_directory(settings.model, settings.data)
    directory = RunDirectory(where, resume=settings.resume)
    computing = machine.describe([setup.group.device_name] * setup.group.count, setup.group.count)
    if settings.resume:
        directory.went_on(lengths=lengths(settings), machine=computing)
    if not settings.resume:
        statistics_file.write(directory.path, setup.arrays)
        directory.describe(
            model=settings.model,
            class_names=list(setup.data.class_names),
            normalisation={"normalize": settings.normalize},
            settings=plain(settings),
            settings_yaml=as_yaml(settings),
            framework="torch_ref",
            data=identity,
            machine=computing,
            **averaging.described(settings),
            **begun_with(setup.start.beginning if setup.start else None),
        )
    return directory
