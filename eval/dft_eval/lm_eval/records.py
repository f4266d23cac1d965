"""Read what lm-eval wrote: the score that it printed, and the score of every item."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval.errors import EvaluationError, UsageError
from dft_eval.results import ItemScore


@dataclass(frozen=True)
class Scored:
    """One task, or one group of tasks.

    Attributes:
        metric: the harness's name, ``acc`` or ``exact_match,strict-match``, the filter last.
        score: as the harness printed it.
        stderr: likewise; None where it gave none.
        breakdown: its other metrics, and of a group each task's score.
        items: of a group, those of all its tasks, each in the category of its task.
        available: items of the whole task.
        version: of the task.
        output_type: ``generate_until``, or how else the model is asked.
        sampled: whether it is asked for samples.
        num_fewshot: examples before each question.
        lm_eval: version of the harness.
    """

    metric: str
    score: float
    stderr: float | None
    breakdown: Mapping[str, float | None]
    items: Sequence[ItemScore]
    available: int
    version: str
    output_type: str
    sampled: bool
    num_fewshot: int
    lm_eval: str


def read(folder: Path, task: str, metric: str | None) -> Scored:
    """The scores of ``task`` in a folder of the harness's.

    Args:
        folder: its ``output_path``, of one run.
        metric: None for the first of the task.

    Raises:
        EvaluationError: files are missing or malformed.
        UsageError: the task has no such metric, or it is not between 0 and 1 for each item.
    """
    try:
        (path,) = folder.rglob("results_*.json")
        results = json.loads(path.read_text(encoding="utf-8"))
        leaves = list(_leaves(results, task))
        key = _metric_key(results["results"][leaves[0]], task, metric)
        items, date = [], path.stem.removeprefix("results_")
        for leaf in leaves:
            samples = path.with_name(f"samples_{leaf}_{date}.jsonl")
            items += list(_items(samples, leaf, key, grouped=leaves != [task]))
        values = {**results["results"], **results.get("groups", {})}[task]
        others = {name: value for name, value in _metrics(values).items() if name != key}
        if leaves != [task]:
            others |= {leaf: results["results"][leaf].get(key) for leaf in leaves}
        name, _, filter_name = key.partition(",")
        stderr = values.get(f"{name}_stderr,{filter_name}")
        config = results["configs"][leaves[0]]
        return Scored(
            metric=_plain(key),
            score=values[key],
            stderr=stderr if isinstance(stderr, float) else None,
            breakdown={_plain(name): value for name, value in others.items()},
            items=items,
            available=sum(results["n-samples"][leaf]["original"] for leaf in leaves),
            version=str(results["versions"].get(task)),
            output_type=config["output_type"],
            sampled=bool(config.get("generation_kwargs", {}).get("do_sample")),
            num_fewshot=results["n-shot"][leaves[0]],
            lm_eval=results["lm_eval_version"],
        )
    except UsageError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(
            f"{folder}: the records of lm-eval:{task} cannot be read ({error!r}). Evaluate it "
            "again with --fresh."
        ) from error


def _leaves(results: Mapping[str, Any], task: str) -> Iterator[str]:
    """The task, or those of the group, in groups of groups too."""
    below = results["group_subtasks"].get(task)
    if not below:
        yield task
    for member in below or ():
        yield from _leaves(results, member)


def _metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of one task by ``name,filter``."""
    return {
        key: value
        for key, value in values.items()
        if "," in key and "_stderr," not in key and isinstance(value, int | float)
    }


def _metric_key(values: Mapping[str, Any], task: str, metric: str | None) -> str:
    known = {_plain(key): key for key in _metrics(values)}
    if metric is None:
        return next(iter(known.values()))
    if metric not in known:
        raise UsageError(
            f"lm-eval:{task}@{metric}: the task has no such metric. Choose from: "
            f"{', '.join(known)}."
        )
    return known[metric]


def _plain(key: str) -> str:
    """``acc,none`` is ``acc``; a filter with a name stays."""
    return key.removesuffix(",none")


def _items(path: Path, task: str, key: str, *, grouped: bool) -> Iterator[ItemScore]:
    """The items of one task, scored by one metric."""
    metric, _, filter_name = key.partition(",")
    for line in path.read_text(encoding="utf-8").split("\n"):
        row = json.loads(line) if line else None
        if row is None or row["filter"] != filter_name:
            continue
        score = row[metric]
        if not isinstance(score, int | float) or not 0 <= score <= 1:
            raise UsageError(
                f"lm-eval:{task}: {metric} is {score!r} for an item, not a number between 0 and "
                f"1. Choose another metric: lm-eval:{task}@METRIC."
            )
        yield ItemScore(
            id=f"{task}/{row['doc_id']}",
            score=float(score),
            reason=f"{metric} {score:g}: right is {row['target'][:120]!r}",
            category=task if grouped else None,
        )
