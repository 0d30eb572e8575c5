"""Run what README and docs tell people to run, from a wheel: every command in a fence, and every block of Python.

    python tests/docs_commands.py dist/NAME.whl [PART ...]     # PART: only pages whose names contain it

The wheel is installed into an empty environment, which sees the packages that it needs where this interpreter has
them, and everything runs in a directory with nothing but pictures, models and runs made on the spot: half of the pages
in one copy of it, half in another, side by side. `docs_tables.py` says what stands in
the place of placeholders, what is added so that a command takes seconds (large networks: `--dry-run`), and which
commands can't be run there, and why. A command `python -m MODULE` is that module's `__main__`, in a process that is
forked after the frameworks were imported.

Everything has to exit with 0. A fence without a language holds commands alone: other text is `text` or `json`.
"""

import itertools
import os
import re
import resource
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from docs_tables import ADDED, CHOICES, IN_PYTHON, PLACEHOLDERS, SKIPPED, SPELLINGS, substituted

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INSIDE = "--inside"
NUMBERS = itertools.count()
NOT_COMMANDS = ("text", "json", "yaml")
# Nothing here is about speed: no forms are timed or tried first, and programs are compiled the short way.
QUICK = {
    "JAX_ALEXNET_ONEDNN": "off",
    "JAX_ALEXNET_CALIBRATION": "off",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}


class Task(NamedTuple):
    """Something to be run.

    Attributes:
        page: where it stands.
        text: the command as it is run, or the blocks of Python of a page.
        does: runs it, in a process of its own; ends it with its exit code.
    """

    page: str
    text: str
    does: Callable[[], Any]


def main(words: list[str]) -> int:
    """Install the wheel and start this file from it."""
    wheel, *parts = words
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
        python = place / "venv" / "bin" / "python"
        install = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            wheel,
        ]
        subprocess.run(install, check=True)
        packages = next((place / "venv" / "lib").glob("python*/site-packages"))
        # Behind the environment's own packages; what is installed there for editing isn't seen.
        (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= QUICK | {"HOME": scratch, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
        environment |= {"JAX_COMPILATION_CACHE_DIR": f"{scratch}/compiled"}
        environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3"}
        (place / "work").mkdir()
        called = [python, __file__, INSIDE, *parts]
        return subprocess.run(called, cwd=place / "work", env=environment).returncode


def inside(parts: list[str]) -> int:
    """All that is to be run, from the wheel; returns how many failed."""
    import_frameworks()
    pages = [ROOT / "README.md", ROOT / "README_PYPI.md", *sorted((ROOT / "docs").glob("*.md"))]
    chosen = [page for page in pages if not parts or any(part in page.name for part in parts)]
    used: set[int] = set()
    tasks = [Task("", "what the documents take for granted", prepare)]
    for page in chosen:
        tasks += tasks_of(page, used)
    once: dict[str, Task] = {}
    for task in tasks:  # one that stands on several pages is run where it stands last
        key = task.text if task.text.startswith(("python", "(read)")) else f"{task.page}{task.text}"
        once.pop(key, None)
        once[key] = task
    first, *rest = once.values()
    failed = 0 if succeeds(first) else 1
    failed += failures_side_by_side(halves(rest))
    for number, skipped in enumerate(SKIPPED):
        if not parts and number not in used:
            print(f"no document has what is left out as {skipped.pattern!r}: remove it from tests/docs_tables.py")
            failed += 1
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(one.ru_utime + one.ru_stime for one in spent)
    print(f"{len(once)} ran, {failed} failed, {seconds:.0f} s of CPU time")
    return failed


def halves(tasks: list[Task]) -> list[list[Task]]:
    """Tasks in two parts of about as many, each with whole pages: one page's commands build on another."""
    parts: list[list[Task]] = [[], []]
    for _, page in itertools.groupby(tasks, lambda task: task.page):
        min(parts, key=len).extend(page)
    return parts


def failures_side_by_side(parts: list[list[Task]]) -> int:
    """Run each part in a process and a copy of this directory of its own; returns how many tasks failed."""
    children = []
    for number, part in enumerate(parts):
        place = Path.cwd().with_name(f"part-{number}")
        shutil.copytree(Path.cwd(), place)
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 255  # where not even the counting came to its end
            try:
                os.chdir(place)
                code = min(sum(not succeeds(task) for task in part), 254)
            finally:
                os._exit(code)
        children.append(child)
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def import_frameworks() -> None:
    """What nearly every command imports, once. Nothing of the wheel."""
    for name in (
        "jax",
        "flax",
        "flax.linen",
        "flax.nnx",
        "optax",
        "orbax.checkpoint",
        "grain",
        "torch",
        "matplotlib.pyplot",
    ):
        __import__(name)


def tasks_of(page: Path, used: set[int]) -> Iterator[Task]:
    """The commands of a page in order, and its Python as one program behind them.

    Args:
        page: a Markdown file.
        used: gets the numbers of `SKIPPED` that were needed.
    """
    blocks = []
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            blocks.append(substituted(substituted(block, PLACEHOLDERS), IN_PYTHON))
        elif not language:
            for line in block.replace("\\\n", " ").splitlines():
                yield from task_of(page.name, re.sub(r"\s+#.*", "", line), used)
        elif language not in NOT_COMMANDS:
            raise SystemExit(f"{page.name}: a fence of {language}: leave that out for commands, or say {NOT_COMMANDS}")
    if blocks:
        source = "\n".join(blocks)
        run = compile(source, page.name, "exec")
        yield Task(page.name, f"its {len(blocks)} blocks of Python", lambda: exec(run, {"__name__": "page"}))


def task_of(page: str, line: str, used: set[int]) -> Iterator[Task]:
    """What is to be run for one line, if anything."""
    command = substituted(" ".join(line.split()), CHOICES | PLACEHOLDERS)
    spelt = substituted(command, SPELLINGS)
    for number, skipped in enumerate(SKIPPED):
        if re.match(skipped.pattern, spelt):
            used.add(number)
            if skipped.read:
                yield Task(page, f"(read) {command}", lambda: run_module(spelt, read=True))
            elif command.startswith("make"):
                yield Task(page, f"(read) {command}", lambda: check_targets(command))
            return
    if command:
        added = [words for pattern, words in ADDED.items() if re.match(pattern, spelt)]
        # Of a launcher, too, words at the end are the training program's.
        full = " ".join([command, *added]).replace("runs/NEW", f"runs/{next(NUMBERS)}")
        yield Task(page, full, lambda: run_module(full))


def run_module(command: str, *, read: bool = False) -> None:
    """Run a command here; end with its exit code.

    Args:
        command: `python -m MODULE ...`, or one that the wheel installed.
        read: only parse its words.
    """
    words = shlex.split(command)
    if words[:2] != ["python", "-m"]:
        raise SystemExit(subprocess.run(words).returncode)
    if read:
        from alexnet_io.command_line import settings

        real = settings.parse_given

        def parsed(*arguments: Any) -> Any:
            real(*arguments)
            raise SystemExit(0)

        settings.parse = settings.parse_given = parsed  # pyright: ignore[reportAttributeAccessIssue]
    sys.argv = words[2:]
    sys.path[0] = os.getcwd()
    runpy.run_module(words[2], run_name="__main__", alter_sys=True)


def check_targets(command: str) -> None:
    """Targets that stand behind `make` are the Makefile's."""
    for name in command.split()[1:]:
        if not re.search(rf"^[\w\- ]*\b{re.escape(name)}\b[\w\- ]*:", (ROOT / "Makefile").read_text(), re.M):
            raise SystemExit(f"the Makefile has no {name}")


def succeeds(task: Task) -> bool:
    """Whether it exits with 0, in a process of its own; what it said is shown where it doesn't."""
    began, (said, path) = time.monotonic(), tempfile.mkstemp()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = 1
        try:
            task.does()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
            print(end.code if isinstance(end.code, str) else "", end="")
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(said)
    print(
        f"{'ok    ' if code == 0 else 'FAILED'} {time.monotonic() - began:5.1f} s  {task.page}: {task.text}", flush=True
    )
    if code:
        print(f"exit code {code}\n{Path(path).read_text(errors='replace')[-3000:]}", flush=True)
    os.unlink(path)
    return code == 0


def prepare() -> None:
    """Pictures, models, weights and runs that the documents speak of."""
    import numpy as np
    import safetensors.numpy
    import torch
    import torchvision
    from PIL import Image

    import jax_alexnet

    if not Path(jax_alexnet.__file__).is_relative_to(sys.prefix):
        raise SystemExit(f"{jax_alexnet.__file__} is not the wheel's")
    draw = np.random.default_rng(0)
    wanted = [
        f"pictures/{split}/{kind}/{n}.jpg" for split in ("train", "test") for kind in ("cat", "dog") for n in range(4)
    ]
    wanted += [f"flat/{kind}/{n}.jpg" for kind in ("cat", "dog") for n in range(5)] + ["folder/one.jpg"]
    synsets = {"n01440764": "tench", "n01443537": "goldfish"}
    wanted += [f"ilsvrc/{split}/{s}/{s}_{name}.JPEG" for split in ("train", "val") for s, name in synsets.items()]
    wanted += [f"ilsvrc/train/{synset}/{n}.JPEG" for synset in synsets for n in range(3)]
    for name in [*wanted, "picture.jpg", "a.jpg", "b.jpg"]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(name)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), "alexnet.pth")
    Path("mine.py").write_text(
        "from flax import linen\n\n\nclass Net(linen.Module):\n    @linen.compact\n    def __call__(self, x):\n"
        "        return linen.relu(linen.Conv(4, (3, 3), padding='VALID', name='conv')(x))\n"
    )
    Path("theirs.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__()\n        self.add_module('conv', nn.Conv2d(3, 4, 3))\n"
        "        self.add_module('relu', nn.ReLU())\n"
    )
    state = {"conv.weight": np.zeros((4, 3, 3, 3), np.float32), "conv.bias": np.zeros(4, np.float32)}
    safetensors.numpy.save_file(state, "net.safetensors")
    Path("docs/images").mkdir(parents=True)
    few = "--epochs 1 --batch-size 4 --devices 1"
    for name, module, words in (
        ("runs/cifar", "jax_alexnet.train", "--model cifar_18pct"),
        ("runs/reference", "torch_ref.train", "--model cifar_18pct"),
        ("runs/two_column", "jax_alexnet.train", "--model two_column --image-size 67 --stored-size 71"),
    ):
        whole = f"python -m {module} {words} --data folder:pictures {few} --output {name}"
        subprocess.run(whole.split(), check=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(bool(inside(arguments[1:])) if arguments[0] == INSIDE else main(arguments))
