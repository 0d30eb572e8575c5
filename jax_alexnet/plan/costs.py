"""What a step costs under one scheme: time, bytes and memory of a compiled program, and of the same on more devices."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

from jax_alexnet.compiled.collectives import Collective, Links, on_more_devices
from jax_alexnet.compiled.gpu_reading import GpuProgram


@dataclass(frozen=True)
class Cost:
    """One training step of one scheme.

    Attributes:
        scheme: data, columns, hybrid or zero.
        devices: how many.
        images: a device.
        compute: seconds of a device's own work.
        messages: what it takes part in.
        communication: seconds of that, one message after the other.
        argument_bytes: weights, optimizer state and images on a device.
        temporary_bytes: besides.
        compiled_for: devices that the program was compiled for; fewer than `devices` where it was extrapolated.
    """

    scheme: str
    devices: int
    images: int
    compute: float
    messages: tuple[Collective, ...]
    communication: float
    argument_bytes: int
    temporary_bytes: int
    compiled_for: int

    @property
    def seconds(self) -> float:
        """Of a step in which nothing overlaps."""
        return self.compute + self.communication

    @property
    def overlapped(self) -> float:
        """Of a step in which communication hides behind work as far as it can: no step is faster."""
        return max(self.compute, self.communication)

    @property
    def images_per_second(self) -> float:
        """Of all devices, nothing overlapped."""
        return self.images * self.devices / self.seconds

    @property
    def sent(self) -> float:
        """Bytes that a device sends."""
        return sum(message.sent for message in self.messages)

    @property
    def memory(self) -> int:
        """Bytes that a device needs."""
        return self.argument_bytes + self.temporary_bytes

    @property
    def by_kind(self) -> dict[str, int]:
        """Bytes of the whole arrays by kind of collective."""
        total: Counter[str] = Counter()
        for message in self.messages:
            total[message.kind] += message.whole
        return dict(total)


def cost_of(program: GpuProgram, links: Links, slowdown: float = 1.0) -> Cost:
    """The cost of a compiled program.

    Args:
        program: read from what was compiled.
        links: how fast devices send.
        slowdown: measured time of a step on one device over the modelled one.
    """
    settings = program.settings
    messages = tuple(message for message in program.collectives if message.group > 1)
    return Cost(
        scheme=settings["parallel"],
        devices=settings["devices"],
        images=settings["batch_size"],
        compute=program.seconds * slowdown,
        messages=messages,
        communication=sum(links.seconds(message, settings["devices"]) for message in messages),
        argument_bytes=program.argument_bytes,
        temporary_bytes=program.temporary_bytes,
        compiled_for=settings["devices"],
    )


def extrapolated(cost: Cost, links: Links, devices: int) -> Cost:
    """The cost on more devices, each with as many images: only the groups grow, and the ring's factor with them."""
    messages = tuple(on_more_devices(message, cost.devices, devices) for message in cost.messages)
    seconds = sum(links.seconds(message, devices) for message in messages)
    return replace(cost, devices=devices, messages=messages, communication=seconds)


def group_of(scheme: str, devices: int, machine: int, group_size: int | None = None) -> int | None:
    """`--group-size` of a scheme that has one: for `hybrid` a machine's devices if no other is wanted."""
    if scheme == "hybrid":
        return group_size or (devices if devices <= machine else gcd(devices, machine))
    return group_size if scheme == "zero" else None


def neighbours(scheme: str, devices: int, machine: int, group_size: int | None = None) -> int:
    """Devices whose number stays when more are added: a pair of columns, a group of `hybrid` or `zero`."""
    return 2 if scheme == "columns" else group_of(scheme, devices, machine, group_size) or 1


def basis(scheme: str, devices: int, compiled: Sequence[int], machine: int, group_size: int | None) -> int | None:
    """Of the numbers of devices that a scheme was compiled for, the one to extrapolate from; None if none will do.

    There must be several groups already, of the size that they have on `devices`: a program for one group alone
    lacks the messages between groups.
    """
    wanted = neighbours(scheme, devices, machine, group_size)
    fitting = [
        n
        for n in compiled
        if 1 < n < devices and devices % n == 0 and neighbours(scheme, n, machine, group_size) == wanted and n > wanted
    ]
    return max(fitting, default=None)


def crossover(data: Cost, small: Cost, large: Cost) -> float | None:
    """The global batch at which `hybrid` sends as much as `data`, whose bytes don't depend on the batch, or None.

    Args:
        data: of as many devices.
        small: `hybrid` with some images a device.
        large: `hybrid` with more images a device; what it sends grows in proportion to them.
    """
    if large.sent <= small.sent:
        return None  # groups of one: hybrid in name only
    slope = (large.sent - small.sent) / ((large.images - small.images) * small.devices)
    return (data.sent - small.sent) / slope + small.images * small.devices
