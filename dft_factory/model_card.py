"""The model card beside the weights: what was trained, on what, with which scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dft_eval.results import BenchmarkResult, ResultFile, read_items, read_results
from dft_eval.seed_statistics import mean_interval
from dft_eval.training_file import training_record
from dft_factory.errors import ConfigError

BEGIN, END = "<!-- dft-factory: begin -->", "<!-- dft-factory: end -->"
"""What lies between is written again by every call; the rest of the card is the user's."""


def interval_of(folder: Path, row: BenchmarkResult) -> tuple[float, float] | None:
    """95 % interval of a score, from its items; None where nothing is scored."""
    items = [item for item in read_items(folder / row.items) if item.score is not None]
    scores = [item.score or 0.0 for item in items]
    return mean_interval(scores, [item.cluster or item.id for item in items])


def _hyperparameters(record: dict[str, Any]) -> list[str]:
    values = record.get("hyperparameters", {})
    return [f"- {name}: {value}" for name, value in values.items() if value not in (None, False)]


def _base_model(folder: Path, record: dict[str, Any], results: Sequence[ResultFile]) -> str | None:
    """As the adapter names it, else the training, else the results."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        name = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        if name:
            return str(name)
    named = [result.base_model for result in results if result.base_model]
    return record.get("base_model") or (named[0] if named else None)


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
    lines += _hyperparameters(record)
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
        between = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else ""
        items = str(row.n_total) if row.n_scored == row.n_total else f"{row.n_scored}/{row.n_total}"
        lines.append(
            f"| {row.benchmark} | {row.metric} | {score} | {between} | {items} | {row.harness} | "
            f"{row.prompt_style} | {row.decoding_name} | {row.seed} |"
        )
    return "\n".join([BEGIN, *lines, END])


def _with_section(text: str, section: str) -> str:
    head, begun, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2] if begun else ""
    parts = (head.strip(), section, tail.strip())
    return "\n\n".join(part for part in parts if part) + "\n"


def _model_index(rows: Sequence[tuple[Path, BenchmarkResult]]) -> list[Any]:
    from huggingface_hub import EvalResult

    made = []
    for _, row in rows:
        if row.score is not None:
            made.append(
                EvalResult(
                    task_type="text-generation",
                    dataset_type=row.benchmark,
                    dataset_name=row.benchmark,
                    dataset_args={
                        "prompt_style": row.prompt_style,
                        "decoding": row.decoding_name,
                        "seed": row.seed,
                    },
                    metric_type=row.metric,
                    metric_name=f"{row.metric} ({row.harness})",
                    metric_value=round(100 * row.score, 2),
                )
            )
    return made


def write_model_card(model_folder: Path, results: Sequence[Path]) -> Path:
    """Write or update ``README.md`` beside the weights, ready for ``huggingface-cli upload``.

    What others wrote into the card stays: their text, licence and tags. Hub metadata gains the base
    model, the objective as a tag, and a ``model-index`` of the scores (percent).

    Args:
        results: ``results.json`` of this model, or the folders that hold one.

    Raises:
        ConfigError: no folder, or results of another model.
        UsageError: results or the training record cannot be read.
    """
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
        card = ModelCard.load(path, ignore_metadata_errors=True)
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
    card.text = _with_section(card.text, _section(record, base_model, rows))
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
