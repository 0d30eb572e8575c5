"""oneDNN's convolutions inside XLA's programs: exact sums, gradients, meshes, and where they may be used."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from commands import run as run_here
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from alexnet_io.errors import UserError
from jax_alexnet.model import AlexNet
from jax_alexnet.ops import convolution, dense
from jax_alexnet.ops.bias import add_bias
from jax_alexnet.ops.cpu import kernel_gradient, onednn, proof

PRECISIONS = ["float32", "bfloat16"]


def there(dtype: str) -> None:
    """Skip on machines where the program takes another road; `reason_against` itself is tested below."""
    if reason := onednn.reason_against(jnp.dtype(dtype)):
        pytest.skip(f"oneDNN can't be used here: {reason}")


def of_onednn(x, kernel, **place):
    return convolution.conv(x, kernel, cpu="onednn", **place)


def calls(function, *arguments) -> int:
    return jax.jit(function).lower(*arguments).as_text().count("__onednn$convolution")


def exact(x: np.ndarray, kernel: np.ndarray, stride: int, padding: int, groups: int) -> np.ndarray:
    """The oracle's sums in float64, channels last."""
    out = oracles.conv(
        np.moveaxis(x, -1, 1), kernel.transpose(3, 2, 0, 1), np.zeros(kernel.shape[3]), stride=stride, padding=padding,
        groups=groups,
    )  # fmt: skip
    return np.moveaxis(out, 1, -1)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    ("side", "channels", "features", "window", "stride", "padding", "groups"),
    [(23, 3, 8, 11, 4, 0, 1), (9, 48, 32, 5, 1, 2, 1), (6, 64, 32, 3, 1, 1, 2), (7, 32, 16, 1, 1, 0, 1),
     (7, 32, 16, 4, 1, 1, 1), (8, 32, 16, 3, 2, 1, 1)],
)  # fmt: skip
def test_values_and_gradients(dtype, side, channels, features, window, stride, padding, groups, rng):
    """Integers so small that every sum is exact in float32: products of two and their sums, whatever the order."""
    there(dtype)
    x = rng.integers(-3, 4, (3, side, side, channels)).astype(float)
    kernel = rng.integers(-1, 2, (window, window, channels // groups, features)).astype(float)
    place = {"stride": stride, "padding": padding, "groups": groups}

    def function(x, kernel):
        return of_onednn(x, kernel, **place)

    rounded = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)
    assert calls(function, *rounded) == 1
    # The convolution, each group's kernels' gradient, and without strides the maps' gradient.
    all_calls = 1 + groups + (stride == 1)
    assert calls(jax.grad(lambda *pair: (function(*pair) ** 2).sum(), (0, 1)), *rounded) == all_calls
    out, pull = jax.vjp(function, *rounded)
    expected = exact(x, kernel, stride, padding, groups)
    np.testing.assert_array_equal(np.asarray(out, float), np.asarray(jnp.asarray(expected, dtype), float))

    gradient = rng.integers(-1, 2, expected.shape).astype(float)
    to_x, to_kernel = pull(jnp.asarray(gradient, dtype))
    # <y(x, w), g> is linear in each: its slope along x is the maps' gradient, along w the kernel's.
    padded = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
    expected_x, expected_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    height, width = gradient.shape[1:3]
    size, inner = features // groups, channels // groups
    for i, j in np.ndindex(window, window):
        rows, columns = slice(i, i + stride * height, stride), slice(j, j + stride * width, stride)
        for g in range(groups):
            of_x, of_y = slice(g * inner, (g + 1) * inner), slice(g * size, (g + 1) * size)
            expected_x[:, rows, columns, of_x][:, :height, :width] += gradient[..., of_y] @ kernel[i, j][:, of_y].T
            pixels = padded[:, rows, columns, of_x][:, :height, :width]
            expected_kernel[i, j][:, of_y] = np.einsum("nhwc,nhwf->cf", pixels, gradient[..., of_y])
    expected_x = expected_x[:, padding : padding + side, padding : padding + side]
    for found, wanted in ((to_x, expected_x), (to_kernel, expected_kernel)):
        np.testing.assert_array_equal(np.asarray(found, float), np.asarray(jnp.asarray(wanted, dtype), float))


@pytest.mark.parametrize("form", ["by_products", "by_onednn_products", "by_convolution"])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize(
    "edges", [pytest.param(((0, 0), (0, 0)), marks=(pytest.mark.slow, pytest.mark.matrix)), ((2, 1), (0, 2))]
)
def test_the_kernels_gradient_in_blocks(form, stride, edges, rng, monkeypatch):
    """In blocks with some images left over, and all at once: exact integers, so all alike and right."""
    if form != "by_products":
        there("float32")
    images, window = 19, 4
    x = rng.integers(-4, 5, (images, 11, 10, 2)).astype(np.float32)
    padded = np.pad(x, ((0, 0), *edges, (0, 0)))
    height, width = ((n - window) // stride + 1 for n in padded.shape[1:3])
    gradient = rng.integers(-4, 5, (images, height, width, 3)).astype(np.float32)
    expected = np.zeros((window, window, 2, 3))
    for i, j in np.ndindex(window, window):
        pixels = padded[:, i : i + stride * height : stride, j : j + stride * width : stride]
        expected[i, j] = np.einsum("nhwc,nhwf->cf", pixels[:, :height, :width], gradient)
    an_image = height * width * 4 * (3 if form == "by_convolution" else stride**2 * 2)
    for fitting in (1, 2, 16, images):
        for size in ("PRODUCT_BYTES", "ONEDNN_PRODUCT_BYTES", "CONVOLUTION_BYTES"):
            monkeypatch.setattr(kernel_gradient, size, fitting * an_image)
        function = getattr(kernel_gradient, form)
        found = function(jnp.asarray(x), jnp.asarray(gradient), window=window, stride=stride, edges=edges)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("units_first", [False, True])
def test_dense_products(units_first, rng):
    """Integers whose sums are exact in float32, and rounded once: values and both gradients, by oneDNN."""
    there("bfloat16")
    x, kernel, gradient = (rng.integers(-3, 4, shape).astype(float) for shape in ((5, 37), (37, 11), (5, 11)))
    multiply = dense.multiply_by_units if units_first else dense.multiply
    rounded = jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel.T if units_first else kernel, jnp.bfloat16)
    out, pull = jax.vjp(multiply, *rounded)
    found = [out, *pull(jnp.asarray(gradient, jnp.bfloat16))]
    to_kernel = gradient.T @ x if units_first else x.T @ gradient
    for each, wanted in zip(found, (x @ kernel, gradient @ kernel.T, to_kernel), strict=True):
        assert each.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(each, float), np.asarray(jnp.asarray(wanted, jnp.bfloat16), float))
    program = jax.jit(jax.grad(lambda *pair: multiply(*pair).sum(), (0, 1))).lower(*rounded)
    assert program.as_text().count("__onednn$matmul") == 2


@pytest.mark.parametrize("kernel_varies", [True, False])
def test_on_a_mesh(kernel_varies, rng):
    """Each device's own images; the kernel may be common to them, as in evaluation, or marked as varying."""
    there("float32")
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    x = jnp.asarray(rng.integers(-3, 4, (4, 6, 6, 32)), jnp.float32)
    kernel = jnp.asarray(rng.integers(-1, 2, (3, 3, 32, 16)), jnp.float32)

    def part(x, kernel):
        if kernel_varies:
            kernel = jax.lax.pcast(kernel, ("data",), to="varying")
        return of_onednn(x, kernel, stride=1, padding=1, groups=1)

    together = jax.jit(jax.shard_map(part, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data")))
    assert calls(together, x, kernel) == 1
    np.testing.assert_array_equal(together(x, kernel), exact(np.asarray(x), np.asarray(kernel), 1, 1, 1))
    # The kernel's gradient is the sum over both devices' images.
    alone = jax.grad(lambda kernel: of_onednn(x, kernel, stride=1, padding=1, groups=1).sum())(kernel)
    np.testing.assert_array_equal(jax.grad(lambda kernel: together(x, kernel).sum())(kernel), alone)


@pytest.mark.parametrize(("choice", "expected"), [("auto", 3), ("onednn", 3), ("winograd", 0), ("xla", 0)])
def test_the_network_has_a_switch(choice, expected):
    there("bfloat16")
    model = AlexNet("cifar_18pct", dtype=jnp.bfloat16, cpu_convolution=choice)
    images = jnp.zeros((4, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert calls(model.apply, variables, images) == expected


@pytest.mark.parametrize(("channels", "forward"), [(128, 1), (192, 0)])
def test_long_float32_sums_are_left_to_others(channels, forward):
    """1,152 terms and 1,728; but in a gradient the order of summation is free."""
    there("float32")
    x, kernel = jnp.ones((2, 6, 6, channels), jnp.float32), jnp.ones((3, 3, channels, channels), jnp.float32)

    def value(x):
        return convolution.conv(x, kernel, stride=1, padding=1, groups=1).sum()

    assert calls(value, x) == forward
    assert calls(jax.grad(value), x) == 1


FLAGS = "avx2 avx512bw avx512dq avx512vl avx512_bf16"


@pytest.fixture
def proven(monkeypatch):
    """A machine for which the proof has been given."""
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(proof, "processor", lambda: {"flags": FLAGS})
    monkeypatch.setattr(proof, "reason_against", lambda dtype: None)


@pytest.mark.usefixtures("proven")
def test_what_is_needed_before_it_is_tried(monkeypatch):
    float32, bfloat16 = jnp.dtype("float32"), jnp.dtype("bfloat16")
    assert "float64" in (onednn.reason_against(jnp.dtype("float64")) or "")
    assert onednn.reason_against(float32) is None
    assert onednn.reason_against(bfloat16) is None
    for name, value in (("ONEDNN_MAX_CPU_ISA", "sse41"), ("DNNL_MAX_CPU_ISA", "AVX")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert f"needs AVX2, which {name}={value}" in (onednn.reason_against(float32) or "")
    monkeypatch.setattr(proof, "processor", lambda: {"flags": FLAGS.removesuffix(" avx512_bf16")})
    assert onednn.reason_against(float32) is None
    assert "avx512_bf16" in (onednn.reason_against(bfloat16) or "")
    monkeypatch.setattr(proof, "processor", lambda: {"flags": "sse4_1 avx"})
    assert "needs AVX2" in (onednn.reason_against(float32) or "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "aarch64" in (onednn.reason_against(float32) or "")


@pytest.mark.usefixtures("proven")
def test_a_line_says_whether_it_is_used(monkeypatch):
    float32 = jnp.dtype("float32")
    used = onednn.status(float32)
    assert "computes convolutions in float32" in used
    assert onednn.jaxlib.__version__ in used
    assert onednn.status(float32, "onednn") == used
    monkeypatch.setattr(proof, "reason_against", lambda dtype: f"in {dtype} a sum came out wrong")
    for line, words in (
        (onednn.status(float32), ("not used", "in float32 a sum came out wrong", "slower")),
        (onednn.status(jnp.dtype("float64")), ("not used", "float64")),
        (onednn.status(float32, "xla"), ("not used", "--cpu-convolution xla")),
        (onednn.status(float32, "winograd"), ("not used", "--cpu-convolution winograd")),
        (onednn.status(float32, "auto", "gpu"), ("not used", "gpu")),
    ):
        assert all(word in line for word in words), line
        assert "\n" not in line


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_environment_has_a_switch(dtype, monkeypatch):
    monkeypatch.setenv(onednn.SWITCH, "off")
    x, kernel = jnp.ones((2, 6, 6, 32), dtype), jnp.ones((3, 3, 32, 16), dtype)
    assert calls(lambda x, kernel: of_onednn(x, kernel, stride=1, padding=1, groups=1), x, kernel) == 0
    gradient = jax.jit(jax.grad(lambda bias: add_bias(x, bias).sum(dtype=jnp.float32)))
    assert "__onednn" not in gradient.lower(jnp.ones(32, dtype)).as_text()
    monkeypatch.setenv(onednn.SWITCH, "perhaps")
    with pytest.raises(UserError, match=f"{onednn.SWITCH}=perhaps is neither on nor off"):
        onednn.reason_against(jnp.dtype(dtype))


def test_what_cannot_be_had_is_refused():
    words = ["--model", "cifar_18pct", "--data", "synthetic", "--precision", "float64", "--cpu-convolution", "onednn"]
    done = run_here("train", *words, devices=1, code=2)
    assert "--cpu-convolution onednn can't be had: it has no convolutions in float64" in done.stderr
    assert "auto, winograd or xla" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("images", [*range(1, 10), 12, 16, 18, 24])
def test_the_kernels_gradient_of_few_images(images, rng):
    """Shapes of `cifar_18pct`: with AMX, an even number of them up to 12 gave other sums altogether."""
    there("bfloat16")
    x = jnp.asarray(rng.standard_normal((images, 16, 16, 32)), jnp.bfloat16)
    gradient = jnp.asarray(rng.standard_normal((images, 16, 16, 32)), jnp.bfloat16)
    found = kernel_gradient.by_convolution(x, gradient, window=5, stride=1, edges=((2, 2), (2, 2)))
    padded = np.pad(np.asarray(x, np.float64), [(0, 0), (2, 2), (2, 2), (0, 0)])
    for i, j in ((0, 0), (2, 3), (4, 4)):
        right = np.einsum("nhwc,nhwf->cf", padded[:, i : i + 16, j : j + 16], np.asarray(gradient, np.float64))
        np.testing.assert_allclose(found[i, j], right, rtol=0, atol=1e-5 * np.abs(right).max())
