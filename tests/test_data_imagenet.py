"""ImageNet's layouts, in miniature."""

import contextlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import encoded, solid, write_folder

from alexnet_io.data.decoding import ImageError, Resizing
from alexnet_io.data.sources import open_source
from alexnet_io.data.sources.dataset import DataSet
from alexnet_io.data.sources.ground_truth import validation_labels
from alexnet_io.data.sources.tar_files import images_in_tars
from alexnet_io.errors import UserError

SYNSETS = ("n01440764", "n01443537", "n02105855")
# The images of val/ in order, and their synsets.
TRUTH = ("n02105855", "n01440764", "n01440764", "n01443537", "n02105855")
LABELS = [2, 0, 0, 1, 2]
# The development kit numbers the synsets in an order of its own.
NUMBERS = {"n01440764": 3, "n01443537": 1, "n02105855": 2}


def opened(root: Path, **options) -> DataSet:
    return open_source(f"imagenet:{root}", image_size=8, cache_dir=root / "cache", **options)


def write_train(root: Path) -> None:
    write_folder(root / "train", dict.fromkeys(SYNSETS, 2))


def write_flat_val(root: Path) -> None:
    (root / "val").mkdir()
    for number in range(len(TRUTH)):
        path = root / "val" / f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        path.write_bytes(encoded(solid((200, 10 * number, 0)), "PNG"))  # ImageNet has PNGs named so too


def as_tars(train: Path) -> None:
    for synset in SYNSETS:
        with tarfile.open(train / f"{synset}.tar", "w") as archive:
            for path in sorted((train / synset).iterdir(), reverse=True):
                archive.add(path, path.name)
                path.unlink()
            info = tarfile.TarInfo("notes.txt")
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        (train / synset).rmdir()


def test_synset_folders(tmp_path):
    write_train(tmp_path)
    write_folder(tmp_path / "val", dict.fromkeys(SYNSETS, 1), start=50)
    data = opened(tmp_path)
    assert data.class_names == SYNSETS
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2] and data.test.labels.tolist() == [0, 1, 2]


def test_synset_tars_are_read_in_place_as_if_unpacked(tmp_path):
    write_train(tmp_path)
    write_folder(tmp_path / "val", dict.fromkeys(SYNSETS, 1), start=50)
    folders = opened(tmp_path)
    expected = folders.train.read(np.arange(6))
    as_tars(tmp_path / "train")
    tars = opened(tmp_path)
    np.testing.assert_array_equal(tars.train.read(np.arange(6)), expected)
    assert tars.train.labels.tolist() == folders.train.labels.tolist() and tars.class_names == SYNSETS
    assert tars.train.names[:3] == ["n01440764.tar/000.png", "n01440764.tar/001.png", "n01443537.tar/000.png"]
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [f"{synset}.tar" for synset in SYNSETS]


def write_truth(root: Path, form: str) -> None:
    images = [path.name for path in sorted((root / "val").iterdir())]
    if form == "kaggle":
        rows = [
            f"{Path(name).stem},{synset} 1 2 30 40 {synset} 5 6 7 8" for name, synset in zip(images, TRUTH, strict=True)
        ]
        (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]))
    elif form == "caffe":
        rows = [f"{name} {label}" for name, label in zip(images, LABELS, strict=True)]
        (root / "val" / "val.txt").write_text("\n".join(rows) + "\n")
    elif form == "tensorflow":
        (root / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(TRUTH) + "\n")
    else:
        write_devkit(root, packed=form == "packed devkit")


def write_devkit(root: Path, packed: bool) -> None:
    from scipy.io import savemat

    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    rows = [*NUMBERS.items(), ("n00001740", 1001)]  # the kit lists inner synsets too
    table = np.zeros((len(rows), 1), [("ILSVRC2012_ID", "O"), ("WNID", "O")])
    for place, (synset, number) in enumerate(rows):
        table[place, 0] = (np.uint16(number), synset)
    savemat(folder / "meta.mat", {"synsets": table})
    numbers = "\n".join(str(NUMBERS[synset]) for synset in TRUTH) + "\n"
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(numbers)
    if packed:
        with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
            archive.add(folder.parent, folder.parent.name)
        for path in folder.iterdir():
            path.unlink()


@pytest.mark.parametrize("form", ["kaggle", "caffe", "tensorflow", "devkit", "packed devkit"])
def test_flat_validation_images_with_each_known_list_of_labels(tmp_path, form):
    write_train(tmp_path)
    write_flat_val(tmp_path)
    write_truth(tmp_path, form)
    data = opened(tmp_path)
    assert data.test.labels.tolist() == LABELS
    assert data.test.read(np.arange(5))[:, 0, 0, 1].tolist() == [0, 10, 20, 30, 40]
    assert data.test.labels.dtype == np.int32


def test_flat_validation_images_without_labels_are_refused_with_what_to_get(tmp_path):
    write_train(tmp_path)
    write_flat_val(tmp_path)
    with pytest.raises(UserError, match=r"LOC_val_solution\.csv.*val\.txt.*synset_labels\.txt.*ILSVRC2012_devkit_t12"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("val.txt", "ILSVRC2012_val_00000001.JPEG 0\n", "no label for 4 images, the first is .*00000002"),
        (
            "val.txt",
            "\n".join(f"ILSVRC2012_val_{number:08d}.JPEG {number}" for number in range(1, 6)),
            "has the label 5, .*3 synsets, 0 to 2",
        ),
        ("imagenet_2012_validation_synset_labels.txt", "\n".join(SYNSETS), "has 3 lines, .*val/ has 5 images"),
        (
            "imagenet_2012_validation_synset_labels.txt",
            "\n".join([*TRUTH[:4], "n09999999"]),
            "names 1 synsets that train/ lacks, the first is n09999999",
        ),
    ],
)
def test_lists_of_labels_that_do_not_fit(tmp_path, file, content, message):
    write_train(tmp_path)
    write_flat_val(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize("victim", ["meta.mat", "ILSVRC2012_validation_ground_truth.txt"])
def test_a_damaged_development_kit(tmp_path, victim):
    write_train(tmp_path)
    write_flat_val(tmp_path)
    write_devkit(tmp_path, packed=False)
    (tmp_path / "ILSVRC2012_devkit_t12" / "data" / victim).write_bytes(b"7 7 7 7 7")
    with pytest.raises(UserError, match=r"meta\.mat is damaged|'7' is not a synset number"):
        opened(tmp_path)


def test_missing_folders(tmp_path):
    with pytest.raises(UserError, match="does not exist; it should hold train/ and val/"):
        opened(tmp_path / "none")
    with pytest.raises(UserError, match="is empty; it should hold train/ and val/"):
        opened(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match="train does not exist; it should hold synset folders or tars"):
        opened(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match=r"train should hold synsets .*, but it is empty\."):
        opened(tmp_path)
    (tmp_path / "train" / "notes.txt").write_text("")
    with pytest.raises(UserError, match="nothing there is one"):
        opened(tmp_path)
    write_train(tmp_path)
    with pytest.raises(UserError, match="val is empty; it should hold validation images"):
        opened(tmp_path)


def test_packed_archives_are_pointed_out(tmp_path):
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(b"")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"mkdir -p train && tar -xf ILSVRC2012_img_train\.tar -C train"):
        opened(tmp_path)


def test_folders_that_are_no_synsets_are_pointed_to_folder(tmp_path):
    write_folder(tmp_path, {"train/cat": 1, "train/dog": 1, "val/cat": 1, "val/dog": 1})
    with pytest.raises(UserError, match=r"cat, dog there is not one\. For other classes say folder:"):
        opened(tmp_path)


def test_train_and_val_with_different_synsets(tmp_path):
    write_train(tmp_path)
    write_folder(tmp_path / "val", {"n01440764": 1, "n01443537": 1, "n09999999": 1}, start=50)
    with pytest.raises(UserError, match=r"only in .*train: n02105855; only in .*val: n09999999"):
        opened(tmp_path)


def test_folders_and_tars_at_once(tmp_path):
    write_train(tmp_path)
    (tmp_path / "val").mkdir()
    (tmp_path / "train" / "n01440764.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"both folders .* and tar files .*: keep one kind"):
        opened(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_damaged_tars(tmp_path, damage):
    write_train(tmp_path)
    write_folder(tmp_path / "val", dict.fromkeys(SYNSETS, 1), start=50)
    as_tars(tmp_path / "train")
    victim = tmp_path / "train" / "n01443537.tar"
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:700])
    elif damage == "noise":
        victim.write_bytes(b"<html>not found</html>" * 99)
    else:
        with tarfile.open(victim, "w"):
            pass
    with pytest.raises(UserError, match=r"n01443537\.tar .*get (it|them) again"):
        opened(tmp_path)


def test_a_tar_that_shrinks_after_listing_is_not_half_read(tmp_path):
    write_train(tmp_path)
    as_tars(tmp_path / "train")
    files, counts = images_in_tars(tmp_path / "train", [f"{synset}.tar" for synset in SYNSETS])
    assert counts == [2, 2, 2]
    os.truncate(tmp_path / "train" / "n01440764.tar", 700)
    with pytest.raises(ImageError, match=r"n01440764\.tar/001\.png: cannot be read: the tar file ends after \d+ of"):
        files.pixels(1, Resizing(8, 8, 8))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from(["LOC_val_solution.csv", "val.txt", "imagenet_2012_validation_synset_labels.txt"]),
    content=st.binary(max_size=60)
    | st.lists(st.tuples(st.sampled_from(["a", "b"]), st.text(max_size=12))).map(
        lambda rows: "\n".join(" ".join(row) for row in rows).encode("utf-8", "surrogatepass")
    ),
)
def test_random_lists_of_labels_never_escape(tmp_path, file, content):
    (tmp_path / file).write_bytes(content)
    try:
        got = validation_labels(tmp_path, tmp_path, ["a.JPEG", "b.JPEG"], ["a", "b"])
    except UserError:
        got = np.zeros(2, np.int32)
    (tmp_path / file).unlink()
    assert got.shape == (2,) and set(got.tolist()) <= {0, 1}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_tars_never_escape(tmp_path, data):
    path = tmp_path / "n01440764.tar"
    if not path.exists():
        with tarfile.open(path, "w") as archive:
            for name in ("a.png", "b.png"):
                content = encoded(solid((1, 2, 3)))
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        (tmp_path / "whole").write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, 520) | st.integers(1024, 1544))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(UserError):
        files, counts = images_in_tars(tmp_path, [path.name])
        assert counts == [len(files)]
        for number in range(len(files)):
            with contextlib.suppress(ImageError):
                files.pixels(number, Resizing(8, 8, 8))


def test_the_same_image_in_train_and_val(tmp_path):
    write_train(tmp_path)
    write_folder(tmp_path / "val", dict.fromkeys(SYNSETS, 1))
    with pytest.raises(UserError, match="test images are also in the training split"):
        opened(tmp_path)


def test_holdout_is_refused(tmp_path):
    with pytest.raises(UserError, match="imagenet has a test split of its own"):
        opened(tmp_path, holdout=0.1)
