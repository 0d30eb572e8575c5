"""The harness finds planted bugs, in the right place and by the right name. All of them: `make mutants`, or -m slow."""

import html
import json
from pathlib import Path

import pytest

from parity.alexnet import rates
from parity.mutants import page, pairs_of_bugs, trials
from parity.mutants.score import Outcome, PairOutcome, Score

# On the small CIFAR nets, so that the whole file takes seconds.
QUICK = ("36-", "38-", "44-", "45-local-positions-torch", "34-vjp-rnorm", "34-vjp-pool", "30-", "33-", "23-", "27-")


@pytest.fixture(scope="module")
def score() -> Score:
    """Of learning rates one network, whose recipe drops them: over all of them they take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rates, "MODELS", ("cifar_13pct",))
        return trials.run(QUICK)


def test_planted_bugs_are_killed_and_named(score: Score) -> None:
    told = "\n".join(outcome.line for outcome in score.outcomes)
    assert len(score.outcomes) >= 15
    assert score.count("survived") == 0, told
    assert score.share("layer_right") == 1, told
    assert score.share("cause_right") == 1, told
    assert score.exit_code == 0


def test_the_score_as_json(score: Score, tmp_path: Path) -> None:
    score.write_json(tmp_path / "m.json")
    read = json.loads((tmp_path / "m.json").read_text())
    assert read["killed"] == len(score.outcomes)
    assert {"survived", "equivalent", "not_exercised", "layer_right", "cause_right"} <= set(read)
    assert {"id", "side", "verdict", "layer", "cause"} <= set(read["mutants"][0])
    assert {entry["side"] for entry in read["mutants"]} == {"jax", "torch"}


def test_the_score_as_a_page(score: Score, tmp_path: Path) -> None:
    page.write(score, tmp_path / "m.html")
    shown = (tmp_path / "m.html").read_text()
    assert all(html.escape(outcome.title) in shown for outcome in score.outcomes)
    assert "class=bad" not in shown
    missed = Score([Outcome("b", 1, "a <bug>", "jax", "survived")])
    page.write(missed, tmp_path / "m.html")
    assert "<tr class=bad><td class=l>1. a &lt;bug&gt;" in (tmp_path / "m.html").read_text()


def test_mutants_of_one_network_or_precision() -> None:
    chosen = trials.run(["36-", "38-"], model="cifar_18pct", dtype="float64")
    assert {o.id for o in chosen.outcomes} >= {"36-rnorm-size-jax", "38-pool-area-torch"}
    with pytest.raises(ValueError, match="no mutant is planted into caffenet in bfloat16"):
        trials.run(model="caffenet", dtype="bfloat16")
    assert pairs_of_bugs.run(["36-rnorm-size-jax", "38-pool-area-torch"], model="caffe_alexnet") == []


def test_every_row_of_the_table_has_a_mutant_and_both_sides() -> None:
    from parity.mutants import data, steps

    numbers = {(m.number, m.side) for m in trials.all_mutants()}
    numbers |= {(entry[1], entry[3]) for entry in (*steps.step_mutants(),)}
    numbers |= {(entry[1], entry[3]) for entry in data.data_mutants()}
    assert {number for number, _ in numbers} >= set(range(1, 35))
    assert {number for number in range(1, 35) if (number, "jax") in numbers} == set(range(1, 35))
    # Resizing is one function for both sides.
    assert {number for number in range(1, 35) if (number, "torch") not in numbers} == {32}


def test_a_survivor_or_a_wrong_name_fails_the_score() -> None:
    killed = Outcome("a", 1, "", "jax", "killed", layer_right=True, cause_right=True)
    survived = Outcome("b", 1, "", "jax", "survived")
    assert Score([killed]).exit_code == 0
    assert Score([killed, survived]).exit_code == 1
    wrong = Outcome("c", 1, "", "jax", "killed", layer_right=False, cause_right=True)
    assert Score([killed, wrong]).exit_code == 1


def test_two_bugs_at_once_are_both_named() -> None:
    outcomes = pairs_of_bugs.run(["36-rnorm-size-jax", "38-pool-area-torch"])
    assert [outcome.ids for outcome in outcomes] == [("36-rnorm-size-jax", "38-pool-area-torch")]
    assert outcomes[0].layers_right, outcomes[0].line
    assert outcomes[0].causes_right, outcomes[0].line
    assert set(outcomes[0].layers) >= {"rnorm1", "pool2"}


def test_a_pair_of_which_one_bug_is_missed_fails_the_score() -> None:
    killed = Outcome("a", 1, "", "jax", "killed", layer_right=True, cause_right=True)
    missed = PairOutcome(("a", "b"), ["conv1"], ["stride"], layers_right=True, causes_right=False)
    score = Score([killed], [missed])
    assert score.exit_code == 1
    assert "both causes 0" in score.summary


@pytest.mark.slow
def test_all_mutants() -> None:
    score = trials.run()
    assert score.exit_code == 0, "\n".join(outcome.line for outcome in score.outcomes)
    assert score.count("equivalent") >= 4


@pytest.mark.slow
def test_all_pairs_of_mutants() -> None:
    outcomes = pairs_of_bugs.run()
    assert len(outcomes) == len(pairs_of_bugs.PAIRS)
    assert all(o.layers_right and o.causes_right for o in outcomes), "\n".join(o.line for o in outcomes)
