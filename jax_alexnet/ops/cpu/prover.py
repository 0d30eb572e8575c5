"""`python -m jax_alexnet.ops.cpu.prover DTYPE SECONDS`: do oneDNN's calls give the right numbers here?

A process of its own, started by `proof`, since oneDNN ends the process over what it can't do, or waits for ever. Every
kind of call that networks make is made through the functions that make them: convolutions and both their gradients,
with strides, groups, edges and few images, and products of matrices.

Held to sums in float64, twice. Small integers, whose sums float32 holds whatever their order, must come out exactly.
Of normal numbers a float32 sum of n terms may be off by n u / (1 - n u) times the sum of the terms' magnitudes, with
u = 2^-24, in any order (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), and a result in bfloat16
by another 2^-8 of its own: what computes float32 in fewer digits doesn't pass. The last line on standard output is the
answer, as JSON.
"""

import json
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_alexnet.ops import convolution
from jax_alexnet.ops.cpu import onednn, proof

# Of what is made round the calls, little time is worth a thought: compiled in half the time.
_QUICKLY: dict[str, Any] = {"xla_backend_optimization_level": 0}


class Convolution(NamedTuple):
    """Square maps of so many images, convolved by square kernels, and both gradients."""

    images: int
    side: int
    channels: int
    features: int
    window: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    ceil: bool = False

    def __str__(self) -> str:
        how = f"stride {self.stride}, padding {self.padding}, {self.groups} group(s)"
        size = f"{self.images} maps of {self.side}x{self.side}x{self.channels}"
        return f"a convolution of {size} by {self.features} kernels of {self.window}x{self.window}, {how}"

    def operands(self) -> list[tuple[int, ...]]:
        """Shapes of maps, kernels, and the maps after them."""
        side = self.side + sum(self.edges) - self.window
        after = (self.images, *[side // self.stride + 1] * 2, self.features)
        maps = self.images, self.side, self.side, self.channels
        return [maps, (self.window, self.window, self.channels // self.groups, self.features), after]

    @property
    def edges(self) -> tuple[int, int]:
        """Zeros before and after the pixels; see `convolution.conv`."""
        short = (self.side + 2 * self.padding - self.window) % self.stride if self.ceil else 0
        return self.padding, self.padding + (self.stride - short) % self.stride if short else self.padding

    def computed(self, x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, ...]:
        """The convolution, the maps' gradient and the kernel's, as networks compute them."""
        conv = partial(
            convolution.conv,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            ceil=self.ceil,
            cpu="onednn",
        )
        out, pull = jax.vjp(conv, x, kernel)
        return out, *pull(gradient)

    def exact(self, x: np.ndarray, kernel: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, ...]:
        """The same in float64, weight by weight."""
        padded = np.pad(x, [(0, 0), self.edges, self.edges, (0, 0)])
        out, to_x, to_kernel = np.zeros_like(gradient), np.zeros_like(padded), np.zeros_like(kernel)
        reach = self.stride * gradient.shape[1]
        inner, outer = self.channels // self.groups, self.features // self.groups
        for i, j in np.ndindex(self.window, self.window):
            # Of the pixels under this weight those that a position begins at; the last may end before its stride does.
            rows, columns = (slice(n, min(n + reach, padded.shape[1]), self.stride) for n in (i, j))
            for g in range(self.groups):
                ins, outs = slice(g * inner, (g + 1) * inner), slice(g * outer, (g + 1) * outer)
                pixels, weights = padded[:, rows, columns, ins], kernel[i, j][:, outs]
                out[..., outs] += pixels @ weights
                to_x[:, rows, columns, ins] += gradient[..., outs] @ weights.T
                to_kernel[i, j][:, outs] = np.tensordot(pixels, gradient[..., outs], ([0, 1, 2], [0, 1, 2]))
        inside = slice(self.edges[0], self.edges[0] + self.side)
        return out, to_x[:, inside, inside], to_kernel

    def names(self) -> tuple[str, ...]:
        """What each result is."""
        return "the sum", "the maps' gradient", "the kernels' gradient"

    def terms(self) -> tuple[int, ...]:
        """How many products each sum has at most."""
        *_, after = self.operands()
        places = self.window**2
        return places * self.channels // self.groups, places * self.features // self.groups, after[0] * after[1] ** 2


class Product(NamedTuple):
    """Matrices multiplied as fully connected layers, their gradients and biases' gradients do."""

    rows: int
    inner: int
    columns: int

    def __str__(self) -> str:
        return f"a product of matrices, {self.rows}x{self.inner} by {self.inner}x{self.columns}"

    def operands(self) -> list[tuple[int, ...]]:
        """Shapes of both matrices."""
        return [(self.rows, self.inner), (self.inner, self.columns)]

    def computed(self, a: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
        """As the matrices lie, and with either lying the other way round."""
        plain, first = onednn.product(a, b), onednn.product(a.T, b, transpose_a=True)
        return plain, first, onednn.product(a, b.T, transpose_b=True)

    def exact(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        """The same in float64."""
        return (a @ b,) * 3

    def names(self) -> tuple[str, ...]:
        """What each result is."""
        return "the sum", "the sum with the first one turned over", "the sum with the second one turned over"

    def terms(self) -> tuple[int, ...]:
        """How many products each sum has."""
        return (self.inner,) * 3


# The kinds of convolutions that the networks have, with smaller maps and fewer channels; then numbers of images, which
# are the channels of kernels' gradients; then sizes that don't fill a processor's registers.
CASES: tuple[Convolution | Product, ...] = (
    Convolution(3, 31, 3, 16, 11, stride=4),
    Convolution(2, 30, 3, 16, 11, stride=4, padding=2),
    Convolution(4, 9, 48, 32, 5, padding=2),
    Convolution(4, 9, 32, 64, 5, padding=2, groups=2),
    Convolution(2, 7, 128, 64, 3, padding=1),
    Convolution(3, 6, 64, 96, 3, padding=1, groups=2),
    Convolution(3, 16, 3, 32, 5, padding=2),
    Convolution(2, 10, 32, 32, 5, padding=2),
    Convolution(3, 9, 16, 16, 3, stride=2, padding=1, ceil=True),
    Convolution(2, 7, 32, 16, 1),
    Convolution(2, 7, 16, 16, 4, padding=1),
    Convolution(2, 8, 16, 8, 3, padding=3),
    *(Convolution(images, 8, 32, 32, 5, padding=2) for images in (1, 4, 6, 8, 16, 17)),
    Convolution(5, 7, 5, 7, 3, padding=1),
    Product(5, 37, 11),
    Product(32, 256, 48),
    Product(1, 300, 130),
    Product(8, 3025, 96),
)


def main() -> None:
    """Prove, and print the answer."""
    dtype, seconds = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.alarm(max(1, int(float(seconds))))  # whoever waits for the answer may be gone by then
    with proof.assumed():
        wrong = next(differences(CASES, jnp.dtype(dtype)), None)
    print(json.dumps({"wrong": wrong}))


def differences(cases: Sequence[Convolution | Product], dtype: jnp.dtype) -> Iterator[str]:
    """What came out wrong, a line each."""
    rng = np.random.default_rng(2012)
    shapes = [case.operands() for case in cases]

    def drawn(draw: Callable[[tuple[int, ...]], np.ndarray]) -> list[list[np.ndarray]]:
        return [[draw(shape).astype(dtype) for shape in each] for each in shapes]

    whole, normal = drawn(lambda shape: rng.integers(-1, 2, shape)), drawn(rng.standard_normal)
    compute = _compiled(cases, whole)
    for operands, exactly in ((whole, True), (normal, False)):
        for case, given, results in zip(cases, operands, compute(operands), strict=True):
            exact = [each.astype(np.float64) for each in given]
            expected = case.exact(*exact)
            magnitudes = expected if exactly else case.exact(*map(np.abs, exact))
            for what, found, right, size, terms in zip(
                case.names(), results, expected, magnitudes, case.terms(), strict=True
            ):
                if (line := _difference(found, right, size, terms, exactly)) is not None:
                    yield f"in {dtype} {what} of {case} came out wrong: {line}"


def _compiled(cases: Sequence[Convolution | Product], operands: Any) -> Callable[[Any], Any]:
    def compute(operands: Any) -> Any:
        return [case.computed(*each) for case, each in zip(cases, operands, strict=True)]

    lowered = jax.jit(compute).lower(operands)
    try:
        return lowered.compile(compiler_options=_QUICKLY)
    except Exception:  # most likely a version without this option; what else is wrong is told by the next attempt
        return lowered.compile()


def _difference(
    result: jax.Array, expected: np.ndarray, magnitudes: np.ndarray, terms: int, exactly: bool
) -> str | None:
    found = np.asarray(result).astype(np.float64)
    if found.shape != expected.shape:
        return f"its shape is {found.shape}, not {expected.shape}"
    if exactly:
        allowed = np.zeros_like(expected)
        expected = expected.astype(result.dtype).astype(np.float64)
    else:
        allowed = terms * 2.0**-24 / (1 - terms * 2.0**-24) * magnitudes
        if result.dtype == jnp.bfloat16:
            allowed = allowed + 2.0**-8 * (np.abs(expected) + allowed)
    wrong = ~(np.abs(found - expected) <= allowed)  # so that what is no number is wrong, too
    if not wrong.any():
        return None
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{np.count_nonzero(wrong)} of {wrong.size} numbers, such as {found[place]:.9g} for {expected[place]:.9g}"


if __name__ == "__main__":
    main()
