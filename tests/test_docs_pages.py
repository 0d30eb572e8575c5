"""Pages for people: their links lead somewhere, and what they say of options is so. `make docs` holds anchors, too."""

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

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
GENERATED = {ROOT / "docs" / "commands.md"}  # by `make docs`
PAGE = (ROOT / "docs" / "expectations.md").read_text(encoding="utf-8")
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    """An index of packages has no files: its page links to the web alone."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https://", target):
            continue
        assert page.name != "README_PYPI.md", target
        path = (page.parent / target.partition("#")[0]).resolve() if target[0] != "#" else page
        assert path.exists() or path in GENERATED, target


def test_every_page_is_in_the_sites_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert f"{page.relative_to(ROOT / 'docs')}\n" in contents, page


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


def spelt_out(name: str) -> list[str]:
    """The names that one with braces stands for, as a shell takes it."""
    braces = re.search(r"\{([^{}]*)\}", name)
    if braces is None:
        return [name]
    return [
        each
        for word in braces[1].split(",")
        for each in spelt_out(name[: braces.start()] + word + name[braces.end() :])
    ]


def test_the_architecture_page_names_files_that_are_there() -> None:
    """In a row, a name without a folder stands in the folder that was named before it, or beside it."""
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        folder = ROOT
        for name in re.findall(r"`([\w/{},*]+(?:\.py|/))`", line):
            if not line.startswith("|") and "/" not in name:
                continue
            for each in spelt_out(name):
                found = [path for there in (folder, folder.parent, ROOT) for path in there.glob(each)]
                assert found, f"{name}: {line[:80]}"
                folder = found[0] if found[0].is_dir() else found[0].parent
