"""The look of benchmarks' figures, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SALT = "raysgd-local"  # of the identifiers in an SVG file
STYLE: dict[Any, Any] = {  # matplotlib types its keys as a literal of all names
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
}


def save(figure: Figure, path: Path) -> None:
    """Write the figure with fixed identifiers and no date: the same figure gives the same bytes."""
    import matplotlib as mpl  # workers import this module too, and draw nothing

    with mpl.rc_context({"svg.hashsalt": SALT}):
        figure.savefig(path, metadata={"Date": None})
