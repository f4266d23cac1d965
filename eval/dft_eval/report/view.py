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
from dft_eval.report.examples import examples
from dft_eval.report.pairs import compare_variants, seed_table
from dft_eval.report.paper.section import against_paper
from dft_eval.report.provenance import SHORT_SHA
from dft_eval.report.runs import Variant
from dft_eval.report.selection import select
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


class View:
    """The whole report except its pictures."""

    def __init__(
        self,
        variants: Sequence[Variant],
        title: str,
        *,
        paper: bool = False,
        missing: Sequence[MissingRun] = (),
        chosen: Sequence[tuple[str, str]] | None = None,
        reference: str | None = None,
        lines: Sequence[Series] = (),
        checkpoints: Sequence[Variant] = (),
    ) -> None:
        """Everything that the report says, with ``paper`` also against the paper's figures.

        Args:
            variants: the rows of the report.
            lines: trainings with scores at several steps.
            checkpoints: variants of ``lines`` that are no rows.
            missing: what an experiment could not give.
            chosen: pairs to compare, as :func:`pairs.compare_variants` takes them.
            reference: label of which the table of seeds shows the differences.
        """
        everything = (*variants, *checkpoints)
        self.title = title
        self.labels = [variant.label for variant in variants]
        self.missing = missing
        self.cautions = _cautions(everything)
        self.charts = scores.score_charts(variants)
        self.seed_notes = scores.missing_seeds(everything)
        self.doubts = scores.doubts(variants)
        self.failures = overview.failures(variants)
        self.lengths, self.length_warnings = lengths.lengths(variants)
        self.settings = provenance.settings(variants)
        self.summary = scores.summary(variants)
        self.decodings = decodings.decoding_table(variants)
        self.pass_at_k = samples.pass_table(variants)
        self.forgetting = forgetting.forgetting_table(variants)
        self.step_titles = steps.step_titles(lines, everything)
        self.steps = steps.step_tables(lines, self.step_titles)
        self.selection = select(lines, everything, chosen) if lines else None
        self.harnesses = scores.harness_table(variants)
        self.models = provenance.models(everything)
        self.methods = provenance.methods(everything)
        self.breakdowns = scores.breakdowns(variants)
        self.breakdown_notes = scores.breakdown_notes(self.breakdowns)
        self.paper = against_paper(variants) if paper else None
        self.curves, self.curve_notes = training.curves(variants)
        self.training_scores = training_scores.training_scores(variants)
        self.probabilities, self.probability_notes = training.probabilities(variants)
        self.examples, self.example_notes = examples(variants)
        self.pairs = compare_variants(variants, chosen)
        self.forest = overview.forest(self.pairs)
        self.by_seed = seed_table(variants, self.pairs, reference)
        self.left_under_greedy = decodings.sentences(self.pairs, variants)
        places = [
            [self.labels.index(label) for label in (pair.first, pair.second)] for pair in self.pairs
        ]
        self.pair_indices = json.dumps(places or [[0, 0]])
        best = self.selection.sentences[:1] if self.selection else ()
        self.headline = (
            *overview.headline(self.pairs, variants),
            *(f"Best steps, chosen on half of the items. On the rest: {text}" for text in best),
        )
