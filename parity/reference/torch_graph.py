"""What a PyTorch model runs between its layers, written down as a graph that NumPy can run again.

Nodes are operations, in the order in which they ran, with the places of the nodes that they take. A graph begins at the
model's inputs, at what layers gave, at parameters and at constants; what NumPy has no function for is a constant with
the values that it had.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from parity.causes.graph.fused_attention import FUSED
from parity.causes.graph.node_kinds import ASSIGN, CONSTANT, GIVEN, ITEM, LAYER, PARAMETER, UNKNOWN, VIEWS
from parity.causes.numpy_operations.operations import OPERATIONS

RECORD = "graph"
INSIDE = "inside"  # of one layer
# Code that isn't the model's: PyTorch's own, and what records.
_OTHERS = tuple(os.path.dirname(os.path.abspath(path)) + os.sep for path in (torch.__file__, os.path.dirname(__file__)))

# Larger constants aren't kept: what follows from them can't be run again.
_KEPT_ELEMENTS = 4_000_000

# Functions that PyTorch takes apart before anyone sees them: here they stay whole, by the names of their arguments.
_WHOLE: dict[str, tuple[str, ...]] = {
    "matmul": ("self", "other"),
    "scaled_dot_product_attention": (
        "query",
        "key",
        "value",
        "attn_mask",
        "dropout_p",
        "is_causal",
        "scale",
        "enable_gqa",
    ),
    "repeat_interleave": ("self", "repeats", "dim"),
    "linear": ("input", "weight", "bias"),
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "pixel_shuffle": ("self", "upscale_factor"),
    "pixel_unshuffle": ("self", "downscale_factor"),
    "cosine_similarity": ("x1", "x2", "dim", "eps"),
    "pairwise_distance": ("x1", "x2", "p", "eps", "keepdim"),
}
_NAMES = {"__matmul__": "matmul"}


class Recorder:
    """Writes a graph while a model runs.

    Attributes:
        nodes: {"op": name, "args": {...}, "line": number}, oldest first; arguments that are nodes are {"node": place}.
            Nodes of one line have come from the same line of the model's code, however often that has run.
        constants: values of the nodes that are constants, `c.PLACE`.
        active: whether what runs belongs to the graph.
        parameters: names of parameters by the address of their memory.
    """

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.constants: dict[str, NDArray] = {}
        self.active = False
        self.parameters: dict[int, str] = {}
        self._lines: dict[tuple[str, int], int] = {}
        # A weak reference keeps an address from being used again while its entry is here.
        self._places: dict[tuple, tuple[int, StorageWeakRef]] = {}

    def source(self, tensor: Tensor, op: str, **args: Any) -> None:
        """Say that a tensor begins here: `op` is what it is."""
        self._put(tensor, self._add(op, args))

    def place(self, tensor: Tensor) -> int:
        """The node of a tensor; one that nobody has seen becomes a constant."""
        entry = self._places.get(_key(tensor))
        if entry is not None and not entry[1].expired():
            return entry[0]
        name = self.parameters.get(tensor.untyped_storage().data_ptr())
        place = self._constant(tensor, {} if name is None else {"name": name})
        self._put(tensor, place)
        return place

    def before(self, func: Any, args: tuple, kwargs: dict) -> tuple[str, dict[str, Any], int | None] | None:
        """Note an operation's arguments, before it may overwrite them; None if nothing is recorded now."""
        if not self.active:
            return None
        schema = func._schema
        written = self.place(args[0]) if schema.is_mutable and args and isinstance(args[0], Tensor) else None
        values = (
            args[i] if i < len(args) else kwargs.get(a.name, a.default_value if a.has_default_value() else None)
            for i, a in enumerate(schema.arguments)
        )
        named = {a.name: self._encoded(value) for a, value in zip(schema.arguments, values, strict=True)}
        name = func.overloadpacket.__name__
        return (name[:-1] if name.endswith("_") and not name.endswith("__") else name), named, written

    def after(self, noted: tuple[str, dict[str, Any], int | None], target: Any, result: Any) -> None:
        """Add the operation that was noted.

        Args:
            noted: what `before` said.
            target: its first argument, which it may have overwritten.
            result: what it gave.
        """
        name, args, written = noted
        known = name in OPERATIONS or name in FUSED
        if written is not None:
            place = self._add(name, args) if known else self._constant(target, {})
            self._overwritten(target, written, place)
            return
        if isinstance(result, (list, tuple)):
            whole = self._add(name, args) if known else None
            for i, each in enumerate(result):
                if isinstance(each, Tensor):
                    item = {"self": {"node": whole}, "index": i}
                    self._put(each, self._constant(each, {}) if whole is None else self._add(ITEM, item))
        elif isinstance(result, Tensor):
            self._put(result, self._add(name, args) if known else self._constant(result, {"ran": name}))

    def unnamed(self) -> dict[str, NDArray]:
        """The constants but for parameters, which whoever has the model's weights knows by their names."""
        named = {f"c.{place}" for place, node in enumerate(self.nodes) if node["op"] == PARAMETER}
        return {name: array for name, array in self.constants.items() if name not in named}

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Within, nothing is recorded."""
        before, self.active = self.active, False
        try:
            yield
        finally:
            self.active = before

    def _overwritten(self, target: Tensor, before: int, after: int) -> None:
        """A tensor's memory holds other values now, and so do the tensors that it is a part of."""
        path, whole = [], before
        while self.nodes[whole]["op"] in VIEWS:
            path.append(self.nodes[whole])
            whole = self.nodes[whole]["args"]["self"]["node"]
        key = _key(target)
        shared = [other for other, entry in self._places.items() if other[0] == key[0] and other != key]
        base = (
            self._add(ASSIGN, {"self": {"node": whole}, "value": {"node": after}, "path": path[::-1]}) if path else None
        )
        for other in shared:
            place, reference = self._places.pop(other)
            if base is not None and place == whole:
                self._places[other] = base, reference
        self._put(target, after)

    def _put(self, tensor: Tensor, place: int) -> None:
        self._places[_key(tensor)] = place, StorageWeakRef(tensor.untyped_storage())
        if len(self._places) % 1024 == 0:
            self._places = {key: entry for key, entry in self._places.items() if not entry[1].expired()}

    def _add(self, op: str, args: dict[str, Any]) -> int:
        line = self._lines.setdefault(_line(), len(self._lines))
        self.nodes.append({"op": op, "args": args, "line": line})
        return len(self.nodes) - 1

    def _constant(self, tensor: Tensor, args: dict[str, Any]) -> int:
        place = self._add(PARAMETER if "name" in args else CONSTANT, args)
        if tensor.numel() > _KEPT_ELEMENTS or tensor.is_meta:
            self.nodes[place]["op"] = UNKNOWN
            return place
        values = tensor.detach()
        values = values.double() if values.is_floating_point() else values.resolve_conj()
        self.constants[f"c.{place}"] = values.cpu().numpy().copy()
        return place

    def _encoded(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return {"node": self.place(value)}
        if isinstance(value, (list, tuple)):
            return [self._encoded(each) for each in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return str(value)


class WholeFunctions(TorchFunctionMode):
    """While active, functions that PyTorch would take apart are written into a graph as they were called."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, recorder = kwargs or {}, self.recorder
        name = getattr(func, "__name__", "")
        name = _NAMES.get(name, name)
        if not recorder.active or not (name in _WHOLE or name == "einsum"):
            return func(*args, **kwargs)
        noted = self._noted(name, args, kwargs)
        if noted is None:
            return func(*args, **kwargs)
        with recorder.quiet():
            result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            recorder.after((name, noted, None), None, result)
        return result

    def _noted(self, name: str, args: tuple, kwargs: dict) -> dict[str, Any] | None:
        if name == "einsum":
            operands = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
            if not isinstance(args[0], str) or not all(isinstance(each, Tensor) for each in operands):
                return None
            return {"equation": args[0], "operands": self.recorder._encoded(list(operands))}
        given = dict(zip(_WHOLE[name], args, strict=False)) | kwargs
        if not set(given) <= set(_WHOLE[name]):
            if name != "repeat_interleave" or not {"input"} & set(given):
                return None
            given["self"] = given.pop("input")
            given.pop("output_size", None)
        return {key: self.recorder._encoded(value) for key, value in given.items()}


def _line() -> tuple[str, int]:
    """File and line of the model's own code that runs now, the innermost one."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OTHERS):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _key(tensor: Tensor) -> tuple:
    """Identity of a tensor's values: Python objects of one tensor differ above and below autograd."""
    place = tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.is_conj()
    return *place, tensor.dtype, tuple(tensor.shape), tuple(tensor.stride())


def begun(recorder: Recorder, inputs: tuple[Tensor, ...]) -> None:
    """Start a graph at a model's inputs."""
    for i, tensor in enumerate(inputs):
        recorder.source(tensor, GIVEN, index=i)
    recorder.active = True


def gave(recorder: Recorder, key: str, outputs: list[Tensor]) -> None:
    """Say that a layer gave these tensors; `key` is the name of its record."""
    for i, tensor in enumerate(outputs):
        recorder.source(tensor, LAYER, key=key, index=i)


class _Watching(TorchDispatchMode):
    """While active, operations are written into a graph."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        noted = self.recorder.before(func, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        if noted is not None:
            self.recorder.after(noted, args[0] if args else None, result)
        return result


def of_model(model: Any, inputs: tuple[Tensor, ...], kwargs: dict[str, Any]) -> tuple[Recorder, list[int]]:
    """The graph of a whole model, its layers among the rest, and the nodes of its outputs."""
    return of_code(lambda *given: model(*given, **kwargs), inputs, dict(model.named_parameters()))


def of_code(
    run: Callable[..., Any], inputs: tuple[Tensor, ...], parameters: dict[str, Tensor]
) -> tuple[Recorder, list[int]]:
    """The graph of what is run on these inputs with these parameters, by name, and the nodes of its results."""
    recorder = Recorder()
    recorder.parameters = {p.untyped_storage().data_ptr(): n for n, p in parameters.items()}
    begun(recorder, inputs)
    with torch.no_grad(), _Watching(recorder), WholeFunctions(recorder):
        outputs = tree_flatten(run(*inputs))[0]
    recorder.active = False
    return recorder, [recorder.place(t) for t in outputs if isinstance(t, Tensor)]
