"""The pictures a finished run leaves: curves, first-layer kernels, confusion matrix."""

from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.evaluation import EvaluationReport
from alexnet_io.metrics import read_metrics


def draw(directory: Path, params: Any, report: EvaluationReport) -> None:
    """Write curves.png, filters.png and confusion.png into the run's directory.

    Args:
        directory: of the run; its metrics.jsonl is read.
        params: {layer: {"kernel", "bias"}}.
        report: of the evaluation whose confusion matrix is drawn.
    """
    from alexnet_io import plots

    plots.draw_curves(read_metrics(directory), directory / "curves.png")
    plots.draw_filters(np.asarray(params["conv1"]["kernel"], np.float32), directory / "filters.png")
    plots.draw_confusion(report.confusion, list(report.per_class), directory / "confusion.png")
