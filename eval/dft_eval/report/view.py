"""Contents of the report as finished text; both templates render nothing else."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from dft_eval.report import (
    decodings,
    forgetting,
    lengths,
    overview,
    provenance,
    samples,
    scores,
    steps,
    training,
    training_scores,
)
from dft_eval.report.examples import Example, examples
from dft_eval.report.pairs import Pair, compare_variants, seed_table
from dft_eval.report.paper.section import AgainstPaper, against_paper
from dft_eval.report.provenance import SHORT_SHA
from dft_eval.report.runs import Variant
from dft_eval.report.scores import Chart, Summary, Table
from dft_eval.report.selection import Selection, select
from dft_eval.report.steps import Series, series_name, step_of


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
    """The whole report except its pictures; ``paper`` is None unless requested."""

    title: str
    labels: tuple[str, ...]
    headline: tuple[str, ...]
    missing: tuple[MissingRun, ...]
    cautions: tuple[str, ...]
    charts: tuple[Chart, ...]
    forest: tuple[Chart, ...]
    seed_notes: tuple[str, ...]
    doubts: tuple[str, ...]
    failures: tuple[tuple[str, Table], ...]
    lengths: Table | None
    length_warnings: tuple[str, ...]
    settings: Table | None
    summary: Summary
    by_seed: Table | None
    decodings: Table | None
    left_under_greedy: tuple[str, ...]
    pass_at_k: Table | None
    forgetting: Table | None
    steps: tuple[tuple[str, Table], ...]
    selection: Selection | None
    harnesses: Table | None
    models: Table
    methods: Table
    breakdowns: tuple[tuple[str, Table], ...]
    breakdown_notes: tuple[str, ...]
    pairs: tuple[Pair, ...]
    pair_indices: str
    paper: AgainstPaper | None
    curves: Table | None
    curve_notes: tuple[str, ...]
    training_scores: training_scores.TrainingScoresView
    probabilities: Table | None
    probability_notes: tuple[str, ...]
    examples: tuple[Example, ...]
    example_notes: tuple[str, ...]


def _cautions(variants: Sequence[Variant]) -> tuple[str, ...]:
    cautions = []
    runs = [
        (variant.run_name(run), run.results, (series_name(variant.label), step_of(variant)))
        for variant in variants
        for run in variant.runs
    ]
    for (first, a, one), (second, b, other) in itertools.combinations(runs, 2):
        # The last checkpoint and the final weights are the same by design.
        alike = one == other and one[1] is not None
        if a.model_sha256 and a.model_sha256 == b.model_sha256 and not alike:
            cautions.append(
                f"{first} and {second} have the same weights (SHA-256 "
                f"{a.model_sha256[:SHORT_SHA]}): any difference between them is not one of "
                "training."
            )
    bases = dict.fromkeys(results.base_model for _, results, _ in runs if results.base_model)
    if len(bases) > 1:
        cautions.append(f"The runs belong to different base models: {', '.join(map(str, bases))}.")
    return tuple(cautions)


def build_view(
    variants: Sequence[Variant],
    title: str,
    *,
    paper: bool = False,
    missing: Sequence[MissingRun] = (),
    chosen: Sequence[tuple[str, str]] | None = None,
    reference: str | None = None,
    lines: Sequence[Series] = (),
    checkpoints: Sequence[Variant] = (),
) -> View:
    """Everything that the report says, with ``paper`` also against the paper's figures.

    Args:
        variants: the rows of the report.
        lines: trainings with scores at several steps.
        checkpoints: variants of ``lines`` that are no rows.
        missing: what an experiment could not give.
        chosen: pairs to compare, as :func:`pairs.compare_variants` takes them.
        reference: label of which the table of seeds shows the differences.
    """
    curves, curve_notes = training.curves(variants)
    probabilities, probability_notes = training.probabilities(variants)
    shown, example_notes = examples(variants)
    pairs = compare_variants(variants, chosen)
    look, length_warnings = lengths.lengths(variants)
    labels = [variant.label for variant in variants]
    indices = [[labels.index(pair.first), labels.index(pair.second)] for pair in pairs]
    parts = scores.breakdowns(variants)
    everything = (*variants, *checkpoints)
    selection = select(lines, everything, chosen) if lines else None
    best = selection.sentences[:1] if selection else ()
    return View(
        title=title,
        labels=tuple(labels),
        headline=(
            *overview.headline(pairs, variants),
            *(f"Best steps, chosen on half of the items. On the rest: {text}" for text in best),
        ),
        missing=tuple(missing),
        cautions=_cautions(everything),
        charts=scores.score_charts(variants),
        forest=overview.forest(pairs),
        seed_notes=scores.missing_seeds(everything),
        doubts=scores.doubts(variants),
        failures=overview.failures(variants),
        lengths=look,
        length_warnings=length_warnings,
        settings=provenance.settings(variants),
        summary=scores.summary(variants),
        by_seed=seed_table(variants, pairs, reference),
        decodings=decodings.decoding_table(variants),
        left_under_greedy=decodings.sentences(pairs, variants),
        pass_at_k=samples.pass_table(variants),
        forgetting=forgetting.forgetting_table(variants),
        steps=steps.step_tables(lines, steps.step_titles(lines, everything)),
        selection=selection,
        harnesses=scores.harness_table(variants),
        models=provenance.models(everything),
        methods=provenance.methods(everything),
        breakdowns=parts,
        breakdown_notes=scores.breakdown_notes(parts),
        pairs=pairs,
        pair_indices=json.dumps(indices or [[0, 0]]),
        paper=against_paper(variants) if paper else None,
        curves=curves,
        curve_notes=curve_notes,
        training_scores=training_scores.training_scores(variants),
        probabilities=probabilities,
        probability_notes=probability_notes,
        examples=shown,
        example_notes=example_notes,
    )
