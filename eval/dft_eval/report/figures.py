"""The pictures, as PNG bytes that are the same for the same data.

matplotlib is imported inside the functions. Figures are made without pyplot: neither the backend
nor the settings of the caller are touched, and no window is ever opened.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Collection, Sequence
from statistics import median
from typing import Any

from dft_eval.report.files import CURVES, Points
from dft_eval.report.formats import one_line
from dft_eval.report.runs import Variant, key_name
from dft_eval.report.samples import curves
from dft_eval.results import GREEDY

# Okabe and Ito (2008), without the yellow: safe for colour-blind readers, dark enough on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_AXES = {"nll": "NLL (nats a token)", "mean_token_prob": "mean token probability"}
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5b6470",
    "axes.labelcolor": "#1d2430",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "xtick.color": "#3c4450",
    "ytick.color": "#3c4450",
    "legend.frameon": False,
    "figure.facecolor": "white",
}
_DARK = {
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": "#e6e9ee",
    "text.color": "#e6e9ee",
    "axes.facecolor": "#171b21",
    "figure.facecolor": "#171b21",
    "grid.color": "#2c333c",
    "xtick.color": "#b5bec9",
    "ytick.color": "#b5bec9",
}
_DARK_PALETTE = ("#56B4E9", "#FF9248", "#2BC49A", "#E29BC4", "#FFFFFF", "#E69F00", "#8FA9FF")
SMOOTHING = 0.1
"""Of the steps of a curve: the width of the running mean that is drawn over it."""
_DPI = 160


def styled(*, dark: bool = False) -> Any:
    """A context with the style of all pictures."""
    from matplotlib import style

    return style.context(["default", _STYLE, _DARK if dark else {}])


def look_of(index: int, *, dark: bool = False) -> dict[str, Any]:
    """Colour, line style and marker of the report's row ``index``."""
    palette = _DARK_PALETTE if dark else PALETTE
    return {
        "color": palette[index % len(palette)],
        "linestyle": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def legend_text(label: str) -> str:
    """A label that matplotlib shows as it is: `$` starts no formula, a first `_` hides nothing."""
    text = one_line(label)
    text = text if len(text) <= 40 else f"{text[:39]}…"
    return (" " + text if text.startswith("_") else text).replace("$", r"\$")


def png(figure: Any) -> bytes:
    """The picture's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _finite(values: Sequence[float]) -> list[float]:
    return [value if math.isfinite(value) else math.nan for value in values]


def smoothed(values: Sequence[float], width: int) -> list[float]:
    """Centred running mean over ``width`` values, fewer at the ends; only finite ones count."""
    half = width // 2
    means = []
    for index in range(len(values)):
        near = values[max(0, index - half) : index + half + 1]
        finite = [value for value in near if math.isfinite(value)]
        means.append(math.fsum(finite) / len(finite) if finite else math.nan)
    return means


def side_by_side(lines: Sequence[Collection[int]]) -> list[float]:
    """What to add to the steps of each line of a panel, so that their bars stand side by side.

    At most 1.2 % of the steps from line to line, and all within half of the median distance between
    two steps.
    """
    steps = sorted({step for line in lines for step in line})
    gaps = [after - before for before, after in itertools.pairwise(steps)]
    apart = min(0.012 * sum(gaps), 0.5 * median(gaps) / len(lines)) if gaps else 0.1
    return [(number - (len(lines) - 1) / 2) * apart for number in range(len(lines))]


def legend(figure: Any, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """One legend below the whole figure."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], markersize=5, **look) for _, look in entries]
    labels = [legend_text(label) for label, _ in entries]
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(entries)))


def _mean_and_band(
    curves: Sequence[Points], smooth: bool
) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps that all curves have, their mean, lowest and highest value there."""
    width = max(3, round(SMOOTHING * max(len(curve.steps) for curve in curves))) if smooth else 1
    by_step = [
        dict(zip(curve.steps, smoothed(curve.values, width), strict=True)) for curve in curves
    ]
    steps = sorted(set.intersection(*(set(curve) for curve in by_step)))
    columns = [[curve[step] for curve in by_step] for step in steps]
    means = [math.fsum(column) / len(column) for column in columns]
    return steps, means, list(map(min, columns)), list(map(max, columns))


def _draw(
    panel: Any,
    curves: Sequence[Points],
    look: dict[str, Any],
    edge: str | None = None,
    shift: float = 0.0,
) -> None:
    """The curves of all seeds: raw lines faint, the mean, and the seeds' range as band or bars.

    Args:
        edge: colour around the markers of evaluation; None for training, whose mean is a running
            one.
        shift: added to the steps of evaluation.
    """
    color = look["color"]
    steps, means, low, high = _mean_and_band(curves, smooth=edge is None)
    places = [step + shift for step in steps]
    style: dict[str, Any] = {"color": color, "linewidth": 1.7}
    if edge is None:
        faint = {"color": color, "linewidth": 0.8, "alpha": 0.35 / len(curves) ** 0.5}
        for curve in curves:
            # A line needs two points to be seen.
            lone = look["marker"] if len(curve.steps) == 1 else None
            panel.plot(curve.steps, _finite(curve.values), marker=lone, **faint)
        if len(curves) > 1:
            panel.fill_between(places, low, high, color=color, alpha=0.18, linewidth=0)
    else:
        style |= {"linestyle": ":", "linewidth": 1.1, "marker": look["marker"], "markersize": 6.5}
        style |= {"markeredgecolor": edge, "markeredgewidth": 0.8, "zorder": 3}
        if len(curves) > 1:
            panel.vlines(places, low, high, color=color, linewidth=1.4, alpha=0.6)
    panel.plot(places, _finite(means), **style)


def learning_curves(variants: Sequence[Variant], *, dark: bool = False) -> bytes:
    """NLL and mean token probability against the step: training as lines, evaluation as markers.

    ``variants`` are all of the report, so that each keeps its colour; those without curves are left
    out.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with styled(dark=dark):
        figure = Figure(figsize=(9.0, 3.9), layout="constrained")
        panels = figure.subplots(1, len(CURVES))
        logs = {
            index: [run.curves for run in variant.runs if run.curves]
            for index, variant in enumerate(variants)
        }
        logs = {i: of for i, of in logs.items() if any(log.train or log.evaluation for log in of)}
        looks = {index: {**look_of(index, dark=dark), "linestyle": "-"} for index in logs}
        for panel, name in zip(panels, CURVES, strict=True):
            for index, of_runs in logs.items():
                if train := [log.train[name] for log in of_runs if name in log.train]:
                    _draw(panel, train, looks[index])
            evaluated = {
                index: points
                for index, of_runs in logs.items()
                if (points := [log.evaluation[name] for log in of_runs if name in log.evaluation])
            }
            steps = [
                {step for one in points for step in one.steps} for points in evaluated.values()
            ]
            for (index, points), shift in zip(evaluated.items(), side_by_side(steps), strict=True):
                _draw(panel, points, looks[index], "#171b21" if dark else "white", shift)
            panel.set_xlabel("optimizer step")
            panel.set_title(_AXES[name], loc="left", fontsize=10.5)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(figure, [(variants[index].label, look) for index, look in looks.items()])
        return png(figure)


def pass_at_k(variants: Sequence[Variant], *, dark: bool = False) -> bytes:
    """pass@k against k by benchmark, with 95 % bands; greedy scores as dotted lines."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, PercentFormatter

    by_benchmark = curves(variants)
    with styled(dark=dark):
        columns = min(3, len(by_benchmark))
        rows = math.ceil(len(by_benchmark) / columns)
        figure = Figure(figsize=(max(6.0, 4.4 * columns), 3.6 * rows), layout="constrained")
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        drawn: dict[str, dict[str, Any]] = {}
        for panel, (key, of_runs) in zip(panels, by_benchmark.items(), strict=False):
            for index, (variant, curve) in enumerate(zip(variants, of_runs, strict=True)):
                look = {**look_of(index, dark=dark), "linestyle": "-"}
                greedy = variant.evaluations.get(key._replace(decoding=GREEDY))
                if curve and greedy is not None and greedy.score is not None:
                    panel.axhline(greedy.score, color=look["color"], linestyle=":", linewidth=1.3)
                if curve:
                    drawn[variant.label] = look
                    ks = [point.k for point in curve]
                    low, high = [p.low for p in curve], [p.high for p in curve]
                    panel.fill_between(ks, low, high, color=look["color"], alpha=0.15, linewidth=0)
                    panel.plot(ks, [point.mean for point in curve], markersize=4.5, **look)
            ticks = sorted({point.k for curve in of_runs for point in curve})
            panel.set_xscale("log", base=2)
            panel.set_xticks(ticks, [str(k) for k in ticks])
            panel.xaxis.set_minor_locator(NullLocator())
            panel.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
            panel.set_xlabel("samples k")
            panel.set_ylabel("pass@k")
            panel.set_title(legend_text(key_name(key)), loc="left", fontsize=10.5)
        for panel in panels[len(by_benchmark) :]:
            panel.set_axis_off()
        legend(figure, list(drawn.items()))
        return png(figure)


def token_probabilities(variants: Sequence[Variant], *, dark: bool = False) -> bytes:
    """Share of tokens by the probability that the model gives them; logarithmic ordinate.

    Of several seeds the tokens are pooled. ``variants`` are all of the report, so that each keeps
    its colour; those without probabilities are left out.
    """
    series: list[tuple[str, Sequence[int], Sequence[float]] | None] = []
    for variant in variants:
        seeds = [run.probabilities for run in variant.runs if run.probabilities]
        counts = [sum(column) for column in zip(*(seed.counts for seed in seeds), strict=True)]
        series.append((variant.label, counts, seeds[0].bin_edges) if seeds else None)
    return probability_histogram(series, dark=dark)


def probability_histogram(
    series: Sequence[tuple[str, Sequence[int], Sequence[float]] | None], *, dark: bool = False
) -> bytes:
    """(label, tokens a bin, bin edges) of each model as shares; logarithmic ordinate.

    A ``None`` keeps its place among the colours and is not drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    with styled(dark=dark):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        panel = figure.subplots()
        drawn: list[tuple[str, dict[str, Any]]] = []
        smallest = 1.0
        for index, one in enumerate(series):
            if one is None:
                continue
            label, counts, edges = one
            look = {**look_of(index, dark=dark), "marker": None}
            drawn.append((label, look))
            shares = [count / sum(counts) for count in counts]
            smallest = min([smallest, *(share for share in shares if share > 0)])
            panel.stairs(
                shares,
                edges,
                baseline=None,
                linewidth=1.8,
                color=look["color"],
                linestyle=look["linestyle"],
            )
        panel.set_yscale("log", nonpositive="clip")
        panel.set_ylim(smallest / 2, 1.0)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        panel.set_xlabel("probability of the token")
        panel.set_ylabel("share of tokens in the bin")
        legend(figure, drawn)
        return png(figure)
