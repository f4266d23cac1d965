"""``dft-factory eval nq`` and ``data prepare nq`` as a user types them, on both backends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dft_eval.natural_questions.data import Question, read_data
from dft_eval.natural_questions.prompts import chat_prompt, completion_prompt
from tests.conftest import Bench
from tests.e2e.test_eval_command import dft_factory
from tests.e2e.test_eval_server import evaluate, items_of, rows_of
from tests.support.jsonl import read_lines, write_lines
from tests.support.openai_server import FakeServer, serve

pytestmark = pytest.mark.cli
ROWS: list[dict[str, Any]] = [
    {"question": f"which number comes after {n}", "answer": [str(n + 1), f"number {n + 1}"]}
    for n in range(6)
]


def test_a_tiny_checkpoint_in_both_styles(text_bench: Bench, tmp_path: Path) -> None:
    """A random model knows nothing; the results record the prompt style, the report shows both."""
    data = write_lines(tmp_path / "nq.jsonl", ROWS)
    for style in ("completion", "chat"):
        output = dft_factory(
            *("eval", "nq", "--model", text_bench.model, "--out", tmp_path / "run"),
            *("--data", data, "--limit", "5", "--prompt-style", style, "--label", "base"),
        ).stdout
        assert f"base  nq ({style})  exact_match 0.0 %" in output
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert [row["prompt_style"] for row in results["results"]] == ["completion", "chat"]
    for row, stop in zip(results["results"], (["\n"], []), strict=True):
        assert (row["benchmark"], row["score"], row["n_total"], row["n_scored"]) == ("nq", 0, 5, 5)
        assert row["breakdown"] == {"exact_match of lm-eval": 0.0, "contains": 0.0}
        assert row["notes"][0] == "partial: 5 of 3610"
        assert (row["decoding"]["max_new_tokens"], row["decoding"]["stop"]) == (32, stop)
        assert len(items_of(tmp_path / "run", row["items"])) == 5
    completions = read_lines(tmp_path / "run/nq.completion.completions.jsonl")
    prompts = {row["prompt"] for row in completions}
    assert prompts == {completion_prompt(row["question"]) for row in ROWS[:5]}
    dft_factory("report", tmp_path / "run", "--out", tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "nq, exact\\_match (completion, greedy) | nq, exact\\_match (chat, greedy) |" in text
    assert "Parts of nq (chat, greedy)" in text
    assert "our protocol (the paper gives none)" in text


def reply(question: Question, i: int) -> str:
    """In turn: the first alias; a sentence; the alias and more; another answer."""
    alias = question.answer[0]
    return (alias, f"I think it is {alias} , yes", f"{alias}, or so", "no idea")[i % 4]


@pytest.mark.parametrize("style", ["completion", "chat"])
def test_known_answers_are_scored_exactly(style: str, tmp_path: Path) -> None:
    """Six questions have 2, 2, 1 and 1 of the four kinds of :func:`reply`. Exact match accepts the
    first kind (2), lm-eval's rule, which cuts at the comma, also the third (3); all but the fourth
    contain the answer (5)."""
    data = write_lines(tmp_path / "nq.jsonl", ROWS)
    questions = read_data(data).questions
    prompt = chat_prompt if style == "chat" else completion_prompt
    answers = {prompt(q.question): reply(q, i) for i, q in enumerate(questions)}
    tail = "\nQ: and then?" if style == "completion" else ""
    server = FakeServer(lambda text: f" {answers[text]}{tail}", talks=False)
    with serve(server):
        for _ in range(2):  # the second call requests nothing
            evaluate(server, tmp_path, "nq", "--data", data, "--prompt-style", style)
            assert len(server.seen) == len(ROWS) + 1  # and the call before the run
    row = rows_of(tmp_path)["nq"]
    assert (row["score"], row["n_total"], row["n_scored"]) == (pytest.approx(2 / 6), 6, 6)
    parts = {"exact_match of lm-eval": 3 / 6, "contains": 5 / 6}
    assert row["breakdown"] == pytest.approx(parts)
    scores = items_of(tmp_path, row["items"])
    assert scores == {q.id: float(i % 4 == 0) for i, q in enumerate(questions)}
    requests = [body for body in server.seen if body["max_tokens"] == 32]
    assert len(requests) == 6
    for body in requests:
        assert body["temperature"] == 0
        assert body.get("stop") == (["\n"] if style == "completion" else None)


def test_without_a_hub_the_file_is_asked_for(text_bench: Bench, tmp_path: Path) -> None:
    command = ("eval", "nq", "--model", text_bench.model, "--out", tmp_path)
    stderr = dft_factory(*command, status=3).stderr
    assert "Give the file by --data FILE" in stderr
    assert "Traceback" not in stderr


def test_prepared_questions_are_the_prompts_of_the_evaluation(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", ROWS)
    dev = write_lines(tmp_path / "dev.jsonl", ROWS[:1])
    prepare = ("data", "prepare", "nq", "--source", source, "--exclude", dev)
    result = dft_factory(*prepare, "--out", tmp_path / "data", "--limit", 3, "--seed", 1)
    report: dict[str, Any] = json.loads(result.stdout)
    assert (report["read"], report["kept"], report["sampled"]) == (6, 5, 3)
    assert report["dropped"] == {"excluded question": 1}
    rows = read_lines(tmp_path / "data/nq.jsonl")
    prompts = {chat_prompt(row["question"]): row["answer"][0] for row in ROWS[1:]}
    assert len(rows) == 3
    assert all(prompts[row["instruction"]] == row["output"] for row in rows)
