"""The model card beside the weights: training, data and scores."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dft_eval.results import BenchmarkResult, ResultFile, problems_path, read_items, read_results
from dft_eval.seed_statistics import mean_interval
from dft_eval.training_file import training_record
from dft_factory.errors import ConfigError

BEGIN, END = "<!-- dft-factory: begin -->", "<!-- dft-factory: end -->"
"""Each call replaces the text between these; the rest of the card belongs to the user."""


def interval_of(folder: Path, row: BenchmarkResult) -> tuple[float, float] | None:
    """95 % interval of a score; None if the score is not the mean of its items.

    WeMath scores whole problems, which are in a file beside its items.
    """
    problems = problems_path(folder, row)
    path = problems if problems.is_file() else folder / row.items
    items = [item for item in read_items(path) if item.score is not None]
    scores = [item.score or 0.0 for item in items]
    if not scores or row.score is None:
        return None
    if not math.isclose(math.fsum(scores) / len(scores), row.score, abs_tol=1e-6):
        return None
    return mean_interval(scores, [item.cluster or item.id for item in items])


def _partial(row: BenchmarkResult) -> str:
    """What a score leaves out of the benchmark: ``20 of 1319``; empty if nothing."""
    notes = [note for note in row.notes if note.startswith("partial: ")]
    left_out = [note.removeprefix("partial: ") for note in notes]
    if row.n_scored < row.n_total:
        left_out.append(f"{row.n_scored} of {row.n_total} scored")
    return ", ".join(left_out)


def _base_model(folder: Path, record: dict[str, Any], results: Sequence[ResultFile]) -> str | None:
    """From the adapter, else the training record, else the results."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        name = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        if name:
            return str(name)
    names = [result.base_model for result in results if result.base_model]
    return record.get("base_model") or (names[0] if names else None)


def _section(
    record: dict[str, Any], base_model: str | None, rows: Sequence[tuple[Path, BenchmarkResult]]
) -> str:
    lines = ["## Training", ""]
    if "finetuning_type" in record:
        lines += [
            f"- finetuning_type: {record['finetuning_type']}",
            f"- token weight: {record['token_weight']}",
        ]
    lines += [f"- base model: {base_model}"] if base_model else []
    if record.get("dataset"):
        lines += [f"- data: {', '.join(record['dataset'])}"]
    if record.get("system_prompt"):
        lines += [f"- system prompt: {json.dumps(record['system_prompt'], ensure_ascii=False)}"]
    for name, value in record.get("hyperparameters", {}).items():
        if value not in (None, False):
            lines.append(f"- {name}: {value}")
    if "dft_factory" in record:
        lines += [f"- dft-factory {record['dft_factory']}"]
    if rows:
        lines += [
            *("", "## Scores", ""),
            "| benchmark | metric | score | 95 % interval | items | harness | prompt | decoding "
            "| seed |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
    for folder, row in rows:
        score = "unscored" if row.score is None else f"{100 * row.score:.1f} %"
        interval = interval_of(folder, row)
        bounds = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else ""
        partial = _partial(row)
        items = f"{row.n_total} (partial: {partial})" if partial else str(row.n_total)
        lines.append(
            f"| {row.benchmark} | {row.metric} | {score} | {bounds} | {items} | {row.harness} | "
            f"{row.prompt_style} | {row.decoding_name} | {row.seed} |"
        )
    return "\n".join([BEGIN, *lines, END])


def _model_index(rows: Sequence[tuple[Path, BenchmarkResult]]) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=row.benchmark,
            dataset_name=row.benchmark,
            dataset_args={
                "prompt_style": row.prompt_style,
                "decoding": row.decoding_name,
                "seed": row.seed,
                **({"partial": partial} if (partial := _partial(row)) else {}),
            },
            metric_type=row.metric,
            metric_name=f"{row.metric} ({row.harness})",
            metric_value=round(100 * row.score, 2),
        )
        for _, row in rows
        if row.score is not None
    ]


def write_model_card(model_folder: Path, results: Sequence[Path]) -> Path:
    """Write or update ``README.md`` beside the weights, ready for ``huggingface-cli upload``.

    Keeps the rest of an existing card: text, licence and tags. Adds hub metadata: the base model,
    the objective as a tag, and a ``model-index`` of the scores (percent).

    Args:
        results: ``results.json`` of this model, or their folders.

    Raises:
        ConfigError: no folder, results of another model, or a card that cannot be read.
        UsageError: results or the training record cannot be read.
    """
    import yaml
    from huggingface_hub import ModelCard, ModelCardData

    if not model_folder.is_dir():
        raise ConfigError(f"{model_folder}: no such model folder.")
    record = training_record(str(model_folder))
    files = [read_results(path) for path in results]
    _refuse_other_models(model_folder, results, files)
    rows = [
        (path if path.is_dir() else path.parent, row)
        for path, file in zip(results, files, strict=True)
        for row in file.results
    ]
    base_model = _base_model(model_folder, record, files)
    path = model_folder / "README.md"
    if path.is_file():
        try:
            card = ModelCard.load(path, ignore_metadata_errors=True)
        except (ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"{path} cannot be read: {reason}. Correct the YAML between its first two lines of "
                "---, or move the file away."
            ) from error
    else:
        data = ModelCardData(library_name="transformers", pipeline_tag="text-generation")
        card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {model_folder.resolve().name}\n")
    objective = record.get("finetuning_type")
    tags = [tag for tag in card.data.tags or [] if tag != objective]
    card.data.tags = [*tags, *([objective] if objective else [])] or None
    if base_model and not Path(base_model).exists():  # the hub knows no local folder
        card.data.base_model = base_model
    scores = _model_index(rows)
    if scores:
        card.data.model_name = card.data.model_name or model_folder.resolve().name
        card.data.eval_results = scores
    head, _, rest = card.text.partition(BEGIN)
    parts = (head, _section(record, base_model, rows), rest.partition(END)[2])
    card.text = "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
    card.save(path)
    return path


def _refuse_other_models(
    model_folder: Path, paths: Sequence[Path], files: Sequence[ResultFile]
) -> None:
    from dft_eval.model_files import find_model, model_sha256

    if all(file.model_sha256 is None for file in files):
        return
    own = model_sha256(find_model(str(model_folder)))
    for path, file in zip(paths, files, strict=True):
        if file.model_sha256 not in (None, own):
            raise ConfigError(
                f"{path} holds the results of {file.model!r} (sha256 {file.model_sha256}), not of "
                f"{model_folder} (sha256 {own}). Give the results of these weights."
            )
