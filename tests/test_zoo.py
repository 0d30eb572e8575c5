"""The zoo of ports in `examples/zoo`: equal as they are, and bugs planted into them found, placed and explained."""

from collections.abc import Iterator

import pytest

from examples.zoo import clean, planting, port, score

pytestmark = pytest.mark.usefixtures("flax_promotes", "kept")

# A few that are quick, of both libraries and none.
FEW = ("tree", "recommender")
PLANTED = {
    "group_norms": ("deviation_of_the_whole", "layer_for_group_norm"),
    "convnet": ("flattened_rows_kept", "relu_behind_the_pool"),
}


@pytest.fixture(scope="module")
def kept() -> Iterator[None]:
    with port.programs_kept():
        yield


@pytest.mark.parametrize("model", FEW)
def test_a_port_is_equal(model: str) -> None:
    report = port.compare(model)
    assert report.exit_code == 0, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("model", [model for model in port.MODELS if model not in FEW])
def test_every_port_is_equal(model: str) -> None:
    report = port.compare(model)
    assert report.exit_code == 0, str(report)


@pytest.mark.parametrize(("model", "name"), [(model, name) for model, names in PLANTED.items() for name in names])
def test_a_bug_is_found_placed_and_explained(model: str, name: str) -> None:
    [result] = score.run([model], [name])
    assert result.found, score.line(result)
    assert result.bug.equivalent or (result.placed and result.explained), score.line(result)


@pytest.mark.slow
def test_nearly_all_bugs_are_found_placed_and_explained() -> None:
    results = list(score.run(port.MODELS))
    counted = score.Score.of(results)
    told = "\n".join([*map(score.line, results), str(counted)])
    assert counted.found == counted.bugs, told
    assert counted.silent == counted.equivalent, told
    assert counted.placed >= 0.95 * counted.bugs, told
    assert counted.explained >= 0.8 * counted.bugs, told


@pytest.mark.parametrize("model", port.MODELS)
def test_every_bug_can_be_planted(model: str) -> None:
    found = planting.bugs(model)
    assert len({bug.name for bug in found}) == len(found)
    for bug in found:
        assert planting.plant(model, bug).PORT is not None
        assert bool(bug.place) != bool(bug.equivalent), bug.name


def test_a_text_that_does_not_stand_there_is_refused() -> None:
    with pytest.raises(ValueError, match="stands 0 times in the port, not once"):
        planting.plant("tree", planting.Bug("typo", "nothing of the kind", ""))


def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert score.main(["--model", "tree", "--bug", "gelu_by_tanh"]) == 0
    assert "tree, gelu_by_tanh: output 0, outputs" in (told := capsys.readouterr().out)
    assert "found 1 of 1 (100.0%), place first 1 of 1 (100.0%)" in told
    assert clean.main(["--model", "tree", "--runs", "2"]) == 0
    assert "2 runs without a bug, 48 comparisons: 0 alarms" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        score.main(["--model", "tree", "--bug", "nosuch"])
    assert "there is no bug nosuch; choose from" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        clean.main(["--runs", "0"])
    assert "--runs 0: one run at least" in capsys.readouterr().err
