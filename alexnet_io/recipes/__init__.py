"""Trainings with every number of a source, as files of settings: `--config NAME` finds `NAME.yaml` here."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ENDING = ".yaml"


def names() -> list[str]:
    """Of all that come with the project, sorted."""
    return sorted(path.stem for path in FOLDER.glob(f"*{ENDING}"))
