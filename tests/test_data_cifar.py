"""CIFAR in its two forms, packed and unpacked, and how it is fetched: all from small files made here."""

import hashlib
import http.server
import io
import os
import pickle
import socket
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_io.data.sources import open_source
from alexnet_io.data.sources.cifar import ORIGINS
from alexnet_io.data.sources.cifar_files import CIFAR10, CIFAR100, Form, load_pickle
from alexnet_io.errors import UserError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FINE = [f"thing_{number:02d}" for number in range(100)]
EACH = 4  # images in a file


def planes(number: int) -> np.ndarray:
    """uint8 (EACH, 3072) as CIFAR stores them: for each image a red, a green and a blue plane."""
    return np.random.default_rng(number).integers(0, 256, (EACH, 3072), np.uint8)


def labels(number: int, classes: int) -> list[int]:
    return [(3 * number + place) % classes for place in range(EACH)]


def write_binary(root: Path, form: Form, classes: list[str]) -> None:
    folder = root / form.folder
    folder.mkdir(parents=True)
    for number, name in enumerate((*form.train, *form.test)):
        head = np.array(labels(number, len(classes)), np.uint8)[:, None]
        coarse = [] if form.label_bytes == 1 else [head // 5]
        (folder / name).write_bytes(np.hstack([*coarse, head, planes(number)]).tobytes())
    (folder / form.names).write_text("\n".join(classes) + "\n\n")


def write_pickles(root: Path, form: Form, classes: list[str], protocol: int, keys: type = bytes) -> None:
    def spelt(key: bytes) -> bytes | str:
        return key if keys is bytes else key.decode()

    folder = root / form.folder
    folder.mkdir(parents=True)
    for number, name in enumerate((*form.train, *form.test)):
        batch = {
            spelt(b"data"): planes(number), spelt(form.label_key): labels(number, len(classes)),
            spelt(b"batch_label"): "some text",
        }  # fmt: skip
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    names = {spelt(form.names_key): [spelt(name.encode()) for name in classes]}
    (folder / form.names).write_bytes(pickle.dumps(names, protocol))


def pack(root: Path, form: Form) -> None:
    """Turns the folder into the archive, as it is given out."""
    with tarfile.open(root / form.archive, "w:gz") as archive:
        archive.add(root / form.folder, form.folder)
    for path in (root / form.folder).iterdir():
        path.unlink()
    (root / form.folder).rmdir()


def assert_holds(data, form: Form, classes: list[str]) -> None:
    """Every label, and one pixel of every picture in its three channels, as `planes` and `labels` wrote them."""
    assert list(data.class_names) == classes
    files = (*form.train, *form.test)
    for split, numbers in ((data.train, range(len(form.train))), (data.test, range(len(form.train), len(files)))):
        assert split.labels.tolist() == [label for number in numbers for label in labels(number, len(classes))]
        images = split.read(np.arange(len(split)))
        for place, (number, image) in enumerate(np.ndindex(len(numbers), EACH)):
            stored = planes(numbers[number])[image]
            assert images[place, 5, 7].tolist() == [stored[channel * 1024 + 5 * 32 + 7] for channel in range(3)]


FORMS = [("cifar10", form, CLASSES) for form in CIFAR10] + [("cifar100", form, FINE) for form in CIFAR100]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("name", "form", "classes"), FORMS, ids=lambda value: getattr(value, "folder", None))
def test_every_form_is_read_the_same(tmp_path, name, form, classes, packed):
    if form.label_bytes:
        write_binary(tmp_path, form, classes)
    else:
        write_pickles(tmp_path, form, classes, protocol=2)
    if packed:
        pack(tmp_path, form)
    assert_holds(open_source(name, data_dir=tmp_path), form, classes)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("keys", [bytes, str])
def test_every_way_of_pickling_is_read(tmp_path, protocol, keys):
    write_pickles(tmp_path, CIFAR10[0], CLASSES, protocol, keys)
    assert_holds(open_source("cifar10", data_dir=tmp_path), CIFAR10[0], CLASSES)


def test_torchvision_reads_what_is_written_here(tmp_path, monkeypatch):
    """The files of these tests are the real thing's form, as torchvision sees it."""
    from torchvision.datasets import CIFAR10 as Theirs

    write_pickles(tmp_path, CIFAR10[0], CLASSES, 2, str)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    ours = open_source("cifar10", data_dir=tmp_path)
    for split, train in ((ours.train, True), (ours.test, False)):
        theirs = Theirs(str(tmp_path), train=train)
        np.testing.assert_array_equal(split.read(np.arange(len(split))), theirs.data)
        assert split.labels.tolist() == theirs.targets
        assert list(ours.class_names) == theirs.classes


def test_the_data_directory_may_be_the_unpacked_folder_itself(tmp_path):
    write_binary(tmp_path, CIFAR10[1], CLASSES)
    assert_holds(open_source("cifar10", data_dir=tmp_path / CIFAR10[1].folder), CIFAR10[1], CLASSES)


def test_enlarged_in_memory_or_through_the_cache(tmp_path, monkeypatch):
    write_binary(tmp_path, CIFAR10[1], CLASSES)
    options = {"data_dir": tmp_path, "image_size": 40, "cache_dir": tmp_path / "cache"}
    inside = open_source("cifar10", **options)
    monkeypatch.setattr("alexnet_io.data.sources.prepared.IN_MEMORY_BYTES", 1000)
    outside = open_source("cifar10", **options)
    assert len(list((tmp_path / "cache").glob("images-*/images.npy"))) == 2
    for split in ("train", "test"):
        a, b = getattr(inside, split), getattr(outside, split)
        assert a.image_shape == b.image_shape == (40, 40, 3)
        np.testing.assert_array_equal(a.read(np.arange(len(a))), b.read(np.arange(len(b))))
        np.testing.assert_array_equal(a.labels, b.labels)


# Damage


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def test_a_pickle_that_would_run_code_runs_nothing(tmp_path):
    write_pickles(tmp_path, CIFAR10[0], CLASSES, 2)
    marker = tmp_path / "it ran"
    (tmp_path / CIFAR10[0].folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Malicious(marker)}))
    with pytest.raises(UserError, match=r"data_batch_3 is not a CIFAR batch, and nothing in it was run: .*system"):
        open_source("cifar10", data_dir=tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        {b"data": np.zeros((EACH, 3072), np.float64), b"labels": [0] * EACH},
        {b"data": np.zeros((EACH, 3071), np.uint8), b"labels": [0] * EACH},
        {b"data": np.zeros((EACH + 1, 3072), np.uint8), b"labels": [0] * EACH},
        {b"data": np.zeros((EACH, 3072), np.uint8), b"labels": ["cat"] * EACH},
        {b"data": np.zeros((EACH, 3072), np.uint8)},
        {b"labels": [0] * EACH, b"data": [[0] * 3072] * EACH},
        [1, 2, 3],
        None,
    ],
)
def test_pickles_that_hold_something_else(tmp_path, content):
    write_pickles(tmp_path, CIFAR10[0], CLASSES, 2)
    (tmp_path / CIFAR10[0].folder / "data_batch_1").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(UserError, match=r"data_batch_1.*Get it again"):
        open_source("cifar10", data_dir=tmp_path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_random_pickles_never_escape(data):
    """They load or are refused: anything else but a UserError fails here."""
    content = bytearray(
        pickle.dumps({b"data": np.zeros((1, 8), np.uint8), b"labels": [1]}, data.draw(st.sampled_from([0, 2, 4])))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    for damaged in (bytes(content), data.draw(st.binary(max_size=60))):
        try:
            load_pickle(damaged, "fuzz")
        except UserError:
            continue


def test_a_truncated_binary_file(tmp_path):
    write_binary(tmp_path, CIFAR10[1], CLASSES)
    victim = tmp_path / CIFAR10[1].folder / "data_batch_2.bin"
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"data_batch_2\.bin: 12,291 bytes are not whole records of 3073"):
        open_source("cifar10", data_dir=tmp_path)


def test_a_file_that_is_missing(tmp_path):
    write_binary(tmp_path, CIFAR10[1], CLASSES)
    (tmp_path / CIFAR10[1].folder / "test_batch.bin").unlink()
    with pytest.raises(UserError, match=r"test_batch\.bin can't be read .*Remove the folder and get it again"):
        open_source("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "noise", "member"])
def test_a_damaged_archive(tmp_path, damage):
    write_binary(tmp_path, CIFAR10[1], CLASSES)
    if damage == "member":
        (tmp_path / CIFAR10[1].folder / "data_batch_4.bin").unlink()
    pack(tmp_path, CIFAR10[1])
    archive = tmp_path / CIFAR10[1].archive
    if damage == "cut":
        archive.write_bytes(archive.read_bytes()[:3000])
    elif damage == "noise":
        archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz .*remove it and get it again"):
        open_source("cifar10", data_dir=tmp_path)


def test_labels_outside_the_classes_are_refused(tmp_path):
    write_binary(tmp_path, CIFAR10[1], CLASSES)
    victim = tmp_path / CIFAR10[1].folder / "data_batch_1.bin"
    victim.write_bytes(b"\x0a" + victim.read_bytes()[1:])
    with pytest.raises(UserError, match=r"1 train label lies outside 0 to 9; the first is 10, of train-00000"):
        open_source("cifar10", data_dir=tmp_path)
    write_pickles(tmp_path, CIFAR10[0], CLASSES, 2)
    batch = {b"data": planes(0), b"labels": [1, -1, 2, 3]}
    (tmp_path / CIFAR10[0].folder / "data_batch_1").write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(UserError, match="the first is -1, of train-00001"):
        open_source("cifar10", data_dir=tmp_path)


def test_another_number_of_class_names(tmp_path):
    write_binary(tmp_path, CIFAR10[1], CLASSES[:9])
    with pytest.raises(UserError, match="9 class names where cifar10 has 10"):
        open_source("cifar10", data_dir=tmp_path)


# Fetching


def test_nothing_is_fetched_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was tried"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    for name, archive in (("cifar10", "cifar-10-binary.tar.gz"), ("cifar100", "cifar-100-binary.tar.gz")):
        command = rf"Add --download to fetch 1\d\d MB, or run: curl -L --create-dirs -o {tmp_path}/{archive} https://"
        with pytest.raises(UserError, match=command):
            open_source(name, data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


class Server:
    """Serves one archive on this machine, as a good or a bad server would."""

    def __init__(self, content: bytes) -> None:
        self.content, self.ranges, self.limit, self.resumes = content, [], len(content), True
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.ranges.append(wanted)
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and outer.resumes else 0
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(outer.content) - 1}/{len(outer.content)}")
                self.send_header("Content-Length", str(len(outer.content) - start))
                self.end_headers()
                self.wfile.write(outer.content[start : start + outer.limit])

            def log_message(self, *_) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/cifar-10-binary.tar.gz"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def server(tmp_path, monkeypatch):
    write_binary(tmp_path / "made", CIFAR10[1], CLASSES)
    pack(tmp_path / "made", CIFAR10[1])
    content = (tmp_path / "made" / CIFAR10[1].archive).read_bytes()
    serving = Server(content)
    origin = ORIGINS["cifar10"]
    local = type(origin)(serving.url, hashlib.sha256(content).hexdigest(), len(content), 10, origin.forms)
    monkeypatch.setitem(ORIGINS, "cifar10", local)
    monkeypatch.setenv("no_proxy", "*")
    yield serving
    serving.http.shutdown()
    serving.http.server_close()


def test_fetched_checked_and_read(tmp_path, server):
    heard = []
    data = open_source("cifar10", data_dir=tmp_path / "new", download=True, progress=lambda *what: heard.append(what))
    assert_holds(data, CIFAR10[1], CLASSES)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cifar-10-binary.tar.gz"]
    assert heard[-1] == (len(server.content), len(server.content), "fetching cifar-10-binary.tar.gz")
    open_source("cifar10", data_dir=tmp_path / "new", download=True)
    assert server.ranges == [None]  # not fetched twice


def test_a_connection_that_breaks_is_resumed(tmp_path, server):
    server.limit = len(server.content) // 3
    for _ in range(2):
        with pytest.raises(UserError, match=r"(?s)fetching http.* failed: .*Run the same command again"):
            open_source("cifar10", data_dir=tmp_path, download=True)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["cifar-10-binary.tar.gz.part"]
    server.limit = len(server.content)
    assert_holds(open_source("cifar10", data_dir=tmp_path, download=True), CIFAR10[1], CLASSES)
    third = len(server.content) // 3
    assert server.ranges == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_a_server_that_does_not_resume_sends_all_again(tmp_path, server):
    server.resumes = False
    (tmp_path / "cifar-10-binary.tar.gz.part").write_bytes(b"something else")
    assert_holds(open_source("cifar10", data_dir=tmp_path, download=True), CIFAR10[1], CLASSES)


@pytest.mark.parametrize("wrong", ["longer", "other"])
def test_a_wrong_file_is_removed(tmp_path, server, wrong):
    size = len(server.content)
    server.content = server.content + b"more" if wrong == "longer" else bytes(size)
    server.limit = size + 100
    with pytest.raises(UserError, match=r"SHA-256 .*The file was removed"):
        open_source("cifar10", data_dir=tmp_path, download=True)
    assert not list(tmp_path.glob("cifar*"))


def test_a_wrong_beginning_is_found_out_and_removed(tmp_path, server):
    (tmp_path / "cifar-10-binary.tar.gz.part").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="SHA-256"):
        open_source("cifar10", data_dir=tmp_path, download=True)
    assert_holds(open_source("cifar10", data_dir=tmp_path, download=True), CIFAR10[1], CLASSES)


def test_no_network(tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    origin = ORIGINS["cifar10"]
    local = type(origin)(f"http://127.0.0.1:{port}/x.tar.gz", "", 10, 10, origin.forms)
    monkeypatch.setitem(ORIGINS, "cifar10", local)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(UserError, match=r"failed: .*refused.*or put the file there yourself"):
        open_source("cifar10", data_dir=tmp_path, download=True)


def test_checksums_are_those_tensorflow_datasets_publishes():
    import tensorflow_datasets

    folder = Path(tensorflow_datasets.__file__).parent / "url_checksums"
    for name, origin in ORIGINS.items():
        url, size, sha256, _ = (folder / f"{name}.txt").read_text().split()
        assert (origin.url, origin.size, origin.sha256) == (url, int(size), sha256)


def test_archives_with_dotted_paths(tmp_path):
    write_binary(tmp_path, CIFAR10[1], CLASSES)
    folder = tmp_path / CIFAR10[1].folder
    with tarfile.open(tmp_path / CIFAR10[1].archive, "w:gz") as archive:
        for path in folder.iterdir():
            info = tarfile.TarInfo(f"./{CIFAR10[1].folder}/{path.name}")
            info.size = path.stat().st_size
            archive.addfile(info, io.BytesIO(path.read_bytes()))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert_holds(open_source("cifar10", data_dir=tmp_path), CIFAR10[1], CLASSES)
