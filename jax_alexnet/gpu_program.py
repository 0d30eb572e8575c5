"""`python -m jax_alexnet.gpu_program`: the training step as XLA compiles it for GPUs that needn't be there.

The step is the one that training runs (`steps.make_train_step`), lowered for described GPUs. What its program moves,
sends and keeps is read from the program; times are modelled from that and never measured. Without a GPU nothing is
tuned: the algorithms that cuDNN and Triton choose on a real one may differ, the arrays between them don't.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from alexnet_io.command_line import output_file
from alexnet_io.command_line.settings import parse, run_command, setting
from alexnet_io.command_line.train_settings import MODELS, TrainSettings
from jax_alexnet.compiled import gpu_compiler, hlo
from jax_alexnet.compiled.collectives import Collective, message_of

PROGRAM = "python -m jax_alexnet.gpu_program"
PASSES = ("forward", "backward", "update", "")


@dataclass(frozen=True)
class GpuSettings:
    """Compile the training step for GPUs that needn't be there, and print what it moves, sends and keeps."""

    EXAMPLES: ClassVar = (("--model two_column --gpu a100 --devices 8", "the step on each of eight A100s"),)

    model: str = setting("single_column", "the network: " + ", ".join(MODELS), choices=MODELS, group="what is compiled")
    gpu: str = setting(
        "h100", "kind of GPU: " + ", ".join(gpu_compiler.GPUS), choices=tuple(gpu_compiler.GPUS), group="GPUs"
    )
    devices: int = setting(8, "GPUs, described as if in one box", minimum=1, maximum=1024, group="GPUs")
    batch_size: int = setting(256, "images a GPU", minimum=1, group="what is compiled")
    precision: str = setting(
        "bfloat16",
        "arithmetic: bfloat16, tf32, float32",
        choices=("bfloat16", "tf32", "float32"),
        group="what is compiled",
    )
    parallel: str = setting(
        "data", "how the GPUs share the work: data, columns, hybrid, zero", group="GPUs", metavar="NAME"
    )
    group_size: int | None = setting(
        None,
        "GPUs that share the fully connected layers (hybrid) or the optimizer's state (zero)",
        minimum=1,
        group="GPUs",
        unset="all",
    )
    image_size: int | None = setting(
        None, "side in pixels", minimum=1, maximum=4096, group="what is compiled", unset="the network's own"
    )
    json: str | None = setting(None, "write everything as JSON to this file", writes="text")


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
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from jax_alexnet import augment, recipes, setup, steps
    from jax_alexnet.devices import set_precision
    from jax_alexnet.optim import make_optimizer
    from jax_alexnet.parallel import choose_layout
    from jax_alexnet.parallel.layout import batch_spec

    batch = settings.batch_size * settings.devices
    training = recipes.resolve(
        TrainSettings(
            model=settings.model,
            precision=settings.precision,
            batch_size=batch,
            data="synthetic",
            image_size=settings.image_size,
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


def read(text: str, settings: GpuSettings, argument_bytes: int, temporary_bytes: int) -> GpuProgram:
    """Read the text of an optimized program."""
    from jax_alexnet.variants import VARIANTS

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


def table(program: GpuProgram) -> str:
    """By layer: bytes, arithmetic and modelled time of both passes and of the update."""
    from jax_alexnet.variants import VARIANTS

    names = [row.name for row in VARIANTS[program.settings["model"]].layers]
    lines = [f"{'':10}" + "".join(f"{name:>24}" for name in ("forward", "backward", "update"))]
    lines.append(f"{'layer':10}" + f"{'MB':>8}{'GFLOP':>8}{'us':>8}" * 3)
    for name in [*names, ""]:
        cells = ""
        for direction in PASSES[:3]:
            chosen = [x for x in program.launches if x.layer == name and (x.direction or "forward") == direction]
            cells += _cells(chosen)
        lines.append(f"{name or 'other':10}{cells}")
    lines.append(
        f"{'total':10}"
        + "".join(_cells([x for x in program.launches if (x.direction or "forward") == d]) for d in PASSES[:3])
    )
    return "\n".join(lines)


def _cells(launches: Sequence[Launch]) -> str:
    if not launches:
        return f"{'-':>8}" * 3
    moved, work, seconds = (
        sum(values) for values in zip(*((x.nbytes, x.operations, x.seconds) for x in launches), strict=True)
    )
    return f"{moved / 1e6:>8.1f}{work / 1e9:>8.1f}{seconds * 1e6:>8.1f}"


def summary(program: GpuProgram) -> str:
    """Totals, messages, memory and what the program should be free of, line by line."""
    images = program.settings["batch_size"]
    lines = [
        f"{program.nbytes / 1e9:.2f} GB moved a step and GPU, {program.nbytes / images / 1e6:.1f} MB an image; "
        f"{sum(x.operations for x in program.launches) / 1e12:.2f} TFLOP; {len(program.launches)} launches",
        f"modelled {program.seconds * 1e3:.2f} ms a step without communication, "
        f"{images / program.seconds:,.0f} images/s a GPU: a bound from bytes and arithmetic, nothing was run",
        f"memory: {program.argument_bytes / 1e9:.2f} GB of weights, optimizer state and images, "
        f"{program.temporary_bytes / 1e9:.2f} GB temporary",
        f"{len(program.convolutions)} convolutions, {len(program.scatters)} scatters, "
        f"{len(program.copies)} copies of activations",
    ]
    for message in program.collectives:
        lines.append(
            f"{message.kind}: {message.nbytes:,} bytes in {message.arrays} arrays of {message.dtype}, "
            f"{message.group} GPUs together"
        )
    return "\n".join(lines)


def report(program: GpuProgram) -> str:
    """What was compiled, by layer, and in all."""
    s = program.settings
    where = f"{s['batch_size']} images on each of {s['devices']} {s['gpu']}"
    return f"{s['model']}, {s['precision']}, {where}\n{table(program)}\n{summary(program)}"


def as_json(program: GpuProgram) -> dict[str, Any]:
    """Everything, as JSON can hold it."""
    totals = {"nbytes": program.nbytes, "seconds": program.seconds, "sent": program.sent}
    return {"schema": "gpu-program/1", **totals, **asdict(program), "report": report(program)}


def main() -> int:
    """Compile, print and return the exit code."""
    settings = parse(GpuSettings, PROGRAM)
    with output_file.others_on_standard_error(settings.json):
        program = compile_step(settings)
        print(report(program))
        if settings.json:
            output_file.write_json("--json", settings.json, as_json(program), indent=1)
    return 0


if __name__ == "__main__":
    run_command(main)
