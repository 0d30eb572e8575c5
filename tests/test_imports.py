"""The arrows between the packages, each held in a fresh process."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
loaded = {name.partition(".")[0] for name in sys.modules}
print(" ".join(sorted(loaded & set(sys.argv[2].split(",")))))
if "jax" in sys.modules:
    from jax._src import xla_bridge
    print("devices used:", bool(xla_bridge._backends))
"""


def _run(code, *words):
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")


def test_the_jax_side_knows_nothing_of_the_pytorch_side_and_touches_no_device():
    found = _run(_IMPORT_ALL, "jax_alexnet", "torch,torchvision,torch_ref,parity,tensorflow")
    assert found[:2] == ["", "devices used: False"]


def test_what_both_sides_share_loads_neither_framework():
    found = _run(_IMPORT_ALL, "alexnet_io", "jax,flax,torch,torchvision,jax_alexnet,torch_ref,parity,tensorflow")
    assert found[0] == ""


@pytest.mark.parametrize("package", ["jax_alexnet", "alexnet_io", "torch_ref", "parity"])
def test_importing_a_package_alone_loads_nothing_heavy(package):
    code = f"import sys, {package}; print(sorted({{'jax', 'flax', 'torch', 'numpy', 'grain'}} & set(sys.modules)))"
    assert _run(code)[0] == "[]"


def test_the_package_offers_its_names():
    code = "import jax_alexnet; print([getattr(jax_alexnet, name).__name__ for name in jax_alexnet.__all__[1:]])"
    assert _run(code)[0] == "['AlexNet', 'Variant', 'load_run', 'local_response_norm']"


ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("jax_alexnet", "torch_ref", "alexnet_io", "parity")


def late_imports(tree: ast.Module) -> Iterator[int]:
    """Lines of a module at which a function imports something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (each.lineno for each in ast.walk(node) if isinstance(each, ast.Import | ast.ImportFrom))


def test_what_a_function_imports_is_a_promise_that_its_file_makes():
    """`--help` that answers at once, a package that only some need: the docstring says so, or it goes to the top."""
    silent = []
    for file in sorted(path for package in PRODUCT for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        lines = sorted(set(late_imports(tree)))
        if lines and not re.search(r"\b(imports|imported|loaded)\b", ast.get_docstring(tree) or "", re.IGNORECASE):
            silent.append(f"{file.relative_to(ROOT)}:{lines}")
    assert not silent
