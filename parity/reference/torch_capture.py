"""The reference's half of a comparison: runs a PyTorch model once and writes what every layer saw and gave.

Imports PyTorch and NumPy only, so that it also runs in a process or a virtual environment without JAX.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from parity.bounds.torch_rounding import RunningError
from parity.comparison.store import Store
from parity.errors import CannotCompare
from parity.kinds import torch_leaves
from parity.reference import torch_graph
from parity.reference.torch_call import PLACE, Call, Tap, double_state
from parity.reference.torch_tensors import DTYPES, differentiable, tensors_in, to_numpy


class Capture:
    """One run of a model, cut at its leaves.

    Every cut leaf gets what it would get anyway, and its output goes on as an exact number: errors before a
    leaf are the business of whoever feeds it. So each record stands alone: inputs, outputs, the error that the
    code since the last leaf may have made (`glue`), and the error that the leaf itself may make.

    Args:
        model: in evaluation mode, in the dtype of the run; not changed.
        store: where records go, `forward-0000` and so on in order of execution.
        dtype: `float64`, `float32` or `bfloat16`.
        cut: paths of the leaves without parameters to cut at too; others count as glue.
    """

    def __init__(
        self,
        model: nn.Module,
        store: Store,
        dtype: str,
        cut: Iterable[str] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.kwargs = kwargs or {}
        self.store = store
        self.dtype = dtype
        leaves = torch_leaves.leaves(model)
        self.leaves = {p: m for p, m in leaves.items() if torch_leaves.state_of(m) or p in set(cut)}
        self.owned = torch_leaves.owned(model)
        self.calls: list[Call] = []
        self.mode = RunningError(DTYPES[dtype])
        self.mode.recorder = self.graph = torch_graph.Recorder()
        self._open: Call | None = None
        self._busy = False
        self._with_gradients = False
        for path, module in leaves.items():
            if getattr(module, "inplace", False):
                # An in-place layer would overwrite the output recorded before it.
                module.inplace = False  # pyright: ignore[reportArgumentType]
            for name, tensor in torch_leaves.state_of(module).items():
                if tensor.dtype != DTYPES[dtype]:
                    raise CannotCompare(
                        f"{path}.{name} is {tensor.dtype}, the run is in {dtype}: convert the model first"
                    )

    def forward(self, inputs: tuple[Tensor, ...], *, gradients: bool = False) -> list[Tensor]:
        """Run the model, writing a record for each call of a cut leaf and one named `output`.

        Returns:
            The outputs; none if the model broke down on the way: then what was recorded until there stays, and a
            record named `failed` says where and why.

        Raises:
            CannotCompare: not even the first leaf ran.
        """
        self._with_gradients = gradients
        (self.store.directory / "failed.json").unlink(missing_ok=True)  # of an earlier run in a kept workspace
        self.store.put("given", {f"input.{i}": to_numpy(x) for i, x in enumerate(inputs)})
        self.mode.watched, handles = self._addresses(), []
        self.graph.parameters = {p.untyped_storage().data_ptr(): n for n, p in self.model.named_parameters()}
        torch_graph.begun(self.graph, inputs)
        for path, module in self.leaves.items():
            handles.append(module.register_forward_pre_hook(self._before(path), with_kwargs=True))
            handles.append(module.register_forward_hook(self._after, with_kwargs=True))
        try:
            with torch.set_grad_enabled(gradients), self.mode, torch_graph.WholeFunctions(self.graph):
                result = self.model(*inputs, **self.kwargs)
            outputs = tensors_in(result)
            sinks = [self.graph.place(t) for t in outputs]
        except (RuntimeError, IndexError) as error:
            self._failed(error)
            return []
        finally:
            self.mode.watched = {}
            self.graph.active = False
            self.store.put(torch_graph.RECORD, self.graph.constants, nodes=self.graph.nodes)
            for handle in handles:
                handle.remove()
        facts = {"ops": self._ops(), "sinks": sinks, "depth": self._depth(outputs), "coarse": self._coarse()}
        facts["unbounded"] = self.mode.unbounded({f"glue.{i}": t for i, t in enumerate(outputs)})
        self.store.put("output", self._named("input", outputs), **facts)
        return outputs

    def _addresses(self) -> dict[int, str]:
        """Parameters by the address of their memory."""
        return {
            parameter.untyped_storage().data_ptr(): f"{path}.{name}"
            for path, module in self.leaves.items()
            for name, parameter in module.named_parameters()
        }

    def _failed(self, error: Exception) -> None:
        """Maps of a wrong size, say, break a model far behind the mistake: what ran before can still be compared."""
        message = str(error).splitlines()[0]
        if self._open is not None:
            self.calls.remove(self._open)
        if not self.calls:
            raise CannotCompare(f"the PyTorch model can't run: {message}") from error
        path = self._open.path if self._open is not None else None
        self.store.put("failed", {}, path=path, after=self.calls[-1].path, message=message)

    def _named(self, prefix: str, tensors: list[Tensor]) -> dict[str, NDArray]:
        """Tensors and their error bounds, `prefix.0`, `glue.0` and so on."""
        arrays = {f"{prefix}.{i}": to_numpy(t) for i, t in enumerate(tensors)}
        for i, tensor in enumerate(tensors):
            if (error := self.mode.get(tensor).error) is not None:
                arrays[f"glue.{i}"] = to_numpy(error)
        return arrays

    def _depth(self, tensors: list[Tensor]) -> int:
        return max((self.mode.get(t).depth for t in tensors), default=0)

    def _ops(self) -> list:
        found = operations(self.mode)
        self.mode.log.clear()
        return found

    def _coarse(self) -> list:
        """Operations with fewer bits than the lane's since the last call, each once."""
        seen, self.mode.coarse = self.mode.coarse, []
        return [list(each) for each in dict.fromkeys(seen)]

    def _before(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> Any:
            if self._busy:
                return None
            if self._open is not None:
                raise CannotCompare(f"{path} runs inside {self._open.path}: leaves must not call each other")
            self.mode.suspended = True
            flat, spec = tree_flatten((args, kwargs))
            inputs = [t for t in flat if isinstance(t, Tensor)]
            call = Call(path, module, len(self.calls), flat, spec)
            call.arrays = self._named("input", inputs)
            call.glue_depth = self._depth(inputs)
            call.unbounded = self.mode.unbounded({f"glue.{i}": t for i, t in enumerate(inputs)})
            call.map_shapes = [self.mode.map_shape(t) for t in inputs]
            call.sinks, self.graph.active = [self.graph.place(t) for t in inputs], False
            call.ops, call.glue_coarse = self._ops(), self._coarse()
            tapped = [self._tap_input(call, t) if isinstance(t, Tensor) else t for t in flat]
            call.template = [PLACE if isinstance(t, Tensor) else t for t in flat]
            call.tensors = [t for t in tapped if isinstance(t, Tensor)]
            self.calls.append(call)
            self._open = call
            self.mode.watched = {}  # within its layer a parameter is at home
            self.mode.suspended = torch_leaves.is_linear(module)
            return tree_unflatten(tapped, spec)

        return hook

    def _tap_input(self, call: Call, tensor: Tensor) -> Tensor:
        tapped, place = tensor.clone(), call.taps
        call.taps += 1
        if self._with_gradients and tapped.requires_grad:
            tapped = Tap.apply(tapped, lambda g: self._left(call, place, g))
            call.open_inputs += 1
        elif self._with_gradients and tapped.is_floating_point() and any(True for _ in call.module.parameters()):
            # Something detached it: the leaf's own backward must be told from what follows all the same.
            tapped.requires_grad_().register_hook(lambda g: self._left(call, place, g))
            call.open_inputs += 1
        self.mode.forget(tapped)
        return tapped

    def _after(self, module: nn.Module, args: tuple, kwargs: dict, result: Any) -> Any:
        if self._busy:
            return None
        if (call := self._open) is None:
            raise LookupError("a leaf ended that hadn't begun")
        self._open = None
        flat, spec = tree_flatten(result)
        call.result = [PLACE if isinstance(t, Tensor) else t for t in flat], spec
        outputs = [t for t in flat if isinstance(t, Tensor)]
        call.coarse = self._coarse()
        self.mode.suspended = self.mode.muted = self._busy = True
        # With gradients the replays have them too: hooks of the model's own may ask for them.
        with torch.set_grad_enabled(self._with_gradients):
            self._write(call, outputs)
        self.mode.muted = self._busy = False
        self.mode.log.clear()
        self.mode.purge()
        flat = [self._tap_output(call, i, t) if isinstance(t, Tensor) else t for i, t in enumerate(flat)]
        if call.map_shapes and torch_leaves.kind_of(module) == "plain":
            for tensor in (t for t in flat if isinstance(t, Tensor) and t.shape == call.tensors[0].shape):
                self.mode.set_map_shape(tensor, call.map_shapes[0])
        torch_graph.gave(self.graph, call.key("forward"), [t for t in flat if isinstance(t, Tensor)])
        self.graph.active = True
        call.tensors = []
        self.mode.suspended = False
        self.mode.watched = self._addresses()
        return tree_unflatten(flat, spec)

    def _write(self, call: Call, outputs: list[Tensor]) -> None:
        module, inputs = call.module, [t.detach() for t in call.tensors]
        arrays = {**call.arrays, **{f"output.{i}": to_numpy(y) for i, y in enumerate(outputs)}}
        call.linear = torch_leaves.is_linear(module)
        if call.linear:
            call.n = torch_leaves.terms_of(module, inputs)
            absolute = [differentiable(x.double().abs()) for x in inputs]
            arrays["magnitude.0"] = to_numpy(call.replay(absolute, double_state(module, absolute=True)))
        else:
            call.n = self._depth(outputs)
            call.unbounded |= self.mode.unbounded({f"error.{i}": t for i, t in enumerate(outputs)})
            for i, y in enumerate(outputs):
                if (error := self.mode.get(y).error) is not None:
                    arrays[f"error.{i}"] = to_numpy(error)
        if self.dtype != "float64":
            exact = [differentiable(x.double()) if x.is_floating_point() else x for x in inputs]
            truth = tree_flatten(call.replay(exact, double_state(module)))[0]
            arrays |= {f"truth.{i}": to_numpy(t) for i, t in enumerate(truth) if isinstance(t, Tensor)}
        self.mode.forget(*outputs)
        self.store.put(call.key("forward"), arrays, **call.facts(self.dtype, outputs))
        if torch_leaves.is_own(module):
            state = torch_leaves.state_of(module)
            graph, sinks = torch_graph.of_code(lambda *given: call.replay(list(given), state), tuple(inputs), state)
            self.store.put(call.key(torch_graph.INSIDE), graph.unnamed(), nodes=graph.nodes, sinks=sinks)
        call.arrays = {}

    def _tap_output(self, call: Call, index: int, tensor: Tensor) -> Tensor:
        if not (self._with_gradients and tensor.requires_grad):
            return tensor
        tapped = Tap.apply(tensor, lambda g: self._entered(call, index, g))
        self.mode.forget(tapped)
        return tapped

    def _entered(self, call: Call, index: int, cotangent: Tensor) -> None:
        """Backward reaches a leaf's output: what came from behind is glue, what follows is the leaf's own."""
        call.backward_arrays |= {f"cotangent.{index}": to_numpy(cotangent)}
        if (error := self.mode.get(cotangent).error) is not None:
            call.backward_arrays |= {f"cotangent_glue.{index}": to_numpy(error)}
        call.cotangent_depth = self.mode.get(cotangent).depth
        self.mode.suspended = call.open_inputs > 0
        facts = {"depth": call.cotangent_depth, "coarse": self._coarse()}
        call.backward_unbounded |= self.mode.unbounded({f"cotangent_glue.{index}": cotangent})
        self.store.put(call.key("cotangent"), call.backward_arrays, **facts, unbounded=call.backward_unbounded)
        call.backward_arrays = {}

    def _left(self, call: Call, place: int, gradient: Tensor) -> None:
        """What a leaf hands back in the whole pass: by itself, on memory in another order, it may round otherwise."""
        self.store.put(f"{call.key('left')}-{place}", {"gradient": to_numpy(gradient)})
        call.open_inputs -= 1
        self._coarse()  # the leaf's own; its replay will say them
        self.mode.forget(gradient)
        self.mode.suspended = call.open_inputs > 0


def operations(mode: RunningError) -> list:
    """The operations that a mode has seen, as JSON can hold them: [name, plain arguments]."""
    plain = (bool, int, float, str, type(None))

    def kept(arg: Any) -> Any:
        if isinstance(arg, (list, tuple)) and all(isinstance(a, plain) for a in arg):
            return list(arg)
        return arg if isinstance(arg, plain) else str(arg)

    return [[name, [kept(arg) for arg in args]] for name, args in mode.log]
