"""The picture of scores over optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dft_eval.report import figures
from dft_eval.report.runs import BASE, Key, Variant
from dft_eval.report.steps import Series


def scores_over_steps(
    lines: Sequence[Series],
    rows: Sequence[Variant],
    titles: Mapping[Key, str],
    *,
    with_base: bool = True,
    dark: bool = False,
) -> bytes:
    """A panel a benchmark and decoding: scores with 95 % intervals, the seeds' range as band.

    The lines of a panel lie side by side, so that the bars of equal steps do not cover each other.

    Args:
        rows: the variants of the report, so that each line keeps the colour of its row.
        titles: of the panels.
        with_base: the base as a dotted line.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with figures.styled(dark=dark):
        columns = min(2, len(titles))
        count = math.ceil(len(titles) / columns)
        figure = Figure(figsize=(max(6.4, 4.8 * columns), 3.7 * count), layout="constrained")
        panels = list(figure.subplots(count, columns, squeeze=False).flat)
        drawn: dict[str, dict[str, Any]] = {}
        for panel, (key, title) in zip(panels, titles.items(), strict=False):
            by_line = {line.name: points for line in lines if (points := line.scored(key))}
            shifts = figures.side_by_side(list(by_line.values()))
            for index, row in enumerate(rows):
                look = {**figures.look_of(index, dark=dark), "linestyle": "-"}
                line = next((line for line in lines if line.row is row), None)
                pooled = row.evaluations.get(key)
                if line is not None and line.name in by_line:
                    drawn[line.name] = look
                    shift = shifts[list(by_line).index(line.name)]
                    _draw(panel, by_line[line.name], look, shift)
                elif not with_base:
                    continue
                elif row.label == BASE and pooled is not None and pooled.score is not None:
                    drawn[BASE] = {"color": look["color"], "linestyle": ":"}
                    panel.axhline(pooled.score, linewidth=1.3, **drawn[BASE])
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
            panel.set_xlabel("optimizer step")
            panel.set_ylabel("score")
            panel.set_title(figures.legend_text(title), loc="left", fontsize=10.5)
        for panel in panels[len(titles) :]:
            panel.set_axis_off()
        figures.legend(figure, list(drawn.items()))
        return figures.png(figure)


def _draw(panel: Any, points: dict[int, Any], look: dict[str, Any], shift: float) -> None:
    """One line: means, 95 % intervals as bars, the range of the seeds as band."""
    color = look["color"]
    places = [step + shift for step in points]
    seeds = [
        [row.score for row in pooled.rows if row.score is not None] for pooled in points.values()
    ]
    if any(len(scores) > 1 for scores in seeds):
        low, high = list(map(min, seeds)), list(map(max, seeds))
        panel.fill_between(places, low, high, color=color, alpha=0.18, linewidth=0)
    for place, pooled in zip(places, points.values(), strict=True):
        if pooled.interval is not None:
            panel.vlines(place, *pooled.interval, color=color, linewidth=1.4, alpha=0.6)
    panel.plot(places, [pooled.score for pooled in points.values()], markersize=5, **look)
