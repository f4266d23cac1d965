"""What the report says, as finished text; both templates render this alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from dft_eval.report import overview, tables, training
from dft_eval.report.collect import Run
from dft_eval.report.examples import Example, examples
from dft_eval.report.overview import Chart
from dft_eval.report.pairs import Pair, compare_runs
from dft_eval.report.paper.section import AgainstPaper, against_paper
from dft_eval.report.tables import SHORT_SHA, Summary, Table


@dataclass(frozen=True)
class MissingRun:
    """A part of the experiment without results.

    Attributes:
        what: such as ``dft, seed 2: training``.
        why: such as ``exit status 1``.
        log: the last lines of its log.
    """

    what: str
    why: str
    log: str = ""


@dataclass(frozen=True)
class View:
    """The whole report but for its pictures; ``paper`` is None where it was not asked for."""

    title: str
    labels: tuple[str, ...]
    headline: tuple[str, ...]
    missing: tuple[MissingRun, ...]
    cautions: tuple[str, ...]
    charts: tuple[Chart, ...]
    forest: tuple[Chart, ...]
    doubts: tuple[str, ...]
    failures: tuple[tuple[str, Table], ...]
    lengths: Table | None
    length_warnings: tuple[str, ...]
    settings: Table | None
    summary: Summary
    models: Table
    methods: Table
    breakdowns: tuple[tuple[str, Table], ...]
    breakdown_notes: tuple[str, ...]
    pairs: tuple[Pair, ...]
    pair_indices: str
    paper: AgainstPaper | None
    curves: Table | None
    curve_notes: tuple[str, ...]
    probabilities: Table | None
    probability_notes: tuple[str, ...]
    examples: tuple[Example, ...]
    example_notes: tuple[str, ...]


def _cautions(runs: Sequence[Run]) -> tuple[str, ...]:
    cautions = []
    for first, second in itertools.combinations(runs, 2):
        sha = first.results.model_sha256
        if sha and sha == second.results.model_sha256:
            cautions.append(
                f"{first.label} and {second.label} have the same weights (SHA-256 "
                f"{sha[:SHORT_SHA]}): any difference between them is not one of training."
            )
    bases = dict.fromkeys(run.results.base_model for run in runs if run.results.base_model)
    if len(bases) > 1:
        cautions.append(f"The runs belong to different base models: {', '.join(map(str, bases))}.")
    return tuple(cautions)


def build_view(
    runs: Sequence[Run],
    title: str,
    *,
    paper: bool = False,
    missing: Sequence[MissingRun] = (),
    chosen: Sequence[tuple[str, str]] | None = None,
) -> View:
    """Everything that the report says of ``runs``, with ``paper`` also against its figures.

    Args:
        missing: what an experiment could not give.
        chosen: pairs to compare, as :func:`pairs.compare_runs` takes them.
    """
    curves, curve_notes = training.curves(runs)
    probabilities, probability_notes = training.probabilities(runs)
    shown, example_notes = examples(runs)
    pairs = compare_runs(runs, chosen)
    lengths, length_warnings = overview.lengths(runs)
    labels = [run.label for run in runs]
    indices = [[labels.index(pair.first), labels.index(pair.second)] for pair in pairs]
    parts = tables.breakdowns(runs)
    return View(
        title=title,
        labels=tuple(labels),
        headline=overview.headline(pairs, runs),
        missing=tuple(missing),
        cautions=_cautions(runs),
        charts=overview.score_charts(runs),
        forest=overview.forest(pairs),
        doubts=tables.doubts(runs),
        failures=overview.failures(runs),
        lengths=lengths,
        length_warnings=length_warnings,
        settings=overview.settings(runs),
        summary=tables.summary(runs),
        models=tables.models(runs),
        methods=tables.methods(runs),
        breakdowns=parts,
        breakdown_notes=tables.breakdown_notes(parts),
        pairs=pairs,
        pair_indices=json.dumps(indices or [[0, 0]]),
        paper=against_paper(runs) if paper else None,
        curves=curves,
        curve_notes=curve_notes,
        probabilities=probabilities,
        probability_notes=probability_notes,
        examples=shown,
        example_notes=example_notes,
    )
