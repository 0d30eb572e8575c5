"""The tolerances themselves: derived figures, and the allowances they rest on, measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from parity.bounds import magnitudes as bounds
from parity.bounds.magnitudes import ELEMENTARY, Bound, gamma, linear_bound
from parity.bounds.torch_operation import Operation
from parity.bounds.torch_rounding import RunningError, register
from parity.bounds.torch_rounding_rules import RULES
from parity.reports.rows import Row, compare_arrays


def test_gamma_of_fc6_in_float64() -> None:
    # parity.md: for fc6 (n = 9216) gamma is 1.0e-12.
    assert gamma(9216, 2.0**-53) == pytest.approx(1.0e-12, rel=0.03)
    assert gamma(2**60, 2.0**-53) == np.inf


def test_lanes() -> None:
    ones = np.ones(3)
    assert linear_bound(9217, ones, "float64").allowed == pytest.approx(gamma(9217, 2.0**-53))
    assert linear_bound(9217, ones, "float32").allowed == pytest.approx(2 * gamma(9218, 2.0**-24))
    assert linear_bound(76, ones, "bfloat16").allowed == pytest.approx(2 * (gamma(77, 2.0**-24) + 2 * 2.0**-8))
    # Fewer than 64 roundings don't average out: there the certain bound.
    assert linear_bound(8, ones, "float64").allowed == pytest.approx(2 * gamma(8, 2.0**-53))
    assert bounds.normwise_limit("float64") == pytest.approx(1e-11)
    # Zeros, or the wrong sign, are 1 and 2 away from any result: no precision allows that.
    assert all(bounds.normwise_limit(dtype) < 1 for dtype in bounds.UNIT_ROUNDOFF)


def test_a_long_sum_stays_inside_lane_a_in_any_order(rng: np.random.Generator) -> None:
    for n in (64, 363, 9217):
        x = rng.normal(size=(200, n))
        forward = np.cumsum(x, axis=1)[:, -1]
        backward = np.cumsum(x[:, ::-1], axis=1)[:, -1]
        allowed = linear_bound(n, np.abs(x).sum(1), "float64").allowed
        assert (np.abs(forward - backward) <= allowed).all()


def test_elementary_functions_stay_within_their_allowance() -> None:
    """ELEMENTARY roundings are granted to both sides; here is what both take, in float32, against float64."""
    x32 = np.concatenate([np.geomspace(1e-6, 80, 20_001), -np.geomspace(1e-6, 80, 20_001)]).astype(np.float32)
    x = x32.astype(np.float64)
    positive = x > 0
    cases = {
        "exp": (jnp.exp, torch.exp, np.exp, np.abs(x) < 80),
        "log": (jnp.log, torch.log, np.log, positive & (np.abs(x - 1) > 1e-3)),
        "tanh": (jnp.tanh, torch.tanh, np.tanh, np.ones_like(positive)),
        "sqrt": (jnp.sqrt, torch.sqrt, np.sqrt, positive),
        "rsqrt": (jax.lax.rsqrt, torch.rsqrt, lambda v: 1 / np.sqrt(v), positive),
        "sigmoid": (jax.nn.sigmoid, torch.sigmoid, lambda v: 1 / (1 + np.exp(-v)), np.abs(x) < 80),
        "pow": (lambda v: v**-0.75, lambda v: v**-0.75, lambda v: v**-0.75, positive),
    }
    for name, (ours, theirs, exact, used) in cases.items():
        values = x32[used]
        truth = exact(values.astype(np.float64))
        unit = 2.0**-24 * np.abs(truth)
        for side in (np.asarray(jax.jit(ours)(values)), theirs(torch.from_numpy(values)).numpy()):
            assert np.max(np.abs(side - truth) / unit) <= ELEMENTARY, name


def test_the_bound_of_gelus_gradient_covers_the_erf_of_pytorchs_kernel() -> None:
    """In float32 that errs by 1.5e-7 and more near 0, where erf is nothing; each side by itself must stay inside."""
    x = torch.cat([torch.linspace(-0.1, 0.1, 100_001), torch.linspace(-6, 6, 100_001)])
    g, exact = torch.ones_like(x), x.double().requires_grad_()
    mode = RunningError(torch.float32)
    with mode:
        found = torch.ops.aten.gelu_backward(g, x)
    (truth,) = torch.autograd.grad(F.gelu(exact).sum(), exact)
    errors = mode.get(found).error
    assert errors is not None and ((found.double() - truth).abs() <= errors).all()
    assert (errors <= 32 * 2.0**-24).all()  # and no wider than its roundings: 32 of them at a slope of 1
    ours = jax.grad(lambda v: jax.nn.gelu(v, approximate=False).sum())(jnp.asarray(x.numpy()))
    assert (np.abs(np.asarray(ours, np.float64) - truth.numpy()) <= errors.numpy()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_running_error_covers_what_really_happens(dtype: torch.dtype) -> None:
    """A chain of every sort of operation, in low precision and in float64: the difference is below the bound."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn((4, 6, 9, 9), generator=generator) + 0.1).to(dtype)
    w = torch.randn((6, 6), generator=generator).to(dtype)

    def chain(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        y = F.relu(x) * 1.7 + x / 3
        y = F.max_pool2d(F.avg_pool2d(y, 3, 2), 2, 1)
        y = y * (1 + y.pow(2)).pow(-0.75)
        y = torch.cat([y, torch.tanh(y)], dim=2).mean((2, 3))
        y = F.layer_norm(y @ w, (6,))
        return torch.log_softmax(y - y.sigmoid().sum(1, keepdim=True), -1)

    mode = RunningError()
    with mode:
        got = chain(x, w)
    error = mode.get(got).error
    assert error is not None
    assert mode.get(got).depth > 20
    truth = chain(x.double(), w.double())
    difference = (got.double() - truth).abs()
    # First order in u: with bfloat16's 2^-8 and a chain of this length the second order shows, hence the factor.
    slack = 1.02 if dtype == torch.float32 else 2.0
    assert (difference <= slack * error).all()
    assert (error < 2000 * float(torch.finfo(dtype).eps)).all()


def test_a_sum_of_several_terms_may_be_added_in_any_order() -> None:
    """(a + b) + c and (a + c) + b: where a and c cancel, one rounds a partial sum that the other never makes."""
    generator = torch.Generator().manual_seed(0)
    a, c = (torch.randn(4000, generator=generator, dtype=torch.float64) for _ in range(2))
    b = c - a + 1e-9 * torch.randn(4000, generator=generator, dtype=torch.float64)
    mode = RunningError()
    with mode:
        got = (a + b) - c
    error = mode.get(got).error
    other = (a - c) + b
    assert error is not None and not torch.equal(got, other)
    assert ((got - other).abs() <= 2 * error).all()  # each side may err by its bound
    assert (error <= 2 * 2.0**-53 * (a.abs() + b.abs() + c.abs()) * (1 + 1e-12)).all()


def test_a_partial_sum_that_something_else_takes_is_a_term_of_its_own() -> None:
    """A residual connection's branch is made of the sum before it: that can't be added in another order."""
    x, y, z = (torch.randn(50, dtype=torch.float64) for _ in range(3))
    mode = RunningError()
    with mode:
        stream = x + y
        got = stream + torch.relu(stream).mul(0) + z  # mul by 0: the branch brings nothing
        alone = x + y
    error, first = mode.get(got).error, mode.get(alone).error
    assert error is not None and first is not None
    own = 2.0**-53 * ((stream).abs() + z.abs()) * 2
    assert (error <= first + own + 1e-30).all()


def test_moves_and_maxima_bring_no_error() -> None:
    mode = RunningError()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    with mode:
        y = F.max_pool2d(torch.relu(x).flip(2), 2).flatten(1)[:, ::2].t().contiguous()
    assert mode.get(y).error is None


def test_a_product_with_a_mask_of_truth_values_is_exact() -> None:
    x, mask = torch.randn(5, 7), torch.rand(5, 7) < 0.5
    with RunningError() as mode:
        y = x * mask
    error = mode.get(y).error
    assert error is not None
    assert (error <= 2.0**-24 * x.abs().double()).all()


def test_an_operation_without_a_rule_leaves_no_bound_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(3, dtype=torch.float64)

    def run() -> tuple[RunningError, list[torch.Tensor]]:
        with RunningError() as mode:
            y = torch.special.bessel_j1(x + 1.5)
            return mode, [y * 2, torch.cat([x, y])[:2], torch.zeros_like(y), x * 3]

    mode, (product, part, zeros, other) = run()
    for computed in (product, part):
        assert (mode.get(computed).error, mode.get(computed).unknown) == (None, ("aten::special_bessel_j1",))
    assert mode.unbounded({"zeros": zeros, "other": other}) == {}
    monkeypatch.setitem(RULES, "special_bessel_j1", RULES["exp"])  # to be taken away again
    register("special_bessel_j1", lambda op: (op.rounded, 1))
    mode, (product, *_) = run()
    assert mode.get(product).error is not None


def test_parts_written_in_place_are_parts_of_the_whole() -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))

    def filled(x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros_like(x)
        y[:, ::2] = torch.exp(x[:, ::2])
        y[1] += x[0] / 3
        return y

    with RunningError(torch.float32) as mode:
        y = filled(x)
        doubled = y * 2
    for value, exact in ((y, filled(x.double())), (doubled, 2 * filled(x.double()))):
        error = mode.get(value).error
        assert error is not None
        assert ((value.double() - exact).abs() <= 1.02 * error).all()
    assert float(mode.get(y).error[0, 1]) == 0  # type: ignore[index]


def test_a_rule_that_does_not_know_the_arguments_leaves_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(op: Operation) -> tuple[torch.Tensor, int]:
        raise ValueError(op.name)

    monkeypatch.setitem(RULES, "exp", rule)
    with RunningError() as mode:
        y = torch.exp(torch.ones(3))
    assert mode.get(y).unknown == ("aten::exp",)


def test_gradients_carry_their_errors_backward() -> None:
    x = torch.linspace(-1, 2, 24, dtype=torch.float32).reshape(2, 12).requires_grad_()
    mode = RunningError()
    with mode:
        y = (torch.tanh(x) * x).sum()
        (gradient,) = torch.autograd.grad(y, x)
    error = mode.get(gradient).error
    assert error is not None
    exact = x.detach().double()
    truth = torch.tanh(exact) + exact * (1 - torch.tanh(exact) ** 2)
    assert ((gradient.double() - truth).abs() <= 1.02 * error).all()


def test_rows_find_the_worst_element() -> None:
    a, b = np.zeros((2, 3)), np.zeros((2, 3))
    a[0, 1], a[1, 2] = 2.0, 1.0
    allowed = np.full((2, 3), 10.0)
    allowed[1, 2] = 0.5
    row = compare_arrays(Row("m", "x", "x", "forward", "float64"), a, b, Bound(3, allowed))
    assert (row.index, row.fraction, row.max_error, row.bound, row.largest) == ((1, 2), 2.0, 1.0, 0.5, 2.0)
    assert row.verdict == "mismatch"


@pytest.mark.parametrize(("jax_value", "torch_value", "verdict"), [
    (np.nan, 1.0, "mismatch"), (1.0, np.nan, "mismatch"), (np.nan, np.nan, "not finite"),
    (np.inf, 1.0, "mismatch"), (np.inf, np.inf, "not finite"), (-0.0, 0.0, "equal"),
])  # fmt: skip
def test_what_is_not_a_number_never_passes(jax_value: float, torch_value: float, verdict: str) -> None:
    row = Row("m", "x", "x", "forward", "float64")
    compare_arrays(row, np.array([0.0, jax_value]), np.array([0.0, torch_value]), Bound(1, np.ones(2)))
    assert row.verdict == verdict


def test_shapes_that_differ_are_a_verdict() -> None:
    row = compare_arrays(Row("m", "x", "x", "forward", "float64"), np.zeros(3), np.zeros(4), None)
    assert row.verdict == "shape"


def test_the_gradient_of_a_norm_of_equal_values_has_a_bound_in_half_precision() -> None:
    """What is stored of a large variance in bfloat16 doesn't tell eps, which is all that a constant row has."""
    x = torch.tensor([[5.0, -7.0, 11.0, 2.0], [3.0, 3.0, 3.0, 3.0]], dtype=torch.bfloat16)
    g = torch.tensor([[1.0, -2.0, 0.5, 1.5]] * 2, dtype=torch.bfloat16)
    mode = RunningError()
    with mode:
        _, mean, scale = torch.ops.aten.native_layer_norm(x, [4], None, None, 1e-5)
        found = torch.ops.aten.native_layer_norm_backward(g, x, [4], mean, scale, None, None, [True, False, False])[0]
    exact = x.double().requires_grad_()
    (truth,) = torch.autograd.grad(F.layer_norm(exact, (4,), eps=1e-5), exact, g.double())
    error = mode.get(found).error
    assert error is not None and error.isfinite().all()
    assert ((found.double() - truth).abs() <= error).all()
