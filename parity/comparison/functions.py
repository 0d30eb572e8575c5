"""The last resort: a function of a tree of parameters beside a PyTorch module, from end to end.

A function has no layers that could be cut out, so no layer can be blamed: what is compared are its parameters, its
outputs, and the gradients of each parameter and input. Where an output differs, PyTorch's model is run again in NumPy
as a whole, with mistakes, as the code between layers is elsewhere. Its parameters must hold PyTorch's values, in
whatever layout, which is how they are paired.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from parity.bounds.judging import difference, judge_together
from parity.bounds.magnitudes import UNIT_ROUNDOFF, normwise_limit
from parity.causes import between_graph, diagnosis
from parity.comparison.jax_dtypes import DTYPES
from parity.errors import CannotCompare, CannotConvert
from parity.kinds import layouts
from parity.mapping import inference, trees
from parity.mapping.found import TorchState, finished
from parity.mapping.mapping import Mapping
from parity.mapping.tensors import Tensor
from parity.reports.report import Report
from parity.reports.rows import Row, compare_arrays, fill

if TYPE_CHECKING:
    from parity.comparison.jax_recurrent import RecurrentModel

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
        given: by a mapping: then it may be the sum of several.
    """

    name: str
    torch_name: str
    move: Move
    given: Tensor | None = None

    def value(self, state: dict[str, NDArray]) -> NDArray:
        """PyTorch's, in the tree's layout."""
        return self.move(state[self.torch_name]) if self.given is None else self.given.converted(state)

    @property
    def torch_names(self) -> list[str]:
        """Of all that it is made of."""
        return [self.torch_name] if self.given is None else [source.torch for source in self.given.sources]


@dataclass(frozen=True)
class Found:
    """What a comparison of a function knows of its weights.

    Attributes:
        model: name of the function.
        parameters: the tree's leaves, with their partners.
        shapes: of the leaves, by name.
        state: PyTorch's.
    """

    model: str
    parameters: list[Parameter]
    shapes: dict[str, tuple[int, ...]]
    state: TorchState

    def concluded(self, **comparison: str) -> Mapping:
        """The mapping that the comparison has used, with what became of it.

        Raises:
            CannotConvert: a parameter isn't in the state dict.
        """
        tensors = []
        for parameter in self.parameters:
            shape = self.state.shapes.get(parameter.torch_name)
            moved = None if shape is None else inference.moves(parameter.move(inference.places(shape)), shape)
            source = None if moved is None else self.state.source(parameter.torch_name, moved)
            if source is None:
                raise CannotConvert(f"PyTorch's {parameter.torch_name} isn't in its state dict")
            tensors.append(Tensor(parameter.name, self.shapes[parameter.name], (source,)))
        return finished(trees.FUNCTION, self.model, {}, tuple(tensors), self.state, comparison)


def compare(
    function: Callable[..., Any],
    tree: Any,
    model: Any,
    arrays: tuple[NDArray, ...],
    ours: tuple[NDArray, ...],
    *,
    dtype: str,
    gradients: bool,
    mapping: dict[str, str] | Mapping | None,
    kwargs: dict[str, Any],
    torch_kwargs: dict[str, Any],
    name: str,
    seed: int,
    state: TorchState,
) -> Report:
    """Compare `function(tree, *ours, **kwargs)` with a PyTorch model that is ready to run; see `parity.compare`.

    Raises:
        CannotCompare: parameters can't be paired, or the numbers of outputs differ.
    """
    from parity.comparison import torch_backward, torch_tensors

    torch_tensors.pin_precision()
    values = with_stacks({n: torch_tensors.to_numpy(t) for n, t in _state(model)})
    tree = jax.tree.map(lambda x: _array(x, dtype), tree)
    if isinstance(mapping, Mapping):
        parameters = _given(named(tree), values, mapping)
    else:
        parameters = list(pair(named(tree), values, mapping))
    inputs = torch_tensors.as_tensors(arrays, dtype)
    wanted = tuple(x.requires_grad_(gradients and x.is_floating_point()) for x in inputs)
    outputs = torch_tensors.tensors_in(model(*wanted, **torch_kwargs))
    cotangents = torch_backward.draw(outputs, seed)
    if gradients:
        torch_backward.pull(outputs, cotangents)
    rows = [_weights(name, dtype, parameter, named(tree), values) for parameter in parameters]
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
            reference = torch_tensors.to_numpy(output)
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
                reference = np.zeros(arrays[i].shape) if gradient is None else torch_tensors.to_numpy(gradient)
                layout = layouts.align(reference, np.asarray(found, np.float64), None) or layouts.Layout()
                rows.append(_row(name, dtype, f"input {i}", "gradient", found, layout.to_flax(reference)))
    for order, row in enumerate(rows):
        row.order = order
    report = Report(rows, _left_out(parameters, model))
    shapes = {path: tuple(leaf.shape) for path, leaf in named(tree).items()}
    called = getattr(function, "__name__", type(function).__name__)
    report.found = mapping if isinstance(mapping, Mapping) else Found(called, parameters, shapes, state)
    report.settings = {"dtype": dtype, "jax": jax.__version__, "backend": jax.default_backend()}
    return report


def compare_modules(
    model: RecurrentModel,
    variables: Any,
    references: tuple[Any, ...],
    arrays: tuple[NDArray, ...],
    ours: tuple[NDArray, ...],
    why: str,
    **settings: Any,
) -> Report:
    """Compare a module whose layers can't be seen as a function of its own parameters, which hold PyTorch's values.

    Args:
        model: in which they can't.
        variables: its own.
        references: PyTorch's model, its recurrent layers with one bias, and as it is: the first one whose parameters
            can be paired is taken.
        arrays: see `compare`; likewise ours.
        ours: see `compare`.
        why: the layers can't be seen.
        settings: of `compare`.

    Raises:
        CannotCompare: the parameters can't be paired either.
    """
    others = {name: values for name, values in variables.items() if name != "params"}

    def run(tree: Any, *inputs: Any, **kwargs: Any) -> Any:
        return model.apply({**others, "params": tree}, inputs, kwargs, None)

    problem: CannotCompare | None = None
    for reference in references:
        try:
            report = compare(run, variables.get("params", {}), reference, arrays, ours, mapping=None, **settings)
        except CannotCompare as error:
            problem = error
            continue
        reason = why.splitlines()[0].rstrip(":")
        told = f"the layers one by one, which can't be seen or paired ({reason}): the models are compared as wholes"
        report.not_exercised.insert(0, told)
        report.found = None  # its parameters are not in the places that the module has them in
        return report
    raise CannotCompare(f"{why}\nAs a whole: {problem}") from problem


def _explain(
    row: Row, i: int, model: Any, arrays: tuple[NDArray, ...], kwargs: dict[str, Any], ours: NDArray, theirs: NDArray
) -> None:
    """Attach a cause to an output that diverges: a mistake anywhere in PyTorch's model, run again as a whole."""
    from parity.comparison import torch_graph, torch_tensors

    recorder, sinks = torch_graph.of_model(model, torch_tensors.as_tensors(arrays, row.dtype), kwargs)
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


def with_stacks(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """Arrays by PyTorch's names, and those of a list's items once more as one, under the name with a star for numbers.

    JAX stacks the parameters of layers that it scans over: `blocks.0.weight`, `blocks.1.weight` are `blocks.*.weight`.
    """
    groups: dict[str, list[str]] = {}
    for name in arrays:
        for match in re.finditer(r"(?<![^.])\d+(?![^.])", name):
            groups.setdefault(f"{name[: match.start()]}*{name[match.end() :]}", []).append(name)
    stacks = {}
    for star, names in groups.items():
        if len(names) > 1 and len({arrays[name].shape for name in names}) == 1:
            first, _, last = star.partition("*")
            names.sort(key=lambda name: int(name[len(first) : len(name) - len(last)]))
            stacks[star] = np.stack([arrays[name] for name in names])
    return {**arrays, **stacks}


def _given(ours: dict[str, Any], theirs: dict[str, NDArray], mapping: Mapping) -> list[Parameter]:
    """The pairs of a mapping.

    Raises:
        CannotConvert: it is another model's.
    """
    mapping.check(trees.FUNCTION, {path: tuple(leaf.shape) for path, leaf in ours.items()})
    theirs |= mapping.complete(theirs)
    return [Parameter(x.jax, x.sources[0].torch, x.sources[0].moved, x) for x in mapping.tensors]


def moves(reference: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[Move]:
    """Ways to lay an array of one shape out in another: axes exchanged, then joined or divided."""
    if int(np.prod(reference)) != int(np.prod(wanted)):
        return
    rank = len(reference)
    kernel = (*range(2, rank), 1, 0)  # O I ... to ... I O
    stacked = (0, *range(3, rank), 2, 1)  # the same of several, one after the other
    orders = dict.fromkeys(
        [tuple(range(rank)), kernel, stacked, *(itertools.permutations(range(rank)) if rank < 5 else ())]
    )
    for order in orders:
        if len(order) == rank and (rank != len(wanted) or tuple(reference[i] for i in order) == wanted):
            yield lambda array, order=order: array.transpose(order).reshape(wanted)


def _holds(array: NDArray, values: NDArray) -> bool:
    reference = array.astype(np.float64)
    return any(np.array_equal(move(reference), values) for move in moves(array.shape, values.shape))


def _plain(name: str) -> str:
    *above, last = name.replace("/", ".").replace("_", ".").lower().replace(".*", "").split(".")
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
    return compare_arrays(row, np.asarray(ours[parameter.name]), parameter.value(state), None)


def _gradients(name: str, dtype: str, parameters: list[Parameter], found: dict[str, Any], model: Any) -> Iterator[Row]:
    from parity.comparison import torch_tensors

    gradients = with_stacks(
        {
            n: np.zeros(tuple(p.shape)) if p.grad is None else torch_tensors.to_numpy(p.grad)
            for n, p in model.named_parameters()
            if p.requires_grad
        }
    )
    for parameter in parameters:
        gradient = gradients.get(parameter.torch_name)
        if gradient is None:
            continue
        ours = found[parameter.name]
        row = _row(name, dtype, parameter.name, "gradient", ours, parameter.move(gradient))
        row.torch_name = parameter.torch_name
        yield row


def _left_out(parameters: list[Parameter], model: Any) -> list[str]:
    """PyTorch's parameters that no leaf of the tree is paired with."""
    paired = {name for parameter in parameters for name in parameter.torch_names}
    starred = [re.compile(r"\d+".join(map(re.escape, name.split("*")))) for name in paired if "*" in name]
    rest = [
        name
        for name, _ in model.named_parameters()
        if name not in paired and not any(star.fullmatch(name) for star in starred)
    ]
    return [f"PyTorch's {', '.join(rest)}: nothing in the tree is paired with them"] if rest else []
