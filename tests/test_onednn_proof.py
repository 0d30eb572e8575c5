"""Whether oneDNN's calls work is found out by a process of its own, which may find faults, die or hang, and kept."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from commands import run as run_here

from jax_alexnet.ops.cpu import onednn, proof, prover

# A prover with something planted into the calls that it proves, for which `{}` stands.
PLANTED = """
import os, signal, sys, time
import jax.numpy as jnp
from jax_alexnet.ops.cpu import onednn, prover

convolve, product = onednn.convolve, onednn.product
{}
prover.main()
"""
RIGHT = "print('{\"wrong\": null}')"
NOBODY = (sys.executable, "-c", "raise SystemExit('nobody should have been asked')")


def there(dtype: str) -> None:
    """Skip where oneDNN isn't usable without anything planted."""
    if reason := onednn.reason_against(jnp.dtype(dtype)):
        pytest.skip(f"oneDNN can't be used here: {reason}")


def planted(tmp_path: Path, code: str) -> tuple[str, ...]:
    script = tmp_path / "prover.py"
    script.write_text(PLANTED.format(code))
    return sys.executable, str(script)


def answers(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(directory.glob("onednn-*.json"))]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_proven_once(dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there(dtype)
    facts = proof.circumstances(dtype)
    capsys.readouterr()
    assert proof.kept_or_proven(facts, tmp_path / "new") is None
    assert capsys.readouterr().err == f"checking oneDNN in {dtype} once (some 3 s)\n"
    (kept,) = answers(tmp_path / "new")
    assert (kept["against"], kept["circumstances"]) == (None, facts)
    assert proof.kept_or_proven(facts, tmp_path / "new", NOBODY) is None
    assert capsys.readouterr().err == ""


convolve, product = onednn.convolve, onednn.product


def of_few_digits(x: jax.Array, kernel: jax.Array, **place: Any) -> jax.Array:
    """Of numbers of 8 bits instead of 24, of which whole numbers show nothing."""
    x, kernel = (each.astype(jnp.bfloat16).astype(each.dtype) for each in (x, kernel))
    return convolve(x, kernel, **place)


def without_dilation(*arrays: jax.Array, dilation: int = 1, **place: Any) -> jax.Array:
    """Wrong only in kernels' gradients with strides, which are convolutions with dilations."""
    return convolve(*arrays, dilation=dilation, **place) * (2 - (dilation < 4))


def of_exchanged_groups(x: jax.Array, kernel: jax.Array, groups: int = 1, **place: Any) -> jax.Array:
    """Two groups that see each other's channels."""
    return convolve(x[..., ::-1] if groups > 1 else x, kernel, groups=groups, **place)


@pytest.mark.parametrize(
    ("dtype", "name", "wrong", "words"),
    [
        ("float32", "convolve", of_few_digits, "float32 the sum of a convolution"),
        ("bfloat16", "convolve", without_dilation, "the kernels' gradient of a convolution of 3 maps of 31x31x3"),
        ("float32", "convolve", of_exchanged_groups, "2 group(s) came out wrong"),
        ("bfloat16", "product", lambda a, b, **k: product(a, b, **k).at[-1, -1].add(1e-2), "a product of"),
        ("float32", "product", lambda a, b, **k: product(a, b, **k) + float("nan"), "such as nan for"),
    ],
)
def test_wrong_results_are_found(
    dtype: str, name: str, wrong: Callable[..., jax.Array], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there(dtype)
    monkeypatch.setattr(onednn, name, wrong)
    with proof.assumed():
        found = next(prover.differences(prover.CASES, jnp.dtype(dtype)))
    assert words in found and "came out wrong" in found


def test_a_wrong_result_turns_it_off(tmp_path: Path) -> None:
    there("float32")
    code = "onednn.convolve = lambda *a, **k: 1.001 * convolve(*a, **k)"
    reason = proof.kept_or_proven(proof.circumstances("float32"), tmp_path, planted(tmp_path, code))
    assert reason is not None and "float32 the sum of a convolution" in reason and "came out wrong" in reason
    (kept,) = answers(tmp_path)
    assert kept["against"] in reason and kept["good_for"] is None
    assert proof.kept_or_proven(proof.circumstances("float32"), tmp_path, NOBODY) == reason


@pytest.mark.parametrize(
    ("code", "words", "good_for"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV", None),
        ("os.abort()", "ended by SIGABRT", None),
        ("sys.exit('no such call')", "exit code 1: no such call", proof.PASSING_S),
        ("print('no JSON'); os._exit(0)", "gave no answer", proof.PASSING_S),
        ("signal.alarm(1); time.sleep(600)", "had not ended after 0.25 s", proof.PASSING_S),
        ("time.sleep(600)", "had not ended", 86400.0),  # nor ended itself
    ],
)
def test_a_prover_that_dies_or_hangs_turns_it_off(
    code: str, words: str, good_for: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "_GRACE_S", 0.25 if code.startswith("time") else 60.0)
    prover = (sys.executable, "-c", f"import os, signal, sys, time; {code}")
    facts = proof.circumstances("float32")
    reason = proof.kept_or_proven(facts, tmp_path, prover, limit=0.25)
    assert reason is not None and words in reason and "have it checked again remove" in reason
    (kept,) = answers(tmp_path)
    assert kept["good_for"] == good_for
    assert proof.kept_or_proven(facts, tmp_path, NOBODY) == reason


def test_a_prover_that_hangs_ends_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the seconds that it was given, whether or not anybody waits for it any more."""
    monkeypatch.setattr(proof, "_GRACE_S", 60.0)
    hanging = planted(tmp_path, "onednn.convolve = lambda *a, **k: time.sleep(600)")
    began = time.monotonic()
    reason = proof.kept_or_proven(proof.circumstances("float32"), tmp_path, hanging, limit=1)
    assert reason is not None and "had not ended after 1 s" in reason
    assert time.monotonic() - began < 60


def test_an_end_from_outside_says_nothing(tmp_path: Path) -> None:
    killed = planted(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    reason = proof.kept_or_proven(proof.circumstances("float32"), tmp_path, killed)
    assert reason is not None and "ended by SIGKILL" in reason and "remove" not in reason
    assert answers(tmp_path) == []
    missing = proof.kept_or_proven(proof.circumstances("float32"), tmp_path, ("/no/such/python",))
    assert missing is not None and "can't be started" in missing


def test_only_a_reference_implementation_is_none(tmp_path: Path) -> None:
    told = "MatMul reference implementation being executed"
    slow = (sys.executable, "-c", f"import sys; print({told!r}, file=sys.stderr); {RIGHT}")
    reason = proof.kept_or_proven(proof.circumstances("float32"), tmp_path, slow)
    assert reason is not None and "slow" in reason


def test_what_passes_is_forgotten_after_a_day_and_damage_at_once(tmp_path: Path) -> None:
    facts = proof.circumstances("float32")
    right = (sys.executable, "-c", RIGHT)
    assert "exit code 1" in str(proof.kept_or_proven(facts, tmp_path, NOBODY))
    (path,) = tmp_path.glob("onednn-*.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"time": content["time"] - proof.PASSING_S}))
    assert proof.kept_or_proven(facts, tmp_path, right) is None
    for damaged in ("", "[]", "{}", '{"against": 3', json.dumps(content | {"circumstances": {}})):
        path.write_text(damaged)
        assert "exit code 1" in str(proof.kept_or_proven(facts, tmp_path, NOBODY))


@pytest.mark.parametrize("place", ["a file", "a file/below", None])
def test_where_nothing_can_be_kept_it_is_proven_each_time(place: str | None, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    directory = None if place is None else tmp_path / place
    right = (sys.executable, "-c", RIGHT)
    assert proof.kept_or_proven(proof.circumstances("float32"), directory, right) is None
    reason = proof.kept_or_proven(proof.circumstances("float32"), directory, NOBODY)
    assert reason is not None and "exit code 1" in reason and "remove" not in reason


def test_of_several_at_once_one_proves(tmp_path: Path) -> None:
    counting = f"import time; open({str(tmp_path / 'asked')!r}, 'a').write('x'); time.sleep(1); {RIGHT}"
    facts, found = proof.circumstances("float32"), []
    prover = (sys.executable, "-c", counting)
    threads = [
        threading.Thread(target=lambda: found.append(proof.kept_or_proven(facts, tmp_path, prover))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == 4 * [None]
    assert (tmp_path / "asked").read_text() == "x"


def test_what_an_answer_depends_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On version, processor, machine and settings; not on what has nothing to do with computing on CPUs."""
    first = proof.circumstances("float32")
    right = (sys.executable, "-c", RIGHT)
    assert proof.kept_or_proven(first, tmp_path, right) is None
    flags = os.environ["XLA_FLAGS"]

    def same() -> bool:
        monkeypatch.setattr(proof, "_known", {})
        return proof.kept_or_proven(proof.circumstances("float32"), tmp_path, NOBODY) is None

    for name, value in (("ONEDNN_VERBOSE", "1"), ("XLA_FLAGS", f"{flags} --xla_gpu_autotune_level=0"), ("TZ", "UTC")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert same()
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_DEFAULT_FPMATH_MODE", "XLA_FLAGS"):
        with monkeypatch.context() as patch:
            patch.setenv(name, f"{os.environ.get(name, '')} --anything")
            assert not same()
    with monkeypatch.context() as patch:
        patch.setattr(proof.jaxlib, "__version__", "99.0")
        assert not same()
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "another machine")
        assert not same()
    with monkeypatch.context() as patch:
        patch.setattr(proof, "processor", lambda: {"flags": "avx2"})
        assert not same()
    assert proof.circumstances("bfloat16") != first
    assert same()


def test_answers_are_kept_where_images_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(proof, "kept_or_proven", lambda facts, directory: asked.append(directory))
    monkeypatch.setattr(proof, "_known", {})
    monkeypatch.setattr(proof, "_directory", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for directory in (None, tmp_path, tmp_path / "of another machine", None):
        proof.keep_in(directory)
        proof.reason_against("float32")
    assert asked == [tmp_path / "jax_alexnet", tmp_path]  # each once


def test_without_need_it_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where oneDNN is switched off or the process computes on GPUs."""

    def never(dtype: str) -> None:
        raise AssertionError(dtype)

    monkeypatch.setattr(proof, "reason_against", never)
    float32 = jnp.dtype("float32")
    assert not onednn.usable(float32, "xla")
    assert "devices are of the kind gpu" in onednn.status(float32, "auto", "gpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not onednn.usable(float32, "auto")
    monkeypatch.setenv(onednn.SWITCH, "off")
    assert f"{onednn.SWITCH}=off" in onednn.status(float32)


# --- In whole runs, with something planted into the process that proves by Python's own hook

SITE = """
import sys
if "jax_alexnet.ops.cpu.prover" in sys.orig_argv:
    {}
"""


SETTINGS = ("--model", "cifar_18pct", "--data", "synthetic:train=64,test=32", "--batch-size", "16")


@pytest.fixture
def usable() -> None:
    """oneDNN is, as far as is known outside the test."""
    there("float32")


@pytest.fixture
def train_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """Trains in this process, as if nothing were known in it yet; the one that proves is another in any case."""

    def train(*words: str, site: str = "pass", code: int = 0) -> SimpleNamespace:
        (tmp_path / "site").mkdir(exist_ok=True)
        (tmp_path / "site" / "sitecustomize.py").write_text(SITE.format(site))
        monkeypatch.setattr(proof, "_known", {})
        monkeypatch.setattr(proof, "_directory", None)
        return run_here("train", *SETTINGS, *words, devices=1, code=code)

    monkeypatch.setattr("alexnet_io.run.loop.pictures.draw", lambda *_: None)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return train


@pytest.mark.usefixtures("usable")
@pytest.mark.parametrize(
    ("site", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", "the process that checked it was ended by SIGSEGV"),
        (
            "from jax_alexnet.ops.cpu import onednn; right = onednn.convolve\n"
            "    onednn.convolve = lambda *a, **k: right(*a, **k) + 1",
            "float32 the sum of a convolution",
        ),
    ],
)
def test_training_goes_on_without_it(
    site: str, words: str, train_here: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    # The second time without a step: what it would compute is the same.
    trained = ("--epochs", "1") if "kill" in site else ("--dry-run",)
    done = train_here(*trained, "--output", str(tmp_path / "run"), site=site)
    assert done.stderr.count("checking oneDNN in float32 once") == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("oneDNN"))
    assert line.startswith("oneDNN is not used: ") and words in line and "XLA's own forms" in line
    if "--dry-run" not in trained:
        assert json.loads((tmp_path / "run" / "run.json").read_text())["convolutions"] == line
    again = train_here("--dry-run", site=site)
    assert "checking" not in again.stderr and line in again.stdout.splitlines()


def test_bfloat16_without_its_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN ends the process there, which only the proof finds out; float32 goes on with AVX2."""
    there("bfloat16")
    monkeypatch.setattr(proof, "_directory", tmp_path)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # read by the process that proves; nothing is computed in this one
    refused = onednn.status(jnp.dtype("bfloat16"))
    assert refused.startswith("oneDNN is not used: the process that checked it was ended by")
    assert "could not create a primitive descriptor" in refused
    assert onednn.status(jnp.dtype("float32")).startswith("oneDNN computes convolutions in float32")


def test_one_switch_for_every_program(
    train_here: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_ALEXNET_ONEDNN", "off")
    done = train_here("--dry-run")
    assert "oneDNN is not used: JAX_ALEXNET_ONEDNN=off leaves it out" in done.stdout
    assert "checking" not in done.stderr
    monkeypatch.setenv("JAX_ALEXNET_ONEDNN", "maybe")
    done = train_here("--dry-run", code=2)
    assert "JAX_ALEXNET_ONEDNN=maybe is neither on nor off" in done.stderr and "Traceback" not in done.stderr


def test_the_compilation_cache_makes_no_noise(tmp_path: Path) -> None:
    there("float32")
    program = (
        "import jax, jax.numpy as jnp; from jax_alexnet.ops import convolution; "
        "x, k = jnp.ones((2, 5, 5, 8), jnp.float32), jnp.ones((3, 3, 8, 8), jnp.float32); "
        "conv = lambda x, k: convolution.conv(x, k, stride=1, padding=1, groups=1, cpu='onednn'); "
        "program = jax.jit(conv).lower(x, k); assert '__onednn' in program.as_text(); "
        "program.compile(); print('done')"
    )
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr
    assert "persistent compilation cache" not in done.stderr
