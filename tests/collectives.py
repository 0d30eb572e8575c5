"""What a compiled program sends between devices, read from its text."""

import re
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from tiny import QUICKLY

from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet import augment, steps
from jax_alexnet import variants as v
from jax_alexnet.model import AlexNet
from jax_alexnet.optim import make_optimizer
from jax_alexnet.parallel import choose_layout
from jax_alexnet.parallel.layout import batch_spec
from jax_alexnet.recipes import resolve

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_CALL = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\((.*?)\)(?:, |$)(.*)")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """One array of one collective operation.

    Attributes:
        kind: one of `KINDS`.
        shape: of the result.
        itemsize: bytes of an element.
        group: devices that take part.
    """

    kind: str
    shape: tuple[int, ...]
    itemsize: int
    group: int

    @property
    def payload(self) -> int:
        """Bytes of the whole array: what an all-reduce adds up, an all-gather makes, a reduce-scatter divides."""
        return prod(self.shape) * self.itemsize * (self.group if self.kind == "reduce-scatter" else 1)

    @property
    def sent(self) -> float:
        """Bytes that a device sends when the devices form a ring; an all-reduce goes round twice."""
        return self.payload * (self.group - 1) / self.group * (2 if self.kind == "all-reduce" else 1)


def collectives(text: str) -> list[Collective]:
    """All of them in the text of a compiled program (HLO), those among one device alone left out."""
    found = []
    for line in text.splitlines():
        match = _CALL.search(line)
        if not match:
            continue
        result, kind, _, rest = match.groups()
        group = _group(rest)
        arrays = _ARRAY.findall(result)
        assert arrays, line
        for dtype, shape in arrays:
            sizes = tuple(int(n) for n in shape.split(",") if n)
            if group > 1:
                found.append(Collective(kind, sizes, _BYTES[dtype], group))
    return found


def _group(rest: str) -> int:
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
    if listed:
        return len(listed[1].split(","))
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", rest)  # of JAX 0.12 and later
    if mesh:
        sizes = dict(re.findall(r"('\w+')=(\d+)", mesh[1]))
        return prod(int(sizes[axis.strip()]) for axis in mesh[2].split(","))
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", rest)
    assert iota, rest
    return int(iota[2])


def compiled_step(
    name: str, scheme: str, devices: int, batch: int, group: int | None = None, side: int | None = None
) -> Any:
    """The float32 training step of a network at its full size, compiled from shapes alone.

    Its instructions are not optimized: what is sent has been decided before they are written.
    """
    variant = v.VARIANTS[name]
    side = side or variant.image_size
    layout = choose_layout(scheme, variant, jax.devices()[:devices], group)
    settings = resolve(TrainSettings(model=name, recipe="paper", schedule="constant", image_size=side,
                                     color_noise=False, normalize="half", batch_size=batch))  # fmt: skip
    model = AlexNet(variant, None, "pytorch")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    optimizer = make_optimizer(settings, variant, shapes["params"])
    augmentation = augment.Augmentation(side, "half")
    step = steps.make_train_step(model, optimizer, augmentation, layout)

    def placed(leaf: Any, spec: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=jax.NamedSharding(layout.mesh, spec))

    state = steps.state_shapes(model, optimizer, side)
    state = jax.tree.map(placed, state, layout.specs(state))
    rows = batch_spec(layout.mesh)
    leaves: list[Any] = [
        placed(jax.ShapeDtypeStruct(shape, dtype), rows)
        for shape, dtype in (((batch, side, side, 3), jnp.uint8), ((batch,), jnp.int32), ((batch,), jnp.float32))
    ]
    images = steps.DeviceBatch(*leaves)
    key = jax.eval_shape(lambda: jax.random.key(0))
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    return step.lower(state, images, rate, key, {}).compile(compiler_options=QUICKLY)
