"""Checkpoints: what goes in comes out, wherever it was made, and the right ones are kept."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from alexnet_io.errors import UserError
from jax_alexnet.files import checkpoint, checkpoint_arrays


@flax.struct.dataclass
class TrainState:
    step: jax.Array
    params: dict
    opt_state: optax.OptState


def params_of(seed: int) -> Any:
    numbers = np.random.default_rng(seed)
    return {
        "conv1": {
            "kernel": jnp.asarray(numbers.normal(size=(3, 3, 2, 4)).astype(np.float32)),
            "bias": jnp.asarray(numbers.normal(size=4).astype(jnp.bfloat16)),
        },
        "fc8": {"kernel": jnp.asarray(numbers.normal(size=(8, 5)))},
    }


def train_state(seed: int) -> TrainState:
    params = params_of(seed)
    chain = optax.chain(optax.add_decayed_weights(5e-4), optax.adam(1e-4))
    return TrainState(jnp.asarray(seed, jnp.int32), params, chain.init(params))


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_every_leaf_comes_back_bit_for_bit_in_its_structure(tmp_path):
    state = train_state(3)
    path = checkpoint.save(tmp_path, 3, state, {"model": "single_column"}, metric=0.5)

    template = jax.eval_shape(lambda: train_state(3))  # shapes alone: nothing is allocated for a restore
    restored = checkpoint.restore(path, template)

    chex.assert_trees_all_equal(restored.state, jax.tree.map(np.asarray, state))
    chex.assert_trees_all_equal_dtypes(restored.state, state)
    assert isinstance(restored.state, TrainState)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored.state))
    assert (restored.step, restored.metric, restored.metadata) == (3, 0.5, {"model": "single_column"})


@jax.numpy_dtype_promotion("standard")  # optax's Adam raises a float to the power of an integer
def test_restored_optimizer_state_can_go_on(tmp_path):
    """Without a template optax's NamedTuples would come back as lists and dicts, and `update` would fail."""
    params, chain = params_of(0), optax.chain(optax.add_decayed_weights(5e-4), optax.adam(1e-4))
    update = jax.jit(chain.update)
    _, once = update(params, chain.init(params), params)
    expected, _ = update(params, once, params)

    path = checkpoint.save(tmp_path, 1, {"opt_state": once}, {})
    back: Any = checkpoint.restore(path, {"opt_state": chain.init(params)}).state["opt_state"]

    assert type(back[1][0]) is type(once[1][0])
    chex.assert_trees_all_equal(update(params, jax.device_put(back), params)[0], expected)


def test_scalars_keys_and_values_that_compress_to_nothing(tmp_path):
    state = {
        "epoch": 7,
        "learning_rate": 0.1,
        "big": np.int64(2**60 + 1),
        "key": jax.random.key(5),
        "zeros": np.zeros((4, 3), np.float32),
        "not_finite": np.array([np.nan, np.inf, -0.0], np.float32),
        "absent": None,
        "mask": np.array([True, False]),
    }
    restored: dict[str, Any] = checkpoint.restore(checkpoint.save(tmp_path, 0, state, {}), state).state

    assert (int(restored["epoch"]), float(restored["learning_rate"])) == (7, 0.1)
    assert int(restored["big"]) == 2**60 + 1
    assert restored["absent"] is None
    assert jax.random.bits(restored["key"]) == jax.random.bits(state["key"])
    for name in ("zeros", "not_finite", "mask"):
        assert restored[name].tobytes() == state[name].tobytes()


def test_a_part_of_the_state_can_be_restored_alone(tmp_path):
    state = train_state(1)
    path = checkpoint.save(tmp_path, 1, state, {})
    restored = checkpoint.restore(path, {"params": state.params}, partial=True)
    chex.assert_trees_all_equal(restored.state["params"], jax.tree.map(np.asarray, state.params))
    with pytest.raises(UserError, match="opt_state/1/0/count is only in the checkpoint"):
        checkpoint.restore(path, {"params": state.params})


def test_relative_paths_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = checkpoint.save("runs/a", 1, {"w": np.arange(3)}, {})
    assert path == tmp_path / "runs/a/step_00000001"
    restored = checkpoint.restore("runs/a/step_00000001", {"w": np.arange(3)})
    newest = checkpoint.restore_newest("runs/a", {"w": np.arange(3)})
    assert newest is not None
    assert restored.path == newest.path == path


def test_the_two_newest_and_the_best_are_kept(tmp_path):
    for step, metric in enumerate([0.1, 0.9, 0.3, 0.9, 0.4, None, float("nan")]):
        checkpoint.save(tmp_path, step, {"w": np.full(2, step)}, {}, metric=metric)
    assert names_in(tmp_path) == ["step_00000001", "step_00000005", "step_00000006"]
    best, newest = checkpoint.best(tmp_path), checkpoint.newest(tmp_path)
    assert best is not None and best.step == 1  # the earliest of equals
    assert newest is not None and newest.step == 6


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoint.save(tmp_path, 4, {"w": np.zeros(2)}, {}, metric=0.1)
    path = checkpoint.save(tmp_path, 4, {"w": np.ones(2)}, {}, metric=0.2)
    restored = checkpoint.restore(path, {"w": np.ones(2)})
    assert (restored.state["w"].tolist(), restored.metric) == ([1, 1], 0.2)
    assert names_in(tmp_path) == ["step_00000004"]


def test_nothing_saved_yet_is_no_error(tmp_path):
    assert checkpoint.restore_newest(tmp_path / "none", {"w": np.ones(2)}) is None
    assert checkpoint.best(tmp_path) is None
    assert checkpoint.newest(tmp_path) is None


def test_metadata_are_plain_json_and_exact(tmp_path):
    """A file of ours never needs a pickle: numpy scalars become numbers."""
    facts = {"best": np.float32(0.1), "plateau": {"bad_epochs": np.int64(3), "best": 1 / 3}, "names": ("a", "é\udcff")}
    path = checkpoint.save(tmp_path, 1, {"w": np.ones(2)}, facts)
    expected = {"best": float(np.float32(0.1)), "plateau": {"bad_epochs": 3, "best": 1 / 3}, "names": ["a", "é\udcff"]}
    assert checkpoint.restore(path, {"w": np.ones(2)}).metadata == expected
    assert json.loads((path / "manifest.json").read_bytes())["metadata"] == expected


@pytest.mark.multi_device
def test_arrays_on_four_devices_are_restored_whole_and_without_any_device(tmp_path):
    assert jax.device_count() >= 4
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4], axis_types=(AxisType.Auto,))
    whole = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    specs = {"replicated": PartitionSpec(), "split": PartitionSpec("data")}
    state = {name: jax.device_put(whole, NamedSharding(mesh, spec)) for name, spec in specs.items()}
    assert all(len(array.sharding.device_set) == 4 for array in state.values())
    path = checkpoint.save(tmp_path, 1, state, {})

    restored = checkpoint.restore(path, state).state
    assert [array.tobytes() for array in restored.values()] == [whole.tobytes()] * 2
    assert not list(path.rglob("*sharding*"))
    code = (
        "import jax, numpy as np, sys\n"
        "from jax_alexnet.files import checkpoint\n"
        "assert jax.device_count() == 1\n"
        "like = np.zeros((8, 3), np.float32)\n"
        "state = checkpoint.restore(sys.argv[1], {'replicated': like, 'split': like}).state\n"
        "for array in state.values():\n"
        "    print(np.asarray(jax.device_put(array)).tobytes().hex())\n"
    )
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_PLATFORMS": "cpu"}
    child = subprocess.run(
        [sys.executable, "-c", code, path], env=environment, capture_output=True, text=True, timeout=120
    )
    assert child.stdout.split() == [whole.tobytes().hex()] * 2, child.stderr


def test_two_processes_restore_what_one_saved(tmp_path):
    """orbax waits for every process by default; here one saves alone and each restores alone."""
    code = (
        "import sys, jax, numpy as np\n"
        "index, port, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]\n"
        "jax.distributed.initialize(f'localhost:{port}', 2, index)\n"
        "from jax_alexnet.files import checkpoint\n"
        "from jax._src.distributed import global_state\n"
        "assert jax.process_count() == 2\n"
        "if index == 0:\n"
        "    with checkpoint.BackgroundSaver(directory) as saver:\n"
        "        saver.save(5, {'w': np.arange(6.0)}, {})\n"
        "global_state.client.wait_at_barrier('saved', 60_000)\n"
        "print(checkpoint.restore_newest(directory, {'w': np.arange(6.0)}, read_only=True).state['w'].tolist())\n"
    )
    port = str(_free_port())
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(index), port, tmp_path],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        outputs = [child.communicate(timeout=120) for child in children]
    finally:
        for child in children:
            child.kill()
    assert [out.strip() for out, _ in outputs] == ["[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]"] * 2, outputs


def test_background_saving_keeps_the_state_of_its_moment(tmp_path):
    """The step after the save may donate, and so overwrite, the very buffers that are being saved."""
    step = jax.jit(lambda w: w + 1, donate_argnums=0)
    w, mutable = jnp.zeros(100_000), np.zeros(10)
    with checkpoint.BackgroundSaver(tmp_path) as saver:
        saver.save(1, {"w": w, "mutable": mutable}, {})
        mutable += 1
        for _ in range(3):
            w = step(w)
        path = saver.wait()
        assert saver.wait() is None
    assert path is not None
    restored = checkpoint.restore(path, {"w": w, "mutable": mutable}).state
    assert not restored["w"].any()
    assert not restored["mutable"].any()


def test_an_error_of_a_background_save_is_raised_at_the_next_call(tmp_path):
    (tmp_path / "file").write_text("in the way")
    saver = checkpoint.BackgroundSaver(tmp_path / "file" / "checkpoints")
    saver.save(1, {"w": np.ones(2)}, {})
    with pytest.raises(UserError, match="file/checkpoints/step_00000001"):
        saver.save(2, {"w": np.ones(2)}, {})
    saver.save(2, {"w": np.ones(2)}, {})
    with pytest.raises(UserError, match="file/checkpoints/step_00000002"):
        saver.close()


def test_two_leaves_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="same path"):
        checkpoint_arrays.to_host({"a": {"b": 1}, "a/b": 2})


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
