"""The section 'Against the paper' as finished text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dft_eval.report.collect import Run
from dft_eval.report.formats import percent, plural, points, signed
from dft_eval.report.paper.cells import Cell, change
from dft_eval.report.paper.match import Match, Unmatched, match_run
from dft_eval.report.paper.tables import Place, load_paper
from dft_eval.report.tables import Table
from dft_eval.statistics import Z_95, wilson

RULE = (
    "Difference: our score minus the paper's figure, in percentage points, ± the standard error of "
    "ours. Interval: 95 % (Wilson), of our items alone. The paper prints no errors, "
    "though its figures have them, and no interval here covers another training seed: a figure "
    "outside is no proof of a failed reproduction, one inside none of a success. Where something "
    "is known to differ from the paper's way, no verdict is given, and the note says what; our own "
    "way stands under 'How the scores were made'. How a model was trained is not in results.json "
    "and was not checked. MultiPL-E's average weighs languages alike. Versions and translations of "
    "one problem count as one draw. A row 'base to X' is the change from the base model's score: "
    "the mean of the paired differences, or where the items do not tell, the difference of the "
    "two scores, marked 'unpaired'; its interval is a normal approximation."
)
NOTHING = "No evaluation here has a counterpart in the paper's tables."
_HEAD = (
    *("run", "evaluation", "table", "paper", "ours", "difference (points)"),
    *("our 95 % interval", "paper's figure within it", "notes"),
)


@dataclass(frozen=True)
class AgainstPaper:
    """The section: every figure of ours in one table, and the notes that it refers to."""

    source: str
    outcome: str
    table: Table
    notes: tuple[str, ...]


class _Notes:
    """Notes in the order of their first use, each told once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def marks(self, texts: Iterable[str]) -> str:
        """``P1, P4``; empty without a note."""
        numbers = [self._numbers.setdefault(text, len(self._numbers) + 1) for text in texts]
        return ", ".join(f"P{number}" for number in sorted(set(numbers)))

    def lines(self) -> tuple[str, ...]:
        """All notes that a cell has marks of."""
        return tuple(f"P{number}: {text.rstrip('.')}." for text, number in self._numbers.items())


def against_paper(runs: Sequence[Run]) -> AgainstPaper:
    """Set every evaluation of every run against the paper's figure, or say why it cannot be."""
    paper = load_paper()
    matches: list[Match] = []
    unmatched: list[Unmatched] = []
    for run in runs:
        found, lacking = match_run(run, paper)
        matches += found
        unmatched += lacking
    notes = _Notes()
    scores = [_score_row(match, notes) for match in matches]
    changes = [_change_row(base, tuned, notes) for base, tuned in _pairs(matches)]
    return AgainstPaper(
        source=paper.source,
        outcome=_outcome(matches),
        table=Table(_HEAD, (*scores, *changes, *_unmatched_rows(unmatched))),
        notes=(*_rows_taken(matches), *notes.lines()),
    )


def score_interval(cell: Cell) -> tuple[float, float] | None:
    """95 % by Wilson, at the number of independent items that gives the standard error."""
    if cell.stderr is None:
        return None
    spread = cell.value * (1 - cell.value)
    return wilson(cell.value, spread / cell.stderr**2 if cell.stderr else cell.n_scored)


def change_interval(value: float, stderr: float | None) -> tuple[float, float] | None:
    """95 %, normal approximation, within -1 and 1; None without a spread."""
    if not stderr:
        return None
    return max(-1.0, value - Z_95 * stderr), min(1.0, value + Z_95 * stderr)


def _score_row(match: Match, notes: _Notes) -> tuple[str, ...]:
    cell, printed = match.cell, float(match.figure) / 100
    within = score_interval(cell)
    return (
        match.run.label,
        match.name,
        str(match.place.table.number),
        f"{match.figure} %",
        percent(cell.value, cell.stderr or None),
        points(cell.value - printed, cell.stderr or None),
        " to ".join(map(percent, within)) if within else "undefined",
        _verdict(printed, within, notes.marks(match.differs)),
        notes.marks(match.open) or "nothing noted",
    )


def _pairs(matches: Sequence[Match]) -> Iterator[tuple[Match, Match]]:
    """A base model's figure and a tuned one's, of one column, model and prompt style."""
    for tuned in matches:
        for base in matches:
            labels = base.place.row.label, tuned.place.row.label
            alike = base.place.model == tuned.place.model and base.column == tuned.column
            if labels[0] == "base" != labels[1] and alike and base.style == tuned.style:
                yield base, tuned


def _change_row(base: Match, tuned: Match, notes: _Notes) -> tuple[str, ...]:
    printed = tuned.figure - base.figure
    ours, stderr, paired = change(base.cell, tuned.cell)
    within = change_interval(ours, stderr)
    return (
        f"{base.run.label} to {tuned.run.label}",
        tuned.name,
        str(tuned.place.table.number),
        signed(printed),
        points(ours, stderr) + ("" if paired else " (unpaired)"),
        points(ours - float(printed) / 100),
        " to ".join(map(points, within)) if within else "undefined",
        _verdict(float(printed) / 100, within, notes.marks((*base.differs, *tuned.differs))),
        notes.marks((*base.open, *tuned.open)) or "nothing noted",
    )


def _verdict(printed: float, within: tuple[float, float] | None, differs: str) -> str:
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
    judged = [
        (float(match.figure) / 100, within)
        for match in alike
        if (within := score_interval(match.cell))
    ]
    inside = sum(low <= printed <= high for printed, (low, high) in judged)
    text = f"With a counterpart in the paper: {plural(len(matches), 'figure')} of ours"
    if not alike:
        return f"{text}, none of them comparable: each note says why."
    return (
        f"{text}. Nothing known speaks against comparing: {len(alike)}. Of these with an interval: "
        f"{len(judged)}. Of these with the paper's figure within it: {inside}."
    )


def _rows_taken(matches: Sequence[Match]) -> tuple[str, ...]:
    """Which row of the paper each run was set against, and what that row is."""
    return tuple(dict.fromkeys(_row_taken(match.run, match.place) for match in matches))


def _row_taken(run: Run, place: Place) -> str:
    model, table, label = place.model, place.table, place.row.label
    training = "none" if label == "base" else table.training
    return (
        f"{run.label} (base model {run.results.base_model}): "
        f"{model.name}, {'base' if label == 'base' else label.upper()}, of Table {table.number}, "
        f"{table.title}. Taken for {model.checkpoint} ({model.known}). "
        f"Training in the paper: {training}."
    )


def _unmatched_rows(unmatched: Sequence[Unmatched]) -> Iterator[tuple[str, ...]]:
    """Evaluations of one run that share a reason together, and runs that share those."""
    names: dict[tuple[str, str], list[str]] = {}
    for each in unmatched:
        names.setdefault((each.run.label, each.reason), []).append(each.name)
    labels: dict[tuple[str, str], list[str]] = {}
    for (label, reason), found in names.items():
        labels.setdefault((", ".join(found), reason), []).append(label)
    for (together, reason), runs in labels.items():
        yield ", ".join(runs), together, *[""] * 5, "no counterpart", f"{reason}."
