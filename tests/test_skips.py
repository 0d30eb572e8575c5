"""What was not run for lack of a processor, a compiler or a GPU is said at the end of a run, in one line."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import conftest
import pytest

pytest_plugins = "pytester"
MODULE = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_of_onednn(number):
    pytest.skip("oneDNN can't be used here: no AVX-512")

def test_of_the_compiler():
    pytest.skip("there is no GPU compiler:\\n  run make gpu-compiler")

@pytest.mark.gpu
@pytest.mark.parametrize("number", range(2))
def test_on_a_gpu(number): ...

@pytest.mark.slow
def test_slow(): ...

def test_that_runs(): ...
"""


def test_each_reason_is_said_once_with_its_number_of_tests(pytester: pytest.Pytester):
    """Under this suite's own conftest, with the options that it is run with by default."""
    pytester.makeconftest(Path(conftest.__file__).read_text())
    pytester.makeini("[pytest]\naddopts = -m 'not slow and not gpu'\nmarkers = \n  slow\n  gpu\n")
    pytester.makepyfile(MODULE)
    assert [line for line in pytester.runpytest_inprocess().outlines if "NOT RUN" in line] == [
        "NOT RUN on this machine, 6 tests: 3 because oneDNN can't be used here: no AVX-512; 2 because they need a GPU, "
        "run them with: python -m pytest -m gpu; 1 because there is no GPU compiler: run make gpu-compiler"
    ]


def test_nothing_is_said_where_nothing_is_lacking():
    said: list[str] = []
    terminal: Any = SimpleNamespace(stats={}, write_line=lambda line, **_: said.append(line))
    config: Any = SimpleNamespace(stash={})
    conftest.pytest_terminal_summary(terminal, config)
    assert said == []


def test_who_chooses_tests_by_name_is_not_told_of_others():
    config: Any = SimpleNamespace(stash={}, option=SimpleNamespace(keyword="pooling"))
    item: Any = SimpleNamespace(get_closest_marker=lambda name: name == "gpu", config=config)
    conftest.pytest_deselected([item])
    assert config.stash == {}
    config.option.keyword = ""
    conftest.pytest_deselected([item])
    assert config.stash == {conftest.WITHOUT_GPU: 1}
