"""Which cell of the paper each evaluation belongs to, and why the others belong to none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from dft_eval.report.collect import Evaluation, Run
from dft_eval.report.formats import signed
from dft_eval.report.paper.cells import Cell, cell_of, mean_of_cells
from dft_eval.report.paper.limits import differs, label_of, left_open
from dft_eval.report.paper.tables import Column, Paper, PaperModel, Place
from dft_eval.report.tables import key_name


@dataclass(frozen=True)
class Match:
    """A figure of ours and its counterpart.

    Attributes:
        cell: ours, as a fraction.
        differs: why the two are not comparable; empty where nothing known speaks against it.
        open: what the paper leaves open.
    """

    run: Run
    style: str
    place: Place
    column: Column
    cell: Cell
    differs: tuple[str, ...]
    open: tuple[str, ...]

    @property
    def name(self) -> str:
        """The column and our prompt style."""
        return f"{self.column.title} ({self.style})"

    @property
    def figure(self) -> Decimal:
        """The printed cell, in percent."""
        return self.place.figure(self.column)


@dataclass(frozen=True)
class Unmatched:
    """An evaluation without counterpart, or a part of one, by name."""

    run: Run
    name: str
    reason: str


def match_run(run: Run, paper: Paper) -> tuple[list[Match], list[Unmatched]]:
    """Every evaluation of a run with its counterparts, or with the reason why it has none."""
    matches: list[Match] = []
    unmatched: list[Unmatched] = []
    for key, evaluation in run.evaluations.items():
        row = evaluation.row
        place = _place(run, row.benchmark, paper)
        if isinstance(place, str):
            unmatched.append(Unmatched(run, key_name(key), place))
            continue
        for column in place.how.columns:
            if column.benchmark != row.benchmark:
                continue
            cell = _cell(evaluation, column)
            if isinstance(cell, str):
                unmatched.append(Unmatched(run, f"{column.title} ({row.prompt_style})", cell))
                continue
            unlike = differs(run, row, column, cell, place)
            points = left_open(column, place)
            matches.append(Match(run, row.prompt_style, place, column, cell, unlike, points))
    means, lacking = _means(run, matches)
    if not run.evaluations:
        lacking.append(Unmatched(run, "no evaluation", "its results.json holds none"))
    return matches + means, unmatched + lacking


def _place(run: Run, benchmark: str, paper: Paper) -> Place | str:
    """The row of the paper for a run's benchmark, or in words why there is none."""
    if benchmark == paper.natural_questions.benchmark:
        return _natural_questions(paper)
    tables = [
        table
        for table in paper.tables
        if any(column.benchmark == benchmark for column in paper.columns(table))
    ]
    if not tables:
        return "the paper has no figure on it"
    label, model = label_of(run.label), _model(run, paper)
    if label is None or isinstance(model, str):
        wrong = [] if label else [_no_label(run)]
        return "; ".join([*wrong, *([model] if isinstance(model, str) else [])])
    objective, adapter = label
    having = [table for table in tables if table.adapters == adapter]
    if not having:
        return "the paper has figures by LoRA on mathematics alone"
    for table in having:
        if place := paper.place(table, model, objective):
            return place
    names = dict.fromkeys(row.model for table in having for row in table.rows)
    kind = " by LoRA" if adapter else ""
    return f"the paper has it{kind} for {', '.join(names)}, not for {model.name}"


def _no_label(run: Run) -> str:
    return (
        f"the label {run.label!r} is none of base, sft and dft (and sft_lora and dft_lora, for "
        "mathematics): give one by --label"
    )


def _model(run: Run, paper: Paper) -> PaperModel | str:
    given = run.results.base_model
    found = paper.find(given) if given else None
    if found is not None:
        return found
    near = paper.nearest(given or run.results.model)
    known = ", ".join(model.name for model in paper.models)
    if not given:
        hint = f"; most like the model, {run.results.model}, is {near.name}" if near else ""
        return (
            "no base model is given: run `dft-factory eval` again with --base-model NAME, which "
            f"takes the completions that are there. The paper's names are {known}{hint}"
        )
    hint = f"; most like it is {near.name}: {near.checkpoint}, {near.known}" if near else ""
    return f"the base model {given} names no row of the paper, which has {known}{hint}"


def _natural_questions(paper: Paper) -> str:
    printed = paper.natural_questions
    return (
        "the paper names neither model nor protocol nor metric of its figures, base "
        f"{printed.base} %, SFT {printed.sft} %, DFT {printed.dft} % (from base "
        f"{signed(printed.sft - printed.base)} and {signed(printed.dft - printed.base)} points); "
        "ours stand under Scores and Paired comparisons"
    )


def _cell(evaluation: Evaluation, column: Column) -> Cell | str:
    metric = evaluation.row.metric
    if metric not in column.metrics:
        return f"its metric is {metric!r}, the paper's {column.metrics[0]}"
    return cell_of(evaluation, column)


def _means(run: Run, matches: Sequence[Match]) -> tuple[list[Match], list[Unmatched]]:
    """Columns that are means of several benchmarks, each in one prompt style."""
    by_style: defaultdict[tuple[int, str], dict[str, Match]] = defaultdict(dict)
    for match in matches:
        by_style[match.place.table.number, match.style][match.column.benchmark] = match
    means: list[Match] = []
    lacking: list[Unmatched] = []
    for (_, style), found in by_style.items():
        columns = next(iter(found.values())).place.how.columns
        for column in (each for each in columns if each.mean_of):
            absent = [name for name in column.mean_of if name not in found]
            if absent:
                reason = (
                    f"the mean of {len(column.mean_of)} benchmarks, without {', '.join(absent)}"
                )
                lacking.append(Unmatched(run, f"{column.title} ({style})", reason))
            else:
                means.append(_mean([found[name] for name in column.mean_of], column))
    return means, lacking


def _mean(parts: Sequence[Match], column: Column) -> Match:
    first = parts[0]
    return replace(
        first,
        column=column,
        cell=mean_of_cells([part.cell for part in parts]),
        differs=tuple(dict.fromkeys(reason for part in parts for reason in part.differs)),
        open=left_open(column, first.place),
    )
