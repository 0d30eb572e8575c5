"""The last resort: a function of a tree of parameters beside a PyTorch module, from end to end.

A function has no layers that could be cut out, so no layer can be blamed: what is compared are its parameters, its
outputs, and the gradients of each parameter and input. Where an output differs, PyTorch's model is run again in NumPy
as a whole, with mistakes, as the code between layers is elsewhere.
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
from torch import nn

from parity.candidate import function_gradients, function_weights
from parity.candidate.function_causes import Explainer
from parity.candidate.function_gradients import Backward, Gradients
from parity.candidate.function_parameters import Parameter, by_mapping, left_out, named, pair, with_stacks
from parity.candidate.function_reference import Reference, name_output
from parity.candidate.function_rows import (
    as_input,
    gradient_rows,
    input_row,
    name_input,
    row_of,
    weight_row,
)
from parity.candidate.jax_arrays import DTYPES, placed
from parity.candidate.jax_recurrent import RecurrentModel
from parity.causes import diagnosis
from parity.comparison.request import Request
from parity.errors import CannotCompare, CannotConvert
from parity.kinds import layouts
from parity.mapping import inference, trees
from parity.mapping.found import TorchState, finished
from parity.mapping.mapping import Mapping
from parity.mapping.tensors import Tensor
from parity.reference import torch_tensors
from parity.reports.report import Report
from parity.reports.rows import Row


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
    request: Request, function: Callable[..., Any], tree: Any, model: nn.Module, state: TorchState, mapped: bool = True
) -> Report:
    """Compare `function(tree, *inputs, **kwargs)` with a PyTorch model that is ready to run; see `parity.compare`.

    Args:
        request: inputs, precision and the rest.
        function: the candidate.
        tree: its parameters.
        model: PyTorch's, ready to run.
        state: PyTorch's state dict, for the mapping.
        mapped: whether the request's mapping is of these parameters.

    Raises:
        CannotCompare: parameters can't be paired, or the numbers of outputs differ.
    """
    torch_tensors.pin_precision()
    values = with_stacks({n: torch_tensors.to_numpy(t) for n, t in _state(model)})
    tree = jax.tree.map(lambda x: _array(x, request.dtype), tree)
    mapping = request.mapping if mapped else None
    if isinstance(mapping, Mapping):
        parameters = by_mapping(named(tree), values, mapping)
    else:
        parameters = list(pair(named(tree), values, mapping))
    reference = Reference.of(request, model)
    rows = [weight_row(request.name, request.dtype, parameter, named(tree), values) for parameter in parameters]
    for row, parameter in zip(rows, parameters, strict=True):
        if row.verdict == "mismatch":
            diagnosis.attach(row, function_weights.explain(parameter, named(tree)[parameter.name], values))
    rows += _run(request, function, tree, reference, parameters, explained=all(row.equal for row in rows))
    for order, row in enumerate(rows):
        row.order = order
    report = Report(rows, left_out(parameters, model))
    shapes = {path: tuple(leaf.shape) for path, leaf in named(tree).items()}
    called = getattr(function, "__name__", type(function).__name__)
    report.found = mapping if isinstance(mapping, Mapping) else Found(called, parameters, shapes, state)
    report.settings = {"dtype": request.dtype, "jax": jax.__version__, "backend": jax.default_backend()}
    return report


def _run(
    request: Request,
    function: Callable[..., Any],
    tree: Any,
    reference: Reference,
    parameters: list[Parameter],
    explained: bool,
) -> list[Row]:
    """Outputs, and gradients where they were asked for and the outputs' shapes agree.

    Raises:
        CannotCompare: the numbers of outputs differ.
    """
    dtype, outputs = request.dtype, reference.outputs
    xs = [_array(x, dtype) for x in request.flax_inputs]
    floats = [i for i, x in enumerate(xs) if jnp.issubdtype(x.dtype, jnp.floating)]

    def of_floats(tree: Any, *some: Any) -> list[Any]:
        whole = list(xs)
        for i, x in zip(floats, some, strict=True):
            whole[i] = x
        return jax.tree.leaves(function(tree, *whole, **request.flax_kwargs))

    rows, moved = [], []
    with jax.default_matmul_precision("highest"):
        results, pull_back = jax.vjp(of_floats, tree, *(xs[i] for i in floats))
        if len(results) != len(outputs):
            raise CannotCompare(f"the function returns {len(results)} arrays, PyTorch {len(outputs)}")
        explainer = Explainer(request, reference.model, of_floats, (tree, *(xs[i] for i in floats)))
        for i, result in enumerate(results):
            row, layout = _output(request, reference, i, result, explainer if explained else None)
            rows.append(row)
            moved.append(placed(layout.to_flax(reference.cotangents[i]), DTYPES[dtype]))
        if request.gradients and all(row.verdict != "shape" for row in rows):
            of_tree, *of_inputs = pull_back(moved)
            found = dict(zip(floats, of_inputs, strict=True))
            gradients = reference.gradients
            learning = [each for each in parameters if each.torch_name in gradients]
            backward = _backward(request, reference, learning, named(of_tree), found)
            judged = backward.judged(gradients)
            right = explained and all(row.equal for row in rows)
            wrong = right and any(row.verdict == "mismatch" for row in judged)
            rows += function_gradients.explain(backward, judged) if wrong else judged
    return rows


def _backward(
    request: Request, reference: Reference, parameters: list[Parameter], of_tree: dict[str, Any], of_inputs: dict
) -> Backward:
    """How gradients come about in PyTorch, and are held to JAX's of the tree and of inputs."""
    besides = reference.besides

    def judged(gradients: Gradients) -> list[Row]:
        rows = list(gradient_rows(request.name, request.dtype, parameters, of_tree, gradients, besides))
        for i, found in of_inputs.items():
            name = name_input(i)
            rows.append(input_row(request.name, request.dtype, i, found, gradients[name], besides.get(name, 0.0)))
        return rows

    def laid(gradients: Gradients) -> list[NDArray]:
        moved = [p.move(gradients[p.torch_name]) for p in parameters]
        return moved + [as_input(gradients[name_input(i)], found) for i, found in of_inputs.items()]

    ours = [np.asarray(of_tree[p.name], np.float64) for p in parameters]
    ours += [np.asarray(found, np.float64) for found in of_inputs.values()]
    return Backward(
        reference.model,
        request.inputs,
        request.torch_kwargs,
        request.dtype,
        reference.cotangents,
        judged,
        laid,
        ours,
    )


def _output(
    request: Request, reference: Reference, i: int, result: Any, explainer: Explainer | None
) -> tuple[Row, layouts.Layout]:
    """Compare an output, and name what is wrong with it if something can; its row and its layout."""
    theirs, besides = reference.outputs[i], reference.besides.get(name_output(i), 0.0)
    layout = layouts.align(theirs, np.asarray(result, np.float64), None) or layouts.Layout()
    row = row_of(request.name, request.dtype, f"output {i}", "outputs", result, layout.to_flax(theirs), besides)
    if explainer is not None and row.verdict == "mismatch":
        explainer.explain(row, i, layout.to_torch(np.asarray(result, np.float64)), np.asarray(theirs, np.float64))
    return row, layout


def compare_modules(
    request: Request,
    model: RecurrentModel,
    variables: Any,
    references: tuple[nn.Module, ...],
    state: TorchState,
    why: str,
) -> Report:
    """Compare a module whose layers can't be seen as a function of its own parameters, which hold PyTorch's values.

    Args:
        request: inputs, precision and the rest.
        model: in which they can't.
        variables: its own.
        references: PyTorch's model, its recurrent layers with one bias, and as it is: the first one whose parameters
            can be paired is taken.
        state: PyTorch's state dict.
        why: the layers can't be seen.

    Raises:
        CannotCompare: the parameters can't be paired either.
    """
    others = {name: values for name, values in variables.items() if name != "params"}

    def run(tree: Any, *inputs: Any, **kwargs: Any) -> Any:
        return model.apply({**others, "params": tree}, inputs, kwargs, None)

    problem: CannotCompare | None = None
    for reference in references:
        try:
            report = compare(request, run, variables.get("params", {}), reference, state, mapped=False)
        except CannotCompare as error:
            problem = error
            continue
        reason = why.splitlines()[0].rstrip(":")
        told = f"the layers one by one, which can't be seen or paired ({reason}): the models are compared as wholes"
        report.not_exercised.insert(0, told)
        report.found = None  # its parameters are not in the places that the module has them in
        return report
    raise CannotCompare(f"{why}\nAs a whole: {problem}") from problem


def _array(x: Any, dtype: str) -> jax.Array:
    return placed(x, DTYPES[dtype] if jnp.issubdtype(np.asarray(x).dtype, jnp.floating) else None)


def _state(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point():
            yield name, tensor
