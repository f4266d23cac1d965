"""Which completions are shown side by side: a rule, so that nobody picks the flattering ones.

Of a variant with several training seeds the first seed is shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from dft_eval.report.formats import cut, plural
from dft_eval.report.runs import Key, Run, Variant, key_name

COMPLETION_LIMIT = 1500
"""Characters of a completion, or prompt, that are shown."""


COUNT = 10
RULE = (
    "Items on which the runs' scores disagree come first, then others, taken in turn from each "
    "benchmark; within a benchmark those with the most completions, in the order of a hash of "
    "their id. They are not hand-picked."
)


def _ranked(runs: Sequence[Run], key: Key) -> tuple[list[str], list[str]]:
    """Items with a completion: those on which scored runs disagree, and the others."""
    evaluations = [run.evaluations[key] for run in runs if key in run.evaluations]
    counts: dict[str, int] = {}
    for evaluation in evaluations:
        for name in evaluation.completions or {}:
            counts[name] = counts.get(name, 0) + 1

    def rank(name: str) -> tuple[int, str]:
        text = "\0".join((key.benchmark, key.style, name)).encode("utf-8", "surrogatepass")
        return -counts[name], hashlib.sha256(text).hexdigest()

    disagreed: list[str] = []
    others: list[str] = []
    for name in sorted(counts, key=rank):
        scores = {one.items[name].score for one in evaluations if name in one.items}
        (disagreed if len(scores - {None}) > 1 else others).append(name)
    return disagreed, others


def choose(runs: Sequence[Run], count: int = COUNT) -> list[tuple[Key, str]]:
    """At most ``count`` items (benchmark and item id), by :data:`RULE`."""
    keys = tuple(dict.fromkeys(key for run in runs for key in run.evaluations))
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


def _answer(run: Run, name: str, key: Key, item_id: str) -> Answer:
    evaluation = run.evaluations.get(key)
    if evaluation is None:
        return Answer(name, "benchmark not run", "none", "", None, ())
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
        if evaluation.samples > 1:
            notes.append(f"first of {evaluation.samples} samples")
        if note:
            notes.append(note)
        if not text.strip():
            notes.append("the completion is empty")
        if completion.finish_reason == "length":
            notes.append("generation ended at its token limit")
        elif completion.finish_reason not in (None, "stop"):
            notes.append(f"generation ended: {completion.finish_reason}")
    reason = item.reason if item else ""
    return Answer(name, outcome, mark, reason, text, tuple(notes))


def _example(runs: Sequence[Run], names: Sequence[str], key: Key, item_id: str) -> Example:
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
    answers = tuple(_answer(run, name, key, item_id) for run, name in zip(runs, names, strict=True))
    return Example(key_name(key), item_id, prompt, tuple(notes), answers)


def _folders(run: Run, keys: Sequence[Key]) -> str:
    return ", ".join(dict.fromkeys(str(run.evaluations[key].folder) for key in keys))


def examples(variants: Sequence[Variant]) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The chosen items with all answers, and what is missing, in words."""
    notes = []
    for variant in variants:
        for run in variant.runs:
            name = variant.run_name(run)
            evaluations = run.evaluations.items()
            without = [key for key, one in evaluations if one.completions is None]
            if without:
                notes.append(
                    f"No completions of {name} for {', '.join(map(key_name, without))}: "
                    f"no such .completions.jsonl in {_folders(run, without)}."
                )
            for key, one in evaluations:
                strange = len((one.completions or {}).keys() - one.items.keys())
                if strange:
                    lone = plural(strange, "completion")
                    notes.append(f"{name}, {key_name(key)}: {lone} without an item.")
    first = [variant.runs[0] for variant in variants]
    names = [variant.run_name(variant.runs[0]) for variant in variants]
    shown = tuple(_example(first, names, key, item) for key, item in choose(first))
    return shown, tuple(notes)
