"""What each program's engine does in one process: orders, rates, averages, what it agrees to, traces, what it keeps."""

import contextlib
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import torch

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from alexnet_io.run.directory import RunDirectory
from jax_alexnet import engine as jax_engine
from jax_alexnet import recipes as jax_recipes
from jax_alexnet import run_setup as jax_setup
from jax_alexnet.engine import JaxEngine
from torch_ref import engine as torch_engine
from torch_ref import resolved_settings as torch_recipes
from torch_ref import run_setup as torch_setup
from torch_ref.engine import TorchEngine
from torch_ref.processes import Processes
from torch_ref.steps import Votes

# Three steps an epoch: 21 images in batches of 8.
WORDS: dict[str, Any] = {
    "model": "cifar_18pct", "recipe": "torchvision", "image_size": 16, "batch_size": 8, "devices": "1",
    "learning_rate": 0.5, "normalize": "half", "data": "synthetic:classes=2,train=21,test=2",
}  # fmt: skip


def engine(side: str, directory: RunDirectory | None = None, **words: Any) -> Any:
    settings = TrainSettings(**{**WORDS, **words})
    if side == "jax":
        return JaxEngine(jax_setup.prepare(jax_recipes.resolve(settings)), directory)
    group = Processes(0, 1, torch.device("cpu"))
    return TorchEngine(torch_setup.prepare(torch_recipes.resolve(settings), group), directory)


@pytest.mark.parametrize("side", ["jax", "torch"])
def test_each_epoch_has_an_order_of_its_own_and_is_entered_anywhere(side: str) -> None:
    asked = engine(side)
    epochs = [[batch.ids[batch.weights > 0].tolist() for batch in asked.batches(step)] for step in (0, 3, 4)]
    first, second, rest = ([place for batch in epoch for place in batch] for epoch in epochs)
    assert [len(epoch) for epoch in epochs] == [3, 3, 2] and second[8:] == rest
    assert sorted(first) == sorted(second) == list(range(21))
    assert first != second and list(range(21)) not in (first, second)


@pytest.mark.parametrize("side", ["jax", "torch"])
def test_the_first_rate_that_is_asked_for_may_be_of_any_epoch(side: str) -> None:
    """A resumed run's is; of six steps of warmup the fifth has five sevenths."""
    for step, share in ((0, 1 / 7), (4, 5 / 7), (8, 1.0)):
        asked = engine(side, schedule="constant", warmup_steps=6)
        assert asked.learning_rate(step) == pytest.approx(0.5 * share, rel=1e-14)


# --- JAX's ------------------------------------------------------------------------------------------------


def test_a_step_of_jax_is_handed_out_and_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sums are still on the devices: the loop fetches them a step later."""
    named: list[Any] = []

    def annotation(name: str, step_num: int) -> Any:
        named.append((name, step_num))
        return contextlib.nullcontext()

    monkeypatch.setattr(jax_engine.jax.profiler, "StepTraceAnnotation", annotation)
    sums, given = object(), []

    def step(*words: Any) -> Any:
        given.append(words)
        return len(given), sums

    setup: Any = SimpleNamespace(train_step=step, on_devices=lambda batch: batch, key="key", statistics="statistics")
    asked: Any = JaxEngine.__new__(JaxEngine)
    asked.setup, asked.state = setup, 0
    assert asked.runs_ahead
    for number in (0, 1, 2, 5):
        assert asked.train("batch", number, 0.5) is sums
    assert named == [("train", number) for number in (1, 2, 3, 6)]
    assert [words[0] for words in given] == [0, 1, 2, 3] and asked.state == 4
    assert all((words[1], float(words[2]), *words[3:]) == ("batch", 0.5, "key", "statistics") for words in given)


def test_jaxs_trace_has_a_file_for_perfetto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(jax.profiler, "trace", lambda *words, **more: asked.append((words, more)))
    JaxEngine.trace(JaxEngine.__new__(JaxEngine), tmp_path)
    assert asked == [((tmp_path,), {"create_perfetto_trace": True})]


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    """A run of JAX under a plateau, whose directory has checkpoints of its beginning and of step 2."""
    with RunDirectory(tmp_path / "run") as directory:
        made = engine("jax", directory, schedule="plateau", output=directory.path)
        made.start()
        made.count_error(0.75)
        with made.saving(directory):
            for step in (0, 2):
                made.save(step, {"step": step})
                made.save_best(step, {"step": step}, 0.25 + step / 8)
        yield made, directory


def again(made: JaxEngine, directory: RunDirectory | None, step: int | None = None) -> tuple[JaxEngine, list[Any]]:
    """The same run in a process; what the first of several says is `step`, and else what this one does."""
    told: list[Any] = []

    def from_first(own: int) -> int:
        told.append(own)
        return own if step is None else step

    processes: Any = SimpleNamespace(count=1, say=told.append, from_first=from_first)
    return JaxEngine(dataclasses.replace(made.setup, processes=processes), directory), told


def test_jax_keeps_one_best_and_goes_on_from_the_newest(kept: Any) -> None:
    made, directory = kept
    assert [path.name for path in (directory.path / "best").iterdir()] == ["step_00000002"]
    resumed, told = again(made, directory)
    step, facts = resumed.restore() or pytest.fail("nothing was found")
    assert (step, facts["step"]) == (2, 2)
    assert told == [2, f"resumed after step 2 from {directory.checkpoints / 'step_00000002'}"]
    assert resumed.plateau is not None and resumed.plateau.state() == made.plateau.state()
    assert resumed.plateau.best == 0.75
    same = jax.tree.map(
        lambda one, other: bool((np.asarray(one) == np.asarray(other)).all()), made.state, resumed.state
    )
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("step", [0, 2])
def test_another_process_reads_what_the_first_one_found(kept: Any, step: int) -> None:
    made, directory = kept
    other, told = again(made, None, step)
    found = other.restore()
    assert found is not None and found[0] == found[1]["step"] == step
    assert told[1] == f"resumed after step {step} from {directory.checkpoints / f'step_{step:08d}'}"


def test_where_the_first_process_found_nothing_no_other_looks(kept: Any, tmp_path: Path) -> None:
    """What the first sends is no step at all."""
    made, _ = kept
    with RunDirectory(tmp_path / "empty") as empty:
        first, told = again(made, empty)
        assert first.restore() is None
    (sent,) = told
    assert sent < 0
    other, _ = again(made, None, sent)
    assert other.restore() is None


def test_weights_from_elsewhere_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of JAX: unless they are there already; of PyTorch, where a run that goes on found no checkpoint, too."""
    for given in (None, "given"):
        made: Any = JaxEngine.__new__(JaxEngine)
        made.setup = SimpleNamespace(start=given, new_state=lambda: "state")
        monkeypatch.setattr(jax_engine, "starting_weights", lambda setup: "read")
        made.start()
        assert (made.setup.start, made.state) == (given or "read", "state")
    for init_from, given, read in (("run", None, True), ("run", "given", False), (None, None, False)):
        put: list[Any] = []
        found = SimpleNamespace(put_into=put.append)
        monkeypatch.setattr(torch_engine, "read_starting_weights", lambda *_, found=found: found)
        theirs: Any = TorchEngine.__new__(TorchEngine)
        settings, data = SimpleNamespace(init_from=init_from), SimpleNamespace(class_names="ab")
        theirs.setup = SimpleNamespace(settings=settings, start=given, data=data, network="network")
        theirs.start()
        assert put == ["network"] * read


# --- PyTorch's --------------------------------------------------------------------------------------------


def test_pytorchs_average_begins_with_the_first_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64: 0.75 of it and 0.25 of the new weights after each step. Each step is named by its number."""
    named: list[str] = []
    record = torch.profiler.record_function
    monkeypatch.setattr(torch.profiler, "record_function", lambda name: (named.append(name), record(name))[1])
    asked = engine("torch", ema=0.75, precision="float64")

    def weights(network: Any) -> np.ndarray:
        return torch.cat([value.detach().flatten() for value in network.parameters()]).numpy().copy()

    expected, batch = weights(asked.setup.network), next(iter(asked.batches(0)))
    for step in range(3):
        asked.train(batch, step, 0.5)
        expected = 0.75 * expected + 0.25 * weights(asked.setup.network)
        np.testing.assert_allclose(weights(asked.setup.average.module), expected, rtol=1e-13, atol=1e-16)
    assert np.abs(expected - weights(asked.setup.network)).max() > 1e-3
    assert [name for name in named if name.startswith("step ")] == ["step 1", "step 2", "step 3"]


def test_pytorch_goes_on_from_its_newest_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with RunDirectory(tmp_path / "run") as directory:
        made = engine("torch", directory, ema=0.75, schedule="plateau")
        assert made.restore() is None
        made.setup.average.update_parameters(made.setup.network)
        for value in made.setup.network.parameters():  # the average is of other weights from now on
            value.data += 1
        made.count_error(0.75)
        made.save(3, {"best": 0.5})
        resumed = engine("torch", directory, ema=0.75, schedule="plateau")
        assert resumed.restore() == (3, {"best": 0.5})
        assert capsys.readouterr().out == f"resumed after step 3 from {directory.checkpoints}\n"
        assert resumed.setup.plateau.best == 0.75
        for before, after in ((made.setup.network, resumed.setup.network), (made.setup.average, resumed.setup.average)):
            pairs = zip(before.state_dict().values(), after.state_dict().values(), strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)
        for names in (["a", "b"], ["x", "y"]):  # those of the data lie between these
            resumed.setup.data = SimpleNamespace(class_names=names)
            with pytest.raises(UserError, match="the data has other classes than the run's checkpoint: pass the run's"):
                resumed.restore()
        (path,) = directory.checkpoints.iterdir()
        path.write_bytes(b"damaged")
        with pytest.raises(UserError, match=r"no checkpoint in .* is intact"):
            resumed.restore()


def test_pytorchs_processes_agree_one_step_late() -> None:
    """Alone, each gets its own wish; of several one that wants to save is enough."""
    for count in (1, 2, 3):
        asked: Any = TorchEngine(SimpleNamespace(group=SimpleNamespace(count=count)), None)  # type: ignore[arg-type]
        assert asked.agree(15, True) == ((15, True) if count == 1 else (0, False))
        for save in (0, 1, 2):
            asked._agreed = Votes(0.0, 0.0, float(save))
            assert asked.agree(0, False) == (0, save > 0 and count > 1)
            asked._agreed = Votes(0.0, 1.0, float(save))
            assert asked.agree(15, False) == (15, save > 0 and count > 1)


@pytest.mark.parametrize(("device", "kinds"), [("cpu", ["CPU"]), ("cuda", ["CPU", "CUDA"])])
def test_pytorchs_trace_is_of_the_devices_that_it_has(
    device: str, kinds: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Into a directory that is made, with all above it, or there already."""
    seen: list[Any] = []

    class Profile(contextlib.nullcontext):
        def __init__(self, activities: list[Any]) -> None:
            seen.append([activity.name for activity in activities])
            super().__init__(SimpleNamespace(export_chrome_trace=lambda path: Path(path).write_text("trace")))

    monkeypatch.setattr(torch.profiler, "profile", Profile)
    setup: Any = SimpleNamespace(group=SimpleNamespace(device=SimpleNamespace(type=device)))
    for _ in range(2):
        with TorchEngine(setup, None).trace(tmp_path / "deep" / "trace"):
            pass
    assert seen == [kinds] * 2
    assert (tmp_path / "deep" / "trace" / "trace.json").read_text() == "trace"
