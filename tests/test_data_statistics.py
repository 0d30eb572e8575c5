import numpy as np
import pytest
from image_files import write_folder

import alexnet_io.data.image_statistics
from alexnet_io.data.image_statistics import TrainingStatistics, training_statistics
from alexnet_io.data.sources import open_source
from alexnet_io.data.sources.dataset import Split


def in_memory(images: np.ndarray, store=None) -> Split:
    count = len(images)
    shape = (images.shape[1], images.shape[2], 3)
    return Split("train", np.zeros(count, np.int32), [""] * count, shape, lambda places: images[places], "x", store)


@pytest.mark.parametrize("at_once", [1, 1000, 2**24])
def test_statistics_are_numpys_in_float64(rng, monkeypatch, at_once):
    monkeypatch.setattr(alexnet_io.data.image_statistics, "_BYTES_AT_ONCE", at_once)
    monkeypatch.setattr(alexnet_io.data.image_statistics, "_PIXELS_AT_ONCE", 17)
    base = rng.integers(0, 200, (30, 5, 7, 1))
    images = np.clip(base + rng.integers(0, [20, 40, 56], (30, 5, 7, 3)), 0, 255).astype(np.uint8)
    got = training_statistics(in_memory(images))
    pixels = images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_array_equal(got.mean_image, images.astype(np.float64).mean(axis=0).astype(np.float32))
    np.testing.assert_allclose(got.mean, pixels.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(got.std, pixels.std(axis=0), rtol=1e-12)
    covariance = np.cov(pixels.T, bias=True)
    np.testing.assert_allclose(
        got.eigenvectors @ np.diag(got.eigenvalues) @ got.eigenvectors.T, covariance, rtol=1e-10, atol=1e-9
    )
    np.testing.assert_allclose(got.eigenvectors.T @ got.eigenvectors, np.eye(3), atol=1e-12)
    assert (np.diff(got.eigenvalues) <= 0).all()
    assert (np.take_along_axis(got.eigenvectors, abs(got.eigenvectors).argmax(0)[None], 0) > 0).all()
    np.testing.assert_allclose(covariance @ got.eigenvectors[:, 0], got.eigenvalues[0] * got.eigenvectors[:, 0])


def test_grey_images_vary_along_grey_only():
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    got = training_statistics(in_memory(np.repeat(grey, 3, axis=3)))
    np.testing.assert_allclose(got.eigenvectors[:, 0], [3**-0.5] * 3)
    np.testing.assert_allclose(got.eigenvalues, [3 * (256**2 - 1) / 12, 0, 0], atol=1e-9)  # of a uniform law


def test_one_black_image():
    got = training_statistics(in_memory(np.zeros((1, 2, 2, 3), np.uint8)))
    assert not got.std.any() and not got.eigenvalues.any() and np.isfinite(got.eigenvectors).all()


def test_measured_once_and_kept_beside_the_cache(tmp_path, monkeypatch):
    write_folder(tmp_path, {"train/a": 4, "train/b": 4})
    write_folder(tmp_path, {"test/a": 1, "test/b": 1}, start=50)
    data = open_source(f"folder:{tmp_path}", image_size=8, cache_dir=tmp_path / "cache")
    first = training_statistics(data.train)
    assert training_statistics(data.train.subset([0, 1])).mean.tolist() != first.mean.tolist()
    kept = list((tmp_path / "cache").glob("images-*/statistics-*.npz"))
    assert len(kept) == 2
    monkeypatch.setattr(alexnet_io.data.image_statistics, "_measure", lambda *_: pytest.fail("measured again"))
    again = training_statistics(data.train)
    for name in TrainingStatistics.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


@pytest.mark.parametrize("damage", [b"", b"PK\3\4 and then nothing", b"\x93NUMPY", None])
def test_damaged_statistics_are_measured_again(tmp_path, rng, capsys, damage):
    split = in_memory(rng.integers(0, 256, (5, 4, 4, 3), np.uint8), tmp_path)
    first = training_statistics(split)
    (kept,) = tmp_path.glob("*.npz")
    if damage is None:
        with np.load(kept) as whole:
            values = dict(whole)
        np.savez(kept, **{**values, "mean": np.array([np.nan, 0, 0])})
    else:
        kept.write_bytes(damage)
    np.testing.assert_array_equal(training_statistics(split).mean, first.mean)
    assert f"warning: the statistics in {kept} are damaged (" in capsys.readouterr().err


def test_every_byte_of_kept_statistics_is_vouched_for(tmp_path, rng, capsys):
    split = in_memory(rng.integers(0, 256, (5, 4, 4, 3), np.uint8), tmp_path)
    first = training_statistics(split)
    (kept,) = tmp_path.glob("*.npz")
    whole = kept.read_bytes()
    for place in range(0, len(whole), 11):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        kept.write_bytes(content)
        again = training_statistics(split)
        for name in TrainingStatistics.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    assert "measuring them again" in capsys.readouterr().err


def test_progress_counts_images(rng):
    heard = []
    training_statistics(in_memory(rng.integers(0, 256, (5, 4, 4, 3), np.uint8)), lambda *what: heard.append(what))
    assert heard[-1][:2] == (5, 5)
