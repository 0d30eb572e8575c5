"""What a run in progress writes and shows, by the first process alone; and what all processes agree on as it goes."""

import contextlib
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_io.metrics import MetricsWriter
from alexnet_io.progress import Progress
from alexnet_io.run_directory import RunDirectory
from jax_alexnet import checkpoint
from jax_alexnet.setup import BEST


class _Nothing:
    """Takes every call and does nothing: the files of a process that isn't the first."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class RunFiles:
    """Metrics, checkpoints and the progress line, open from the first step to the last.

    Args:
        directory: None in all processes but the first.
        resume_step: the step from which metrics are continued, None for a new run.
        tensorboard: whether event files are written too.
        last_step: the step at which the run ends.
        start: the step at which it begins.
    """

    writer: Any
    saver: Any
    best_saver: Any
    progress: Any

    def __init__(
        self, directory: RunDirectory | None, *, resume_step: int | None, tensorboard: bool, last_step: int, start: int
    ) -> None:
        self._stack = contextlib.ExitStack()
        self.writer = self.saver = self.best_saver = self.progress = _Nothing()
        if directory is None:
            return
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            self.writer = enter(MetricsWriter(directory.path, resume_step=resume_step, tensorboard=tensorboard))
            self.saver = enter(checkpoint.BackgroundSaver(directory.checkpoints))
            self.best_saver = enter(checkpoint.BackgroundSaver(directory.path / BEST, keep=1))
            self.progress = enter(Progress(last_step, start=start))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)


class Agreement:
    """The largest of what the processes want, the same in all of them and without waiting.

    A signal comes to one process, and clocks differ, but all must stop and save after the same step. What is asked
    for at one step is sent along with it, and read at the next.
    """

    def __init__(self, mesh: Mesh, processes: int) -> None:
        self._several = processes > 1
        self._sent: jax.Array | None = None
        if self._several:
            flat = Mesh(mesh.devices.reshape(-1), ("voter",))
            self._sharding = NamedSharding(flat, P("voter"))
            self._own = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
            self._highest = jax.jit(lambda votes: votes.max(axis=0), out_shardings=NamedSharding(flat, P()))

    def exchange(self, stop: int, save: bool) -> tuple[int, bool]:
        """This process's wishes now; returns all processes' as they were one call ago (alone: its own, now).

        Args:
            stop: number of the signal that came, or 0.
            save: whether a checkpoint is due.
        """
        if not self._several:
            return stop, save
        before, votes = self._sent, np.tile(np.array([[stop, save]], np.int32), (self._own, 1))
        self._sent = self._highest(jax.make_array_from_process_local_data(self._sharding, votes))
        if before is None:
            return 0, False
        agreed = np.asarray(before)
        return int(agreed[0]), bool(agreed[1])
