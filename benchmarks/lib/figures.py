"""The look of benchmarks' figures, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {  # matplotlib types its keys as a literal of all names
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
    "svg.hashsalt": "raysgd-local",
}


def save(figure: Figure, path: Path) -> None:
    """Write the figure without the date: the same figure gives the same bytes."""
    figure.savefig(path, metadata={"Date": None})
