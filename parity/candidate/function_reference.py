"""PyTorch's half of a comparison from end to end: what a run gives, and how far forms lie from formulas."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import NDArray
from torch import nn

from parity.bounds import torch_exact_forms
from parity.bounds.judging import between_forms
from parity.candidate.function_rows import gradients_of, gradients_of_inputs
from parity.comparison.request import Request
from parity.reference import torch_backward, torch_tensors


@dataclass(frozen=True)
class Reference:
    """PyTorch's model and what one run of it gave, in PyTorch's layout.

    Attributes:
        model: which was run.
        outputs: what it gave.
        cotangents: of the outputs.
        gradients: of parameters by their names and of inputs by `name_input`'s; none if they weren't asked for.
        besides: what is allowed beside roundings, of outputs by `name_output`'s names and of gradients by theirs; none
            where PyTorch kept to every function's formula, see `parity.bounds.torch_exact_forms`.
    """

    model: nn.Module
    outputs: list[NDArray]
    cotangents: list[NDArray]
    gradients: dict[str, NDArray]
    besides: dict[str, float]

    @classmethod
    def of(cls, request: Request, model: nn.Module) -> Reference:
        """Run it, and once more by formulas where PyTorch left one."""
        forms = torch_exact_forms.Forms()
        outputs, cotangents, gradients = _run(request, model, forms)
        besides: dict[str, float] = {}
        if forms.met:
            exact, _, exact_gradients = _run(request, model, torch_exact_forms.Forms(exact=True))
            pairs = {name_output(i): pair for i, pair in enumerate(zip(exact, outputs, strict=True))}
            pairs |= {name: (exact_gradients[name], gradients[name]) for name in gradients}
            besides = {name: between_forms([pair]) for name, pair in pairs.items()}
        return cls(model, outputs, cotangents, gradients, besides)


def name_output(place: int) -> str:
    """What an output is called."""
    return f"the model's output {place}"


def _run(
    request: Request, model: nn.Module, forms: torch_exact_forms.Forms
) -> tuple[list[NDArray], list[NDArray], dict[str, NDArray]]:
    """Outputs, their cotangents, and gradients if they are asked for."""
    inputs = torch_tensors.as_tensors(request.inputs, request.dtype)
    wanted = tuple(x.requires_grad_(request.gradients and x.is_floating_point()) for x in inputs)
    model.zero_grad(set_to_none=True)
    with forms:
        outputs = torch_tensors.tensors_in(model(*wanted, **request.torch_kwargs))
        cotangents = torch_backward.draw(outputs, request.seed)
        if request.gradients:
            torch_backward.pull(outputs, cotangents)
    gradients = gradients_of(model) | gradients_of_inputs(wanted) if request.gradients else {}
    model.zero_grad(set_to_none=True)
    return [torch_tensors.to_numpy(y) for y in outputs], cotangents, gradients
