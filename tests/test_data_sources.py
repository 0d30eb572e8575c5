"""Digits, folders and synthetic images."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, solid, write_folder
from PIL import Image

from alexnet_io.command_line.evaluate_settings import check_classes
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.sources import check_labels, open_for, open_source, parse_spec
from alexnet_io.data.sources.dataset import DataSet, Split
from alexnet_io.data.sources.prepared import check_same_classes
from alexnet_io.errors import UserError
from jax_alexnet.recipes import resolve


def opened(spec: str, tmp_path: Path, **options) -> DataSet:
    return open_source(spec, cache_dir=tmp_path / "cache", **{"image_size": 12, **options})


# Specifications


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("digit", "did you mean 'digits'"),
        ("fodler:/x", "did you mean 'folder'"),
        ("CIFAR10", "did you mean 'cifar10'"),
        ("cifar", "did you mean 'cifar10'"),
        ("image-net:/x", "did you mean 'imagenet'"),
        ("folder", "needs folder:PATH"),
        ("tfds:", "needs tfds:NAME"),
        ("digits:8", "takes nothing after its name"),
        ("zzz", "valid: digits, folder:PATH"),
        ("", "valid: digits, folder:PATH"),
        ("/", "say folder:/"),
    ],
)
def test_misspelt_sources_are_refused_with_the_nearest_name(text, hint):
    with pytest.raises(UserError, match=hint):
        parse_spec(text)


def test_parsing_a_source_imports_no_numpy():
    code = "import sys; from alexnet_io.data import sources as s; s.parse_spec('digits'); print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_opening_images_imports_no_framework(tmp_path):
    write_folder(tmp_path, {"train/a": 2, "train/b": 2})
    write_folder(tmp_path, {"test/a": 1, "test/b": 1}, start=50)
    code = (
        "import sys; from alexnet_io.data.sources import open_source; from alexnet_io.data.batches import batches\n"
        f"d = open_source('folder:{tmp_path}', cache_dir='{tmp_path}/cache', image_size=8)\n"
        "list(batches(d.train, batch_size=2, loader='threads')); open_source('digits')\n"
        "print([m for m in ('jax', 'torch', 'tensorflow', 'grain') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "at least 1"),
        ({"image_size": 8, "fit": "squeeze"}, "crop or stretch"),
        ({"image_size": 8, "fit": "stretch", "short_side": 9}, "leave out the shorter side"),
        ({"short_side": 9}, "give both"),
        ({"image_size": 8, "short_side": 7}, "at least 8"),
        ({"holdout": 0.1}, "has a test split of its own"),
    ],
)
def test_options_that_make_no_sense_together(options, message):
    with pytest.raises(UserError, match=message):
        open_source("digits", **options)


# Digits


def test_digits_are_scikit_learns_whole_and_in_a_fixed_split():
    from sklearn.datasets import load_digits

    data = open_source("digits", seed=1)
    again = open_source("digits", seed=2)
    grey, labels = load_digits(return_X_y=True)
    assert data.class_names == tuple("0123456789")
    assert data.train.image_shape == data.test.image_shape == (8, 8, 3)
    places = {}
    for split, other in ((data.train, again.train), (data.test, again.test)):
        assert list(split.names) == list(other.names)
        places[split.name] = [int(name.removeprefix("digit-")) for name in split.names]
        images = split.read(np.arange(len(split)))
        expected = np.rint(grey[places[split.name]] * 255 / 16).reshape(-1, 8, 8, 1)
        np.testing.assert_array_equal(images, np.repeat(expected, 3, axis=-1))
        np.testing.assert_array_equal(split.labels, labels[places[split.name]])
    assert sorted(places["train"] + places["test"]) == list(range(1797))
    for digit in range(10):  # a fifth of each class
        assert (data.test.labels == digit).sum() == round(0.2 * (labels == digit).sum())


def test_digits_without_the_table_come_from_scikit_learn_itself(monkeypatch):
    expected = open_source("digits")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for split in ("train", "test"):
        ours, theirs = getattr(open_source("digits"), split), getattr(expected, split)
        np.testing.assert_array_equal(ours.read(np.arange(len(ours))), theirs.read(np.arange(len(theirs))))
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_digits_are_scaled_up_to_the_size_asked_for():
    data = open_source("digits", image_size=21)
    small = open_source("digits").test.read([0])[0]
    expected = np.asarray(Image.fromarray(small).resize((21, 21), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(data.test.read([0])[0], expected)


# Folders


def test_folder_with_train_and_test(tmp_path):
    write_folder(tmp_path, {"train/b": 3, "train/a": 2, "train/c": 1})
    write_folder(tmp_path, {"test/a": 1, "test/b": 2, "test/c": 1}, start=50)
    data = opened(f"folder:{tmp_path}", tmp_path)
    assert data.class_names == ("a", "b", "c")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1, 2] and data.train.labels.dtype == np.int32
    assert data.test.labels.tolist() == [0, 1, 1, 2]
    assert data.train.names[:3] == ["a/000.png", "a/001.png", "b/000.png"]
    assert data.notes == ()
    # write_folder numbers its colors in the order b, a, c; images are read in the order asked for
    assert data.train.read([5, 0, 2, 0])[:, 0, 0, 0].tolist() == [5, 3, 0, 3]


def test_order_and_labels_are_torchvisions(tmp_path):
    from torchvision.datasets import ImageFolder

    write_folder(
        tmp_path / "train", {"Zebra": 2, "ant": 1, "ant/deep/er": 2, "ant/deep": 1, "B 2": 1, "B 10": 2, "é": 1}
    )
    write_folder(tmp_path / "val", {"Zebra": 1, "ant": 1, "B 2": 1, "B 10": 1, "é": 1}, start=60)
    (tmp_path / "train" / "ant" / "X.JPEG").write_bytes(encoded(solid((9, 9, 9)), "PNG"))
    theirs = ImageFolder(str(tmp_path / "train"))
    data = opened(f"folder:{tmp_path}", tmp_path)
    assert list(data.class_names) == theirs.classes
    assert [str(tmp_path / "train" / name) for name in data.train.names] == [path for path, _ in theirs.samples]
    assert data.train.labels.tolist() == theirs.targets


def test_links_are_followed_once(tmp_path):
    write_folder(tmp_path / "real", {"a": 2, "b": 2})
    write_folder(tmp_path, {"set/test/a": 1, "set/test/b": 1}, start=50)
    (tmp_path / "set" / "train").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "a" / "loop").symlink_to(tmp_path / "real" / "a")
    assert len(opened(f"folder:{tmp_path}/set", tmp_path).train) == 4


def test_what_is_no_image_is_passed_over_and_said(tmp_path):
    write_folder(tmp_path, {"train/a": 2, "train/b": 2, "train/.hidden": 1})
    write_folder(tmp_path, {"test/a": 1, "test/b": 1}, start=50)
    for name in ("Thumbs.db", "notes.TXT", "README", ".DS_Store", "._000.png"):
        (tmp_path / "train" / "a" / name).write_bytes(b"no image")
    data = opened(f"folder:{tmp_path}", tmp_path)
    assert len(data.train) == 4 and data.class_names == ("a", "b")
    assert data.notes == ("passed over, not images by their extension: 1 without extension, 1 .db, 1 .txt",)


def test_names_that_are_not_utf8(tmp_path):
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    write_folder(tmp_path, {f"train/{odd}": 2, "train/b": 2})
    write_folder(tmp_path, {f"test/{odd}": 1, "test/b": 1}, start=50)
    (tmp_path / "train" / odd / "bad.png").write_bytes(b"no image")
    data = opened(f"folder:{tmp_path}", tmp_path)
    assert data.class_names == ("b", "caf\\xe9")
    assert "caf\\xe9/bad.png" in data.notes[0]
    " ".join([*data.class_names, *data.notes]).encode("ascii")


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.6])
def test_holdout_takes_its_share_of_each_class_whatever_the_seed(tmp_path, share):
    write_folder(tmp_path / "set", {"a": 20, "b": 8, "c": 1})
    data = opened(f"folder:{tmp_path}/set", tmp_path, holdout=share, seed=1)
    again = opened(f"folder:{tmp_path}/set", tmp_path, holdout=share, seed=2)
    assert data.test.names == again.test.names
    assert sorted([*data.train.names, *data.test.names]) == sorted(
        str(path.relative_to(tmp_path / "set")) for path in (tmp_path / "set").rglob("*.png")
    )
    held = np.bincount(data.test.labels, minlength=3)
    assert held.tolist() == [round(20 * share), round(8 * share), 0]  # a class of one stays in training


def test_classes_without_a_test_image_are_named(tmp_path, capsys):
    write_folder(tmp_path / "set", {"a": 20, "b": 5, "c": 2, "d": 1})
    data = opened(f"folder:{tmp_path}/set", tmp_path, holdout=0.1)
    assert np.bincount(data.test.labels).tolist() == [2]
    (note,) = data.notes
    assert note == (
        "warning: 3 of 4 classes have no test image (b, c, d): figures on the test images say nothing about them. Add "
        "images of them, or take another share than --holdout 0.1"
    )
    for measuring in (False, True):  # what training and evaluation call
        settings = resolve(
            TrainSettings(data=f"folder:{tmp_path}/set", holdout=0.1, image_size=12, cache_dir=tmp_path / "cache")
        )
        open_for(settings, measuring)
        assert capsys.readouterr().out == note + "\n"


def test_many_classes_without_a_test_image_are_counted(tmp_path):
    write_folder(tmp_path / "set", {"a": 20, **{f"k{number}": 1 for number in range(12)}})
    (note,) = opened(f"folder:{tmp_path}/set", tmp_path, holdout=0.1).notes
    assert "12 of 13 classes have no test image (k0, k1, k10, k11, k2 and 7 more)" in note


def test_a_holdout_of_nothing_is_refused(tmp_path):
    write_folder(tmp_path / "set", {"a": 20, "b": 20})
    with pytest.raises(UserError, match=r"--holdout 0\.01 of 40 images is none, .*: take at least 0\.025"):
        opened(f"folder:{tmp_path}/set", tmp_path, holdout=0.01)
    assert len(opened(f"folder:{tmp_path}/set", tmp_path, holdout=0.025).test) == 1


def test_a_class_of_which_no_test_image_can_be_read(tmp_path):
    """With a test folder that is refused: the figures would be of other classes than the names say."""
    spec = both(tmp_path, {"a": 2, "b": 2}, {"a": 1, "b": 1})
    (tmp_path / "test" / "b" / "000.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="no image of b can be read"):
        opened(spec, tmp_path)


def test_held_out_images_stay_held_out_when_others_are_added(tmp_path):
    write_folder(tmp_path / "set", {"a": 40, "b": 40})
    before = set(opened(f"folder:{tmp_path}/set", tmp_path, holdout=0.25).test.names)
    (tmp_path / "set" / "a" / "new.png").write_bytes(encoded(solid((1, 1, 99))))
    after = set(opened(f"folder:{tmp_path}/set", tmp_path, holdout=0.25).test.names)
    assert len(before ^ after) <= 2


def test_holdout_of_classes_with_one_image_each(tmp_path):
    write_folder(tmp_path / "set", {f"class{number}": 1 for number in range(10)})
    data = opened(f"folder:{tmp_path}/set", tmp_path, holdout=0.2)
    assert (len(data.train), len(data.test)) == (8, 2)
    assert "2 of them are only in the test split" in data.notes[0]
    assert "8 of 10 classes have no test image" in data.notes[1]
    assert "2 of 10 classes have no training image" in data.notes[2] and "can't be learnt" in data.notes[2]


def test_a_class_may_be_called_train(tmp_path):
    write_folder(tmp_path / "set", {"car": 4, "plane": 4, "train": 4})
    assert opened(f"folder:{tmp_path}/set", tmp_path, holdout=0.25).class_names == ("car", "plane", "train")


def test_holdout_of_a_train_folder(tmp_path):
    write_folder(tmp_path / "set", {"train/a": 4, "train/b": 4})
    assert len(opened(f"folder:{tmp_path}/set", tmp_path, holdout=0.25).test) == 2


def test_test_goes_before_val(tmp_path):
    write_folder(tmp_path, {"train/a": 2, "train/b": 2})
    write_folder(tmp_path, {"test/a": 1, "test/b": 1, "val/a": 2, "val/b": 2}, start=50)
    data = opened(f"folder:{tmp_path}", tmp_path)
    assert len(data.test) == 2 and data.notes == ("testing on test/; val/ is not used",)


def test_equal_sizes_by_cropping_or_stretching(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255  # the central third is white
    for folder in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "0.png").write_bytes(encoded(wide))
        wide = wide.copy()
        wide[0, 0, 0] += 1
    crop = opened(f"folder:{tmp_path}", tmp_path, image_size=10).train.read([0])[0]
    stretched = opened(f"folder:{tmp_path}", tmp_path, image_size=10, fit="stretch").train.read([0])[0]
    assert (crop == 255).all()
    assert stretched.shape == (10, 10, 3) and (stretched[:, 0, 1] == 0).all() and (stretched[:, 5] > 250).all()
    sides = opened(f"folder:{tmp_path}", tmp_path, image_size=(4, 6), short_side=8).train
    assert sides.image_shape == (4, 6, 3)


# What must be said before training


def both(tmp_path: Path, train: dict[str, int], test: dict[str, int]) -> str:
    write_folder(tmp_path, {f"train/{name}": count for name, count in train.items()})
    write_folder(tmp_path, {f"test/{name}": count for name, count in test.items()}, start=100)
    return f"folder:{tmp_path}"


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist: check the path"):
        opened(f"folder:{tmp_path}/nowhere", tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is not a folder"):
        opened(f"folder:{tmp_path}/file", tmp_path)


def test_empty_folder(tmp_path):
    for options in ({}, {"holdout": 0.1}, {"measuring": True}):
        with pytest.raises(
            UserError, match=rf"^{tmp_path} is empty: put the images there as train/CLASS/\* .*--holdout"
        ):
            opened(f"folder:{tmp_path}", tmp_path, **options)
        (tmp_path / ".DS_Store").write_bytes(b"what a file manager leaves in an empty folder")
    with pytest.raises(UserError, match=rf"^{tmp_path} is empty; it should hold train/ and val/"):
        opened(f"imagenet:{tmp_path}", tmp_path)
    (tmp_path / "cats").mkdir()
    with pytest.raises(UserError, match=r"has no train/.*--holdout"):
        opened(f"folder:{tmp_path}", tmp_path)
    (tmp_path / "cats").rmdir()
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf"^{tmp_path}/train is empty: put the images of each class"):
        opened(f"folder:{tmp_path}", tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match=rf"^{tmp_path}/train should hold synsets .*, but it is empty"):
        opened(f"imagenet:{tmp_path}", tmp_path)
    for name in ("train", "test", "val"):
        (tmp_path / name).rmdir()
    (tmp_path / "loose.png").write_bytes(encoded(solid((1, 2, 3))))
    with pytest.raises(UserError, match=r"no class folders, though it has images"):
        opened(f"folder:{tmp_path}", tmp_path, holdout=0.1)


def test_empty_class(tmp_path):
    with pytest.raises(UserError, match=r"1 of 2 class folders in .*train have no images .*: b\. Fill or remove"):
        opened(both(tmp_path, {"a": 1, "b": 0}, {"a": 1, "b": 1}), tmp_path)


def test_a_class_whose_images_are_all_unreadable(tmp_path):
    spec = both(tmp_path, {"a": 2, "b": 2}, {"a": 1, "b": 1})
    for path in (tmp_path / "train" / "b").iterdir():
        path.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"(?s)no image of b can be read:.*b/000\.png: this is HTML"):
        opened(spec, tmp_path)


def test_no_test_folder(tmp_path):
    write_folder(tmp_path, {"train/a": 2, "train/b": 2})
    with pytest.raises(UserError, match=r"has no test/ or val/ beside it.*--holdout 0.1"):
        opened(f"folder:{tmp_path}", tmp_path)


def test_one_class(tmp_path):
    with pytest.raises(UserError, match=r"only one class folder \(a\)"):
        opened(both(tmp_path, {"a": 3}, {"a": 1}), tmp_path)
    write_folder(tmp_path / "set", {"a": 4})
    with pytest.raises(UserError, match=r"only one class folder \(a\)"):
        opened(f"folder:{tmp_path}/set", tmp_path, holdout=0.5)


def test_classes_that_differ_by_name(tmp_path):
    spec = both(tmp_path, {"cat": 1, "dog": 1, "fox": 1}, {"cat": 1, "Dog": 1})
    train, test = tmp_path / "train", tmp_path / "test"
    with pytest.raises(UserError) as raised:
        opened(spec, tmp_path)
    assert str(raised.value) == (
        f"the splits have different classes; dog differs in upper and lower case only: 'dog' in {train}, 'Dog' in "
        f"{test}; only in {train}: fox. Rename or move the class folders"
    )


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (
            "caf\u00e9",
            "cafe\u0301",
            r"caf\u00e9 differs in Unicode normalisation only: 'caf\\xe9', NFC in T, 'cafe\\u0301', NFD in E",
        ),
        (
            "cafe\u0301",
            "caf\u00e9",
            r"cafe\u0301 differs in Unicode normalisation only: 'cafe\\u0301', NFD in T, 'caf\\xe9', NFC in E",
        ),
        ("\u212b", "\u00c5", r"only: '\\u212b', neither NFC nor NFD in T, '\\xc5', NFC in E"),
        ("dog", "dog ", r"dog differs in spaces, invisible or look-alike characters only: 'dog' in T, 'dog ' in E"),
        ("dog", "d\u200bog", r"look-alike characters only: 'dog' in T, 'd\\u200bog' in E"),
        ("dog1", "dog\uff11", r"look-alike characters only: 'dog1' in T, 'dog\\uff11' in E"),
        ("caf\u00e9", "tea", "only in T: caf\u00e9; only in E: tea"),
    ],
)
def test_names_that_look_alike_are_set_side_by_side(train, test, words):
    with pytest.raises(UserError, match=f"^the splits have different classes; [^;]*{words}[.] Rename"):
        check_same_classes(["ant", train], ["ant", test], "T", "E")


def test_one_name_in_two_normal_forms(tmp_path):
    spec = both(tmp_path, {"ant": 1, "caf\u00e9": 1}, {"ant": 1, "cafe\u0301": 1})
    with pytest.raises(UserError, match="differs in Unicode normalisation only"):
        opened(spec, tmp_path)
    write_folder(tmp_path, {"train/cafe\u0301": 1}, start=200)
    with pytest.raises(UserError, match=r"train has class folders whose names differ in Unicode normalisation only: "):
        opened(spec, tmp_path)


def test_a_run_of_classes_in_another_normal_form_says_so():
    with pytest.raises(UserError, match=r"NFC in the network, 'cafe\\u0301', NFD in the data"):
        check_classes(["ant", "caf\u00e9"], ["ant", "cafe\u0301"], "folder:X")
    with pytest.raises(UserError, match="by name; the same names in another order"):
        check_classes(["a", "b"], ["b", "a"], "folder:X")


def test_the_same_file_in_both_splits(tmp_path):
    spec = both(tmp_path, {"a": 3, "b": 3}, {"a": 2, "b": 2})
    (tmp_path / "test" / "b" / "copy.png").write_bytes((tmp_path / "train" / "a" / "001.png").read_bytes())
    with pytest.raises(UserError, match=r"1 of 5 test images are also in .*: b/copy.png = a/001.png"):
        opened(spec, tmp_path)


def test_files_alike_at_both_ends_are_not_the_same(tmp_path, rng):
    spec = both(tmp_path, {"a": 1, "b": 1}, {"a": 1, "b": 1})
    pixels = rng.integers(0, 256, (100, 100, 3), np.uint8)
    (tmp_path / "train" / "a" / "noise.bmp").write_bytes(encoded(pixels, "BMP"))
    pixels[50, 50, 0] ^= 1
    (tmp_path / "test" / "a" / "noise.bmp").write_bytes(encoded(pixels, "BMP"))
    assert opened(spec, tmp_path).notes == ()


def test_a_stray_copy_in_a_large_set_is_only_noted(tmp_path):
    spec = both(tmp_path, {"a": 1, "b": 1}, {"a": 60, "b": 60})
    (tmp_path / "test" / "b" / "copy.png").write_bytes((tmp_path / "train" / "a" / "000.png").read_bytes())
    assert "1 of 121 test images are also in the training split" in opened(spec, tmp_path).notes[0]


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
def test_impossible_holdout(tmp_path, share):
    write_folder(tmp_path / "set", {"a": 4, "b": 4})
    with pytest.raises(UserError, match="between 0 and 1"):
        opened(f"folder:{tmp_path}/set", tmp_path, holdout=share)


def test_holdout_beside_a_test_folder(tmp_path):
    with pytest.raises(UserError, match=r"nothing is left for --holdout.*folder:.*/train"):
        opened(both(tmp_path, {"a": 1, "b": 1}, {"a": 1, "b": 1}), tmp_path, holdout=0.1)


def test_paths_that_the_system_refuses(tmp_path):
    for path in ("x" * 300, "a\0b"):
        with pytest.raises(UserError, match=r"does not exist|can't be read"):
            opened(f"folder:{tmp_path}/{path}", tmp_path)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_outside_the_classes(label):
    labels = np.array([0, 1, label, 2], np.int32)
    split = Split(
        "train", labels, list("wxyz"), (1, 1, 3), lambda places: np.zeros((len(places), 1, 1, 3), np.uint8), ""
    )
    with pytest.raises(UserError, match=rf"1 train label lies outside 0 to 2; the first is {label}, of y"):
        check_labels(split, 3)
    with pytest.raises(UserError, match=f"the first is {label}, of y"):
        DataSet("made", ("a", "b", "c"), split, split)


# Splits


def test_splits_know_their_bounds(tmp_path):
    data = open_source("digits")
    for wrong in ([-1], [len(data.test)]):
        with pytest.raises(IndexError):
            data.test.read(wrong)
        with pytest.raises(IndexError):
            data.test.subset(wrong)
    assert data.test.read([]).shape == (0, 8, 8, 3)
    part = data.test.subset([5, 2])
    np.testing.assert_array_equal(part.read([0, 1]), data.test.read([5, 2]))
    np.testing.assert_array_equal(part.labels, data.test.labels[[5, 2]])
    assert part.names == [data.test.names[5], data.test.names[2]]
    assert part.fingerprint != data.test.fingerprint


# Synthetic


def test_synthetic_images_are_seeded_and_learnable():
    spec = "synthetic:classes=7,train=700,test=140"
    data, same, other = (open_source(spec, image_size=16, seed=seed) for seed in (3, 3, 4))
    assert len(data.class_names) == 7 and (len(data.train), len(data.test)) == (700, 140)
    images = data.train.read(np.arange(700))
    np.testing.assert_array_equal(images, same.train.read(np.arange(700)))
    assert (images != other.train.read(np.arange(700))).any()
    assert len(np.unique(images.reshape(700, -1), axis=0)) == 700
    means = np.stack([images[data.train.labels == label].mean(axis=0) for label in range(7)])
    tested = data.test.read(np.arange(140)).astype(float)
    nearest = ((tested[:, None] - means) ** 2).sum(axis=(2, 3, 4)).argmin(axis=1)
    assert (nearest == data.test.labels).mean() > 0.99
    seen = {image.tobytes() for image in images}
    assert not any(image.tobytes() in seen for image in data.test.read(np.arange(140)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("class=3", "did you mean 'classes'"),
        ("classes=1", "at least 2"),
        ("train=0", "whole number from 1"),
        ("test=ten", "whole number from 1, not 'ten'"),
    ],
)
def test_synthetic_options_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        open_source(f"synthetic:{options}")
