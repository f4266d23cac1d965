"""Which completions are shown side by side: a rule, so that nobody picks the flattering ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from dft_eval.report.collect import Key, Run
from dft_eval.report.formats import cut, plural
from dft_eval.report.tables import benchmarks, key_name

COMPLETION_LIMIT = 1500
"""Characters of a completion, or prompt, that are shown."""


COUNT = 10
RULE = (
    "Items on which the runs' scores disagree come first, then others, taken in turn from each "
    "benchmark; within a benchmark those with the most completions, in the order of a hash of "
    "their id. Nobody picked them."
)


def _ranked(runs: Sequence[Run], key: Key) -> tuple[list[str], list[str]]:
    """Items with a completion: those on which scored runs disagree, and the others."""
    evaluations = [run.evaluations[key] for run in runs if key in run.evaluations]
    kept: dict[str, int] = {}
    for evaluation in evaluations:
        for name in evaluation.completions or {}:
            kept[name] = kept.get(name, 0) + 1

    def rank(name: str) -> tuple[int, str]:
        text = "\0".join((*key, name)).encode("utf-8", "surrogatepass")
        return -kept[name], hashlib.sha256(text).hexdigest()

    disagreed: list[str] = []
    others: list[str] = []
    for name in sorted(kept, key=rank):
        scores = {one.items[name].score for one in evaluations if name in one.items}
        (disagreed if len(scores - {None}) > 1 else others).append(name)
    return disagreed, others


def choose(runs: Sequence[Run], count: int = COUNT) -> list[tuple[Key, str]]:
    """At most ``count`` items (benchmark and item id), by :data:`RULE`."""
    keys = benchmarks(runs)
    ranked = [_ranked(runs, key) for key in keys]
    chosen: list[tuple[Key, str]] = []
    for part in (0, 1):
        queues = [list(lists[part]) for lists in ranked]
        while any(queues):
            for key, queue in zip(keys, queues, strict=True):
                if queue:
                    chosen.append((key, queue.pop(0)))
    return chosen[:count]


@dataclass(frozen=True)
class Answer:
    """What one run made of an item; ``text`` is ``None`` where no completion was kept."""

    label: str
    outcome: str
    mark: str
    reason: str
    text: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """One item with the answers of all runs."""

    benchmark: str
    item: str
    prompt: str
    prompt_notes: tuple[str, ...]
    answers: tuple[Answer, ...]


def _answer(run: Run, key: Key, item_id: str) -> Answer:
    evaluation = run.evaluations.get(key)
    if evaluation is None:
        return Answer(run.label, "benchmark not run", "none", "", None, ())
    item = evaluation.items.get(item_id)
    if item is None:
        outcome, mark = "item not in this run's items file", "none"
    elif item.score is None:
        outcome, mark = "unscored", "none"
    else:
        outcome = f"score {item.score:.3g}"
        mark = {1.0: "right", 0.0: "wrong"}.get(item.score, "partly")
    completion = (evaluation.completions or {}).get(item_id)
    text, notes = None, []
    if completion:
        text, note = cut(completion.completion, COMPLETION_LIMIT)
        if note:
            notes.append(note)
        if not text.strip():
            notes.append("the completion is empty")
        if completion.finish_reason == "length":
            notes.append("generation ended at its token limit")
        elif completion.finish_reason not in (None, "stop"):
            notes.append(f"generation ended: {completion.finish_reason}")
    reason = item.reason if item else ""
    return Answer(run.label, outcome, mark, reason, text, tuple(notes))


def _example(runs: Sequence[Run], key: Key, item_id: str) -> Example:
    prompts = [
        evaluation.completions[item_id].prompt
        for run in runs
        if (evaluation := run.evaluations.get(key))
        and evaluation.completions
        and item_id in evaluation.completions
    ]
    prompt, note = cut(prompts[0], COMPLETION_LIMIT)
    notes = [note] if note else []
    if len(set(prompts)) > 1:
        notes.append("the runs were given different prompts; this is the first run's that has one")
    answers = tuple(_answer(run, key, item_id) for run in runs)
    return Example(key_name(key), item_id, prompt, tuple(notes), answers)


def examples(runs: Sequence[Run]) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The chosen items with all answers, and what is missing, in words."""
    notes = []
    for run in runs:
        lacking = [key_name(key) for key, one in run.evaluations.items() if one.completions is None]
        if lacking:
            notes.append(
                f"No completions of {run.label} for {', '.join(lacking)}: "
                f"no such .completions.jsonl in {run.folder}."
            )
        for key, one in run.evaluations.items():
            strange = len((one.completions or {}).keys() - one.items.keys())
            if strange:
                lone = plural(strange, "completion")
                notes.append(f"{run.label}, {key_name(key)}: {lone} without an item.")
    chosen = choose(runs)
    return tuple(_example(runs, key, item) for key, item in chosen), tuple(notes)
