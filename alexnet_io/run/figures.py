"""How the pictures of a run are made: matplotlib's Agg alone, without pyplot: no display, no global state."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any, Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from alexnet_io.files import atomic_file

DPI = 120
TRAIN, VALIDATION, TEST, INK = "#0072b2", "#009e73", "#d55e00", "#333333"  # told apart by colour-blind readers too


def blank(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """A figure of so many inches, of `DPI` pixels each."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def percent() -> Any:
    """Writes a share as whole per cent."""
    return PercentFormatter(1, decimals=0)


def png(figure: Figure) -> bytes:
    """The figure as a PNG, its axes open above and to the right."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # class names in any script
        figure.savefig(image, format="png")
    return image.getvalue()


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write the figure as a PNG; returns its absolute path.

    Raises:
        UserError: it can't be written.
    """
    absolute = Path(path).absolute()
    atomic_file.write_bytes(absolute, png(figure))
    return absolute
