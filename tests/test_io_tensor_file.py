"""What is written to .safetensors comes back bit for bit, whatever way it lay in memory."""

import os
import stat

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from alexnet_io.errors import UserError
from alexnet_io.files import atomic_file, tensor_file

TYPES = [
    *(np.dtype(f"{kind}{bits}") for kind in ("uint", "int") for bits in (8, 16, 32, 64)),
    *map(np.dtype, ("bool", "float16", "float32", "float64", "complex64")),
    *(np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")),
    *(np.dtype(getattr(ml_dtypes, name)) for name in ("float8_e4m3fnuz", "float8_e5m2fnuz")),
]


def _random(dtype, shape):
    highest = 2 if dtype.kind == "b" else 256
    bits = np.random.default_rng(3).integers(0, highest, np.prod(shape) * dtype.itemsize, np.uint8)
    return bits.view(dtype).reshape(shape)


def _layouts(x):
    """The same values in every way that NumPy can lay them out."""
    wide = np.zeros((x.shape[0] * 2, x.shape[1], x.shape[2] * 3), x.dtype)
    wide[::2, :, ::3] = x
    return {
        "rows": x,
        "columns": np.asfortranarray(x),
        "strided": wide[::2, :, ::3],
        "transposed": np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0),
        "reversed": np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
        "swapped": x.astype(x.dtype.newbyteorder(">")),
        "read only": np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
        "broadcast": np.broadcast_to(x[:1], x.shape),
        "one value": x[1, 1, 1],
        "nothing": x[:0],
    }


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_layout_of_every_type_comes_back_bit_for_bit(dtype, tmp_path):
    layouts = _layouts(_random(dtype, (3, 4, 5)))
    tensor_file.write(tmp_path / "x.safetensors", layouts, {"epoch": 3})
    back, facts = tensor_file.read(tmp_path / "x.safetensors")
    assert facts == {"epoch": "3"}
    for name, array in layouts.items():
        assert back[name].dtype.newbyteorder("=") == dtype, name
        assert back[name].shape == array.shape, name
        assert back[name].tobytes() == np.asarray(array, dtype).tobytes(), name


def test_safetensors_own_reader_sees_the_same(rng, tmp_path):
    x = rng.normal(size=(3, 4)).astype(np.float32)
    tensor_file.write(tmp_path / "x.safetensors", {"x": np.asfortranarray(x), "y": x.T}, {"b": "ü", "a": ""})
    with safe_open(tmp_path / "x.safetensors", framework="numpy") as file:
        assert (file.get_tensor("x") == x).all()
        assert (file.get_tensor("y") == x.T).all()
        assert file.metadata() == {"a": "", "b": "ü"}


def test_the_same_content_gives_the_same_bytes(rng):
    arrays, facts = {"x": rng.normal(size=3)}, {f"fact {n}": n for n in range(8)}
    assert len({tensor_file.to_bytes(arrays, facts) for _ in range(5)}) == 1


def test_what_has_no_name_is_refused_and_the_old_file_stays(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"old")
    with pytest.raises(UserError, match=r"a \(complex128\), b \(object\).*Nothing was written"):
        tensor_file.write(file, {"a": np.zeros(2, complex), "b": np.array([None])})
    assert file.read_bytes() == b"old"


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 8, b"\x10\0\0\0\0\0\0\0{", bytes(range(200))])
def test_damaged_files_are_refused_by_name(content, tmp_path):
    if content is not None:
        (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.safetensors is not a readable"):
        tensor_file.read(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read(umask, tmp_path):
    before = os.umask(umask)
    try:
        tensor_file.write(tmp_path / "x.safetensors", {"x": np.zeros(1)})
        atomic_file.write_text(tmp_path / "x.txt", "x")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_a_link_is_followed_and_a_pipe_written_to(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    atomic_file.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    atomic_file.write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)


def test_a_place_that_cannot_be_written_to_is_named_with_its_flag(tmp_path):
    with pytest.raises(UserError, match=r"nowhere/x\.safetensors: No such file.*choose another place with --to"):
        tensor_file.write(tmp_path / "nowhere" / "x.safetensors", {"x": np.zeros(1)}, flag="--to")
