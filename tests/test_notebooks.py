"""The notebooks: committed as they ran, small, and still running."""

import json
import os
from pathlib import Path

import pytest
from absolute_paths import absolute_paths

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def text(outputs: list[dict]) -> str:
    return "".join("".join(output.get("text", "")) for output in outputs if output.get("name") == "stdout")


def test_there_are_some() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["alexnet_layer_by_layer", "fine_tune_your_pictures"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_committed_as_they_ran_from_top_to_bottom_and_are_small(path: Path) -> None:
    assert path.stat().st_size < 400_000
    assert [cell["execution_count"] for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert absolute_paths(path.read_text()) == []
    assert "/home/" not in path.read_text() and "/tmp/" not in path.read_text()


@pytest.mark.slow
@pytest.mark.matrix
@pytest.mark.filterwarnings("default")  # of the kernel's client: nothing of ours runs in this process
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_run(path: Path, tmp_path: Path) -> None:
    """In a kernel as a user has it: without what the tests choose for JAX as a whole."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    env |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute(env=env)
    found = {cell["source"]: text(cell["outputs"]) for cell in notebook.cells if cell["cell_type"] == "code"}
    if path.stem == "alexnet_layer_by_layer":
        assert any("equal: 76 comparisons" in said for said in found.values())
        assert any("first divergence: model: rnorm1, forward" in said for said in found.values())
    else:
        (line,) = [said for said in found.values() if "error on 300 test pictures" in said]
        fine_tuned, last, nothing = (float(part.split("%")[0]) for part in line.strip().splitlines())
        assert last < nothing - 5 and fine_tuned < nothing - 3
