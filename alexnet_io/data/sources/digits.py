"""scikit-learn's 1,797 handwritten digits, which come inside its wheel: nothing is downloaded.

It is imported for these alone.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from alexnet_io.data.sources.dataset import DataSet
from alexnet_io.data.sources.files import DecodedImages
from alexnet_io.data.sources.prepared import Preparing, array_split
from alexnet_io.errors import UserError

NATIVE_SIZE = 8
TEST_SHARE = 0.2
_SPLIT_KEY = 1797  # fixed: every run, whatever its seed, is measured on the same digits


def open_digits(preparing: Preparing) -> DataSet:
    """The digits, 0 to 16 grey made 0 to 255 RGB, in a fixed split with a fifth of each class for testing."""
    grey, labels = _table()
    grey = np.rint(grey.reshape(-1, NATIVE_SIZE, NATIVE_SIZE) * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=-1)
    test = _test_places(labels)
    splits = []
    for name, places in (("train", np.setdiff1d(np.arange(len(labels)), test)), ("test", test)):
        names = [f"digit-{place:04d}" for place in places]
        decoded = DecodedImages(names, images[places], f"digits {name}", f"digits, {name}")
        splits.append(array_split(name, decoded, labels[places], preparing))
    return DataSet("digits", tuple("0123456789"), splits[0], splits[1])


def _table() -> tuple[np.ndarray, np.ndarray]:
    """Grey values (1797, 64) and labels (1797,)."""
    package = importlib.util.find_spec("sklearn")
    for place in (package and package.submodule_search_locations) or ():
        file = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():  # its own table: importing scikit-learn would take longer than all the rest
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1].astype(np.int64)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("the digits come with scikit-learn: pip install scikit-learn") from error
    grey, labels = load_digits(return_X_y=True)
    return np.asarray(grey), np.asarray(labels)


def _test_places(labels: np.ndarray) -> np.ndarray:
    # Raw Philox output never changes between NumPy versions; shuffle() and permutation() may.
    order = np.argsort(np.random.Philox(_SPLIT_KEY).random_raw(len(labels)), kind="stable")
    chosen = []
    for label in range(10):
        of_class = order[labels[order] == label]
        chosen.append(of_class[: round(TEST_SHARE * len(of_class))])
    return np.sort(np.concatenate(chosen))
