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
from tests.e2e.test_eval_server import items_of, rows_of
from tests.support.jsonl import read_lines, write_lines
from tests.support.openai_server import FakeServer, serve

pytestmark = pytest.mark.cli
OWN: list[dict[str, Any]] = [
    {"question": f"which number comes after {n}", "answer": [str(n + 1), f"number {n + 1}"]}
    for n in range(6)
]


def test_a_tiny_checkpoint_in_both_styles(text_bench: Bench, tmp_path: Path) -> None:
    """A random model knows nothing; the file says how it was asked. The report shows both."""
    data = write_lines(tmp_path / "nq.jsonl", OWN)
    for style in ("completion", "chat"):
        done = dft_factory(
            *("eval", "nq", "--model", str(text_bench.model), "--out", str(tmp_path / "run")),
            *("--data", str(data), "--limit", "5", "--prompt-style", style, "--label", "base"),
        )
        assert done.returncode == 0, done.stderr
        assert f"base  nq ({style})  exact_match 0.0 %" in done.stdout
    written = json.loads((tmp_path / "run/results.json").read_text())
    assert [row["prompt_style"] for row in written["results"]] == ["completion", "chat"]
    for row, stop in zip(written["results"], (["\n"], []), strict=True):
        assert (row["benchmark"], row["score"], row["n_total"], row["n_scored"]) == ("nq", 0, 5, 5)
        assert row["breakdown"] == {"exact_match of lm-eval": 0.0, "contains": 0.0}
        assert row["notes"][0] == "partial: 5 of 3610"
        assert (row["decoding"]["max_new_tokens"], row["decoding"]["stop"]) == (32, stop)
        assert len(items_of(tmp_path / "run", row["items"])) == 5
    completions = read_lines(tmp_path / "run/nq.completion.completions.jsonl")
    asked = {row["prompt"] for row in completions}
    assert asked == {completion_prompt(row["question"]) for row in OWN[:5]}
    report = dft_factory("report", str(tmp_path / "run"), "--out", str(tmp_path))
    assert report.returncode == 0, report.stderr
    text = (tmp_path / "report.md").read_text()
    assert "nq, exact\\_match (completion, greedy) | nq, exact\\_match (chat, greedy) |" in text
    assert "Parts of nq (chat, greedy)" in text
    assert "our protocol (the paper gives none)" in text


def reply(question: Question, place: int) -> str:
    """Every fourth: the first alias; a sentence; the alias and more; another answer."""
    alias = question.answer[0]
    return (alias, f"I think it is {alias} , yes", f"{alias}, or so", "no idea")[place % 4]


@pytest.mark.parametrize("style", ["completion", "chat"])
def test_known_answers_are_scored_exactly(style: str, tmp_path: Path) -> None:
    """Six questions are 2, 2, 1 and 1 of the four kinds of :func:`reply`. Right under exact match:
    the first kind, 2; under lm-eval's rule, which cuts at the comma, the third too, 3; all but the
    fourth contain the answer, 5."""
    data = write_lines(tmp_path / "nq.jsonl", OWN)
    questions = read_data(data).questions
    prompt = chat_prompt if style == "chat" else completion_prompt
    answers = {prompt(q.question): reply(q, place) for place, q in enumerate(questions)}
    tail = "\nQ: and then?" if style == "completion" else ""
    server = FakeServer(lambda text: f" {answers[text]}{tail}", talks=False)
    with serve(server):
        call = (
            *("eval", "nq", "--backend", "openai", "--base-url", server.url, "--model", "tiny"),
            *("--out", str(tmp_path), "--data", str(data), "--prompt-style", style),
        )
        done = dft_factory(*call)
        assert done.returncode == 0, done.stderr
        assert len(server.seen) == len(OWN) + 1  # and the call before the run
        assert dft_factory(*call).returncode == 0
        assert len(server.seen) == len(OWN) + 1  # resumed: nothing is asked twice
    row = rows_of(tmp_path)["nq"]
    assert (row["score"], row["n_total"], row["n_scored"]) == (pytest.approx(2 / 6), 6, 6)
    parts = {"exact_match of lm-eval": 3 / 6, "contains": 5 / 6}
    assert row["breakdown"] == pytest.approx(parts)
    scores = items_of(tmp_path, row["items"])
    assert scores == {q.id: float(place % 4 == 0) for place, q in enumerate(questions)}
    sent = [body for body in server.seen if body["max_tokens"] == 32]
    assert len(sent) == 6
    for body in sent:
        assert body["temperature"] == 0
        assert body.get("stop") == (["\n"] if style == "completion" else None)


def test_without_a_hub_the_file_is_asked_for(text_bench: Bench, tmp_path: Path) -> None:
    done = dft_factory("eval", "nq", "--model", str(text_bench.model), "--out", str(tmp_path))
    assert done.returncode == 3, done.stderr
    assert "Give the file by --data FILE" in done.stderr
    assert "Traceback" not in done.stderr


def test_prepared_questions_are_the_prompts_of_the_evaluation(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", OWN)
    dev = write_lines(tmp_path / "dev.jsonl", OWN[:1])
    done = dft_factory(
        *("data", "prepare", "nq", "--source", str(source), "--exclude", str(dev)),
        *("--out", str(tmp_path / "data"), "--limit", "3", "--seed", "1"),
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (report["read"], report["kept"], report["sampled"]) == (6, 5, 3)
    assert report["dropped"] == {"excluded question": 1}
    rows = read_lines(tmp_path / "data/nq.jsonl")
    prompts = {chat_prompt(row["question"]): row["answer"][0] for row in OWN[1:]}
    assert len(rows) == 3
    assert all(prompts[row["instruction"]] == row["output"] for row in rows)
