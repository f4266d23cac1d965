"""Write the report: one self-contained HTML file, one Markdown file, pictures beside them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dft_eval.errors import UsageError
from dft_eval.report import figures
from dft_eval.report.browser import browser_data
from dft_eval.report.collect import read_variants
from dft_eval.report.examples import RULE
from dft_eval.report.formats import markdown_fence, markdown_inline, visible
from dft_eval.report.pairs import objective
from dft_eval.report.runs import Variant
from dft_eval.report.step_figure import scores_over_steps
from dft_eval.report.steps import Series, find_series, rows_of
from dft_eval.report.view import MissingRun, View
from dft_eval.results import atomic_write

MARKDOWN_NAME = "report.md"
HTML_NAME = "report.html"
SIGNS = {"higher": "▲ ", "lower": "▼ ", "open": "≈ ", "weak": "~ ", "same": "= "}
CURVES_PNG = "learning_curves.png"
PASS_PNG = "pass_at_k.png"
STEPS_PNG = "scores_over_steps.png"
TRAINING_PNG = "scores_in_training.png"
PROBABILITIES_PNG = "token_probabilities.png"
PICTURES = (CURVES_PNG, PASS_PNG, STEPS_PNG, TRAINING_PNG, PROBABILITIES_PNG)


@dataclass(frozen=True)
class ReportPaths:
    """What was written. ``pictures`` holds only those for which there was data."""

    markdown: Path
    html: Path
    pictures: tuple[Path, ...]


def _visible(value: Any) -> Any:
    return visible(value) if type(value) is str else value


def environment_for(*packages: str, html: bool) -> Environment:
    """An environment in which every value is escaped unless it says that it is markup already.

    Args:
        packages: whose ``templates`` are looked in before the report's own.
    """
    places = (*packages, "dft_eval.report")
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(place, "templates") for place in places]),
        autoescape=html,
        finalize=_visible if html else markdown_inline,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["fence"] = markdown_fence
    return environment


def render_markdown(view: View) -> str:
    """The report as Markdown, its pictures as files beside it."""
    template = environment_for(html=False).get_template("report.md.j2")
    text = template.render(view=view, rule=RULE)
    return text.rstrip("\n") + "\n"


def render_html(
    view: View, pictures: Mapping[str, bytes], dark: Mapping[str, bytes], items: Mapping[str, Any]
) -> str:
    """The report as HTML, its pictures, light and ``dark``, and its ``items`` within it."""
    environment = environment_for(html=True)
    script = environment.get_template("report.js").render()
    return environment.get_template("report.html.j2").render(
        view=view,
        pictures=_inline(pictures),
        dark=_inline(dark),
        items=items,
        signs=SIGNS,
        # Our own script and nothing else: the page's policy names its checksum.
        script=Markup(script),
        script_sha=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        rule=RULE,
    )


def _inline(pictures: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(png).decode("ascii") for name, png in pictures.items()}


def _pictures(
    variants: Sequence[Variant], lines: Sequence[Series], view: View, *, dark: bool = False
) -> dict[str, bytes]:
    pictures: dict[str, bytes] = {}
    if view.curves is not None:
        pictures[CURVES_PNG] = figures.learning_curves(variants, dark=dark)
    if view.pass_at_k is not None:
        pictures[PASS_PNG] = figures.pass_at_k(variants, dark=dark)
    if view.steps:
        pictures[STEPS_PNG] = scores_over_steps(lines, variants, view.step_titles, dark=dark)
    if (scores := view.training_scores).lines:
        pictures[TRAINING_PNG] = scores_over_steps(
            scores.lines, variants, scores.titles, with_base=False, dark=dark
        )
    if view.probabilities is not None:
        pictures[PROBABILITIES_PNG] = figures.token_probabilities(variants, dark=dark)
    return pictures


def _chosen(
    variants: Sequence[Variant],
    reference: str | None,
    pairs: Sequence[tuple[str, str]] | None,
    *,
    incomplete: bool,
) -> list[tuple[str, str]] | None:
    """``pairs`` and those that ``reference`` stands for, DFT first, each once; None for all.

    Labels of runs that failed are left out where the report is ``incomplete``.
    """
    if reference is None and pairs is None:
        return None
    labels = [variant.label for variant in variants]
    others = sorted(
        (label for label in labels if label != reference),
        key=lambda label: objective(label) != "dft",
    )
    chosen = [*(pairs or ()), *((label, reference) for label in others if reference)]
    chosen = list(dict.fromkeys(chosen))
    unknown = {label for pair in chosen for label in pair} - set(labels)
    if unknown and not incomplete:
        raise UsageError(
            f"No run is labelled {', '.join(map(repr, sorted(unknown)))}. The labels are: "
            f"{', '.join(map(repr, labels))}."
        )
    return [pair for pair in chosen if not unknown & set(pair)]


def build_report(
    run_dirs: Sequence[Path],
    out: Path,
    *,
    title: str = "Comparison of runs",
    against_paper: bool = False,
    reference: str | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    missing: Sequence[MissingRun] = (),
) -> ReportPaths:
    """Compare evaluated runs; write ``report.md``, ``report.html`` and pictures into ``out``.

    Runs of one label that differ in the training seed are one row, their scores means over seeds.
    Of a training's steps the final weights, else the last checkpoint, are a row, and those that
    ``reference`` or ``pairs`` name; all are a line of the scores over steps.

    The same input gives the same bytes. Nothing is written unless all of it could be made. A
    picture that an earlier report left in ``out`` and this one has no data for is removed.

    Args:
        run_dirs: run folders, base first. Without ``reference`` or ``pairs`` each is compared with
            every earlier one.
        out: folder, made if need be; may be a parent of the run folders.
        against_paper: with a section that sets the runs against the paper's figures.
        pairs: labels to compare, ("dft", "sft") for DFT against SFT, and nothing else.
        reference: label that every other is compared with, after ``pairs``, and nothing else.
        missing: parts of an experiment without results; named before the scores.

    Raises:
        UsageError: a run folder lacks its results or holds a malformed file, two runs bear one
            label and seed, a label to compare is unknown, or token-probability histograms have
            different bins.
    """
    if not run_dirs and not missing:
        raise UsageError("No run folder given: `dft-factory report RUN_DIR... --out DIR`.")
    everything = read_variants(run_dirs)
    lines = find_series(everything)
    named = {label for pair in pairs or () for label in pair} | {reference}
    variants = rows_of(everything, lines, named)
    labels = {variant.label for variant in variants}
    chosen = _chosen(variants, reference, pairs, incomplete=bool(missing))
    view = View(
        variants,
        title,
        paper=against_paper,
        missing=missing,
        chosen=chosen,
        reference=reference,
        lines=lines,
        checkpoints=[variant for variant in everything if variant.label not in labels],
    )
    pictures = _pictures(variants, lines, view)
    dark = _pictures(variants, lines, view, dark=True)
    markdown = render_markdown(view)
    html = render_html(view, pictures, dark, browser_data(variants))
    out.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        if name in pictures:
            (out / name).write_bytes(pictures[name])
        else:
            (out / name).unlink(missing_ok=True)
    atomic_write(out / MARKDOWN_NAME, markdown)
    atomic_write(out / HTML_NAME, html)
    return ReportPaths(
        markdown=out / MARKDOWN_NAME,
        html=out / HTML_NAME,
        pictures=tuple(out / name for name in pictures),
    )
