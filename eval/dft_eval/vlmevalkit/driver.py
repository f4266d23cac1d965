"""VLMEvalKit on one data set: ``python -m dft_eval.vlmevalkit.driver FOLDER``.

A process of its own: ``import vlmeval`` replaces the TLS context by an unverified one, loads a
``.env``, and takes seconds. Reads ``FOLDER/run.json``, writes ``FOLDER/scores.json``, with
``refused`` where the data set cannot be run.

``Qwen2VLChat`` runs as it is but for what ties it to one GPU with flash attention: model and
processor are loaded as the other benchmarks' are, which a completion may depend on where two tokens
are equally likely.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dft_eval.errors import UsageError, did_you_mean
from dft_eval.generation import hf_load
from dft_eval.model_files import find_model
from dft_eval.vlm import hf_vision
from dft_eval.vlmevalkit.files import REFUSED, RUN, SCORES, WORK

NAME = "model"
"""Of the model, in the names of the harness's files."""
VQA_METRICS = {
    "TextVQA": "vqa_score",
    "ChartQA": "relaxed_accuracy",
    "OCRVQA": "accuracy",
    "GQA": "accuracy",
    "DocVQA": "anls",
    "InfoVQA": "anls",
}
"""What each of ``ImageVQADataset`` is scored by."""
MODELS = {"qwen2_5_vl": "Qwen2.5-VL-3B-Instruct", "qwen2_vl": "Qwen2-VL-2B-Instruct"}
"""Whose settings in the harness's table of models a model_type takes."""


def find_class(name: str) -> tuple[type, str]:
    """The class of a data set, and the kind of its scorer.

    Raises:
        UsageError: it is unknown, or its scorer is not one that is run here.
    """
    import vlmeval.dataset as stock
    from vlmeval.dataset.image_mcq import ImageMCQDataset
    from vlmeval.dataset.image_vqa import ImageVQADataset, OCRBench

    names = {
        each: cls for cls in reversed(stock.DATASET_CLASSES) for each in cls.supported_datasets()
    }

    def kind_of(cls: Any) -> str | None:
        for kind, base in (("mcq", ImageMCQDataset), ("vqa", ImageVQADataset)):
            own = [getattr(cls, each, None) for each in ("evaluate", "evaluate_heuristic")]
            if own == [base.evaluate, base.evaluate_heuristic]:
                return kind
        return "ocrbench" if cls is OCRBench else None

    able = [each for each, cls in names.items() if kind_of(cls)]
    if name not in names:
        raise UsageError(
            f"vlmeval:{name} is unknown to VLMEvalKit.{did_you_mean(name, able)} Choose from: "
            f"{', '.join(able)}."
        )
    kind = kind_of(names[name])
    if kind is None:
        raise UsageError(
            f"vlmeval:{name}: the scorer of VLMEvalKit's {names[name].__name__} is not run: it may "
            "ask a judge model, evaluate what the model wrote as Python, or keep no score of "
            "items. Multiple choice, visual question answering and OCRBench are run: "
            f"{', '.join(able)}."
        )
    return names[name], kind


def is_circular(name: str) -> bool:
    """Whether each question is asked in all rotations of its choices (as ``image_mcq`` decides)."""
    return any(word in name.lower() for word in ("mmbench", "ccbench", "circular", "mmcr"))


def open_chat(settings: dict[str, Any]) -> Any:
    """``Qwen2VLChat`` on the model, with the settings of the harness's own table of models."""
    import transformers
    import vlmeval.vlm.qwen2_vl.model as stock
    from transformers.feature_extraction_utils import BatchFeature
    from vlmeval.config import supported_VLM

    files, dtype = find_model(settings["model"]), settings["dtype"]
    model, processor = hf_vision.load(files, dtype, hf_load.needed_device_map(files, dtype))
    stock.get_gpu_memory = lambda: [1]
    for name in ("Qwen2_5_VLForConditionalGeneration", "Qwen2VLForConditionalGeneration"):
        getattr(transformers, name).from_pretrained = lambda *_, **__: model
    for name in ("AutoProcessor", "Qwen2VLProcessor"):
        getattr(transformers, name).from_pretrained = lambda *_, **__: processor
    move = BatchFeature.to
    BatchFeature.to = lambda self, *_, **__: move(self, hf_load.first_device(model))
    options = dict(supported_VLM[MODELS[model.config.model_type]].keywords)
    options |= {"model_path": str(files.base or files.folder), **settings["options"]}
    return stock.Qwen2VLChat(**options)


def run(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Ask, score, and read the scores of the items from the harness's records."""
    from vlmeval.inference import infer_data_job
    from vlmeval.smp import load
    from vlmeval.smp.file import get_pred_file_path

    name, limit = settings["dataset"], settings["limit"]
    cls, kind = find_class(name)
    if kind == "mcq" and is_circular(name) and limit is not None:
        raise UsageError(
            f"--limit: vlmeval:{name} asks each question in all rotations of its choices, which a "
            "limit would cut. Leave it out."
        )
    if settings["own_tables"]:
        cls.DATASET_MD5 = {}  # type: ignore[attr-defined]  # else another file is downloaded over it
    dataset = cls(dataset=name)
    if "answer" not in dataset.data or dataset.data["answer"].isna().all():
        raise UsageError(f"vlmeval:{name} has no answers in its table: it is scored elsewhere.")
    available = len(dataset.data)
    chat = open_chat(settings)
    work = folder / WORK
    work.mkdir(exist_ok=True)
    infer_data_job(chat, str(work), NAME, dataset, limit=limit)
    file = get_pred_file_path(str(work), NAME, name)
    read = {"mcq": _choices, "vqa": _free_answers, "ocrbench": _ocrbench}[kind]
    predictions = load(file)["prediction"]
    return {
        **read(dataset, file),
        "version": version("ms-vlmeval"),
        "class": cls.__name__,
        "available": available,
        "n_asked": len(predictions),
        "n_nan": int(predictions.isna().sum()),
        "table_sha256": hashlib.sha256(Path(dataset.data_path).read_bytes()).hexdigest(),
        "generate": chat.generate_kwargs,
        "pixels": [chat.min_pixels, chat.max_pixels],
        "custom_prompt": bool(chat.use_custom_prompt(name)),
    }


def _item(row: Any, score: float, log: object = "") -> dict[str, Any]:
    category = row.get("category")
    answer, right = (str(row[key])[:120] for key in ("prediction", "answer"))
    return {
        "id": str(row["index"]),
        "score": float(score),
        "reason": str(log)[:240] or f"answer {answer!r}, right is {right!r}",
        "category": category if isinstance(category, str) else None,
    }


def _rows(record: Any) -> list[Any]:
    return [record.iloc[i] for i in range(len(record))]


def _choices(dataset: Any, file: str) -> dict[str, Any]:
    """Multiple choice: ``hit`` of each question; of several splits the one that is reported."""
    from vlmeval.dataset.image_base import _choose_primary_metric_key
    from vlmeval.smp import load
    from vlmeval.smp.file import get_intermediate_file_path

    printed = dataset.evaluate(file, model="exact_matching")
    record = load(get_intermediate_file_path(file, "_exact_matching_result"))
    overall = {f"split={row['split']}|Overall": row for row in _rows(printed)}
    row = overall[_choose_primary_metric_key(overall)]
    if len(overall) > 1:
        record = record[record["split"] == row["split"]]
    breakdown = {str(key): row[key] for key in printed if key not in ("split", "Overall")}
    if len(overall) > 1:
        breakdown |= {f"split {each['split']}": each["Overall"] for each in overall.values()}
    rotated = is_circular(dataset.dataset_name)  # there the log says what each rotation answered
    items = [_item(each, each["hit"], each["log"] if rotated else "") for each in _rows(record)]
    return {
        "metric": "accuracy",
        "score": float(row["Overall"]),
        "split": row["split"] if len(overall) > 1 else None,
        "breakdown": {key: _fraction(value) for key, value in breakdown.items()},
        "items": items,
    }


def _free_answers(dataset: Any, file: str) -> dict[str, Any]:
    """Visual question answering: what ``hit_calculate`` makes of each item's matches."""
    from vlmeval.dataset.utils.vqa_eval import hit_calculate
    from vlmeval.smp import load
    from vlmeval.smp.file import get_intermediate_file_path

    (printed,) = _rows(dataset.evaluate(file))
    rows = _rows(load(get_intermediate_file_path(file, "_results")))
    matches = [{"match": ast.literal_eval(row["eval_match"])} for row in rows]
    hits = hit_calculate(matches, dataset.dataset_name)
    metrics = [metric for word, metric in VQA_METRICS.items() if word in dataset.dataset_name]
    return {
        "metric": metrics[0] if metrics else "vqa_score",
        "score": float(printed["Overall"]) / 100,
        "split": None,
        "breakdown": {
            str(key): _fraction(printed[key] / 100) for key in printed.index if key != "Overall"
        },
        "items": [_item(row, hit) for row, hit in zip(rows, hits, strict=True)],
    }


def _ocrbench(dataset: Any, file: str) -> dict[str, Any]:
    """OCRBench, which keeps no record of items: its scorer on each row by itself."""
    from vlmeval.smp import dump, load

    record = load(file)
    printed = dataset.evaluate(file)
    single = str(Path(file).with_name(f"single.{file.rpartition('.')[2]}"))
    items = []
    for i, row in enumerate(_rows(record)):
        dump(record.iloc[i : i + 1], single)
        items.append(_item(row, dataset.evaluate(single)["Final Score"]))
    return {
        "metric": "accuracy",
        "score": printed["Final Score"] / len(record),
        "split": None,
        "breakdown": {},
        "items": items,
    }


def _fraction(value: Any) -> float | None:
    """None for NaN: a category without a row."""
    number = float(value)
    return number if number == number else None


def main() -> None:
    """Run what a folder says."""
    folder = Path(sys.argv[1])
    settings = json.loads((folder / RUN).read_text(encoding="utf-8"))
    try:
        scores = run(settings, folder)
    except UsageError as error:
        scores = {REFUSED: str(error)}
    (folder / SCORES).write_text(json.dumps(scores, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
