"""Every scheme is the same training: after five float64 steps, the parameters of one device within 1e-12."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parallel_cases import BATCH, DEVICE_COUNTS, REAL, Case, largest_difference, layout_of, narrow, table
from tiny import QUICKLY

from alexnet_io.errors import UserError
from jax_alexnet import augment, steps
from jax_alexnet import variants as v
from jax_alexnet.parallel import choose_layout, fitting_schemes

pytestmark = pytest.mark.multi_device

GROUPED = ("two_column", "cuda_convnet_2012")
WITHOUT_HIDDEN_UNITS = ("cifar_18pct", "cifar_13pct", "cifar_11pct")
WITH_HIDDEN_UNITS = tuple(name for name in v.VARIANTS if name not in WITHOUT_HIDDEN_UNITS)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without optimization what runs for a moment."""
    monkeypatch.setattr(steps, "compiler_options", lambda platform: QUICKLY)


@functools.cache
def case(name: str, optimizer: str = "paper") -> Case:
    return Case(table(name), optimizer=optimizer)


@functools.cache
def alone(name: str, optimizer: str = "paper"):
    return case(name, optimizer).train(layout_of("data", table(name), 1))


def assert_same_as_alone(
    name: str, scheme: str, devices: int, group: int | None = None, optimizer: str = "paper"
) -> None:
    expected, metrics = alone(name, optimizer)
    found, same = case(name, optimizer).train(layout_of(scheme, table(name), devices, group))
    assert found.params["conv1"]["kernel"].dtype == np.float64
    assert largest_difference(expected, found) < 1e-12  # moments included
    assert metrics.examples == REAL
    assert np.allclose(same, metrics, rtol=1e-12)
    moved = largest_difference(case(name, optimizer).params, jax.tree.map(np.asarray, found.params))
    assert moved > 1e-3  # five steps have been made: what is compared isn't the beginning


@pytest.mark.parametrize(
    ("name", "scheme", "devices", "group"),
    [
        ("two_column", "columns", 2, None),
        ("two_column", "columns", 4, None),
        ("two_column", "hybrid", 4, 2),
        ("two_column", "zero", 2, None),
    ],
)
def test_schemes_do_not_change_the_parameters(name, scheme, devices, group):
    """Crops, flips, dropout and a short last batch (13 of 16 rows are real) included."""
    assert_same_as_alone(name, scheme, devices, group)


def test_adam_under_zero_is_adam():
    """Adam's moments and its counter, divided among four devices."""
    assert_same_as_alone("cifar_18pct", "zero", 4, optimizer="adam")


def fitting() -> list[tuple[str, str, int, int | None]]:
    cases: list[tuple[str, str, int, int | None]] = []
    for name in v.VARIANTS:
        for scheme in fitting_schemes(v.VARIANTS[name]):
            cases += [(name, scheme, devices, None) for devices in DEVICE_COUNTS]
            if scheme in ("hybrid", "zero"):
                cases += [(name, scheme, 4, 2), (name, scheme, 8, 2), (name, scheme, 8, 4)]
    return cases


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scheme", "devices", "group"), fitting())
def test_every_scheme_on_every_network_it_fits(name, scheme, devices, group):
    assert_same_as_alone(name, scheme, devices, group)


def test_the_gradient_is_reduced_exactly_once():
    """One plain SGD step of each scheme against the gradient of the loss, written down without any of it.

    Plain SGD, since Adam would hide a factor, and without dropout, whose masks would have to be drawn alike.
    """
    made = case("two_column", "sgd")
    images, labels, rate = made.batch.images[:REAL], made.batch.labels[:REAL], 0.05
    pixels = (images[:, 2:-2, 2:-2].astype(np.float64) / 255 - 0.5) / 0.5

    def loss(params):
        logits = made.model.apply({"params": params}, jnp.asarray(pixels))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()  # type: ignore[arg-type]

    gradient = jax.jit(jax.grad(loss), compiler_options=QUICKLY)(made.params)
    expected = jax.tree.map(lambda w, g: w - rate * g, made.params, gradient)
    model = made.model.clone(dropout_rate=0.0)
    still = augment.Augmentation(made.augmentation.image_size, "half")

    def plain(_params):
        return optax.EmptyState()

    def descend(grads, state, params=None, *, learning_rate, **_):
        return jax.tree.map(lambda g: -learning_rate * g, grads), state

    optimizer = optax.GradientTransformationExtraArgs(plain, descend)  # type: ignore[arg-type]
    for scheme, devices, group in (("columns", 4, None), ("hybrid", 4, 2), ("zero", 4, 2)):
        layout = layout_of(scheme, made.variant, devices, group)
        step = steps.make_train_step(model, optimizer, still, layout)
        before = steps.TrainState(jnp.int32(0), jax.tree.map(jnp.array, made.params), optax.EmptyState())
        batch = steps.split(made.batch, layout.mesh)
        after, _ = step(layout.place(before), batch, jnp.float64(rate), jax.random.key(0), {})
        for path, wanted in jax.tree_util.tree_leaves_with_path(expected):
            found = after.params[path[0].key][path[1].key]
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14, err_msg=f"{scheme} {path}")


@pytest.mark.parametrize(("scheme", "devices"), [("columns", 4), ("hybrid", 2)])
def test_evaluation_gives_the_same_logits(scheme, devices):
    made = case("two_column")
    results = []
    for layout in (layout_of("data", made.variant, 1), layout_of(scheme, made.variant, devices)):
        step = steps.make_eval_step(made.model, made.augmentation, layout)
        params = layout.place(jax.tree.map(jnp.array, made.params))
        logits, losses = step(params, steps.split(made.batch, layout.mesh), {})
        assert logits.shape == (BATCH, 10)
        results.append((np.asarray(logits), np.asarray(losses)))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-12)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-12)


def test_a_device_keeps_only_its_part():
    """Half of the columns' kernels, an eighth of fc6 and of the moments."""
    made = case("two_column")

    def sizes(scheme, devices):
        state = layout_of(scheme, made.variant, devices).place(made.fresh())
        return jax.tree.map(lambda leaf: leaf.addressable_shards[0].data.size, state)

    whole = jax.tree.map(lambda leaf: leaf.size, made.fresh())
    columns, hybrid, zero = sizes("columns", 8), sizes("hybrid", 8), sizes("zero", 8)
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"):
        assert columns.params[layer]["kernel"] * 2 == whole.params[layer]["kernel"]
        assert columns.opt_state.velocity[layer]["kernel"] * 2 == whole.params[layer]["kernel"]
    assert columns.params["fc8"] == whole.params["fc8"]
    for layer in ("fc6", "fc7", "fc8"):
        assert hybrid.params[layer]["kernel"] * 8 == whole.params[layer]["kernel"]
        assert hybrid.opt_state.velocity[layer]["kernel"] * 8 == whole.params[layer]["kernel"]
    assert hybrid.params["conv5"] == whole.params["conv5"]
    assert zero.params == whole.params
    assert zero.opt_state.velocity["fc6"]["kernel"] * 8 == whole.params["fc6"]["kernel"]


def test_what_fits():
    for name, variant in v.VARIANTS.items():
        schemes = fitting_schemes(variant)
        assert ("columns" in schemes) == (name in GROUPED)
        assert ("hybrid" in schemes) == (name in WITH_HIDDEN_UNITS)
        assert {"data", "zero"} <= set(schemes)
    assert "columns" not in fitting_schemes(v.spanning_columns(v.TWO_COLUMN))


@pytest.mark.parametrize(
    ("scheme", "name", "devices", "group", "says"),
    [
        ("columns", "single_column", 2, None, "no columns. Choose from: data, hybrid, zero"),
        ("columns", "caffenet", 2, None, "lrn1 normalises across both columns"),
        ("columns", "two_column", 3, None, "even number of devices, one for each column, not 3: use --devices 4 or 2"),
        ("hybrid", "cifar_13pct", 2, None, "Choose from: data, zero"),
        ("hybrid", "two_column", 6, None, "4096 units of fc6 can't be divided among 6 devices"),
        ("hybrid", "two_column", 8, 3, "Choose from: 1, 2, 4, 8"),
        ("zero", "two_column", 4, 3, "Choose from: 1, 2, 4"),
        ("data", "two_column", 4, 2, "--group-size is for --parallel hybrid or zero"),
    ],
)
def test_what_does_not_fit_is_refused(scheme, name, devices, group, says):
    with pytest.raises(UserError, match="--") as refused:
        choose_layout(scheme, v.VARIANTS[name], jax.devices()[:devices], group)
    assert says in str(refused.value)


def test_narrowing_keeps_what_columns_are_made_of():
    for name in WITH_HIDDEN_UNITS:
        assert fitting_schemes(narrow(v.VARIANTS[name])) == fitting_schemes(v.VARIANTS[name])
