"""Evaluation over several crops of each image: which they are, what is averaged, and both programs alike."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as transforms

import alexnet_io.run.loop as loop_module
from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.evaluate_settings import PROTOCOLS
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.sources import open_for
from alexnet_io.errors import UserError
from alexnet_io.run import crops
from alexnet_io.run.crops import View
from alexnet_io.run.evaluation import Evaluation
from jax_alexnet import evaluate as jax_evaluate
from jax_alexnet import recipes
from jax_alexnet.files.exported import open_network
from torch_ref import evaluate as torch_evaluate
from torch_ref import resolved_settings
from torch_ref import train_command as torch_training
from torch_ref.alexnet import build
from torch_ref.starting_weights import BEST_WEIGHTS
from torch_ref.weight_file import read, state_for

DATA = "synthetic:classes=6,train=16,test=9"


def settings(**words: Any) -> CompleteSettings:
    return recipes.resolve(TrainSettings(**{"data": "synthetic", "model": "two_column", **words}))


# --- which crops ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stored", "size"), [(256, 224), (256, 227), (33, 24)])
def test_ten_are_the_corners_the_centre_and_their_mirror_images(stored, size, rng):
    """As torchvision's `ten_crop`, whose authors had the paper before them."""
    images = rng.integers(0, 256, (2, stored, stored, 3), dtype=np.uint8)
    found = crops.views(10, settings(image_size=size, stored_size=stored))
    ours = [crops.cut(images, view, size) for view in found]
    theirs = transforms.ten_crop(torch.from_numpy(images).permute(0, 3, 1, 2), [size, size])
    assert len(ours) == 10
    # It mirrors the image and then cuts, which gives the mirrored corners in another order.
    wanted = [crop.permute(0, 2, 3, 1).numpy() for crop in theirs[:5]]
    mirrored = [crop.permute(0, 2, 3, 1).numpy() for crop in theirs[5:]]
    if (stored - size) % 2:  # and a centre a pixel aside, where there are two: the paper mirrors the patch
        mirrored[4] = wanted[4][:, :, ::-1]
    assert {crop.tobytes() for crop in ours} == {crop.tobytes() for crop in (*wanted, *mirrored)}
    assert len({crop.tobytes() for crop in ours}) == 10


def test_nine_are_cuda_convnets():
    """`CroppedCIFARDataProvider.__trim_borders` with a border of 4: rows and columns 0, 4 and 8, none mirrored."""
    found = crops.views(9, settings(model="cifar_11pct", image_size=24, stored_size=32))
    places = [(0, 0), (0, 4), (0, 8), (4, 0), (4, 4), (4, 8), (8, 0), (8, 4), (8, 8)]
    assert list(found) == [View(top, left, False) for top, left in places]


def test_one_is_the_central_crop_that_evaluation_takes_by_itself():
    assert crops.views(1, settings()) == ()


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (
            9,
            {},
            "--crops 9 is cuda-convnet's test of cifar_13pct and cifar_11pct, and this is two_column: take --crops 10",
        ),
        (
            10,
            {"model": "cifar_18pct"},
            "needs images at least 1 pixel larger than the 32 .*, and this one's .* at 32: take",
        ),
        (9, {"model": "cifar_13pct", "stored_size": 25}, "--crops 9 needs images at least 2 pixels larger than the 24"),
    ],
)
def test_what_leaves_no_room_or_is_another_networks_is_refused(count, words, said):
    with pytest.raises(UserError, match=said):
        crops.views(count, settings(**words))


# --- what is averaged -------------------------------------------------------------------------------------


def test_probabilities_are_averaged_not_logits():
    """By hand: e^2 : 1 and 1 : e^4 are probabilities 0.8808 and 0.0180, of which the mean is 0.4494."""
    logits = crops.averaged([np.array([[2.0, 0.0]]), np.array([[0.0, 4.0]])])
    first = np.mean([1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(4.0))])
    assert np.allclose(np.exp(logits), [[first, 1 - first]], rtol=1e-15)
    counts = Evaluation(["a", "b"])
    counts.add(logits, [0])
    assert counts.report().loss == pytest.approx(-np.log(first), rel=1e-15)
    assert counts.report().top1 == 0.0
    # The mean of these logits, (3, 2.97), would say the first class.
    assert crops.averaged([np.array([[9.0, 0.0]]), np.array([[0.0, 8.0]]), np.array([[0.0, 0.9]])]).argmax() == 1
    assert np.isneginf(crops.averaged([np.array([[0.0, 2000.0]])])[0, 0])


# --- both programs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the reference on crops of 16 from 20 pixels."""
    where = tmp_path_factory.mktemp("runs") / "run"
    words: Any = {
        "model": "cifar_13pct", "data": DATA, "image_size": 16, "stored_size": 20, "batch_size": 8, "epochs": 1,
        "learning_rate": 0.01, "devices": "1", "output": where, "validation": 0.4, "cache_dir": where.parent / "cache",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module.pictures, "draw", lambda *_: None)
        assert torch_training.train(resolved_settings.resolve(TrainSettings(**words))) == 0
    return where


def evaluated(side, run, *words):
    out = run.parent / f"{side}.json"
    main = {"jax": jax_evaluate.main, "torch": torch_evaluate.main}[side]
    assert main(["--run", str(run), "--devices", "1", "--json", str(out), *words]) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize("count", [1, 9, 10])
def test_both_programs_find_the_same_as_by_hand(count, run, capsys):
    """By hand in float64: each crop cut and normalised with NumPy, the probabilities' mean, its logarithm."""
    found = {side: evaluated(side, run, "--crops", str(count)) for side in ("jax", "torch")}
    said = capsys.readouterr().out
    assert said.count(f"test images of {DATA}, {PROTOCOLS[count]}; best weights, step 2") == 2
    saved = open_network(run, None, model=None, checkpoint="best", devices="1", precision=None)
    network = build("cifar_13pct", 6, 16).double()
    network.load_state_dict({k: v.double() for k, v in state_for(read(run / BEST_WEIGHTS), network).items()})
    data = open_for(saved.settings)
    images, mean = data.test.read(np.arange(9)), np.asarray(saved.statistics["mean_image"], np.float64)
    offsets = {1: [(2, 2, 1)], 9: [(row, column, 1) for row in (0, 2, 4) for column in (0, 2, 4)]}
    places = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))
    offsets[10] = [(row, column, step) for row, column in places for step in (1, -1)]
    total: Any = 0
    for top, left, step in offsets[count]:
        crop = images[:, top : top + 16, left : left + 16][:, :, ::step].astype(np.float64) - mean
        with torch.no_grad():
            total = total + torch.softmax(network(torch.from_numpy(crop.transpose(0, 3, 1, 2).copy())), 1).numpy()
    mean_of_all = total / len(offsets[count])
    loss = -np.log(mean_of_all[np.arange(9), data.test.labels]).mean()
    for side, report in found.items():
        assert report["crops"] == count and report["protocol"] == PROTOCOLS[count], side
        assert report["loss"] == pytest.approx(loss, rel=1e-5), side
        assert report["top1"] == pytest.approx((mean_of_all.argmax(1) == data.test.labels).mean()), side


def test_splits_and_newest_weights_alike(run):
    for words, examples in (
        (("--split", "validation"), 6),
        (("--split", "train"), 10),
        (("--checkpoint", "newest"), 9),
    ):
        theirs = evaluated("torch", run, *words)
        assert theirs["examples"] == examples
        if "newest" not in words:
            ours = evaluated("jax", run, *words)
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5) and ours["top1"] == theirs["top1"]


def test_a_file_of_weights_alike(run):
    words = ["--weights", str(run / BEST_WEIGHTS), "--data", DATA, "--crops", "10", "--devices", "1"]
    found = []
    for side, main in (("jax", jax_evaluate.main), ("torch", torch_evaluate.main)):
        assert main([*words, "--json", str(run.parent / f"{side}.json")]) == 0
        found.append(json.loads((run.parent / f"{side}.json").read_text()))
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "pass --run DIR"),
        (["--weights", "w.pth"], "--weights needs --data SOURCE"),
        (["--run", "{run}", "--crops", "9", "--model", "two_column"], "--model is for --weights"),
        (["--run", "{run}", "--data", "synthetic:classes=4,train=8,test=8"], "must be the same by name"),
        (
            ["--run", "{run}", "--data", DATA, "--split", "validation"],
            "--split validation: the run keeps no images for it",
        ),
    ],
)
def test_the_reference_refuses_what_it_cannot_evaluate(words, said, run):
    with pytest.raises(UserError, match=said):
        torch_evaluate.main([word.format(run=run) for word in words])


@pytest.mark.parametrize("main", [jax_evaluate.main, torch_evaluate.main])
def test_other_numbers_of_crops_are_refused(main, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--run", "x", "--crops", "5"])
    assert "--crops 5 is not known. Choose from: 1, 10, 9" in capsys.readouterr().err


def test_networks_that_store_no_more_than_they_see_say_so():
    with pytest.raises(UserError, match="take --crops 1, or train with --crop or a larger --stored-size"):
        crops.views(10, replace(settings(), stored_size=224))
