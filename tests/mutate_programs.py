"""Plants bugs into the training programs, one at a time, and sees whether their tests notice: `make mutants-programs`.

cosmic-ray makes the bugs (operators exchanged, constants changed, conditions turned, branches and decorators dropped);
here they are drawn evenly over the files, planted into a copy of the tree, and tried on the tests of their own file in
a forked process, in which the frameworks are loaded already. What these let pass meets the twin runs.
"""

import ast
import dataclasses
import importlib
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import harmless_mutants
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from tests_of_files import TESTS

from alexnet_io.command_line.settings import parse, setting

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("alexnet_io", "jax_alexnet", "torch_ref", "parity")
SLOWER, LEAST_SECONDS = 8, 60  # a bug after which tests take so many times as long as without it hangs: it is found

# Two want to be told of a variable; `is` for `==` is the same for small numbers and for names.
NOT_USED = ("core/VariableReplacer", "core/VariableInserter")
TWINS = ["the twin runs"]  # in the place of tests: `parity runs --recipe all`

FRAMEWORKS = ("numpy", "jax", "flax.linen", "optax", "orbax.checkpoint", "torch", "torchvision", "grain")
FRAMEWORKS += ("matplotlib.pyplot", "PIL.Image", "safetensors.numpy", "sklearn.datasets", "yaml")


@dataclass(frozen=True)
class Settings:
    """Plant bugs into the training programs and see whether their tests notice."""

    mutants: int = setting(160, "how many, drawn evenly over the files", minimum=1)
    seed: int = setting(0, "of the drawing", minimum=0)
    only: str | None = setting(None, "part of a file's name: only these")
    workers: int = setting(2, "tests run at a time", minimum=1)
    twins: bool = setting(True, "let what the tests of the file passed meet the twin runs")
    json: Path | None = setting(None, "write the outcomes to this file")


@dataclass
class Mutant:
    """One planted bug.

    Attributes:
        file: where.
        line: number of the first line that it changes.
        before: that line.
        after: the line in its place.
        code: the whole file.
        outcome: `killed`, `killed by the twin runs`, or `survived`.
        seconds: the tests took.
    """

    file: str
    line: int
    before: str
    after: str
    code: str = dataclasses.field(repr=False)
    outcome: str = ""
    seconds: float = 0.0

    @property
    def harmless(self) -> str | None:
        """Why no test could notice it; None where one could."""
        return harmless_mutants.reason(ROOT, self.file, self.line, self.before, self.after)

    def __str__(self) -> str:
        return f"{self.outcome}: {self.file}:{self.line}: {self.before}  ->  {self.after} ({self.seconds:.0f} s)"


def drawn_from(file: str, generator: random.Random) -> Iterator[Mutant]:
    """The bugs that cosmic-ray can plant in a file and that leave it another program, in random order."""
    source = (ROOT / file).read_text(encoding="utf-8")
    tree, seen = get_ast(source), {ast.dump(ast.parse(source))}
    places = []
    for name in plugins.operator_names():
        if name in NOT_USED or name.endswith(("_Is", "_IsNot")):
            continue
        operator = plugins.get_operator(name)()
        count = sum(1 for node in ast_nodes(tree) for _ in operator.mutation_positions(node))
        places += [(operator, occurrence) for occurrence in range(count)]
    generator.shuffle(places)
    for operator, occurrence in places:
        code = mutate_code(source, operator, occurrence)
        try:
            other = ast.dump(ast.parse(code or ""))
        except SyntaxError:
            continue
        if other not in seen and code and (changed := _changed(file, source, code)) is not None:
            seen.add(other)
            yield changed


def _changed(file: str, source: str, code: str) -> Mutant | None:
    for number, (before, after) in enumerate(zip(source.splitlines(), code.splitlines(), strict=False), start=1):
        if before != after:
            # Annotations are never run, and `|` in them is no operation.
            annotation = "|" in before and ("->" in before or ": " in before.partition("=")[0])
            return None if annotation else Mutant(file, number, before.strip(), after.strip(), code)
    return None


def draw(count: int, seed: int, only: str | None) -> list[Mutant]:
    """`count` bugs, as many from each file as it has them, at random within a file."""
    sources = [drawn_from(file, random.Random(f"{seed} {file}")) for file in TESTS if only is None or only in file]
    drawn: list[Mutant] = []
    while len(drawn) < count and sources:
        round_of_all = [next(source, None) for source in sources]
        sources = [source for source, mutant in zip(sources, round_of_all, strict=True) if mutant]
        drawn += [mutant for mutant in round_of_all if mutant]
    return drawn[:count]


def load_frameworks() -> None:
    """What every test needs and takes seconds to import; nothing of this project, and no device is touched."""
    importlib.import_module("conftest")  # JAX reads its switches when it is imported
    for name in FRAMEWORKS:
        importlib.import_module(name)


def run_tests(words: list[str], tree: Path, limit: float) -> bool:
    """Whether tests, or `TWINS`, pass on the project in `tree`, in a process of its own and within so many seconds."""
    process = os.fork()
    if process == 0:
        try:
            os.setsid()
            os.chdir(tree)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            sys.path[:] = [str(tree), *(place for place in sys.path if Path(place or ".").resolve() != ROOT)]
            os.environ["PYTHONPATH"] = str(tree)
            for name in list(sys.modules):  # whatever of this project is there is the original
                if name.partition(".")[0] in (*PACKAGES, "conftest"):
                    del sys.modules[name]
            if words == TWINS:
                os.environ["XLA_FLAGS"] = ""  # these run for longer than they are compiled
                from parity.twins import program

                os._exit(0 if program.run().equal else 1)
            import pytest

            os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *words])))
        finally:
            os._exit(99)
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def attempt(mutant: Mutant, source: Path, limits: dict[str, float]) -> Mutant:
    """Plant a bug into a copy of the tree at `source` and run what should notice, each within its limit."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        tree = copy_of_the_tree(Path(place), source)
        (tree / mutant.file).write_text(mutant.code, encoding="utf-8")
        words, twins = TESTS[mutant.file], str(TWINS)
        if not run_tests(words, tree, limits[str(words)]):
            mutant.outcome = "killed"
        elif twins in limits and not run_tests(TWINS, tree, limits[twins]):
            mutant.outcome = "killed by the twin runs"
        else:
            mutant.outcome = "survived"
    mutant.seconds = time.monotonic() - began
    return mutant


def limits_of(tried: list[list[str]], tree: Path, pool: Executor) -> dict[str, float]:
    """In how many seconds each of these must be done: they are run without a bug, and all must pass.

    What fails anyway would count any bug as noticed.
    """

    def timed(words: list[str]) -> tuple[bool, float]:
        began = time.monotonic()
        return run_tests(words, tree, math.inf), time.monotonic() - began

    found = dict(zip(map(str, tried), pool.map(timed, tried), strict=True))
    red = [words for words, (green, _) in found.items() if not green]
    if red:
        sys.exit(f"without a bug these fail, or find no test: {'; '.join(red)}")
    return {words: max(LEAST_SECONDS, SLOWER * seconds) for words, (_, seconds) in found.items()}


def copy_of_the_tree(place: Path, source: Path = ROOT) -> Path:
    """The packages, tests and settings of pytest."""
    for name in (*PACKAGES, "tests"):
        shutil.copytree(source / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(source / "pyproject.toml", place)
    return place


def main() -> int:
    """Draw, plant, test and count; 0 if at least nine of ten were noticed."""
    settings = parse(Settings, "python tests/mutate_programs.py")
    drawn = draw(settings.mutants, settings.seed, settings.only)
    print(f"{len(drawn)} bugs in {len({mutant.file for mutant in drawn})} files", flush=True)
    load_frameworks()
    done = []
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(settings.workers) as pool:
        as_it_was = copy_of_the_tree(Path(place))  # the project may be worked on meanwhile
        tried = [list(words) for words in dict.fromkeys(tuple(TESTS[mutant.file]) for mutant in drawn)]
        limits = limits_of([*tried, TWINS] if settings.twins else tried, as_it_was, pool)
        print(f"without a bug all is green; limits of {min(limits.values()):.0f} to {max(limits.values()):.0f} s")
        for mutant in pool.map(lambda one: attempt(one, as_it_was, limits), drawn):
            done.append(mutant)
            print(mutant, flush=True)
            if settings.json:  # as far as it came
                _write(settings.json, done)
    harmless = [mutant for mutant in done if mutant.outcome == "survived" and mutant.harmless]
    killed = [m for m in done if m.outcome != "survived"]
    counted = len(done) - len(harmless)
    for mutant in harmless:
        print(f"changes nothing: {mutant.file}:{mutant.line}: {mutant.after}  ({mutant.harmless})")
    print(f"{len(killed)} of {counted} noticed ({len(killed) / max(counted, 1):.1%}); {len(harmless)} change nothing")
    return 0 if len(killed) >= 0.9 * counted else 1


def _write(path: Path, done: list[Mutant]) -> None:
    rows = [{k: v for k, v in vars(m).items() if k != "code"} for m in done]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
