"""What the processes of a run agree on while they train."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


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
