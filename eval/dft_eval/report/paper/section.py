"""The section 'Against the paper' as finished text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dft_eval.report.formats import percent, plural, points, points_between, signed
from dft_eval.report.paper.match import Match, Unmatched, match
from dft_eval.report.paper.tables import load_paper
from dft_eval.report.runs import Variant, paired_seeds
from dft_eval.report.scores import Table
from dft_eval.seed_statistics import Crossed, crossed, score_interval
from dft_eval.statistics import Z_95

NOTHING = "No evaluation here has a counterpart in the paper's tables."
_HEAD = (
    *("run", "evaluation", "table", "paper", "ours", "difference (points)"),
    *("our 95 % interval", "paper's figure within it", "notes"),
)
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class AgainstPaper:
    """The section: every figure of ours in one table, and the notes that it refers to."""

    source: str
    outcome: str
    table: Table
    notes: tuple[str, ...]


def _marks(notes: dict[str, int], texts: Iterable[str]) -> str:
    """``P1, P4`` of ``notes``, which are numbered in the order of their first use."""
    numbers = [notes.setdefault(text, len(notes) + 1) for text in texts]
    return ", ".join(f"P{number}" for number in sorted(set(numbers)))


def against_paper(variants: Sequence[Variant]) -> AgainstPaper:
    """Set every score of every variant against the paper's figure, or say why it cannot be."""
    paper = load_paper()
    of_variants = [match(variant, paper) for variant in variants]
    matches = [figure for figures, _ in of_variants for figure in figures]
    unmatched = [row for _, rows in of_variants for row in rows]
    notes: dict[str, int] = {}
    rows = [_score_row(figure, notes) for figure in matches]
    rows += [_change_row(base, tuned, notes) for base, tuned in _pairs(matches)]
    numbered = [f"P{number}: {text.rstrip('.')}." for text, number in notes.items()]
    return AgainstPaper(
        source=paper.source,
        outcome=_outcome(matches),
        table=Table(_HEAD, (*rows, *_unmatched_rows(unmatched))),
        notes=(*dict.fromkeys(map(_row_taken, matches)), *numbered),
    )


def _interval(match: Match) -> Interval:
    if match.estimate is None or match.estimate.item_variance is None:
        return None
    seeds = [
        [row for group in groups for row in group.values()] for groups in match.groups.values()
    ]
    clusters = {cluster for rows in seeds for cluster, _ in rows}
    return score_interval(match.estimate, max(map(len, seeds)), len(clusters))


def _change(base: Match, tuned: Match) -> Crossed | None:
    """The tuned figure minus the base's, over the items that both have scored."""
    if base.estimate is None or tuned.estimate is None:
        return None
    differences = [
        [
            [(a[id][0], b[id][1] - a[id][1]) for id in a if id in b]
            for a, b in zip(first, second, strict=True)
        ]
        for first, second in paired_seeds(base.groups, tuned.groups)
    ]
    return crossed(differences)


def _score_row(match: Match, notes: dict[str, int]) -> tuple[str, ...]:
    printed, within = float(match.figure) / 100, _interval(match)
    stderr = (match.estimate.stderr if match.estimate else None) or None
    return (
        match.variant.label,
        match.name,
        str(match.place.table.number),
        f"{match.figure} %",
        percent(match.value, stderr),
        points(match.value - printed, stderr),
        " to ".join(map(percent, within)) if within else "undefined",
        _verdict(printed, within, _marks(notes, match.differs)),
        _marks(notes, match.open) or "nothing noted",
    )


def _pairs(matches: Sequence[Match]) -> Iterator[tuple[Match, Match]]:
    """A base model's figure and a tuned one's, of one column, model and prompt style."""
    for tuned in matches:
        for base in matches:
            labels = base.place.row.label, tuned.place.row.label
            alike = base.place.model == tuned.place.model and base.column == tuned.column
            if labels[0] == "base" != labels[1] and alike and base.style == tuned.style:
                yield base, tuned


def _change_row(base: Match, tuned: Match, notes: dict[str, int]) -> tuple[str, ...]:
    printed = tuned.figure - base.figure
    estimate = _change(base, tuned)
    ours = estimate.mean if estimate else tuned.value - base.value
    within: Interval = None
    if estimate and estimate.stderr:
        half = math.sqrt(Z_95**2 * (estimate.item_variance or 0.0) + estimate.seed_width_squared())
        within = max(-1.0, ours - half), min(1.0, ours + half)
    return (
        f"{base.variant.label} to {tuned.variant.label}",
        tuned.name,
        str(tuned.place.table.number),
        signed(printed),
        points(ours, estimate.stderr if estimate else None),
        points(ours - float(printed) / 100),
        points_between(within) if within else "undefined",
        _verdict(float(printed) / 100, within, _marks(notes, (*base.differs, *tuned.differs))),
        _marks(notes, (*base.open, *tuned.open)) or "nothing noted",
    )


def _verdict(printed: float, within: Interval, differs: str) -> str:
    """``differs``: the marks of what is known to differ; empty if nothing is."""
    if differs:
        return f"not comparable: {differs}"
    if within is None:
        return "no interval"
    return "yes" if within[0] <= printed <= within[1] else "no"


def _outcome(matches: Sequence[Match]) -> str:
    if not matches:
        return NOTHING
    alike = [match for match in matches if not match.differs]
    intervals = [(float(match.figure) / 100, _interval(match)) for match in alike]
    verdicts = [_verdict(printed, within, "") for printed, within in intervals if within]
    text = f"With a counterpart in the paper: {plural(len(matches), 'figure')} of ours"
    if not alike:
        return f"{text}, none of them comparable: each note says why."
    return (
        f"{text}. Nothing known speaks against comparing: {len(alike)}. Of these with an interval: "
        f"{len(verdicts)}. Of these with the paper's figure within it: {verdicts.count('yes')}."
    )


def _row_taken(match: Match) -> str:
    """Which row of the paper a variant was set against, and what that row is."""
    model, table, label = match.place.model, match.place.table, match.place.row.label
    training = "none" if label == "base" else table.training
    return (
        f"{match.variant.label} (base model {match.variant.runs[0].results.base_model}): "
        f"{model.name}, {'base' if label == 'base' else label.upper()}, of Table {table.number}, "
        f"{table.title}. Taken for {model.checkpoint} ({model.known}). "
        f"Training in the paper: {training}."
    )


def _unmatched_rows(unmatched: Sequence[Unmatched]) -> Iterator[tuple[str, ...]]:
    """Evaluations of one variant that share a reason together, and variants that share those."""
    names: dict[tuple[str, str], list[str]] = {}
    for row in unmatched:
        names.setdefault((row.variant.label, row.reason), []).append(row.name)
    labels: dict[tuple[str, str], list[str]] = {}
    for (label, reason), evaluations in names.items():
        labels.setdefault((", ".join(evaluations), reason), []).append(label)
    for (together, reason), runs in labels.items():
        yield ", ".join(runs), together, *[""] * 5, "no counterpart", f"{reason}."
