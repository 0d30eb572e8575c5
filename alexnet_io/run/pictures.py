"""The pictures a finished run leaves: curves, first-layer kernels, confusion matrix.

matplotlib is imported at the end of a run, and a run without it is only warned.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_io.run.evaluation import EvaluationReport
from alexnet_io.run.metrics import read_metrics

FirstKernel = NDArray[np.float32]


def draw(directory: Path, kernel: FirstKernel, report: EvaluationReport) -> str | None:
    """Write curves.png, filters.png and confusion.png into the run's directory.

    Args:
        directory: of the run; its metrics.jsonl is read.
        kernel: weights of the first layer (height, width, channels, filters).
        report: of the evaluation whose confusion matrix is drawn.

    Returns:
        What went wrong, or None: a run that has ended well is not spoilt by its pictures.
    """
    try:
        from alexnet_io.run import plots  # matplotlib is slow to import, and a run needs it only now

        plots.draw_curves(read_metrics(directory), directory / "curves.png")
        plots.draw_filters(kernel, directory / "filters.png")
        plots.draw_confusion(report.confusion, list(report.per_class), directory / "confusion.png")
    except Exception as error:
        return f"the pictures could not all be drawn ({type(error).__name__}: {error}); all else of the run is there"
    return None
