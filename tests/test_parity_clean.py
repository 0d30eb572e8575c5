"""No alarm where there is no bug; and an alarm counts."""

import json
from pathlib import Path
from typing import Any

import pytest

from parity.alexnet import clean_runs
from parity.settings import DTYPES, MODELS


def test_two_hundred_runs_cover_models_dtypes_sizes_and_seeds() -> None:
    chosen = list(clean_runs.plan(200))
    assert {(model, dtype) for model, dtype, *_ in chosen} == {(m, d) for m in MODELS for d in DTYPES}
    assert len({seed for *_, seed in chosen}) == 200
    assert {size for model, _, size, *_ in chosen if not model.startswith("cifar")} == set(clean_runs.SIZES)
    assert {(dtype, gradients) for _, dtype, _, gradients, _ in chosen} == {
        (d, g) for d in DTYPES for g in (True, False)
    }


def test_the_count_of_alarms_decides(tmp_path: Path) -> None:
    quiet = clean_runs.CleanRun("m", "float64", 0, None, False, 20, 0.3, None)
    loud = clean_runs.CleanRun("m", "float64", 1, (67, 67), True, 20, 3.0, "conv1 forward: mismatch")
    assert clean_runs.CleanScore([quiet]).exit_code == 0
    score = clean_runs.CleanScore([quiet, loud])
    assert (score.alarms, score.exit_code) == (1, 1)
    assert "ALARM: conv1" in loud.line
    score.write_json(tmp_path / "c.json")
    read = json.loads((tmp_path / "c.json").read_text())
    assert (read["runs"], read["alarms"]) == (2, 1)


def test_an_alarm_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_runs, "plan", lambda count, seed: iter([("cifar_18pct", "float64", None, False, 3)]))
    assert clean_runs.run(1).alarms == 0
    compare = clean_runs.layers.compare_pair

    def planted(pair: Any, *args: Any, **kwargs: Any) -> Any:
        from parity.mutants import planting

        return compare(planting.jax_row(pair, "rnorm1", k=2.0), *args, **kwargs)

    monkeypatch.setattr(clean_runs.layers, "compare_pair", planted)
    score = clean_runs.run(1)
    assert score.alarms == 1
    assert "rnorm1" in score.runs[0].line


@pytest.mark.slow
def test_no_alarm_in_two_hundred_runs() -> None:
    score = clean_runs.run(200)
    assert score.alarms == 0, "\n".join(run.line for run in score.runs if run.alarm)
