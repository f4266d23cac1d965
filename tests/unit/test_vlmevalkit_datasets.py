"""Data sets of VLMEvalKit, run by the harness itself on tiny checkpoints that answer ``B``."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dft_eval.benchmark import Request
from dft_eval.benchmarks import check, evaluate, get_benchmark, score
from dft_eval.errors import UsageError
from dft_eval.report import build_report
from dft_eval.results import BenchmarkResult, read_items
from tests.conftest import Bench
from tests.support.cli import run_command
from tests.support.vision_models import make_vision_model
from tests.support.vlm_tables import picture, write_table

QUESTIONS = (
    "Which is it?",
    "What does the sign say?",
    "How many are there?",
    "Name the color of the circle.",
)


def teach(model_folder: Path, folder: Path, answer: str, *, lora: bool = False) -> Path:
    """The tiny checkpoint, or an adapter on it, that answers every prompt with ``answer``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(model_folder, dtype=torch.float32)
    if lora:
        layers = r".*language_model.*_proj"
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=layers))
    processor = AutoProcessor.from_pretrained(model_folder)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    target = [*processor.tokenizer(answer, add_special_tokens=False)["input_ids"], end]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batches = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": [{"type": "text", "text": question}]}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        start = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([start + target])
        batches.append((ids, torch.tensor([[-100] * len(start) + target])))
    for _ in range(25):
        for ids, labels in batches:
            model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _question(index: int) -> dict[str, Any]:
    image = picture(index % 100, (56, 56))
    return {"index": index, "image": image, "question": QUESTIONS[index % 4]}


def choice(index: int, answer: str, **fields: Any) -> dict[str, Any]:
    options = {"A": "one", "B": "two", "answer": answer}
    return {**_question(index), **options, "category": ("count", "color")[index % 2], **fields}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    splits = ["dev"] * 2 + ["validation"] * 5
    answers = "ABBABBA"
    write_table(
        folder / "MMMU_DEV_VAL.tsv",
        [choice(i, answers[i], split=splits[i], id=f"validation_{i}") for i in range(7)],
    )
    # Two questions in two rotations each: B is right in both rotations of the first only.
    groups = [(0, "B"), (1, "B"), (1_000_000, "B"), (1_000_001, "A")]
    write_table(folder / "MMBench_DEV_EN.tsv", [choice(i, answer) for i, answer in groups])
    ocr: list[dict[str, Any]] = []
    chart: list[dict[str, Any]] = []
    for i, answers in enumerate((["b", "bb"], ["q"], ["zz", "b"], ["b"], ["word"])):
        category = ("Regular Text Recognition", "Doc-oriented VQA")[i % 2]
        ocr.append({**_question(i), "answer": str(answers), "category": category})
    write_table(folder / "OCRBench.tsv", ocr)
    for i, answer in enumerate(("B", "14", "B", "B")):
        row = {**_question(i), "answer": f"['{answer}']"}
        chart.append({**row, "split": ("test_human", "test_augmented")[i % 2]})
    write_table(folder / "ChartQA_TEST.tsv", chart)
    write_table(folder / "MathVision.tsv", [choice(i, "B") for i in range(2)])
    return folder


Results = Mapping[str, BenchmarkResult]
NAMES = ["vlmeval:MMMU_DEV_VAL", "vlmeval:MMBench_DEV_EN", "vlmeval:OCRBench"]


@pytest.fixture(scope="module")
def request_(vl_bench: Bench, tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("vlmeval")
    return Request(
        model=str(teach(vl_bench.model, folder / "model", "B")),
        out=folder / "sft",
        label="sft",
        data=tables,
        own_max_new_tokens=True,
        min_pixels=28 * 28,
        max_pixels=400 * 400,  # OCRBench: the harness asks for 78,400 at least
    )


@pytest.fixture(scope="module")
def results(request_: Request) -> dict[str, BenchmarkResult]:
    evaluate(NAMES, request_)
    file = evaluate(["vlmeval:ChartQA_TEST"], replace(request_, limit=3))
    return {row.benchmark: row for row in file.results}


def _harness_results(out: Path, name: str, suffix: str) -> list[dict[str, str]]:
    (path,) = out.glob(f"vlmeval-{name}.chat/records/model_{name}{suffix}")
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _ids(request_: Request, row: BenchmarkResult) -> dict[str, float | None]:
    return {item.id: item.score for item in read_items(request_.out / row.items)}


def test_multiple_choice_has_the_score_of_its_split(request_: Request, results: Results) -> None:
    """Always B: right in 3 of the 5 of validation, in 1 of the 2 of dev."""
    row = results["vlmeval:MMMU_DEV_VAL"]
    printed = {
        x["split"]: float(x["Overall"])
        for x in _harness_results(request_.out, "MMMU_DEV_VAL", "_acc.csv")
    }
    assert printed == {"dev": 0.5, "validation": 0.6}
    assert (row.metric, row.score, row.n_total, row.n_scored) == ("accuracy", 0.6, 5, 5)
    assert row.breakdown["split dev"] == 0.5
    assert _ids(request_, row) == {"2": 1.0, "3": 0.0, "4": 1.0, "5": 1.0, "6": 0.0}
    assert row.harness == "VLMEvalKit 0.0.20 (MMMUDataset)"
    assert (row.decoding_name, row.decoding["dtype"]) == ("greedy", "float32")
    assert (row.decoding["min_pixels"], row.decoding["max_pixels"]) == (784, 160_000)
    assert len(row.decoding["table_sha256"]) == 64
    assert "split validation" in row.notes


def test_rotations_are_one_item(request_: Request, results: Results) -> None:
    row = results["vlmeval:MMBench_DEV_EN"]
    (printed,) = _harness_results(request_.out, "MMBench_DEV_EN", "_acc.csv")
    assert row.score == float(printed["Overall"]) == 0.5
    assert _ids(request_, row) == {"0": 1.0, "1": 0.0}
    reasons = [item.reason for item in read_items(request_.out / row.items)]
    assert "Rolling 1: Answer is A, Prediction is B" in reasons[1]
    assert "a question is right where it is in all rotations of its choices" in row.notes


def test_ocrbench_has_a_verdict_of_each_item(request_: Request, results: Results) -> None:
    row = results["vlmeval:OCRBench"]
    (path,) = request_.out.glob("vlmeval-OCRBench.chat/records/model_OCRBench_score.json")
    assert json.loads(path.read_text())["Final Score"] == 3
    assert row.score == 3 / 5
    assert _ids(request_, row) == {"0": 1.0, "1": 0.0, "2": 1.0, "3": 1.0, "4": 0.0}
    categories = {item.category for item in read_items(request_.out / row.items)}
    assert categories == {"Regular Text Recognition", "Doc-oriented VQA"}


def test_free_answers_and_scoring_again(request_: Request, results: Results) -> None:
    row = results["vlmeval:ChartQA_TEST"]
    (printed,) = _harness_results(request_.out, "ChartQA_TEST", "_acc.csv")
    assert (row.metric, row.score) == ("relaxed_accuracy", 2 / 3)
    assert float(printed["Overall"]) == pytest.approx(200 / 3)
    assert (row.n_total, "partial: 3 of 4" in row.notes) == (3, True)
    assert row.breakdown == {
        "test_human": float(printed["test_human"]) / 100,
        "test_augmented": float(printed["test_augmented"]) / 100,
    }
    assert _ids(request_, row) == {"0": 1.0, "1": 0.0, "2": 1.0}


@pytest.mark.parametrize(("kind", "prompts"), [("qwen2_vl", "the model"), ("lora", "the data set")])
def test_qwen2_vl_and_adapters(
    request_: Request, vl_bench: Bench, tmp_path: Path, kind: str, prompts: str
) -> None:
    """Every answer is the taught one, which no random weights give.

    Prompts are those of the harness's table of models.
    """
    base = vl_bench.model
    if kind == "qwen2_vl":
        base = make_vision_model(kind, base, tmp_path / "base")
    model = teach(base, tmp_path / "model", "B", lora=kind == "lora")
    assert (model / "adapter_config.json").is_file() == (kind == "lora")
    request = replace(request_, model=str(model), out=tmp_path / "out")
    (row,) = evaluate(["vlmeval:MMMU_DEV_VAL"], request).results
    (records,) = request.out.glob("vlmeval-*/records/**/model_MMMU_DEV_VAL.tsv")
    with records.open(newline="", encoding="utf-8") as stream:
        answers = {row["prediction"] for row in csv.DictReader(stream, delimiter="\t")}
    assert answers == {"B"}
    assert row.score == 3 / 5
    assert f"asked with the harness's prompts of {prompts}" in row.notes


def test_scoring_again_needs_the_folder_alone(
    request_: Request, results: Mapping[str, BenchmarkResult]
) -> None:
    assert {row.benchmark: row for row in score(request_.out).results} == results


def test_two_models_are_compared_item_by_item(
    request_: Request, results: Results, vl_bench: Bench, tmp_path: Path
) -> None:
    """Against random weights, whose eight tokens may contain the right letter."""
    decoding = replace(request_.decoding, max_new_tokens=8)
    base = replace(request_, model=str(vl_bench.model), out=tmp_path / "base", label="base")
    base = replace(base, decoding=decoding, own_max_new_tokens=False)
    (row,) = evaluate(["vlmeval:OCRBench"], base).results
    assert row.decoding["generate"]["max_new_tokens"] == 8
    ours, theirs = _ids(request_, results["vlmeval:OCRBench"]), _ids(base, row)
    changes = [(ours[name] or 0) - (theirs[name] or 0) for name in ours]
    build_report([base.out, request_.out], tmp_path / "report")
    report = (tmp_path / "report/report.md").read_text()
    assert f"{changes.count(1)} / {changes.count(-1)} / {changes.count(0)}" in report
    assert "vlmeval:OCRBench" in report


def test_a_scorer_that_is_not_run_is_refused(request_: Request, tmp_path: Path) -> None:
    message = "vlmeval:MathVision: the scorer of VLMEvalKit's MathVision is not run"
    with pytest.raises(UsageError, match=message):
        evaluate(["vlmeval:MathVision"], replace(request_, out=tmp_path / "out"))
    assert not (tmp_path / "out/results.json").exists()


REFUSALS = """
import sys
from pathlib import Path
from dft_eval.errors import UsageError
from dft_eval.vlmevalkit.driver import run
for name in sys.argv[1:]:
    try:
        run({"dataset": name, "limit": 1}, Path())
    except UsageError as error:
        print(error)
"""


LOADED = """
import sys
import torch
from dft_eval.model_files import find_model
from dft_eval.vlm import hf_vision
from dft_eval.vlmevalkit.driver import open_chat

ids = torch.arange(20, 44)[None]
ours, _ = hf_vision.load(find_model(sys.argv[1]), "float32")
chat = open_chat({"model": sys.argv[1], "dtype": "float32", "options": {"system_prompt": None}})
with torch.inference_mode():
    logits = [model(input_ids=ids).logits for model in (ours, chat.model)]
print("same logits:", torch.equal(*logits))
print("same attention:", ours.config._attn_implementation == chat.model.config._attn_implementation)
"""


def test_the_model_is_loaded_as_for_the_other_benchmarks(vl_bench: Bench) -> None:
    """Bit for bit: 24 rows, for which ``hf_prepare`` multiplies in another order on a CPU."""
    output = run_command([sys.executable, "-c", LOADED, vl_bench.model]).stdout
    assert "same logits: True" in output
    assert "same attention: True" in output


def test_refused_before_a_model_is_loaded() -> None:
    names = ["OCRBenc", "MMBench_DEV_EN", "POPE"]
    output = run_command([sys.executable, "-c", REFUSALS, *names]).stdout
    unknown, rotated, unsupported = [line for line in output.splitlines() if "vlmeval:" in line]
    assert unknown.startswith("vlmeval:OCRBenc is unknown to VLMEvalKit. Did you mean 'OCRBench'?")
    assert rotated.startswith("--limit: vlmeval:MMBench_DEV_EN asks each question in all rotations")
    assert unsupported.startswith(
        "vlmeval:POPE: the scorer of VLMEvalKit's ImageYORNDataset is not run"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_style": "completion"}, "is asked by chat alone"),
        ({"backend": "openai", "base_url": "http://127.0.0.1:9/v1"}, "runs with --backend hf"),
        ({"data": Path("/nowhere")}, "give a folder that holds OCRBench.tsv"),
    ],
)
def test_refused_before_the_harness_starts(changes: dict[str, Any], message: str) -> None:
    request = replace(Request("m", Path("out"), "sft", own_max_new_tokens=True), **changes)
    benchmark = get_benchmark("vlmeval:OCRBench")
    with pytest.raises(UsageError, match=message):
        benchmark.load(benchmark, request)


def test_useless_options_and_names_are_refused() -> None:
    request = Request("m", Path("out"), "sft", num_fewshot=3)
    with pytest.raises(UsageError, match="--num-fewshot 3 has no effect on vlmeval:OCRBench"):
        check(["vlmeval:OCRBench"], request)
    with pytest.raises(UsageError, match="names no data set"):
        check(["vlmeval:"], Request("m", Path("out"), "sft"))
