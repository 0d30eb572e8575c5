"""The guide to porting a model runs as it is written."""

import re
from pathlib import Path

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "port-a-model.md"


def test_the_guide_to_porting_a_model_runs(flax_promotes: None) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 8
    names: dict[str, object] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
