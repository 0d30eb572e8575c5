"""Flax nnx's modules as `parity.candidate.jax_models` runs them.

A module carries its variables; here they are taken out, named by collection and path, and put back for each run. What
isn't a parameter or a statistic (random keys, counters) stays as it was. Calls are shown by wrapping `__call__` of the
modules' classes while the model runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import nnx

from parity.candidate.jax_arrays import in_one_precision
from parity.candidate.jax_models import Look, Variables

_COLLECTIONS: tuple[tuple[type[nnx.Variable], str], ...] = ((nnx.Param, "params"), (nnx.BatchStat, "batch_stats"))


class NnxLayer:
    """A module in a model; see `JaxLayer`."""

    def __init__(self, module: nnx.Module, path: str) -> None:
        self.module, self.path = module, path

    def variables(self) -> Variables:
        """Its own."""
        return variables_of(nnx.state(self.module))

    def apply(self, variables: Variables, *args: Any, **kwargs: Any) -> Any:
        """Its result alone."""
        return filled(*nnx.split(self.module), variables)(*args, **kwargs)

    def wanted(self, *args: Any, **kwargs: Any) -> Variables:
        """What it holds: an nnx module makes its variables before it sees an input."""
        return self.variables()


class NnxModel:
    """See `JaxModel`. A copy in evaluation mode is run: the module that is given stays as it is."""

    def __init__(self, module: nnx.Module) -> None:
        copy = nnx.clone(module)
        copy.eval()
        for _, module in nnx.iter_modules(copy):
            # Unlike other layers an embedding writes down the dtype that its table was made in; it follows that of the
            # table that it is given, unless another one was asked for.
            if isinstance(module, nnx.Embed) and module.dtype == module.embedding.dtype:
                module.dtype = None
        self.graph, self.state = nnx.split(copy)

    def variables(self) -> Variables:
        """The model's own."""
        return variables_of(self.state)

    def shapes(self, inputs: tuple[Any, ...], kwargs: dict[str, Any], look: Look) -> Variables:
        """By abstract evaluation with the model's own variables."""

        def run(*arrays: Any) -> Any:
            return self.apply(in_one_precision(self.variables(), arrays), arrays, kwargs, look)

        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(run, *inputs)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.variables())

    def apply(self, variables: Variables, inputs: tuple[Any, ...], kwargs: dict[str, Any], look: Look | None) -> Any:
        """The model's result."""
        model = filled(self.graph, self.state, variables)
        if look is None:
            return model(*inputs, **kwargs)
        with _shown_to(look, model):
            return model(*inputs, **kwargs)


def collection_of(variable: Any) -> str | None:
    """`params`, `batch_stats`, or None for what belongs to neither."""
    kind = getattr(variable, "type", type(variable))
    return next((name for base, name in _COLLECTIONS if issubclass(kind, base)), None)


def variables_of(state: Any) -> Variables:
    """Parameters and statistics by collection and path."""
    found: Variables = {}
    for (*path, name), variable in state.flat_state():
        if (collection := collection_of(variable)) is not None:
            node = found.setdefault(collection, {})
            for part in path:
                node = node.setdefault(str(part), {})
            node[str(name)] = variable[...]
    return found


def filled(graph: Any, state: Any, variables: Variables) -> nnx.Module:
    """A module with these variables in the place of its own."""
    flat = []
    for path, variable in state.flat_state():
        collection = collection_of(variable)
        node: Any = variables.get(collection, {}) if collection is not None else {}
        for part in path:
            node = node.get(str(part)) if isinstance(node, dict) else None
        flat.append((path, variable if node is None else variable.replace(node)))
    return nnx.merge(graph, nnx.State.from_flat_path(flat))


@contextlib.contextmanager
def _shown_to(look: Look, model: nnx.Module) -> Iterator[None]:
    """Show every call of a module of `model` while in here."""
    modules = [(("/".join(map(str, path))), module) for path, module in nnx.iter_modules(model)]
    places = {id(module): NnxLayer(module, path) for path, module in modules}
    entered: set[int] = set()

    def shown(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            layer = places.get(id(self))
            if layer is None or id(self) in entered:  # a copy made inside a transformation, or a call of super()
                return original(self, *args, **kwargs)
            entered.add(id(self))
            try:
                return look(layer, lambda *a, **k: original(self, *a, **k), args, kwargs)
            finally:
                entered.discard(id(self))

        return call

    classes = {type(module) for _, module in modules if callable(module)}
    own = {kind: vars(kind)["__call__"] for kind in classes if "__call__" in vars(kind)}
    originals: dict[type, Any] = {kind: kind.__call__ for kind in classes}
    try:
        for kind in classes:
            type.__setattr__(kind, "__call__", shown(originals[kind]))
        yield
    finally:
        for kind in classes:
            if kind in own:
                type.__setattr__(kind, "__call__", own[kind])
            else:
                type.__delattr__(kind, "__call__")
