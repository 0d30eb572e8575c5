"""Weights move between Flax, torch_ref and torchvision bit for bit, or not at all."""

import os
import stat
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision
from compiling import LOOPS
from parallel_cases import narrow
from safetensors.numpy import save_file

from alexnet_io.errors import UserError
from jax_alexnet.files import weight_homes, weight_layouts
from jax_alexnet.layer_specs import Conv as ConvRow
from jax_alexnet.layer_specs import Dense as DenseRow
from jax_alexnet.layers import Conv, Dense
from jax_alexnet.model import AlexNet
from jax_alexnet.variants import VARIANTS


def _params(model, rng, image_size=None, classes=None):
    size = image_size or VARIANTS[model].image_size
    image = jnp.zeros((1, size, size, 3))
    shapes = jax.eval_shape(AlexNet(model, classes).init, jax.random.key(0), image)["params"]
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)


@pytest.fixture
def narrowed(monkeypatch):
    """The networks that share two columns' shapes with an eighth of the channels: megabytes hide nothing in a file."""
    for name in ("two_column", "caffenet", "cuda_convnet_2012", "caffe_alexnet"):
        monkeypatch.setitem(VARIANTS, name, narrow(VARIANTS[name]))


def _same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.mark.parametrize(("model", "size"), [("cifar_18pct", 32), ("cifar_11pct", 24), ("two_column", 67)])
@pytest.mark.parametrize("home", ["flax", "torch_ref"])
def test_there_and_back_is_bit_for_bit(model, size, home, rng, tmp_path, narrowed):
    params = _params(model, rng, size)
    file = tmp_path / "w.safetensors"
    weight_homes.save(file, params, model, size, home)
    back, classes = weight_homes.load(file, model)
    assert classes == VARIANTS[model].classes
    assert _same(params, back)
    if home == "torch_ref":
        weight_homes.save(tmp_path / "w.pth", params, model, size, home)
        assert _same(params, weight_homes.load(tmp_path / "w.pth", model)[0])


def _layouts(x):
    """The same values in every way that NumPy can lay them out."""
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    return {
        "rows": x,
        "columns": np.asfortranarray(x),
        "strided": wide[..., ::2],
        "transposed": np.ascontiguousarray(x.T).T,
        "reversed": np.ascontiguousarray(x[::-1])[::-1],
        "swapped": x.astype(x.dtype.newbyteorder(">")),
        "read only": np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    }


@pytest.mark.parametrize(
    ("home", "ending"), [("flax", "safetensors"), ("torch_ref", "safetensors"), ("torch_ref", "pth")]
)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_any_memory_order_and_type_comes_back_bit_for_bit(home, ending, dtype, rng, tmp_path):
    params = jax.tree.map(lambda x: x.astype(np.dtype(dtype)), _params("cifar_18pct", rng))
    for name in _layouts(np.zeros((2, 2), np.float32)):
        laid = jax.tree.map(lambda x, name=name: _layouts(x)[name], params)
        weight_homes.save(tmp_path / f"w.{ending}", laid, "cifar_18pct", 32, home)
        back, _ = weight_homes.load(tmp_path / f"w.{ending}", "cifar_18pct")
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
            assert a.dtype.name == b.dtype.name, name
            assert a.tobytes() == b.tobytes(), name


def test_an_export_is_as_readable_as_the_umask_says(rng, tmp_path):
    params, before = _params("cifar_18pct", rng), os.umask(0o027)
    try:
        for name in ("w.safetensors", "w.pth"):
            weight_homes.save(tmp_path / name, params, "cifar_18pct", 32, "torch_ref")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}


def test_a_kernel_keeps_its_orientation():
    """https://github.com/huggingface/transformers/pull/11883: [[1,2],[3,4]] on [[1,10],[100,1000]] is 4321."""
    kernel = weight_layouts._pair("conv1", (2, 2, 1, 1), (3, 2, 0, 1), (1,))[0]
    flax = kernel.to_flax(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))
    layer = Conv(ConvRow("conv1", 1, 2))
    image = jnp.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(1, 2, 2, 1)
    assert np.asarray(layer.apply({"params": {"kernel": flax, "bias": jnp.zeros(1)}}, image)).item() == 4321


def test_a_dense_layer_on_a_map_keeps_its_order():
    """PyTorch flattens C, H, W: channels [1,2] and [3,4] under the row [1,10,100,1000] give 4321."""
    kernel = weight_layouts._dense_on_map("fc6", (1, 2, 2), 1)[0]
    flax = kernel.to_flax(np.array([[1.0, 10.0, 100.0, 1000.0]]))
    image = jnp.array([[1.0, 2.0], [3.0, 4.0]]).T.reshape(1, 1, 2, 2)  # (N, H, W, C)
    layer = Dense(DenseRow("fc6", 1), features=1)
    assert np.asarray(layer.apply({"params": {"kernel": flax, "bias": jnp.zeros(1)}}, image)).item() == 4321


def test_grouped_kernels_have_the_shapes_of_both_frameworks(rng):
    """https://github.com/tensorflow/tensorflow/issues/45751: conv2 of two groups."""
    params = _params("two_column", rng, 67)
    assert params["conv2"]["kernel"].shape == (5, 5, 48, 256)
    assert weight_homes.to_torch(params, VARIANTS["two_column"], 67)["conv2.weight"].shape == (256, 48, 5, 5)


@pytest.fixture(scope="module")
def torchvision_alexnet():
    torch.manual_seed(0)
    return torchvision.models.alexnet(weights=None, num_classes=7).double().eval()


def test_torchvision_gives_the_same_logits(torchvision_alexnet, rng):
    state = {name: value.numpy() for name, value in torchvision_alexnet.state_dict().items()}
    params = weight_homes.to_flax(state, VARIANTS["one_weird_trick"])
    images = rng.normal(size=(1, 3, 224, 224))
    with torch.no_grad():
        expected = torchvision_alexnet(torch.from_numpy(images)).numpy()
    model = AlexNet("one_weird_trick", 7, dtype=jnp.dtype("float64"), param_dtype=jnp.dtype("float64"))
    apply = jax.jit(model.apply, compiler_options=LOOPS)
    got = apply({"params": params}, jnp.asarray(images.transpose(0, 2, 3, 1)))
    assert np.linalg.norm(got - expected) <= 1e-11 * np.linalg.norm(expected)
    back = weight_homes.to_torchvision(weight_homes.to_torch(params, VARIANTS["one_weird_trick"]))
    assert _same(state, back)


def test_what_does_not_fit_is_listed_and_nothing_loaded(rng, tmp_path):
    params = _params("cifar_18pct", rng)
    state = weight_homes.to_torch(params, VARIANTS["cifar_18pct"])
    bad = {**state, "../etc/passwd": np.zeros(1, np.float32), "conv1.weight": state["conv1.weight"][:, :, :4]}
    del bad["fc10.bias"], bad["conv2.bias"]
    with pytest.raises(UserError) as error:
        weight_homes.to_flax(bad, VARIANTS["cifar_18pct"])
    for part in (
        "missing fc10.bias",
        "missing conv2.bias",
        "unknown ../etc/passwd",
        "(32, 3, 4, 5), not (32, 3, 5, 5)",
    ):
        assert part in str(error.value)
    with pytest.raises(UserError, match="int64, not floating"):
        weight_homes.to_flax({**state, "conv1.bias": np.zeros(32, np.int64)}, VARIANTS["cifar_18pct"])
    file = tmp_path / "nan.safetensors"
    save_file({**state, "conv1.bias": np.full(32, np.nan, np.float32)}, file)
    with pytest.raises(UserError, match="not finite in conv1/bias"):
        weight_homes.load(file, "cifar_18pct")


def test_networks_are_never_mixed_up(rng, tmp_path, torchvision_alexnet, narrowed):
    """Four networks have the same shapes, and so have the two of One weird trick."""
    params = _params("two_column", rng, 67)
    file = tmp_path / "w.safetensors"
    weight_homes.save(file, params, "two_column", 67, "torch_ref")
    for other in ("caffenet", "cuda_convnet_2012", "single_column"):
        with pytest.raises(UserError, match="holds weights of two_column, not of"):
            weight_homes.load(file, other)
    state = {name: value.numpy() for name, value in torchvision_alexnet.state_dict().items()}
    with pytest.raises(UserError, match="pass --model one_weird_trick"):
        weight_homes.to_flax(state, VARIANTS["one_weird_trick_lrn"])
    with pytest.raises(UserError, match="only one_weird_trick can go there"):
        weight_homes.to_torchvision(weight_homes.to_torch(_params("cifar_18pct", rng), VARIANTS["cifar_18pct"]))
    nameless = tmp_path / "nameless.safetensors"
    save_file(weight_homes.to_torch(_params("cifar_13pct", rng), VARIANTS["cifar_13pct"]), nameless)
    with pytest.raises(UserError, match="its shapes fit cifar_13pct, cifar_11pct"):
        weight_homes.load(nameless, "cifar_13pct")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x10\0\0\0\0\0\0\0{", bytes(range(200))])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_any_bytes_are_refused_by_name(content, suffix, tmp_path):
    file = tmp_path / f"bad{suffix}"
    file.write_bytes(content)
    with pytest.raises(UserError, match="bad"):
        weight_homes.load(file, "one_weird_trick")


def test_missing_and_foreign_files_say_what_is_read(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        weight_homes.load(tmp_path / "none.pth", "one_weird_trick")
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(UserError, match=r"only \.safetensors and \.pth"):
        weight_homes.load(tmp_path / "w.h5", "one_weird_trick")


def test_importing_and_reading_safetensors_loads_no_torch(rng, tmp_path):
    file = tmp_path / "w.safetensors"
    weight_homes.save(file, _params("cifar_18pct", rng), "cifar_18pct", 32, "torch_ref")
    code = (
        "import sys; from pathlib import Path; from jax_alexnet.files import weight_homes;"
        f"weight_homes.load(Path({str(file)!r}), 'cifar_18pct');"
        "print({'torch', 'torchvision', 'torch_ref', 'parity'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
