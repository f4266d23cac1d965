"""The picture of scores over optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dft_eval.report import figures
from dft_eval.report.runs import BASE, Variant, key_name
from dft_eval.report.steps import Series, line_keys


def scores_over_steps(
    lines: Sequence[Series], rows: Sequence[Variant], *, dark: bool = False
) -> bytes:
    """A panel a benchmark and decoding: scores with 95 % intervals, the seeds' range as band.

    ``rows`` are the variants of the report, so that each line keeps the colour of its row;
    the base is a dotted line.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    variants = [variant for line in lines for variant in line.variants.values()]
    keys = line_keys(lines, variants)
    with figures.styled(dark=dark):
        columns = min(2, len(keys))
        height = 3.7 * math.ceil(len(keys) / columns)
        figure = Figure(figsize=(max(6.4, 4.8 * columns), height), layout="constrained")
        panels = list(figure.subplots(math.ceil(len(keys) / columns), columns, squeeze=False).flat)
        drawn: dict[str, dict[str, Any]] = {}
        for panel, key in zip(panels, keys, strict=False):
            for index, row in enumerate(rows):
                look = {**figures.look_of(index, dark=dark), "linestyle": "-"}
                line = next((line for line in lines if line.row is row), None)
                pooled = row.evaluations.get(key)
                if line is not None and (points := line.scored(key)):
                    drawn[line.name] = look
                    _draw(panel, points, look)
                elif row.label == BASE and pooled is not None and pooled.score is not None:
                    drawn[BASE] = {"color": look["color"], "linestyle": ":"}
                    panel.axhline(pooled.score, linewidth=1.3, **drawn[BASE])
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
            panel.set_xlabel("optimizer step")
            panel.set_ylabel("score")
            panel.set_title(figures.legend_text(key_name(key)), loc="left", fontsize=10.5)
        for panel in panels[len(keys) :]:
            panel.set_axis_off()
        figures.legend(figure, list(drawn.items()))
        return figures.png(figure)


def _draw(panel: Any, points: dict[int, Any], look: dict[str, Any]) -> None:
    """One line: means, 95 % intervals as bars, the range of the seeds as band."""
    color = look["color"]
    seeds = [
        [row.score for row in pooled.rows if row.score is not None] for pooled in points.values()
    ]
    if any(len(scores) > 1 for scores in seeds):
        low, high = list(map(min, seeds)), list(map(max, seeds))
        panel.fill_between(list(points), low, high, color=color, alpha=0.18, linewidth=0)
    for step, pooled in points.items():
        if pooled.interval is not None:
            panel.vlines(step, *pooled.interval, color=color, linewidth=1.4, alpha=0.45)
    panel.plot(list(points), [pooled.score for pooled in points.values()], markersize=5, **look)
