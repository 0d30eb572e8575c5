"""What a rule of the running error analysis sees of an operation, and gives: see `parity.bounds.torch_rounding`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

UNIT = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
    torch.complex128: 2.0**-53,
    torch.complex64: 2.0**-24,
}

# Operations that only move, select or repeat values, or make room for some: nothing is rounded, of whatever numbers.
MOVES = frozenset(
    {
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "permute",
        "transpose",
        "t",
        "expand",
        "slice",
        "select",
        "clone",
        "detach",
        "alias",
        "squeeze",
        "unsqueeze",
        "cat",
        "stack",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "narrow",
        "contiguous",
        "movedim",
        "lift_fresh",
        "empty",
        "empty_like",
        "copy",
        "_to_copy",
    }
)


@dataclass(frozen=True)
class Tracked:
    """What is known of one tensor.

    Attributes:
        error: bound on its absolute error, float64, of its shape; None if it is exact.
        depth: roundings on the longest way from the start to it.
        unknown: operations on that way of which no bound is known, so that it has none either.
    """

    error: Tensor | None = None
    depth: int = 0
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Terms:
    """What a sum adds up that nothing but another sum has taken: the other side may add that in any order.

    Attributes:
        sizes: the sum of the terms' absolute values.
        number: of terms.
        rounded: what the roundings of its additions are allowed already, in that order.
    """

    sizes: Tensor
    number: int
    rounded: Tensor


@dataclass
class Operation:
    """One ATen call as a rule sees it.

    Attributes:
        func: the operation itself, to apply to errors what it did to values.
        name: its name, without `aten::` and without the underscore of the in-place form.
        errors: the error bounds of its tensor arguments by position, or by name; of a list of tensors, a list.
        most: the largest unit roundoff that a rounding may have, the lane's own: what is computed with fewer bits than
            the lane promises must not widen the bound by which it is judged.
        fixed: unit roundoff that every floating-point tensor counts with, whatever its dtype: of formulas that are run
            in float64 to see what they would cost in another precision. None for the tensors' own.
        terms: of arguments that are sums themselves, by position.
        nested: runs a formula on float64 tensors with error bounds, and bounds the error of what it gives; see `cost`.
    """

    func: Any
    name: str
    args: tuple
    kwargs: dict
    result: Any
    errors: dict[int | str, Any] = field(default_factory=dict)
    most: float = 1.0
    fixed: float | None = None
    terms: dict[int, Terms] = field(default_factory=dict)
    nested: Callable[[Formula, list[Any], list[Any], float], tuple[list[Any], int]] | None = None

    def cost(self, formula: Formula, *places: int | str) -> tuple[list[Any], int]:
        """The error bounds of an operation's results, had they been computed by a formula in its precision.

        The formula is run in float64, every one of its operations counting with this operation's unit roundoff.

        Args:
            formula: of the arguments in `places`; gives one tensor or several.
            places: of the arguments that it takes.
        """
        if self.nested is None:
            raise RuntimeError(f"{self.name} has nothing to run a formula with")
        values = [self.value(p) if isinstance(p, int) else self.kwargs.get(p) for p in places]
        return self.nested(formula, values, [self.errors.get(p) for p in places], self.unit)

    def error(self, position: int | str) -> Any:
        """Error bound of the argument at `position`, 0 if it is exact."""
        return self.errors.get(position, 0.0)

    def value(self, position: int, default: Any = None) -> Any:
        """The argument at `position`, in float64 if it is a floating-point tensor, complex numbers likewise."""
        arg = self.args[position] if position < len(self.args) else default
        if isinstance(arg, Tensor) and arg.is_complex():
            return arg.to(torch.complex128)
        return arg.double() if isinstance(arg, Tensor) and arg.is_floating_point() else arg

    @property
    def output(self) -> Tensor:
        """The first result."""
        results = self.result if isinstance(self.result, (tuple, list)) else [self.result]
        return next(r for r in results if isinstance(r, Tensor))

    @property
    def rounded(self) -> Tensor:
        """What storing the first result in its own dtype may change, u |result|; infinity isn't rounded."""
        size = (self.output if self.output.is_complex() else self.output.double()).abs().double()
        return self.unit * torch.where(torch.isfinite(size), size, torch.zeros_like(size))

    @property
    def unit(self) -> float:
        """Unit roundoff that the result may have: its dtype's, or the lane's where that is smaller."""
        return self.unit_of(self.output)

    def unit_of(self, tensor: Tensor) -> float:
        """Likewise of another tensor; 0 for integers."""
        if self.fixed is not None and (tensor.is_floating_point() or tensor.is_complex()):
            return self.fixed
        return min(UNIT.get(tensor.dtype, 0.0), self.most)


Formula = Callable[..., Any]
Rule = Callable[[Operation], tuple[Any, int]]
