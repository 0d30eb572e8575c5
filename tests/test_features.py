"""`load_run` and `python -m jax_alexnet.features`: predictions and features with the network's own preprocessing."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from PIL import Image

import alexnet_io.run.loop as loop_module
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from jax_alexnet import features, load_run
from jax_alexnet import train_command as training
from jax_alexnet.files import weight_homes
from jax_alexnet.prediction import predictions
from jax_alexnet.recipes import resolve
from jax_alexnet.variants import VARIANTS
from torch_ref.alexnet import build


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps at 16 pixels of 18, mean image removed."""
    where = tmp_path_factory.mktemp("runs") / "run"
    words: Any = {
        "model": "cifar_18pct", "data": "synthetic:classes=6,train=16,test=9", "image_size": 16, "stored_size": 18,
        "batch_size": 8, "epochs": 1, "devices": "1", "output": where, "learning_rate": 0.01,
    }  # fmt: skip
    x64 = jax.config.read("jax_enable_x64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module.pictures, "draw", lambda *_: None)
        assert training.train(resolve(TrainSettings(**words))) == 0
    jax.config.update("jax_enable_x64", x64)
    return where


@pytest.fixture(scope="module")
def network(run):
    return load_run(run)


@pytest.fixture
def folder(tmp_path, rng):
    """Two classes of pictures of different sizes, and a file that is none."""
    for name, size in (("ant/0.png", (30, 20)), ("ant/1.png", (18, 18)), ("bee/2.png", (19, 40))):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / "pets" / name)
    return tmp_path / "pets"


def names_of(folder: Path) -> list[Path]:
    return [folder / name for name in ("ant/0.png", "ant/1.png", "bee/2.png")]


def test_predictions_are_those_of_the_command(network, folder):
    found = network.predict([str(path) for path in names_of(folder)])
    expected = dict(predictions(network._network, names_of(folder)))
    for path, row in zip(names_of(folder), found, strict=True):
        wanted = expected[path]
        assert not isinstance(wanted, UserError)
        assert [name for name, _ in row] == [name for name, _ in wanted]
        assert np.allclose([p for _, p in row], [p for _, p in wanted], rtol=1e-6)
    assert len(network.class_names) == 6
    assert np.allclose(network.probabilities(names_of(folder)).sum(axis=1), 1)
    assert [len(row) for row in network.predict(names_of(folder)[0], top=2)] == [2]


def test_arrays_are_treated_as_files_are(network, folder):
    arrays = [np.asarray(Image.open(path)) for path in names_of(folder)]
    whole = network.probabilities(names_of(folder))
    assert np.array_equal(network.probabilities(arrays), whole)
    assert np.array_equal(network.probabilities(arrays[1]), whole[1:2])
    assert np.array_equal(network.probabilities(np.stack([arrays[1], arrays[1]])), whole[[1, 1]])
    many = network.features(np.stack([arrays[1]] * 35), "fc10")  # more than a batch
    assert many.shape == (35, 6) and np.array_equal(many, np.repeat(many[:1], 35, axis=0))


def test_arrays_may_hold_what_files_may(network, tmp_path, rng):
    """Greyscale and alpha, Pillow's images, other libraries' arrays, and what is iterated once."""
    grey = rng.integers(0, 256, (21, 18), np.uint8)
    clear = rng.integers(0, 256, (18, 20, 4), np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(clear).save(tmp_path / "clear.png")
    palette = Image.fromarray(clear[..., :3]).quantize(8)
    palette.save(tmp_path / "palette.png")
    files = [tmp_path / f"{name}.png" for name in ("grey", "clear", "palette")]
    wanted = network.probabilities(files)
    assert np.array_equal(network.probabilities(path for path in files), wanted)
    assert np.array_equal(network.probabilities([grey, clear, palette]), wanted)
    assert np.array_equal(network.probabilities(grey), wanted[:1])
    assert np.array_equal(network.probabilities([grey[..., None], torch.from_numpy(clear), files[2]]), wanted)
    assert np.array_equal(network.probabilities(jax.numpy.asarray(clear)[None]), wanted[1:2])
    assert len(network.predict(grey, top=99)[0]) == 6
    with pytest.raises(UserError, match="top is 0"):
        network.predict(grey, top=0)


def _keeping(seen: dict[str, Any], name: str):
    def hook(layer: torch.nn.Module, given: Any, out: torch.Tensor) -> None:
        seen[name] = out.detach().numpy()

    return hook


def test_features_are_what_pytorchs_layers_put_out(network, folder):
    """The reference's network in float64, with these weights, on input that is normalised by hand."""
    theirs = build("cifar_18pct", 6, 16).double()
    params = jax.tree.map(np.asarray, network.variables["params"])
    state = weight_homes.to_torch(params, VARIANTS["cifar_18pct"], 16)
    theirs.load_state_dict({name: torch.tensor(value).double() for name, value in state.items()})
    pixels = np.asarray(Image.open(names_of(folder)[1]))[1:17, 1:17].astype(np.float64)
    mean = np.asarray(network._network.statistics["mean_image"], np.float64)
    seen: dict[str, Any] = {}
    for name, layer in theirs.named_children():
        layer.register_forward_hook(_keeping(seen, name))
    with torch.no_grad():
        theirs(torch.from_numpy((pixels - mean).transpose(2, 0, 1)[None]))
    for layer in ("conv1", "conv3", "fc10"):
        ours = network.features(names_of(folder)[1], layer)
        wanted = seen[layer].transpose(0, 2, 3, 1) if seen[layer].ndim == 4 else seen[layer]
        assert ours.dtype == np.float32 and ours.shape == wanted.shape
        assert np.allclose(ours, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max()), layer


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ([], "there are no pictures"),
        (np.zeros((4, 4, 3), np.float32), r"not float32 \(4, 4, 3\): it is normalised here"),
        (np.zeros((4, 4, 2), np.uint8), r"not uint8 \(4, 4, 2\)"),
        (np.zeros((4, 4)), r"not float64 \(4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"not uint8 \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), r"not uint8 \(4,\)"),
        (np.zeros((2, 4, 4, 3)), r"not float64 \(4, 4, 3\)"),
        ([None], "not NoneType"),
        (7, "not int"),
        (b"bytes", "not bytes"),
        ("nothing.jpg", "nothing.jpg: cannot be read"),
    ],
)
def test_what_is_no_picture_is_refused(network, pictures, said):
    with pytest.raises(UserError, match=said):
        network.probabilities(pictures)


def test_layers_that_there_are_not_are_refused_with_those_that_there_are(network, folder):
    with pytest.raises(UserError, match=r"cifar_18pct's layer 'fc7' is not known.* Choose from: conv1, .*, fc10"):
        network.features(names_of(folder))
    with pytest.raises(UserError, match="checkpoint 'last' is not known"):
        load_run("x", checkpoint="last")
    with pytest.raises(UserError, match=r"nothing.* is not a file"):
        load_run("nothing.safetensors")
    with pytest.raises(
        UserError, match=r"there is no runs/nothing: pass the directory that training wrote.*cifar_18pct"
    ):
        load_run("runs/nothing")


@pytest.mark.parametrize("x64", [False, True])
def test_jax_is_left_as_it_was(run, folder, x64):
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", x64)
    try:
        loaded = load_run(run, precision="float64" if not x64 else "float32")
        loaded.probabilities(names_of(folder)[0])
        assert jax.config.read("jax_enable_x64") == x64
    finally:
        jax.config.update("jax_enable_x64", before)


def test_the_command_writes_paths_features_and_classes(run, network, folder, tmp_path, capsys):
    (folder / "bee" / "broken.png").write_text("no picture")
    out = tmp_path / "features.npz"
    words = [str(folder), "--run", str(run), "--layer", "pool3", "--output", str(out)]
    assert features.main(words) == 1
    assert "broken.png" in capsys.readouterr().err
    with np.load(out, allow_pickle=False) as found:
        assert found["paths"].tolist() == [str(path) for path in names_of(folder)]
        assert found["classes"].tolist() == ["ant", "ant", "bee"] and str(found["layer"]) == "pool3"
        assert np.array_equal(found["features"], network.features(names_of(folder), "pool3"))
    assert features.main([str(folder / "ant"), *words[1:]]) == 0
    with np.load(out, allow_pickle=False) as found:
        assert "classes" not in found and len(found["features"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "{run}", "--output", "x.csv"], "--output FILE is needed, and must end in .npz"),
        (["--run", "{run}"], "--output FILE is needed"),
        (["--output", "x.npz"], "pass --run DIR"),
        (["--run", "{run}", "--output", "{run}/x.npz", "--layer", "fc7"], "--layer 'fc7' is not known"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(run, folder, words, said):
    with pytest.raises(UserError, match=said):
        features.main([str(folder), *(word.format(run=run) for word in words)])
