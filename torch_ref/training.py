"""What `python -m torch_ref.train` does with completed settings: set up, then run or only try one step."""

import contextlib
import time

from alexnet_io.run_directory import RunDirectory, new_default_directory
from alexnet_io.settings import as_yaml
from alexnet_io.signals import Signals
from alexnet_io.train_settings import TrainSettings, plain
from torch_ref.launch import said_once
from torch_ref.processes import processes
from torch_ref.run import Run
from torch_ref.setup import Setup, prepare
from torch_ref.steps import train_step

# torchrun passes on the signals that it gets, and Ctrl-C reaches the processes by themselves as well.
ECHO_SECONDS = 2.0


def train(settings: TrainSettings) -> int:
    """Run completed settings; returns the exit code (0, or 128 + the signal that stopped it).

    Raises:
        UserError: something the user can mend went wrong on the way; what was saved stays.
        SystemExit: with `launch.REFUSED` and a line on standard error before anything was begun.
    """
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(processes(settings.devices, settings.batch_size or 1))
        with said_once():
            setup = prepare(settings, group)
            print(setup.headline, flush=True)
            directory = None
            if not settings.dry_run:
                directory = group.first_then_others(lambda: _directory(setup) if group.first else None)
        if directory is None and settings.dry_run:
            return _dry_run(setup)
        if directory is not None:
            stack.enter_context(directory)
        return Run(setup, directory, stack.enter_context(Signals(ECHO_SECONDS))).go()


def _directory(setup: Setup) -> RunDirectory:
    """The run's directory, locked and described."""
    settings = setup.settings
    where = settings.output or new_default_directory(settings.model, settings.data)
    directory = RunDirectory(where, resume=settings.resume)
    if not settings.resume:
        directory.describe(
            model=settings.model,
            class_names=list(setup.data.class_names),
            normalisation={"normalize": settings.normalize},
            settings=plain(settings),
            settings_yaml=as_yaml(settings),
            framework="torch_ref",
        )
        setup.save_statistics(directory.path)
    return directory


def _dry_run(setup: Setup) -> int:
    batch, started = next(iter(setup.order(0))), time.perf_counter()
    sums = train_step(setup, batch, 0)
    setup.group.say(
        f"dry run: one step built and run in {time.perf_counter() - started:.1f} s, loss {sums[0] / sums[3]:.4f}; "
        "nothing written"
    )
    return 0
