"""`python -m examples.few_pictures`: which pictures are given to whom, and which error is told."""

from pathlib import Path

import pytest

from alexnet_io.errors import UserError
from examples import few_pictures

CLASSES = ("ant", "bee", "cat", "dog")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, count in (("train", 9), ("test", 3)):
        for name in CLASSES:
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / "data" / split / name / f"{split}{number}.png").write_bytes(name.encode())
    return tmp_path / "data"


def pictures(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob("*/*/*")}


def test_few_pictures_of_each_class_and_all_of_the_tests(data: Path, tmp_path: Path) -> None:
    chosen = {}
    for seed in (0, 1):
        few = tmp_path / f"few{seed}"
        few_pictures.linked(data, few, CLASSES[2:], 4, seed)
        few_pictures.linked(data, few, CLASSES[2:], 4, seed)  # what was done is found
        chosen[seed] = pictures(few)
        assert {name for name in pictures(data) if name.startswith(("test/cat", "test/dog"))} <= chosen[seed]
        assert [sum(name.startswith(f"train/{kind}/") for name in chosen[seed]) for kind in CLASSES] == [0, 0, 4, 4]
    assert chosen[0] != chosen[1]
    with pytest.raises(UserError, match="--pictures 10: ant has 9"):
        few_pictures.linked(data, tmp_path / "many", CLASSES, 10, 0)


def test_each_way_is_told_at_its_best_rate(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """The two halves share no class; all ways have the same words but for what they begin with and their rate."""
    seen: list[tuple[str, list[str]]] = []

    def train(run: Path, folder: Path, words: list[str]) -> float:
        seen.append((folder.name, words))
        if "--learning-rate" not in words:
            return 0.0
        rate = float(words[words.index("--learning-rate") + 1])
        return 40.0 + 10 * ("--init-from" not in words) + (5 if rate == 0.1 else int(words[words.index("--seed") + 1]))

    monkeypatch.setattr(few_pictures, "train", train)
    arguments = ["--data", str(data), "--output", str(tmp_path / "out"), "--pictures", "4", "--seeds", "3"]
    assert few_pictures.main([*arguments, "--rates", "0.1", "0.2"]) == 0
    told = capsys.readouterr().out
    assert "| from nothing | 51.0% | 1.0 | 0.2 |" in told
    assert "| from the other classes' weights | 41.0% | 1.0 | 0.2 |" in told
    assert "2 classes (cat, dog), 4 pictures each" in told and "weights from 2 others (ant, bee)" in told
    assert {name.split("/")[1] for name in pictures(tmp_path / "out" / "known")} == {"ant", "bee"}
    assert len(seen) == 1 + 3 * len(few_pictures.WAYS) * 2
    common = [words[: words.index("--learning-rate")] for folder, words in seen if folder == "few-4-0"]
    assert all(words == common[0] for words in common)


def test_weights_of_ones_own_leave_all_classes_to_draw_from(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(few_pictures, "train", lambda run, folder, words: seen.append(words) or 10.0)
    arguments = ["--data", str(data), "--output", str(tmp_path / "out"), "--pictures", "4", "--seeds", "1"]
    assert few_pictures.main([*arguments, "--rates", "0.1", "--init-from", "cifar_18pct"]) == 0
    assert {name.split("/")[1] for name in pictures(tmp_path / "out" / "few-4-0")} == set(CLASSES)
    begun = [words[words.index("--init-from") + 1] for words in seen if "--init-from" in words]
    assert begun == ["cifar_18pct"] * 2 and len(seen) == len(few_pictures.WAYS)  # and nothing is trained before
    assert "4 classes (ant, bee, cat, dog), 4 pictures each" in (told := capsys.readouterr().out)
    assert "weights: cifar_18pct\n" in told


def test_what_cannot_be_parted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no train/ and test/"):
        few_pictures.main(["--data", str(tmp_path)])
    for split in ("train", "test"):
        (tmp_path / split / "one").mkdir(parents=True)
    with pytest.raises(UserError, match="has 1 classes: at least four"):
        few_pictures.main(["--data", str(tmp_path)])
    with pytest.raises(UserError, match="--seeds 0: at least 1"):
        few_pictures.main(["--data", str(tmp_path), "--seeds", "0"])


def test_gains_are_of_the_same_pictures():
    """Of two rates the better in the mean; each draw against its own in the better way that begins with nothing."""
    others, frozen, nothing, pytorch = few_pictures.WAYS
    errors = {
        (others, 0.1): [10.0, 30.0], (others, 0.2): [50.0, 50.0],
        (frozen, 0.1): [20.0, 20.0], (frozen, 0.2): [18.0, 26.0],
        (nothing, 0.1): [40.0, 20.0], (nothing, 0.2): [16.0, 24.0],
        (pytorch, 0.1): [90.0, 90.0], (pytorch, 0.2): [80.0, 80.0],
    }  # fmt: skip
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in few_pictures.table(errors, [0.1, 0.2]).splitlines()[2:]
    ]
    assert rows == [
        [others, "20.0%", "14.1", "0.1", "0.0 ± 8.5", "1 of 2"],
        [frozen, "20.0%", "0.0", "0.1", "0.0 ± 5.7", "1 of 2"],
        [nothing, "20.0%", "5.7", "0.2", "", ""],
        [pytorch, "80.0%", "0.0", "0.2", "-60.0 ± 5.7", "0 of 2"],
    ]
