"""The matrices of Winograd's minimal filters, exact: what `winograd` multiplies tiles and kernels by."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import lcm
from typing import NamedTuple

# Outputs of a tile along one side. Larger tiles would spare more products and lose more digits.
OUTPUTS = 2

# Where the two polynomials behind a filter are evaluated, besides at infinity. Of the sets of small numbers these lose
# the fewest digits with a window of 5: errors of a sum over 96 channels are 2.5 times those of adding one by one.
_POINTS = {3: (0, 1, -1), 5: (0, 1, -1, 2, Fraction(-1, 2))}
WINDOWS = tuple(_POINTS)

Matrix = tuple[tuple[Fraction, ...], ...]


class Filtering(NamedTuple):
    """The exact matrices of F(2, window).

    Attributes:
        outputs: A', (2, size).
        kernel: G, (size, window).
        inputs: B', (size, size).
    """

    outputs: Matrix
    kernel: Matrix
    inputs: Matrix


@cache
def filtering(window: int) -> Filtering:
    """The matrices for a window, from multiplying polynomials by values at points (Toom and Cook), transposed.

    Two polynomials of 2 and of `window` terms are multiplied by evaluating both, multiplying the values, and
    interpolating; the transpose of that is a filter with 2 outputs.
    """
    points = [Fraction(point) for point in _POINTS[window]]
    size = len(points) + 1

    def powers(terms: int) -> list[list[Fraction]]:
        """By point, what evaluates a polynomial of so many terms there: the highest coefficient at infinity."""
        return [[p**j for j in range(terms)] for p in points] + [[Fraction(j == terms - 1) for j in range(terms)]]

    kernel, inputs = powers(window), transposed(_inverse(powers(size)))
    # A factor may move from a row of B' to that of G: whole numbers for the inputs, of which there are more.
    whole = [lcm(*(value.denominator for value in row)) for row in inputs]
    return Filtering(
        outputs=transposed(powers(OUTPUTS)),
        kernel=tuple(tuple(v / by for v in row) for row, by in zip(kernel, whole, strict=True)),
        inputs=tuple(tuple(v * by for v in row) for row, by in zip(inputs, whole, strict=True)),
    )


def transposed(matrix: Sequence[Sequence[Fraction]]) -> Matrix:
    """Rows and columns exchanged."""
    return tuple(zip(*matrix, strict=True))


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    size = len(matrix)
    rows = [[*row, *(Fraction(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = next(j for j in range(i, size) if rows[j][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for j in range(size):
            if j != i:
                rows[j] = [a - rows[j][i] * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [row[size:] for row in rows]
