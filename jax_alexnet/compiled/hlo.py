"""Reading a compiled program's text: operations, the bytes they move, their arithmetic, and what they belong to."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

import numpy as np

WIDTHS = {
    "pred": 1, "s8": 1, "u8": 1, "f16": 2, "bf16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8,
    "s64": 8, "u64": 8,
}  # fmt: skip
# They move nothing: names for what is there, or the second half of something counted once.
_FREE = frozenset(
    ("parameter", "get-tuple-element", "tuple", "bitcast", "constant", "all-reduce-done", "all-gather-done",
     "reduce-scatter-done", "collective-permute-done", "copy-done", "async-done", "after-all", "partition-id",
     "replica-id")
)  # fmt: skip
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_ARRAY = re.compile(r"\b(" + "|".join(WIDTHS) + r")\[([\d,]*)\](?:\{([\d,]*)[^}]*\})?")
_OPERATION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_LABELS = re.compile(r"params\['?(\w+)'?\]|\['(\w+)'\]\['(?:kernel|bias)'\]")


@dataclass(frozen=True)
class Array:
    """One array of a program."""

    dtype: str
    shape: tuple[int, ...]
    order: tuple[int, ...]  # dimensions, the fastest first

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return prod(self.shape) * WIDTHS[self.dtype]


@dataclass(frozen=True)
class Operation:
    """One operation of a program."""

    name: str
    kind: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    line: str

    @property
    def source(self) -> str:
        """The path of the Python code that it was made from."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.line)
        return found.group(1).replace("\\'", "'") if found else ""

    @property
    def target(self) -> str:
        """What a custom call calls, without XLA's ornaments."""
        found = re.search(r'custom_call_target="([^"]*)"', self.line)
        return found.group(1).removeprefix("__") if found else ""

    @property
    def calls(self) -> str:
        """The computation that a fusion carries out."""
        found = re.search(r"calls=%([\w.\-]+)", self.line)
        return found.group(1) if found else ""

    def group(self, devices: int) -> tuple[int, ...]:
        """Of a collective among `devices` devices: those of its first group; the other groups are like it.

        Raises:
            ValueError: groups that are written in a way that isn't known.
        """
        listed = re.search(r"replica_groups=\{\{([\d,]+)\}", self.line)
        if listed:
            return _numbers(listed[1])
        mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", self.line)
        if mesh:  # XLA of JAX 0.12 and later
            return _along(mesh[1], mesh[2])
        grid = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", self.line)
        if not grid:
            if re.search(r"replica_groups=(?!\{\})", self.line):
                raise ValueError(f"can't tell which devices speak to each other in: {self.line.strip()}")
            return tuple(range(devices))  # named nowhere: all of them
        sizes = _numbers(grid[3])
        order = _numbers(grid[4]) if grid[4] else tuple(range(len(sizes)))
        numbers = np.arange(prod(sizes)).reshape(sizes).transpose(order)
        return tuple(int(n) for n in numbers.reshape(int(grid[1]), int(grid[2]))[0])


@dataclass
class Text:
    """A program taken apart: computations by name, each a list of operations."""

    computations: dict[str, list[Operation]] = field(default_factory=dict)
    entry: str = ""
    arrays: dict[str, tuple[Array, ...]] = field(default_factory=dict)

    @property
    def top(self) -> list[Operation]:
        """The operations that are launched, in order, those that move nothing left out."""
        return [operation for operation in self.computations[self.entry] if operation.kind not in _FREE]

    def inside(self, operation: Operation) -> list[Operation]:
        """The operations that one launch carries out."""
        return self.computations.get(operation.calls, []) or [operation]

    def read(self, operation: Operation) -> list[Array]:
        """The arrays that an operation reads."""
        return [array for name in operation.operands for array in self.arrays.get(name, ())]

    def moved(self, operation: Operation) -> int:
        """Bytes that an operation reads and writes, each operand and result once; of what it only cuts, the cuts."""
        read = sum(self._read(operation, place) for place in range(len(operation.operands)))
        return sum(array.nbytes for array in operation.results) + read

    def _read(self, operation: Operation, place: int) -> int:
        """Bytes of an operand that are read: all, or, where nothing but slices are taken of it, theirs."""
        whole = sum(array.nbytes for array in self.arrays.get(operation.operands[place], ()))
        if operation.kind == "slice":
            return operation.results[0].nbytes
        inside = self.computations.get(operation.calls, [])
        names = {each.name for each in inside if each.kind == "parameter" and f"parameter({place})" in each.line}
        users = [each for each in inside if names & set(each.operands)]
        if not users or any(each.kind != "slice" for each in users):
            return whole
        return min(whole, sum(each.results[0].nbytes for each in users))

    def arithmetic(self, operation: Operation) -> int:
        """Operations of its convolutions and matrix products, a multiplication and an addition being two.

        Everything else is taken as free: it hides behind the bytes that it moves.
        """
        return sum(self._products(inner) for inner in self.inside(operation))

    def _products(self, operation: Operation) -> int:
        if is_convolution(operation):
            maps, kernel = self.convolution(operation)
            features = kernel.shape[0]  # o01i
            return 2 * prod(maps.shape) * prod(kernel.shape) // features
        if operation.kind == "dot":
            return 2 * prod(operation.results[0].shape) * self._contracted(operation, "lhs_contracting_dims={")
        if operation.target.startswith("cublas$"):
            found = re.search(r'"lhs_contracting_dimensions":\["?(\d+)', operation.line)
            left = self.read(operation)[0].shape
            return 2 * prod(operation.results[0].shape) * (left[int(found.group(1))] if found else left[-1])
        return 0

    def _contracted(self, operation: Operation, label: str) -> int:
        dimensions = operation.line.split(label, 1)[1].split("}", 1)[0]
        left = self.read(operation)[0].shape
        return prod(left[int(d)] for d in dimensions.split(",") if d)

    def convolution(self, operation: Operation) -> tuple[Array, Array]:
        """A convolution's maps on the output side, or their gradient, and its kernel or the kernel's gradient."""
        read, result = self.read(operation), operation.results[0]
        if operation.target.endswith("BackwardFilter"):
            return read[1], result
        return (read[0] if operation.target.endswith("BackwardInput") else result), read[1]


def parse(text: str) -> Text:
    """Take the text of an optimized program apart."""
    program, current = Text(), ""
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")):
            current = line.removeprefix("ENTRY ").lstrip("%").split(" ", 1)[0]
            program.computations[current] = []
            if line.startswith("ENTRY"):
                program.entry = current
        elif current and (found := _OPERATION.match(line)):
            name, shape, kind, rest = found.groups()
            results = tuple(arrays(shape))
            # Names repeat between computations in no program seen: XLA numbers them throughout.
            program.arrays[name] = results
            operands = tuple(re.findall(r"%([\w.\-]+)", rest.split(")", 1)[0]))
            program.computations[current].append(Operation(name, kind, results, operands, line))
    return program


def arrays(shape: str) -> Iterable[Array]:
    """The arrays in a shape as XLA writes it, a tuple's one by one."""
    for dtype, sizes, order in _ARRAY.findall(shape):
        yield Array(dtype, _numbers(sizes), _numbers(order))


def _along(mesh: str, axes: str) -> tuple[int, ...]:
    """The first group of devices along some axes of a mesh, as `'data'=4,'column'=2` and `'data'` in a program's text.

    Raises:
        ValueError: axes that aren't the mesh's, such as parts of axes.
    """
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    chosen = [axis.strip().strip("'") for axis in axes.split(",")]
    if not set(chosen) <= set(sizes):
        raise ValueError(f"can't tell which devices {{{axes}}} of mesh[{mesh}] are")
    numbers = np.arange(prod(sizes.values())).reshape(tuple(sizes.values()))
    names = list(sizes)
    others = [names.index(name) for name in names if name not in chosen]
    moved = numbers.transpose(*others, *(names.index(name) for name in chosen))
    return tuple(int(n) for n in moved.reshape(-1, prod(sizes[name] for name in chosen))[0])


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(",") if word)


def is_convolution(operation: Operation) -> bool:
    """Whether it is a convolution, given to cuDNN or not."""
    return operation.target.startswith("cudnn$conv") or operation.kind == "convolution"


def layer_and_pass(sources: Iterable[str], layers: Iterable[str]) -> tuple[str, str]:
    """What a launch belongs to: (layer or "", "forward", "backward", "update" or "").

    Args:
        sources: paths of the operations that it carries out, its own first.
        layers: names of the network's layers.
    """
    names = set(layers)
    for source in sources:
        if found := _LABELS.search(source):
            layer = found.group(1) or found.group(2)
            if layer in names:
                return layer, "update"
        for word in re.split(r"[/()]", source):
            if word.split(".")[0] in names:
                return word.split(".")[0], "backward" if "transpose(" in source else "forward"
    return "", ""
