"""What one GPU does in one training step, read from the text of its optimized program.

Bytes, messages and memory are the program's; times are modelled from them and from the arithmetic.
"""

from dataclasses import asdict, dataclass
from typing import Any

from jax_alexnet.compiled import gpu_compiler, hlo
from jax_alexnet.compiled.collectives import Collective, message_of
from jax_alexnet.compiled.gpu_settings import GpuSettings
from jax_alexnet.variants import VARIANTS


@dataclass(frozen=True)
class Launch:
    """One operation of the program, with what it belongs to."""

    name: str
    kind: str  # cuDNN's or cuBLAS's name for what they do, else XLA's kind
    source: str
    layer: str
    direction: str  # forward, backward, update or ""
    nbytes: int
    operations: int
    seconds: float  # modelled: the longer of moving its bytes and doing its convolutions and products


@dataclass(frozen=True)
class Convolution:
    """One convolution: where it runs and on what."""

    source: str
    target: str
    dtypes: tuple[str, ...]
    layouts: tuple[str, ...]  # of its maps and kernel, and of its result


@dataclass(frozen=True)
class GpuProgram:
    """What one device does in one training step."""

    settings: dict[str, Any]
    launches: list[Launch]
    collectives: list[Collective]
    convolutions: list[Convolution]
    scatters: list[str]
    copies: list[str]  # of activations
    argument_bytes: int
    temporary_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes that all launches read and write."""
        return sum(launch.nbytes for launch in self.launches)

    @property
    def sent(self) -> int:
        """Bytes of all messages, as they are before they are sent."""
        return sum(message.nbytes for message in self.collectives)

    @property
    def seconds(self) -> float:
        """Modelled time of one step without communication."""
        return sum(launch.seconds for launch in self.launches)


def read(text: str, settings: GpuSettings, argument_bytes: int, temporary_bytes: int) -> GpuProgram:
    """Read the text of an optimized program."""
    program, gpu = hlo.parse(text), gpu_compiler.GPUS[settings.gpu]
    layers = [row.name for row in VARIANTS[settings.model].layers]
    launches, messages, convolutions = [], [], []
    given = {o.name: o.source for o in program.computations[program.entry] if o.kind == "parameter"}
    for operation in program.top:
        kind = operation.kind.removesuffix("-start")
        if kind in hlo.COLLECTIVES:
            messages.append(message_of(program, operation, settings.devices))
            continue
        inside = program.inside(operation)
        layer, direction = hlo.layer_and_pass((o.source for o in (operation, *reversed(inside))), layers)
        if not layer:  # an optimizer's update bears no name but those of the weights that it reads
            layer, direction = hlo.layer_and_pass((given.get(name, "") for name in operation.operands), layers)
            if "jvp(" in operation.source:
                direction = "backward" if "transpose(" in operation.source else "forward"
        moved, work = program.moved(operation), program.arithmetic(operation)
        seconds = max(moved / gpu.bandwidth, work / gpu.arithmetic[settings.precision])
        launches.append(
            Launch(operation.name, operation.target or kind, operation.source, layer, direction, moved, work, seconds)
        )
        if hlo.is_convolution(operation):
            used = (*program.read(operation)[:2], operation.results[0])
            convolutions.append(
                Convolution(
                    operation.source, operation.target, tuple(a.dtype for a in used), tuple(_layout(a) for a in used)
                )
            )
    return GpuProgram(
        settings=asdict(settings),
        launches=launches,
        collectives=messages,
        convolutions=convolutions,
        scatters=[o.source for ops in program.computations.values() for o in ops if o.kind == "scatter"],
        copies=[o.name for o in program.top if _copies_an_activation(program, o, settings.batch_size)],
        argument_bytes=argument_bytes,
        temporary_bytes=temporary_bytes,
    )


def _layout(array: hlo.Array) -> str:
    """`last` where the last dimension lies densest, as channels of NHWC do, then each before it."""
    return "last" if array.order == tuple(range(len(array.shape)))[::-1] else ",".join(map(str, array.order))


def _copies_an_activation(program: hlo.Text, operation: hlo.Operation, batch: int) -> bool:
    """Whether a launch does nothing but move a batch of maps elsewhere or into another layout."""
    if not any(len(a.shape) >= 3 and a.shape[0] == batch and a.nbytes >= 2**20 for a in operation.results):
        return False
    moving = {"parameter", "copy", "copy-start", "transpose", "bitcast", "tuple", "reshape", "slice", "concatenate"}
    return {inner.kind for inner in program.inside(operation)} <= moving
