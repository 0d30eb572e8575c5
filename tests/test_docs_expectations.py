"""Every option that the page of expectations names for this project is there."""

import re
from pathlib import Path

import pytest

from alexnet_io.command_line.evaluate_settings import EvaluateSettings
from alexnet_io.command_line.flags import flags_of
from alexnet_io.command_line.train_settings import TrainSettings
from jax_alexnet.__main__ import COMMANDS
from jax_alexnet.export import ExportSettings
from jax_alexnet.features import FeaturesSettings
from jax_alexnet.predict import PredictSettings
from jax_alexnet.summary import SummarySettings

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "expectations.md").read_text(encoding="utf-8")
ROWS = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| ")]
ROWS = [row for row in ROWS if len(row) == 3 and row[0] not in ("what", "---")]
OF = {
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
    "export": ExportSettings,
    "features": FeaturesSettings,
    "predict": PredictSettings,
    "summary": SummarySettings,
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_the_page_says_is_here_is_here(row: list[str]) -> None:
    """A flag belongs to training unless its code names a command; behind it stands one of its values."""
    for code in re.findall(r"`([^`]+)`", row[2]):
        if code.startswith("XLA_FLAGS"):
            continue
        named = re.match(r"(?:python -m jax_alexnet\.)?(\w+) ", code)
        command = named[1] if named and named[1] in OF else "train"
        if code.startswith("python -m jax_alexnet."):
            assert named and named[1] in COMMANDS
        flags = {flag.spelling: flag for flag in flags_of(OF[command])}
        for spelling, value in re.findall(r"(--[a-z][a-z-]*)(?: ([a-z0-9_,]+)(?= |$))?", code):
            if spelling == "--config":  # every command has it
                continue
            assert spelling in flags, f"{command} has no {spelling}"
            if value and flags[spelling].about.get("choices"):
                flags[spelling].check(flags[spelling].read(value))


def test_the_page_has_what_people_ask_for() -> None:
    theirs = " ".join(" ".join(row[:2]) for row in ROWS)
    for word in (
        "--resume", "--evaluate", "--pretrained", "--amp", "--workers", "--mixup", "--model-ema", "callbacks",
        "EarlyStopping", "TensorBoard", "ModelCheckpoint", "model.summary()", "enable_progress_bar", "--seed",
        "deterministic", "num_nodes", "accumulate_grad_batches", "to_onnx",
    ):  # fmt: skip
        assert word in theirs, word
    assert len(ROWS) > 40 and len(re.findall(r"`--[a-z]", " ".join(row[2] for row in ROWS))) > 50
