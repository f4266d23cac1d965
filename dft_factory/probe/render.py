"""A probe as Markdown, as one self-contained HTML file and as a picture.

Tokens and texts are foreign: made visible, then escaped by the template engine.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval.report.figures import probability_histogram
from dft_eval.report.formats import visible
from dft_eval.report.render import environment_for
from dft_eval.results import atomic_write
from dft_factory.losses.histogram import bin_edges
from dft_factory.probe.advice import EVIDENCE, SETTINGS, THRESHOLDS
from dft_factory.probe.collapse import TRAININGS
from dft_factory.probe.result import Probe
from dft_factory.probe.segments import RULE

NAMES = {"reasoning": "reasoning", "answer": "answer", "end_of_turn": "end of turn"}
_BREAKS = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def shown(text: str) -> str:
    """A token or context on one line, every space of it visible as such."""
    return visible(text.translate(_BREAKS))


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _probability(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


@dataclass(frozen=True)
class ProbePaths:
    """What was written."""

    json: Path
    markdown: Path
    html: Path
    picture: Path


def picture(probe: Probe) -> bytes:
    """The histogram of every model in one PNG: the same bins, logarithmic ordinate."""
    rows = [model.probabilities for model in probe.models]
    return probability_histogram(
        [
            (f"{row.label} (polarisation {row.polarisation:.2f})", row.counts, bin_edges())
            for row in rows
        ]
    )


def _rows(probe: Probe) -> list[tuple[str, str, Any]]:
    """(model, segment, numbers), all tokens first; a segment without a token is left out."""
    rows: list[tuple[str, str, Any]] = []
    for model in probe.models:
        label = model.probabilities.label
        rows.append((label, "all", model.probabilities.numbers))
        rows += [
            (label, NAMES.get(name, name), numbers)
            for name, numbers in model.segments.items()
            if numbers is not None
        ]
    return rows


def render(probe: Probe, png: bytes, *, html: bool) -> str:
    """The probe as HTML with its picture within, or as Markdown with it beside."""
    environment = environment_for("dft_factory.probe", html=html)  # the style sheet is the report's
    environment.filters.update(percent=_percent, probability=_probability, shown=shown)
    template = environment.get_template("probe.html.j2" if html else "probe.md.j2")
    text = template.render(
        probe=probe,
        rows=_rows(probe),
        settings=SETTINGS[probe.advice.choice],
        first=probe.models[0].probabilities,
        evidence=EVIDENCE,
        thresholds=THRESHOLDS,
        trainings=TRAININGS,
        rule=RULE,
        picture=base64.b64encode(png).decode("ascii"),
    )
    return text.rstrip("\n") + "\n"


def write(probe: Probe, out: Path, json_text: str) -> ProbePaths:
    """Write the four files into ``out``."""
    png = picture(probe)
    html, markdown = render(probe, png, html=True), render(probe, png, html=False)
    out.mkdir(parents=True, exist_ok=True)
    paths = ProbePaths(*(out / f"probe.{kind}" for kind in ("json", "md", "html", "png")))
    paths.picture.write_bytes(png)
    atomic_write(paths.json, json_text)
    atomic_write(paths.markdown, markdown)
    atomic_write(paths.html, html)
    return paths
