"""Flax's recurrent layers and cells as leaves: one layer in one direction, see `parity.kinds.recurrence`.

`RNN` and the cells call layers of their own inside a loop, where nothing can be seen or replaced. So each is one leaf.
A leaf gets the sequence as it is processed, steps first, and its initial state, whichever way the module takes them;
and its variables are those that PyTorch's layers have, which are turned into the module's own and back here. An `RNN`
over a cell that isn't known is run step by step, and the layers inside of it are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.errors import FlaxError

from parity.candidate.jax_models import JaxLayer, JaxModel, Look, Variables
from parity.candidate.nnx_models import variables_of
from parity.candidate.recurrent_calls import RecurrentCall, SequenceCall, is_cell, option
from parity.candidate.recurrent_cell_calls import CellCall, is_one_step
from parity.errors import CannotCompare
from parity.kinds import registry
from parity.kinds.recurrence import PACKED
from parity.kinds.recurrent_cells import Cell, cell_of
from parity.mapping import recurrent as mapping

_LIBRARIES = "flax.linen", "flax.nnx.nn"


@dataclass(frozen=True)
class _Place:
    """Where a leaf's cell lies in the module's own variables, and how it keeps its arrays."""

    path: str
    cell: Cell


class RecurrentLayer:
    """See `JaxLayer`: a recurrent layer, with arrays as PyTorch has them."""

    def __init__(self, model: RecurrentModel, layer: JaxLayer, call: RecurrentCall, place: _Place) -> None:
        self.model, self.layer, self.call, self.place = model, layer, call, place
        self.path, self.module = layer.path, call.cell

    def variables(self) -> Variables:
        """Its own."""
        return {"params": self.place.cell.packed(_own(self.call.cell), jnp)}

    def apply(self, variables: Variables, *args: Any, **kwargs: Any) -> Any:
        """Its result alone."""
        own = self.place.cell.unpacked(variables["params"], jnp)
        with self.model.inside():
            return self.call.result(self.call.alone(own))(*args)

    def wanted(self, *args: Any, **kwargs: Any) -> Variables:
        """The same as it has."""
        return self.variables()


class RecurrentModel:
    """See `JaxModel`: another one, whose recurrent layers are leaves.

    Attributes:
        whole: whether recurrent layers are leaves; else all are run step by step, as those are whose cell isn't known.
        states: whether a recurrent layer that is the whole model gives its last states too, as PyTorch's does then.
        hidden: paths of layers whose calls aren't shown, so that what they compute is code between layers.
    """

    def __init__(self, model: JaxModel, whole: bool = True) -> None:
        self.model, self.whole = model, whole
        self.places: dict[str, _Place] = {}
        self.states = False
        self.hidden: frozenset[str] = frozenset()
        self.found = False  # whether there is any recurrent layer
        self._depth = 0

    def inside(self) -> Any:
        """Within, nothing is shown: a leaf runs by itself."""
        return _Inside(self)

    def shapes(self, inputs: tuple[Any, ...], kwargs: dict[str, Any], look: Look) -> Variables:
        """See `JaxModel.shapes`."""
        self.places.clear()
        found = self.model.shapes(inputs, kwargs, self._shown_to(look))
        return jax.eval_shape(self.canonical, found) if self.places else found

    def apply(self, variables: Variables, inputs: tuple[Any, ...], kwargs: dict[str, Any], look: Look | None) -> Any:
        """See `JaxModel.apply`."""
        if look is None and not self.found:
            return self.model.apply(variables, inputs, kwargs, None)
        return self.model.apply(self.native(variables), inputs, kwargs, self._shown_to(look))

    def canonical(self, variables: Variables) -> Variables:
        """The module's own variables with those of its recurrent layers as PyTorch has them."""
        params = variables.get("params", {})
        cells = {path: _at(params, place.path) for path, place in self.places.items()}
        for place in self.places.values():
            params = _without(params, place.path.split("/") if place.path else [])
        for path, place in self.places.items():
            try:
                params = _with(params, path, place.cell.packed(cells[path], jnp))
            except (KeyError, TypeError, ValueError) as error:
                wanted = ", ".join(f"{layer}/{n} {s}" for layer, of in place.cell.shapes.items() for n, s in of.items())
                raise CannotCompare(f"the variables of {place.path or 'the cell'} aren't {wanted}: {error}") from error
        return {**variables, "params": params} if self.places else variables

    def cells(self) -> dict[str, mapping.Cell]:
        """For the mapping of weights: the recurrent layers' cells, by path of the layer."""
        return {
            path: mapping.Cell(place.path, place.cell.gates, place.cell.inputs, place.cell.states, place.cell.shapes)
            for path, place in self.places.items()
        }

    def native(self, variables: Variables) -> Variables:
        """The inverse."""
        params = variables.get("params", {})
        made = {}
        for path, place in self.places.items():
            node = _at(params, path)
            if "kernel_ih" in node:
                made[place.path] = place.cell.unpacked(node, jnp)
                params = _with(params, path, dict.fromkeys(PACKED))
        for path, layers in made.items():
            params = _with(params, path, layers)
        return {**variables, "params": _pruned(params)} if made else variables

    def _shown_to(self, look: Look | None) -> Look:
        """Shows recurrent layers as leaves, and steps of those that aren't known; to None shows nothing."""

        def shown(layer: JaxLayer, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._depth or layer.path in self.hidden:
                return call(*args, **kwargs)
            classes = [name for package in _LIBRARIES for name in registry.classes_of(layer.module, package)]
            whole_model = layer.path == "" and self.states
            if whole_model and "recurrent.Bidirectional" in classes:
                return _both_directions(layer, call, args, kwargs, look)
            sequence = "recurrent.RNN" in classes and layer.module.cell.num_feature_axes == 1
            if not sequence and not (self.whole and is_cell(classes) and is_one_step(args, kwargs)):
                return look(layer, call, args, kwargs) if look is not None else call(*args, **kwargs)
            self.found = True
            found = (SequenceCall if sequence else CellCall)(layer, args, kwargs)
            cell = self._cell(layer, found) if self.whole else None
            if cell is None:
                return self._apart(layer, call, args, kwargs, found, look)
            found.arrays = cell.arrays
            run = found.result(self._hidden(call))
            if look is not None:
                shown_layer = RecurrentLayer(self, layer, found, self.places[layer.path])
                packed = look(shown_layer, run, found.inputs(), {})
            else:
                packed = run(*found.inputs())
            return found.flat(packed) if whole_model else found.back(packed)

        return shown

    def _cell(self, layer: JaxLayer, call: RecurrentCall) -> Cell | None:
        """How the cell keeps its arrays; None if it isn't known."""
        if layer.path in self.places:
            return self.places[layer.path].cell
        try:
            with self.inside():
                cell = cell_of(call.shapes())
        except (TypeError, ValueError, FlaxError):  # it can't be called by itself
            return None
        if cell is not None:
            self.places[layer.path] = _Place(call.cell_path(), cell)
        return cell

    def _apart(
        self,
        layer: JaxLayer,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        found: RecurrentCall,
        look: Look | None,
    ) -> Any:
        """A layer over a cell that isn't known: step by step where it is looked at."""
        if not isinstance(found, SequenceCall):
            return look(layer, call, args, kwargs) if look is not None else call(*args, **kwargs)
        return found.step_by_step() if look is not None else found.as_it_is(self._hidden(call))

    def _hidden(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def hidden(*args: Any, **kwargs: Any) -> Any:
            with self.inside():
                return call(*args, **kwargs)

        return hidden


class _Inside:
    def __init__(self, model: RecurrentModel) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.model._depth += 1

    def __exit__(self, *_: Any) -> None:
        self.model._depth -= 1


def _both_directions(
    layer: JaxLayer, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], look: Look | None
) -> Any:
    """A bidirectional layer that is the whole model: steps first, then last states, as PyTorch's is made to give."""

    def with_states(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **{**kwargs, "return_carry": True})

    carries, y = look(layer, with_states, args, kwargs) if look is not None else with_states(*args, **kwargs)
    steps = y if option(layer.module, kwargs, "time_major") else jnp.moveaxis(y, -2, 0)
    states = [state for carry in carries for state in (carry[::-1] if isinstance(carry, tuple) else (carry,))]
    return (steps, *states)


def _own(cell: Any) -> dict[str, Any]:
    """A cell's parameters by layer."""
    found = variables_of(nnx.state(cell)) if isinstance(cell, nnx.Module) else cell.variables
    return dict(found.get("params", {}))


def _at(tree: Any, path: str) -> dict[str, Any]:
    for part in path.split("/") if path else ():
        tree = tree.get(part, {}) if hasattr(tree, "get") else {}
    return dict(tree) if hasattr(tree, "items") else {}


def _with(tree: Any, path: str, node: dict[str, Any]) -> dict[str, Any]:
    """A tree with more in one of its nodes; None stands for what is taken out."""
    if not path:
        merged = {**tree, **node}
        return {name: value for name, value in merged.items() if value is not None}
    first, _, rest = path.partition("/")
    return {**tree, first: _with(tree.get(first, {}), rest, node)}


def _without(tree: Any, parts: list[str]) -> dict[str, Any]:
    if not parts:
        return {}
    found = dict(tree)
    if parts[0] in found:
        found[parts[0]] = _without(found[parts[0]], parts[1:])
        if not found[parts[0]]:
            del found[parts[0]]
    return found


def _pruned(tree: Any) -> Any:
    """Without empty nodes, which no module has."""
    if not isinstance(tree, dict):
        return tree
    pruned = {name: _pruned(node) for name, node in tree.items()}
    return {name: node for name, node in pruned.items() if not (isinstance(node, dict) and not node)}
