"""Tasks of lm-evaluation-harness, run by the harness itself on a tiny checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dft_eval.benchmark import Request
from dft_eval.benchmarks import evaluate, score
from dft_eval.errors import EvaluationError, UsageError
from dft_eval.generation.shard import Shard
from dft_eval.lm_eval.records import read
from dft_eval.report import build_report
from dft_eval.results import BenchmarkResult, read_items
from dft_factory.cli.evaluate import check_evaluation
from tests.conftest import Bench
from tests.support.jsonl import write_lines

CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{label}}",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    "num_fewshot": 0,
    "metadata": {"version": 2.0},
}
ANY = {"function": "regex", "regex_pattern": "(.*)", "fallback": "x"}
WORDS = {
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match"}],
    "filter_list": [
        {"name": "strict", "filter": [{"function": "take_first"}]},
        {"name": "any", "filter": [ANY, {"function": "take_first"}]},
    ],
    "metadata": {"version": 1.0},
}


def _write_task(
    folder: Path, name: str, task: Mapping[str, Any], count: int, **options: Any
) -> None:
    rows = [
        {
            "question": f"print {i}",
            "choices": [f"{i}", f"{i} and a longer answer", "no"],
            "label": (0, 0, 0, 1, 1, 2, 2, 2, 2)[i],  # shares differ after 6 and after 9
            "answer": f"{i}",
        }
        for i in range(count)
    ]
    data = write_lines(folder / f"{name}.jsonl", rows)
    source = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**source, **task, **options}))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    _write_task(folder, "first_choice", CHOICE, 9)
    _write_task(folder, "other_choice", CHOICE, 6)
    _write_task(folder, "words", WORDS, 5)
    _write_task(folder, "programs", WORDS, 2, unsafe_code=True)
    group = {
        "group": "choices",
        "task": ["first_choice", "other_choice"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": False}],
        "metadata": {"version": 3.0},
    }
    (folder / "choices.yaml").write_text(yaml.safe_dump(group))
    return folder


@pytest.fixture(scope="module")
def request_(text_bench: Bench, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    out = tmp_path_factory.mktemp("lm-eval") / "base"
    return Request(str(text_bench.model), out, "base", data=tasks, own_max_new_tokens=True)


Results = Mapping[str, BenchmarkResult]
NAMES = ["lm-eval:choices", "lm-eval:words", "lm-eval:first_choice@acc_norm"]


@pytest.fixture(scope="module")
def results(request_: Request) -> dict[str, BenchmarkResult]:
    return {row.benchmark: row for row in evaluate(NAMES, request_).results}


def _harness_results(out: Path, name: str) -> dict[str, Any]:
    (path,) = out.glob(f"lm-eval-{name}.completion/records/*/results_*.json")
    printed: dict[str, Any] = json.loads(path.read_text())
    return printed


def test_tasks_and_groups_have_the_harness_scores(request_: Request, results: Results) -> None:
    printed = _harness_results(request_.out, "first_choice-acc_norm")["results"]["first_choice"]
    row = results["lm-eval:first_choice@acc_norm"]
    assert (row.metric, row.score) == ("acc_norm", printed["acc_norm,none"])
    assert row.stderr == pytest.approx(printed["acc_norm_stderr,none"])
    assert row.breakdown == {"acc": printed["acc,none"]}
    assert (row.n_total, row.n_scored, row.n_completions) == (9, 9, None)
    assert row.harness == "lm-eval 0.4.13, version 2.0 of the task"
    assert (row.decoding_name, row.decoding["num_fewshot"]) == ("multiple_choice", 0)
    items = read_items(request_.out / row.items)
    assert [item.id for item in items] == [f"first_choice/{i}" for i in range(9)]
    assert 0 < sum(item.score or 0 for item in items) < 9
    printed = _harness_results(request_.out, "choices")
    row = results["lm-eval:choices"]
    assert row.score == printed["results"]["choices"]["acc,none"]
    means = {
        name: printed["results"][name]["acc,none"] for name in ("first_choice", "other_choice")
    }
    assert row.score == pytest.approx(sum(means.values()) / 2)
    assert row.breakdown == means
    items = read_items(request_.out / row.items)
    assert [item.category for item in items] == ["first_choice"] * 9 + ["other_choice"] * 6
    assert means["first_choice"] != means["other_choice"]  # or there would be no note
    assert row.notes == ["the score is the harness's own aggregate, not the mean of the items"]


def test_generated_answers_are_scored_again(request_: Request, results: Results) -> None:
    """By the first filter."""
    row = results["lm-eval:words"]
    assert (row.metric, row.decoding_name, row.n_total) == ("exact_match,strict", "greedy", 5)
    assert set(row.breakdown) == {"exact_match,any"}
    assert {row.benchmark: row for row in score(request_.out).results} == results
    assert results["lm-eval:words"] in evaluate(["lm-eval:words"], request_).results
    log = (request_.out / "lm-eval-words.completion/log").read_text()
    assert "Cached requests: 5, Requests remaining: 0" in log


def test_comparison_item_by_item(request_: Request, results: Results, tmp_path: Path) -> None:
    other = tmp_path / "sft"
    other.mkdir()
    source = results["lm-eval:first_choice@acc_norm"]
    file = json.loads((request_.out / "results.json").read_text())
    file["label"], file["results"] = "sft", [json.loads(source.model_dump_json())]
    (other / "results.json").write_text(json.dumps(file))
    items = read_items(request_.out / source.items)
    flipped = [item.model_copy(update={"score": 1.0}) for item in items]
    (other / source.items).write_text("".join(f"{item.model_dump_json()}\n" for item in flipped))
    build_report([request_.out, other], tmp_path / "report")
    report = (tmp_path / "report/report.md").read_text()
    won = sum(item.score == 0 for item in items)
    assert f"**sft scores {100 * won / 9:.1f} points above base on lm-eval:first" in report
    assert f"{won} / 0 / {9 - won}" in report


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lm-eval:words@f1", r"no such metric. Choose from: exact_match,strict, exact_match,any"),
        ("lm-eval:programs", "runs programs that the model wrote.*humaneval"),
    ],
)
def test_refused_tasks(request_: Request, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate([name], replace(request_, out=tmp_path / "out"))
    assert not (tmp_path / "out/results.json").exists()


def test_a_failure_of_the_harness_is_no_score(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"(?s)status 1 and no results.*Tasks not found: x"):
        evaluate(["lm-eval:x"], replace(request_, out=tmp_path / "out"))


def test_metrics_outside_0_to_1(request_: Request, results: Results, tmp_path: Path) -> None:
    (samples,) = request_.out.glob("lm-eval-words.completion/records/*/samples_*.jsonl")
    lines = samples.read_text().replace('"exact_match": 0.0', '"exact_match": 7.5')
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / samples.name).write_text(lines)
    (printed,) = samples.parent.glob("results_*.json")
    (folder / printed.name).write_text(printed.read_text())
    with pytest.raises(UsageError, match=r"exact_match is 7\.5 for an item"):
        read(folder, "words", None)
    (folder / samples.name).unlink()
    with pytest.raises(EvaluationError, match="cannot be read"):
        read(folder, "words", None)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["lm-eval:"], "names no task"),
        (["nq", "--num-fewshot", "2"], "--num-fewshot 2 has no effect on nq.*lm-eval:TASK"),
        (["lm-eval:x", "--num-fewshot", "-1"], "--num-fewshot -1: give a number of 0 or more"),
        (["lm-eval:x", "--device-map", "auto"], "--device-map auto: lm-eval:x asks the model"),
        (
            ["lm-eval:x", "--device-map", "all"],
            "--device-map 'all' is unknown. Choose from: auto, ",
        ),
    ],
)
def test_checked_before_anything_runs(args: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_evaluation([*args, "--model", "m", "--out", "o"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "openai"}, "--backend hf"),
        ({"own_max_new_tokens": False}, "--max-new-tokens: lm-eval:words is decoded as its task"),
        (
            {"match_entropy": (Path("dft"),)},
            "--match-entropy dft: lm-eval:words asks the model itself",
        ),
        ({"shard": Shard(1, 2)}, "--shard 1/2: lm-eval:words asks the model itself"),
    ],
)
def test_unsupported_options(
    request_: Request, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    request = replace(request_, out=tmp_path, **change)
    with pytest.raises(UsageError, match=message):
        evaluate(["lm-eval:words"], request)
    decoding = replace(request_.decoding, temperature=0.5)
    with pytest.raises(UsageError, match="--temperature"):
        evaluate(["lm-eval:words"], replace(request_, out=tmp_path, decoding=decoding))
