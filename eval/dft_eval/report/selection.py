"""The best step of a training, chosen on one half of the items and scored on the other.

The highest of several scores is too high by chance. Here the items that choose a step are never
those that its score is made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dft_eval.report.formats import percent, plural
from dft_eval.report.overview import compared
from dft_eval.report.pairs import Pair, compare_variants
from dft_eval.report.runs import Evaluation, Key, Pooled, Variant, key_name
from dft_eval.report.scores import Table, score_text
from dft_eval.report.steps import Series, line_keys, series_name
from dft_eval.results import ItemScore, summarise


@dataclass(frozen=True)
class Choice:
    """The step of one line that scores highest on the validation half of a benchmark.

    Attributes:
        steps: that were compared.
        validation, rest, last: the chosen step on both halves, the last step on the other half.
    """

    line: Series
    key: Key
    steps: tuple[int, ...]
    step: int
    validation: Pooled
    rest: Pooled
    last: Pooled

    @property
    def label(self) -> str:
        return best_label(self.line.name)


@dataclass(frozen=True)
class Selection:
    """What the report says of the best steps."""

    table: Table | None
    sentences: tuple[str, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]


def best_label(name: str) -> str:
    """The label of a line at the step that was chosen."""
    return f"{name} at its best step"


def in_validation(item: ItemScore) -> bool:
    """Whether an item belongs to the half that chooses; items of one cluster go together.

    By the SHA-256 of the cluster's name, or of the id: the same for every run, and whatever other
    items there are.
    """
    return hashlib.sha256((item.cluster or item.id).encode()).digest()[0] % 2 == 0


def half(pooled: Pooled, *, validation: bool) -> Pooled:
    """The same evaluations with one half of their items."""
    return Pooled(
        {
            seed: _half(evaluation, validation=validation)
            for seed, evaluation in pooled.by_seed.items()
        }
    )


def _half(evaluation: Evaluation, *, validation: bool) -> Evaluation:
    items, problems = (
        {id: item for id, item in (rows or {}).items() if in_validation(item) == validation}
        for rows in (evaluation.items, evaluation.problems)
    )
    numbers = summarise(items.values())
    if evaluation.problems:
        whole = summarise(problems.values())
        numbers |= {"score": whole["score"], "stderr": whole["stderr"]}
    row = evaluation.row.model_copy(update=numbers)
    return replace(evaluation, row=row, items=items, problems=problems or None)


def choose(line: Series, key: Key) -> Choice | str:
    """The best step of a line, the earlier of equals; or why there is none."""
    scored = line.scored(key)
    seeds = {seed for pooled in scored.values() for seed in pooled.by_seed}
    # The mean over other seeds is no fair rival.
    scored = {step: pooled for step, pooled in scored.items() if pooled.by_seed.keys() == seeds}
    if len(scored) < 2:
        return "fewer than two steps were run with all of its seeds"
    halves = {step: half(pooled, validation=True) for step, pooled in scored.items()}
    scores = {step: pooled.score for step, pooled in halves.items() if pooled.score is not None}
    rests = {step: half(scored[step], validation=False) for step in scores}
    if not scores or any(pooled.score is None for pooled in rests.values()):
        return "one half of its items has no score"
    step = max(scores, key=lambda step: (scores[step], -step))
    return Choice(line, key, tuple(scores), step, halves[step], rests[step], rests[max(scores)])


def select(
    lines: Sequence[Series],
    variants: Sequence[Variant],
    chosen: Sequence[tuple[str, str]] | None = None,
) -> Selection:
    """The best step of every line on every benchmark, and the lines against each other.

    Args:
        chosen: labels to compare, as :func:`compare_variants` takes them; None for all lines.
    """
    choices, notes = [], []
    for key in line_keys(lines, variants):
        for line in lines:
            choice = choose(line, key)
            if isinstance(choice, Choice):
                choices.append(choice)
                notes += _left_out(choice)
            else:
                notes.append(f"{key_name(key)}, {line.name}: no best step, {choice}.")
    best = [
        _as_variant(line, of_line)
        for line in lines
        if (of_line := [choice for choice in choices if choice.line is line])
    ]
    pairs = compare_variants(best, _among(best, chosen))
    return Selection(_table(choices), compared(pairs, best), pairs, tuple(notes))


def _left_out(choice: Choice) -> list[str]:
    others = [str(step) for step in choice.line.variants if step not in choice.steps]
    if not others:
        return []
    return [
        f"{key_name(choice.key)}, {choice.line.name}: not among the steps compared, for want of "
        f"results or of a seed: {', '.join(others)}."
    ]


def _among(
    best: Sequence[Variant], chosen: Sequence[tuple[str, str]] | None
) -> list[tuple[str, str]] | None:
    """The pairs of labels whose lines both have a best step, under the labels of these."""
    if chosen is None:
        return None
    labels = {variant.label for variant in best}
    pairs = [tuple(best_label(series_name(label)) for label in pair) for pair in chosen]
    return [
        (first, second)
        for first, second in dict.fromkeys(pairs)
        if first != second and {first, second} <= labels
    ]


def _as_variant(line: Series, choices: Sequence[Choice]) -> Variant:
    """The chosen steps on the other half, as one variant: a step of its own for each benchmark."""
    runs = {run.seed: run for variant in line.variants.values() for run in variant.runs}
    label = best_label(line.name)
    return Variant(
        label,
        tuple(
            replace(
                run,
                results=run.results.model_copy(update={"label": label}),
                evaluations={
                    choice.key: choice.rest.by_seed[seed]
                    for choice in choices
                    if seed in choice.rest.by_seed
                },
            )
            for seed, run in runs.items()
        ),
    )


def _table(choices: Sequence[Choice]) -> Table | None:
    rows = [
        (
            key_name(choice.key),
            choice.line.name,
            f"{len(choice.steps)}, {min(choice.steps):,} to {max(choice.steps):,}",
            str(choice.step),
            f"{percent(choice.validation.score or 0.0)} ({_items(choice.validation)})",
            f"{score_text(choice.rest)} ({_items(choice.rest)})",
            f"{score_text(choice.last)} (step {max(choice.steps)})",
        )
        for choice in choices
    ]
    head = (
        *("benchmark", "run", "steps compared", "best step", "its score on the validation half"),
        *("its score on the other half", "last step on the other half"),
    )
    return Table(head, tuple(rows)) if rows else None


def _items(pooled: Pooled) -> str:
    return plural(len({id for evaluation in pooled.evaluations for id in evaluation.items}), "item")
