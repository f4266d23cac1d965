"""Read run folders. Everything is checked here, so that the rest of the report works on good data.

A run folder holds ``results.json`` and the item files that it names. Optional are
``<benchmark>.completions.jsonl``; ``trainer_state.json`` and ``scores.jsonl`` in the folder, one
immediate sub folder, the model's folder or the one above it; ``token_probabilities.json`` or
``probe.json``. Run folders of one label, seed and model, such as one greedy and one sampled, are
one run; runs of one label that differ in the training seed are one variant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dft_eval.errors import UsageError
from dft_eval.report.files import (
    PROBE,
    TOKEN_PROBABILITIES,
    read_completions,
    read_curves,
    read_probabilities,
    read_probe,
    read_training_scores,
)
from dft_eval.report.formats import one_line
from dft_eval.report.runs import Evaluation, Key, Run, Variant, key_name
from dft_eval.results import (
    RESULTS_NAME,
    BenchmarkResult,
    ItemScore,
    problems_path,
    read_items,
    read_results,
)


def _by_id(rows: Sequence[ItemScore], path: Path) -> dict[str, ItemScore]:
    twice = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise UsageError(f"{path}: {len(twice)} item ids occur more than once, first {twice[0]!r}.")
    return {row.id: row for row in rows}


def _read_items(folder: Path, row: BenchmarkResult) -> dict[str, ItemScore]:
    if not row.items or Path(row.items).name != row.items:
        raise UsageError(
            f"{folder}: the items file of {row.benchmark} must lie beside results.json, "
            f"but is named {row.items!r}."
        )
    path = folder / row.items
    if not path.is_file():
        raise UsageError(
            f"No {path}, which {folder / 'results.json'} names as the items of {row.benchmark}: "
            f"run `dft-factory eval {row.benchmark} ... --out {folder}` again."
        )
    return _by_id(read_items(path), path)


def _completions_path(folder: Path, row: BenchmarkResult, rows: Sequence[BenchmarkResult]) -> Path:
    """``x.completions.jsonl`` beside ``x.items.jsonl``, else ``<benchmark>.completions.jsonl``.

    The latter only where the benchmark was run in one prompt style: of two it could be either's.
    """
    beside = folder / f"{row.items.removesuffix('.items.jsonl')}.completions.jsonl"
    if beside.is_file() or sum(other.benchmark == row.benchmark for other in rows) > 1:
        return beside
    # A benchmark's name comes from a file: it must not lead out of the folder.
    return folder / f"{Path(row.benchmark).name}.completions.jsonl"


def _add_probe(folder: Path, runs: Sequence[Run]) -> list[Run]:
    """``runs`` with the token probabilities of a folder that ``dft-factory probe`` wrote."""
    path = folder / PROBE
    probe = read_probe(folder)
    with_probe = [
        run if run.probabilities else replace(run, probabilities=probe.of(run.results))
        for run in runs
    ]
    if all(probe.of(run.results) is None for run in runs):
        raise UsageError(
            f"{path} holds {', '.join(repr(model.label) for model in probe.models)}, the runs are "
            f"{', '.join(repr(run.label) for run in runs)}: run `dft-factory probe ... --model "
            "LABEL=PATH` with the label of a run."
        )
    return with_probe


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Raises:
        UsageError: ``results.json`` or an items file is missing, or any file is malformed.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file: name the run folder, {folder.parent}.")
    results = read_results(folder)
    results = results.model_copy(update={"label": one_line(results.label)})
    evaluations: dict[Key, Evaluation] = {}
    for row in results.results:
        completions = read_completions(_completions_path(folder, row, results.results))
        items = _read_items(folder, row)
        path = problems_path(folder, row)
        problems = _by_id(read_items(path), path) if path.is_file() else None
        evaluation = Evaluation(folder, row, items, problems, completions)
        if completions and evaluation.samples > 1:
            # By item the first of its samples, whose ids are <item>#0, <item>#1, ...
            ids = {id.removesuffix("#0"): id for id in completions if id.endswith("#0")}
            first = {item: completions[id] for item, id in ids.items()}
            evaluation = replace(evaluation, completions=first)
        if evaluation.key in evaluations:
            name = key_name(evaluation.key)
            raise UsageError(f"{folder / 'results.json'} holds {name} twice.")
        evaluations[evaluation.key] = evaluation
    return Run(
        folder=folder,
        results=results,
        evaluations=evaluations,
        curves=read_curves(folder, results.model),
        training_scores=read_training_scores(folder, results.model),
        probabilities=read_probabilities(folder, results),
    )


def read_variants(folders: Sequence[Path]) -> tuple[Variant, ...]:
    """Read run folders, in the order given; a folder may also be one of ``dft-factory probe``.

    Raises:
        UsageError: two runs of one label and seed, runs of one label that differ in more than the
            seed, token-probability histograms of different bins, or whatever :func:`read_run`
            refuses.
    """
    probes = [
        folder
        for folder in folders
        if (folder / PROBE).is_file() and not (folder / RESULTS_NAME).is_file()
    ]
    runs = [read_run(folder) for folder in folders if folder not in probes]
    if probes and not runs:
        raise UsageError(
            f"{folders[0]} holds a probe and no results: name the run folders too, "
            "`dft-factory report RUN_DIR... PROBE_DIR --out DIR`."
        )
    for folder in probes:
        runs = _add_probe(folder, runs)
    _refuse_different_bins(runs)
    by_label: dict[str, list[Run]] = {}
    for run in runs:
        alike = by_label.setdefault(run.label, [])
        for number, earlier in enumerate(alike):
            if earlier.seed == run.seed:
                alike[number] = _joined(earlier, run)
                break
        else:
            alike.append(run)
    return tuple(_variant(label, alike) for label, alike in by_label.items())


def _joined(first: Run, second: Run) -> Run:
    """One run of two folders of the same label and seed.

    Raises:
        UsageError: they hold the same evaluation, or results of different models.
    """
    one, other = first.results, second.results
    same = first.evaluations.keys() & second.evaluations.keys()
    if same:
        why = f"hold {', '.join(sorted(map(key_name, same)))}"
    elif (one.model_sha256 or one.model) != (other.model_sha256 or other.model):
        why = f"are of different models, {one.model} and {other.model}"
    else:
        return replace(
            first,
            evaluations={**first.evaluations, **second.evaluations},
            curves=first.curves or second.curves,
            training_scores=first.training_scores or second.training_scores,
            probabilities=first.probabilities or second.probabilities,
        )
    seed = "" if first.seed is None else f", seed {first.seed}"
    raise UsageError(
        f"Both {first.folder} and {second.folder} are labelled {first.label!r}{seed} and {why}: "
        f"{_RELABEL}"
    )


_RELABEL = (
    "give one of them another `label` in its results.json, or runs that differ in the training "
    'seed their `training: {"seed": N}`.'
)


def _variant(label: str, runs: Sequence[Run]) -> Variant:
    if len(runs) > 1 and None in [run.seed for run in runs]:
        folders = f"{runs[0].folder} and {runs[1].folder}"
        raise UsageError(f"Both {folders} are labelled {label!r}: {_RELABEL}")
    variant = Variant(label, tuple(sorted(runs, key=lambda run: run.seed or 0)))
    for run in variant.runs[1:]:
        unlike = _unlike(variant.runs[0], run)
        if unlike:
            raise UsageError(
                f"{variant.runs[0].folder} and {run.folder} are labelled {label!r} and differ in "
                f"more than the training seed: {unlike}. Give one of them another `label` in its "
                "results.json."
            )
    return variant


def _unlike(first: Run, second: Run) -> str:
    """Why two runs cannot be seeds of one variant; empty if they can."""
    unlike = []
    bases = first.results.base_model, second.results.base_model
    if bases[0] != bases[1]:
        unlike.append(f"base model {bases[0]} and {bases[1]}")
    for key in first.evaluations.keys() & second.evaluations.keys():
        settings = first.evaluations[key].unlike(second.evaluations[key])
        settings.pop("seed", None)  # each training may be sampled with its own
        unlike += [f"{key.benchmark}: {text}" for text in settings.values()]
    return "; ".join(unlike)


def _refuse_different_bins(runs: Sequence[Run]) -> None:
    edges = [(run.folder, run.probabilities.bin_edges) for run in runs if run.probabilities]
    for folder, own in edges[1:]:
        first_folder, first = edges[0]
        if len(first) != len(own) or not np.allclose(first, own, rtol=0, atol=1e-9):
            raise UsageError(
                f"{first_folder / TOKEN_PROBABILITIES} and {folder / TOKEN_PROBABILITIES} have "
                "different bin_edges and cannot share a histogram: probe both with the same bins."
            )
