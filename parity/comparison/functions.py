"""The last resort: a function of a tree of parameters beside a PyTorch module, from end to end.

A function has no layers that could be cut out, so no layer can be blamed: what is compared are its parameters, its
outputs, and the gradients of each parameter and input. Where an output differs, PyTorch's model is run again in NumPy
as a whole, with mistakes, as the code between layers is elsewhere. Its parameters must hold PyTorch's values, in
whatever layout, which is how they are paired.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import difference, judge_together
from parity.bounds.magnitudes import UNIT_ROUNDOFF, normwise_limit
from parity.causes import between_graph, diagnosis
from parity.comparison.jax_side import DTYPES
from parity.errors import CannotCompare
from parity.kinds import layouts
from parity.reports.report import Report
from parity.reports.rows import Row, compare_arrays, fill

Move = Callable[[NDArray], NDArray]
# What PyTorch calls `weight` has other names elsewhere.
_SAME = {"kernel": "weight", "scale": "weight", "embedding": "weight", "w": "weight", "b": "bias", "gamma": "weight"}
_SAME |= {"beta": "bias", "mean": "running_mean", "var": "running_var"}


@dataclass(frozen=True)
class Parameter:
    """One leaf of the tree and its partner.

    Attributes:
        name: its path in the tree.
        torch_name: of the PyTorch parameter or buffer.
        move: from PyTorch's layout to the tree's.
    """

    name: str
    torch_name: str
    move: Move


def compare(
    function: Callable[..., Any],
    tree: Any,
    model: Any,
    arrays: tuple[NDArray, ...],
    ours: tuple[NDArray, ...],
    *,
    dtype: str,
    gradients: bool,
    mapping: dict[str, str] | None,
    kwargs: dict[str, Any],
    torch_kwargs: dict[str, Any],
    name: str,
    seed: int,
) -> Report:
    """Compare `function(tree, *ours, **kwargs)` with a PyTorch model that is ready to run; see `parity.compare`.

    Raises:
        CannotCompare: parameters can't be paired, or the numbers of outputs differ.
    """
    from parity.comparison import torch_backward, torch_side

    torch_side.pin_precision()
    state = {n: torch_side.to_numpy(t) for n, t in _state(model)}
    tree = jax.tree.map(lambda x: _array(x, dtype), tree)
    parameters = list(pair(named(tree), state, mapping))
    inputs = torch_side.as_tensors(arrays, dtype)
    wanted = tuple(x.requires_grad_(gradients and x.is_floating_point()) for x in inputs)
    outputs = torch_side.tensors_in(model(*wanted, **torch_kwargs))
    cotangents = torch_backward.draw(outputs, seed)
    if gradients:
        torch_backward.pull(outputs, cotangents)
    rows = [_weights(name, dtype, parameter, named(tree), state) for parameter in parameters]
    same = all(row.equal for row in rows)
    xs = [_array(x, dtype) for x in ours]
    with jax.default_matmul_precision("highest"):
        floats = [i for i, x in enumerate(xs) if jnp.issubdtype(x.dtype, jnp.floating)]

        def of_floats(tree: Any, *some: Any) -> list[Any]:
            whole = list(xs)
            for i, x in zip(floats, some, strict=True):
                whole[i] = x
            return jax.tree.leaves(function(tree, *whole, **kwargs))

        results, pull_back = jax.vjp(of_floats, tree, *(xs[i] for i in floats))
        if len(results) != len(outputs):
            raise CannotCompare(f"the function returns {len(results)} arrays, PyTorch {len(outputs)}")
        moved = []
        for i, (result, output) in enumerate(zip(results, outputs, strict=True)):
            reference = torch_side.to_numpy(output)
            layout = layouts.align(reference, np.asarray(result, np.float64), None) or layouts.Layout()
            rows.append(_row(name, dtype, f"output {i}", "outputs", result, layout.to_flax(reference)))
            if same and rows[-1].verdict == "mismatch":
                ours_moved = layout.to_torch(np.asarray(result, np.float64))
                _explain(rows[-1], i, model, arrays, torch_kwargs, ours_moved, np.asarray(reference, np.float64))
            moved.append(jnp.asarray(layout.to_flax(cotangents[i]), DTYPES[dtype]))
        comparable = all(row.verdict != "shape" for row in rows)
        if gradients and comparable:
            of_tree, *of_inputs = pull_back(moved)
            rows += _gradients(name, dtype, parameters, named(of_tree), model)
            for i, found in zip(floats, of_inputs, strict=True):
                gradient = inputs[i].grad
                reference = np.zeros(arrays[i].shape) if gradient is None else torch_side.to_numpy(gradient)
                layout = layouts.align(reference, np.asarray(found, np.float64), None) or layouts.Layout()
                rows.append(_row(name, dtype, f"input {i}", "gradient", found, layout.to_flax(reference)))
    for order, row in enumerate(rows):
        row.order = order
    report = Report(rows, _left_out(parameters, model))
    report.settings = {"dtype": dtype, "jax": jax.__version__, "backend": jax.default_backend()}
    return report


def _explain(
    row: Row, i: int, model: Any, arrays: tuple[NDArray, ...], kwargs: dict[str, Any], ours: NDArray, theirs: NDArray
) -> None:
    """Attach a cause to an output that diverges: a mistake anywhere in PyTorch's model, run again as a whole."""
    from parity.comparison import torch_graph, torch_side

    recorder, sinks = torch_graph.of_model(model, torch_side.as_tensors(arrays, row.dtype), kwargs)
    code = between_graph.Code.of(recorder.nodes, recorder.constants, arrays)
    tolerance = row.bound * float(np.max(np.abs(theirs), initial=0.0))
    diagnosis.attach(row, code.explain(sinks[i], "output", ours, theirs, tolerance, "output"))


def _array(x: Any, dtype: str) -> jax.Array:
    return jnp.asarray(x, DTYPES[dtype] if jnp.issubdtype(np.asarray(x).dtype, jnp.floating) else None)


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, joined with `/`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def pair(ours: dict[str, Any], theirs: dict[str, NDArray], given: dict[str, str] | None) -> Iterator[Parameter]:
    """Each leaf's partner: the one that was named, that of the same name, or the only one with the same values.

    Raises:
        CannotCompare: a leaf has none, or several; or a name is unknown.
    """
    given = given or {}
    for name, torch_name in given.items():
        if name not in ours or torch_name not in theirs:
            known = ", ".join(ours if name not in ours else theirs)
            wrong = name if name not in ours else torch_name
            raise CannotCompare(f"mapping names {wrong!r}, which isn't among {known}")
    names = {_plain(name): name for name in theirs}
    for name, leaf in ours.items():
        values = np.asarray(leaf, np.float64)
        partner = given.get(name) or names.get(_plain(name))
        found = [partner] if partner else [n for n, array in theirs.items() if _holds(array, values)]
        if not found:
            found = [n for n, array in theirs.items() if any(True for _ in moves(array.shape, values.shape))]
        if len(found) > 1:  # with the same values, or of the same shape: the whole may be wrapped on either side
            tails = [n for n in found if f".{_plain(n)}".endswith(f".{_plain(name)}")]
            found = tails if len(tails) == 1 else found
        if len(found) != 1:
            fits = f"could be {', '.join(found)}" if found else f"has no partner among {', '.join(theirs)}"
            raise CannotCompare(f"{name} {values.shape} {fits}: say which with mapping={{{name!r}: 'torch.name'}}")
        fitting = list(moves(theirs[found[0]].shape, values.shape))
        if not fitting:
            shapes = f"{values.shape} and {theirs[found[0]].shape}"
            raise CannotCompare(f"{name} and PyTorch's {found[0]} have the shapes {shapes}")
        reference = theirs[found[0]].astype(np.float64)
        best = min(fitting, key=lambda move: float(np.max(difference(move(reference), values), initial=0.0)))
        yield Parameter(name, found[0], best)


def moves(reference: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[Move]:
    """Ways to lay an array of one shape out in another: axes exchanged, then joined or divided."""
    if int(np.prod(reference)) != int(np.prod(wanted)):
        return
    rank = len(reference)
    kernel = (*range(2, rank), 1, 0)  # O I ... to ... I O
    orders = dict.fromkeys([tuple(range(rank)), kernel, *(itertools.permutations(range(rank)) if rank < 5 else ())])
    for order in orders:
        if len(order) == rank and (rank != len(wanted) or tuple(reference[i] for i in order) == wanted):
            yield lambda array, order=order: array.transpose(order).reshape(wanted)


def _holds(array: NDArray, values: NDArray) -> bool:
    reference = array.astype(np.float64)
    return any(np.array_equal(move(reference), values) for move in moves(array.shape, values.shape))


def _plain(name: str) -> str:
    *above, last = name.replace("/", ".").replace("_", ".").lower().split(".")
    return ".".join([*above, _SAME.get(last, last)])


def _state(model: Any) -> Iterator[tuple[str, Any]]:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point():
            yield name, tensor


def _row(name: str, dtype: str, what: str, stage: str, ours: Any, theirs: NDArray) -> Row:
    row = Row(name, what, what, stage, dtype)
    fill(row, judge_together({"": np.asarray(ours)}, {"": theirs}, normwise_limit(dtype)))
    row.n = round(row.bound / UNIT_ROUNDOFF[dtype])
    row.shape = tuple(np.shape(ours))
    return row


def _weights(name: str, dtype: str, parameter: Parameter, ours: dict[str, Any], state: dict[str, NDArray]) -> Row:
    row = Row(name, parameter.name, parameter.torch_name, "weights", dtype)
    return compare_arrays(row, np.asarray(ours[parameter.name]), parameter.move(state[parameter.torch_name]), None)


def _gradients(name: str, dtype: str, parameters: list[Parameter], found: dict[str, Any], model: Any) -> Iterator[Row]:
    from parity.comparison import torch_side

    trained = dict(model.named_parameters())
    for parameter in parameters:
        tensor = trained.get(parameter.torch_name)
        if tensor is None or not tensor.requires_grad:
            continue
        gradient = np.zeros(tuple(tensor.shape)) if tensor.grad is None else torch_side.to_numpy(tensor.grad)
        ours = found[parameter.name]
        row = _row(name, dtype, parameter.name, "gradient", ours, parameter.move(gradient))
        row.torch_name = parameter.torch_name
        yield row


def _left_out(parameters: list[Parameter], model: Any) -> list[str]:
    """PyTorch's parameters that no leaf of the tree is paired with."""
    paired = {parameter.torch_name for parameter in parameters}
    rest = [name for name, _ in model.named_parameters() if name not in paired]
    return [f"PyTorch's {', '.join(rest)}: nothing in the tree is paired with them"] if rest else []
