"""What a picture of the report shows, read from the figure that it is saved from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dft_eval.report import figures


def panels_of(draw: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The panels of the first figure that ``draw`` saves."""
    saved: list[Figure] = []
    save = figures.png

    def keep(figure: Figure) -> bytes:
        saved.append(figure)
        return save(figure)

    monkeypatch.setattr(figures, "png", keep)
    draw()
    return [panel for panel in saved[0].axes if panel.axison]


def bars(panel: Axes) -> list[tuple[float, float, float]]:
    """Abscissa, lower and upper end of each vertical bar."""
    return [
        (segment[0][0], segment[0][1], segment[1][1])
        for collection in panel.collections
        if isinstance(collection, LineCollection)
        for segment in collection.get_segments()
    ]


def lines_of(panel: Axes) -> list[Line2D]:
    """The lines of points, without those that cross the whole panel."""
    return [line for line in panel.get_lines() if line.get_marker() != "None"]
