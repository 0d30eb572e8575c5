"""Optimizers, trajectories, preprocessing and schedules: clean on both sides."""

from pathlib import Path

import jax.numpy as jnp
import narrow
import numpy as np
import pytest

from parity.alexnet import data_comparison as data
from parity.alexnet import envelope, inputs, pairs, rates, trajectory
from parity.alexnet.trainers import JaxTrainer, TorchTrainer
from parity.settings import RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_optimizers_agree_across_a_drop_of_the_learning_rate(recipe: str) -> None:
    sides = trajectory.trainers(pairs.build("cifar_18pct"), recipe)
    fed = trajectory.material(sides[1].pair, 4, 4, 0.01, drop_after=3)
    assert fed.rates == [0.01, 0.01, 0.01, 0.001]
    rows = trajectory.optimizer_rows(*sides, fed, "cifar_18pct", recipe)
    assert all(row.equal for row in rows), str(trajectory.Report(rows))
    slots = {"blog": {"exp_avg", "exp_avg_sq"}, "torchvision": {"momentum_buffer"}}.get(recipe, {"velocity"})
    assert {row.name for row in rows} == {"loss", "gradients", "parameters", *slots}
    assert max(row.max_error for row in rows if row.name in {"parameters", *slots}) <= 1e-13


def test_free_steps_with_dropout() -> None:
    pair = narrow.pair("caffe_alexnet", classes=10, image_size=71)
    sides = trajectory.trainers(pair, "paper")
    fed = trajectory.material(pair, 2, 2, 1e-3, drop_after=1)
    assert set(fed.masks[0]) == {"drop6", "drop7"}
    rows = trajectory.free_rows(*sides, fed, "caffe_alexnet", "paper")
    assert all(row.equal for row in rows), str(trajectory.Report(rows))


def test_four_free_steps() -> None:
    sides = trajectory.trainers(pairs.build("cifar_18pct"), "cifar")
    rows = trajectory.free_rows(*sides, trajectory.material(sides[1].pair, 4, 2, 1e-3, 2), "cifar_18pct", "cifar")
    assert all(row.equal for row in rows), str(trajectory.Report(rows))
    assert {row.stage for row in rows} == {f"cifar free step {n}" for n in (1, 2, 3, 4)}


def test_a_float32_run_stays_inside_the_envelope() -> None:
    def make() -> tuple[TorchTrainer, JaxTrainer]:
        return trajectory.trainers(pairs.build("cifar_18pct", dtype="float32"), "cifar")

    fed = trajectory.material(make()[1].pair, 12, 4, 1e-3, drop_after=9)
    rows = envelope.envelope_rows(make, fed, "cifar_18pct", "cifar", runs=4)
    assert all(row.equal for row in rows), str(trajectory.Report(rows))
    assert [row.stage for row in rows] == [f"cifar step {n}" for n in (1, 2, 5, 10, 12)]
    assert all(row.max_error > 0 for row in rows)

    def scaled() -> tuple[TorchTrainer, JaxTrainer]:
        torch_side, jax_side = make()
        mean = jax_side.loss
        jax_side.loss = lambda logits, labels: mean(logits, labels) * (1 + 1e-3)
        return torch_side, jax_side

    rows = envelope.envelope_rows(scaled, fed, "cifar_18pct", "cifar", runs=4)
    assert not rows[-1].equal


def test_a_trainer_begins_again_as_if_it_were_new() -> None:
    fed = trajectory.material(pairs.build("cifar_18pct"), 2, 4, 0.01, drop_after=1)
    for side in trajectory.trainers(pairs.build("cifar_18pct"), "paper"):
        ran = []
        for _ in range(2):
            side.restart()
            ran.append([side.weights()])
            for step in range(2):
                _, gradients = side.gradients(fed.images[step], fed.labels[step], fed.masks[step])
                side.update(gradients, fed.rates[step])
                ran[-1] += [side.weights(), side.slots()["velocity"]]
        for first, again in zip(*ran, strict=True):
            assert all(np.array_equal(first[name], array) for name, array in again.items())
        start, *_, end, velocity = ran[0]
        assert all(np.any(start[name] != end[name]) and np.any(velocity[name]) for name in start)


def test_relabelling_runs_tells_chance_from_a_difference(rng: np.random.Generator) -> None:
    alike = [rng.normal(size=50) for _ in range(10)]
    assert envelope.relabelling_p(envelope.pairwise(alike), 5) > 0.05
    apart = alike[:5] + [x + 3 for x in alike[5:]]
    assert envelope.relabelling_p(envelope.pairwise(apart), 5) == envelope.smallest_p(5) == pytest.approx(2 / 252)
    # One run that jumped far says nothing about its group.
    jumped = [*alike[:9], alike[9] + 1000]
    assert envelope.relabelling_p(envelope.pairwise(jumped), 5) > 0.05


@pytest.mark.slow
def test_two_hundred_float32_steps() -> None:
    report = trajectory.run(["cifar_18pct"], ["cifar", "torchvision"], steps=200)
    assert report.exit_code == 0, str(report)


def test_weights_go_to_flax_and_back(rng: np.random.Generator) -> None:
    pair = pairs.build("cifar_13pct")
    trainer = JaxTrainer(pair, "cifar")
    state = {name: rng.normal(size=tuple(p.shape)) for name, p in pair.torch_module.named_parameters()}
    trainer.load(state)
    for name, array in trainer.weights().items():
        np.testing.assert_array_equal(array, state[name])
    assert trainer.params["local3"]["kernel"].dtype == jnp.float64


def test_inputs_and_learning_rates_agree(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(rng.integers(0, 256, (90, 60, 3), np.uint8)).save(tmp_path / "b.jpg", quality=90)
    report = data.run(tmp_path)
    assert report.exit_code == 0, str(report)
    assert {row.name for row in report.rows} == {"decode", "resize", "input", "learning rate"}
    # Five recipes, each with a schedule of its own and all six that a flag may ask for.
    assert sum(row.name == "learning rate" for row in report.rows) == 5 * 7
    # Without noise nothing but the last place may differ.
    evaluation = [row for row in report.rows if row.name == "input" and row.stage.endswith("evaluation")]
    assert max(row.fraction for row in evaluation) <= 1


def test_one_precision_alone() -> None:
    assert {row.dtype for row in inputs.rows(0, ("float32",))} == {"float32", "int"}
    rows = trajectory.run(["cifar_18pct"], ["cifar"], dtype="float32", steps=2, runs=4).rows
    assert {row.name for row in rows} == {"trajectory"}


def test_decoding_without_pictures_counts_as_not_exercised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "rows", lambda seed, dtypes: [])
    monkeypatch.setattr(rates, "rows", list)
    report = data.run()
    assert {row.name for row in report.rows} == {"resize"}
    assert report.equal
    assert report.exit_code == 3
