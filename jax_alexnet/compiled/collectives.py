"""What devices send each other in one step, as read from a compiled program, and how long it takes in rings.

The model of time: the g devices of a group form a ring, in which each sends to the next. Of arrays of P bytes in all,
each device sends

    all-reduce                               2 P (g - 1) / g
    all-gather, reduce-scatter, all-to-all     P (g - 1) / g
    collective-permute                         P

at the ring's speed: `Links.bandwidth` within a machine, and where the ring passes through several machines the smaller
of that and of k shares of a machine's network, with k of the group's devices in each machine (k rings side by side,
each through a network card of its own). No latency, no contention, no time for the additions. Rings are what NCCL does
with large messages on few devices; on many it has trees, whose latency is smaller, and switches that add up.
"""

from dataclasses import dataclass, replace
from math import gcd

from jax_alexnet.compiled import hlo


@dataclass(frozen=True)
class Collective:
    """One message among the devices.

    Attributes:
        kind: one of `hlo.COLLECTIVES`.
        dtype: of what is sent; several kinds joined by commas.
        nbytes: what one device puts in.
        arrays: how many.
        group: devices that take part together.
        stride: from one of them to the next, by number: 1 for neighbours.
    """

    kind: str
    dtype: str
    nbytes: int
    arrays: int
    group: int
    stride: int

    @property
    def whole(self) -> int:
        """Bytes of the whole arrays: what an all-reduce adds up, an all-gather makes, a reduce-scatter divides."""
        return self.nbytes * (self.group if self.kind == "all-gather" else 1)

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a ring."""
        if self.kind == "collective-permute":
            return float(self.nbytes)
        rounds = 2 if self.kind == "all-reduce" else 1
        return rounds * self.whole * (self.group - 1) / self.group


@dataclass(frozen=True)
class Links:
    """How fast devices send.

    Attributes:
        bandwidth: bytes a second from a device to its neighbour in the machine, one direction.
        network: bytes a second, a device's share of what leaves its machine, one direction.
        machine: devices in a machine.
    """

    bandwidth: float
    network: float
    machine: int

    def speed(self, message: Collective, devices: int) -> float:
        """Bytes a second of each device of a ring, among `devices` devices numbered machine by machine."""
        machine = min(self.machine, devices)
        reach = message.group * message.stride
        together = max(1, gcd(machine, reach) // message.stride)  # of one group in one machine, where it has fewest
        if together >= message.group:
            return self.bandwidth
        # Alone in its machine, a member has nobody to send to within it.
        return self.network if together == 1 else min(self.bandwidth, together * self.network)

    def seconds(self, message: Collective, devices: int) -> float:
        """Time of one message; see the module."""
        return message.sent / self.speed(message, devices)


def message_of(program: hlo.Text, operation: hlo.Operation, devices: int) -> Collective:
    """The message that an operation of a program for `devices` devices sends."""
    carried, group = program.read(operation), operation.group(devices)
    return Collective(
        kind=operation.kind.removesuffix("-start"),
        dtype=",".join(sorted({array.dtype for array in carried})),
        nbytes=sum(array.nbytes for array in carried),
        arrays=len(carried),
        group=len(group),
        stride=group[1] - group[0] if len(group) > 1 else 1,
    )


def on_more_devices(message: Collective, devices: int, wanted: int) -> Collective:
    """The same message of a program for `devices` devices if it ran on `wanted`, each with as many images as before.

    Groups of neighbours that are not all devices stay as they are: the columns of a network, or the devices that share
    its fully connected layers. All other groups grow with the number of devices, over the same whole arrays: weights.
    """
    if message.stride == 1 and message.group < devices:
        return message
    group = message.group * wanted // devices
    nbytes = message.nbytes * message.group // group if message.kind == "all-gather" else message.nbytes
    return replace(message, group=group, nbytes=nbytes)
