"""``dft-factory eval --backend openai`` against a server on loopback with known answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dft_eval.humaneval_plus.data import read_data
from dft_eval.python_programs import human_eval, python_basics
from tests.e2e.test_eval_command import dft_factory
from tests.support.cli import clean_environment, executable
from tests.support.kill_and_resume import kill_and_resume
from tests.support.openai_server import FakeServer, serve
from tests.unit.test_evalplus import WRONG_UNDER_PLUS

pytestmark = pytest.mark.cli
KEY = "sk-a-secret-of-the-test"


def known(answers: dict[str, str]) -> Any:
    return lambda prompt: answers[prompt.strip()]


def evaluate(server: FakeServer, out: Path, *args: object, status: int = 0) -> str:
    """Everything that ``dft-factory eval`` printed."""
    options = ("--backend", "openai", "--base-url", server.url, "--model", "tiny", "--out", out)
    result = dft_factory("eval", *args, *options, status=status)
    return result.stdout + result.stderr


def rows_of(out: Path) -> dict[str, Any]:
    rows = json.loads((out / "results.json").read_text())["results"]
    return {row["benchmark"]: row for row in rows}


def items_of(out: Path, name: str) -> dict[str, float | None]:
    lines = (out / name).read_text().splitlines()
    return {row["id"]: row["score"] for row in map(json.loads, lines)}


@pytest.mark.parametrize("fault", [None, "drop"])
def test_known_answers(tmp_path: Path, fault: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third program is wrong; also with a server that drops every tenth request."""
    problems = human_eval()[:24]
    wrong = {p.task_id for p in problems[::3]}
    answers = {
        p.prompt.strip(): "    return object()\n" if p.task_id in wrong else p.canonical_solution
        for p in problems
    }
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = FakeServer(known(answers), fault=lambda n: None if n % 10 else fault, key=KEY)
    with serve(server):
        output = evaluate(server, tmp_path, "humaneval", "--limit", 24, "--batch-size", 5)
    row = rows_of(tmp_path)["humaneval"]
    assert (row["score"], row["n_scored"]) == (pytest.approx(16 / 24), 24)
    assert row["decoding"]["backend"] == "openai"
    assert json.loads((tmp_path / "results.json").read_text())["model_sha256"] is None
    scores = items_of(tmp_path, row["items"])
    assert {id for id, score in scores.items() if score == 0.0} == wrong
    assert KEY not in output + "".join(path.read_text() for path in tmp_path.iterdir())


def test_an_unscored_item_fails_the_command(tmp_path: Path) -> None:
    problems = human_eval()[:6]
    answers = {p.prompt.strip(): p.canonical_solution for p in problems}

    def refusal(body: dict[str, Any]) -> str:
        refused = body["prompt"].startswith(problems[2].prompt.strip())
        return "too long for me" if refused else ""

    with serve(FakeServer(known(answers), refusal=refusal)) as server:
        assert "1 of 6" in evaluate(server, tmp_path, "humaneval", "--limit", 6, status=1)
        row = rows_of(tmp_path)["humaneval"]
        assert (row["score"], row["n_total"], row["n_scored"]) == (1.0, 6, 5)
        assert items_of(tmp_path, row["items"])[problems[2].task_id] is None
        assert "too long for me" in (tmp_path / row["items"]).read_text()
        server.refusal = lambda body: ""
        evaluate(server, tmp_path, "humaneval", "--limit", 6)
    assert rows_of(tmp_path)["humaneval"]["n_scored"] == 6


def test_humaneval_and_plus_share_one_generation(tmp_path: Path, test_data: Path) -> None:
    path = test_data / "humanevalplus" / "HumanEvalPlus.jsonl.gz"
    problems = read_data(path).problems[:14]
    answers = {
        p.prompt.strip(): WRONG_UNDER_PLUS.get(p.task_id, p.canonical_solution) for p in problems
    }
    answers[problems[4].prompt.strip()] = "    return None\n"
    with serve(FakeServer(known(answers))) as server:
        evaluate(server, tmp_path, "humaneval", "humaneval+", "--limit", 14, "--data", path)
    rows = rows_of(tmp_path)
    assert rows["humaneval"]["score"] == pytest.approx(13 / 14)
    assert rows["humaneval+"]["score"] == pytest.approx(10 / 14)
    assert rows["humaneval+"]["breakdown"]["base tests"] == pytest.approx(13 / 14)
    assert rows["humaneval+"]["harness"] == "evalplus 0.3.1"
    assert any("md5 fe585eb4" in note for note in rows["humaneval+"]["notes"])
    assert sum(body["max_tokens"] > 1 for body in server.seen) == 14


def test_samples_give_pass_at_k(tmp_path: Path) -> None:
    """The samples of a prompt have different seeds; the server's answers to even ones are wrong."""
    problems = human_eval()[:3]
    answers = {p.prompt.strip(): p.canonical_solution for p in problems}

    def wrong_for_even_seeds(body: dict[str, Any], answer: dict[str, Any]) -> None:
        if body["seed"] % 2 == 0:
            answer["choices"][0]["text"] = "    return object()\n"

    sampling = ("--samples", 10, "--temperature", 0.8, "--top-p", 0.95, "--seed", 3)
    with serve(FakeServer(known(answers), edit=wrong_for_even_seeds)) as server:
        evaluate(server, tmp_path, "humaneval", "--limit", 3, *sampling)
    row = rows_of(tmp_path)["humaneval"]
    seeds: dict[str, set[int]] = {}
    for body in server.seen[1:]:
        seeds.setdefault(body["prompt"], set()).add(body["seed"])
    assert [len(values) for values in seeds.values()] == [10, 10, 10]
    shares = {
        p.task_id: sum(seed % 2 for seed in seeds[p.prompt.strip() + "\n"]) / 10 for p in problems
    }
    assert items_of(tmp_path, row["items"]) == pytest.approx(shares)
    assert row["score"] == pytest.approx(sum(shares.values()) / 3)
    assert row["breakdown"] == {"pass@10": 1.0}


def test_a_resumed_run_repeats_no_request(tmp_path: Path) -> None:
    """SIGKILL four times: the same scores, and only requests in flight are repeated."""
    problems = python_basics()[:30]
    answers = {p.prompt.strip(): p.canonical_solution for p in problems}
    on_disk: set[str] = set()
    repeated: list[str] = []

    def watch(body: dict[str, Any]) -> str:
        if body["max_tokens"] > 1 and body["prompt"].strip() in on_disk:
            repeated.append(body["prompt"])
        return ""

    prompts = {p.task_id: p.prompt.strip() for p in problems}
    server = FakeServer(known(answers), refusal=watch)

    def kill_now(number: int) -> bool:
        """Three times during generation, then as soon as everything is answered."""
        return len({body["prompt"] for body in server.seen[31:]}) >= (4, 13, 22, 30)[number]

    def after_kill(completed: set[str]) -> None:
        on_disk.update(prompts[name.split(" ", 1)[1]] for name in completed)

    with serve(server):
        kills = kill_and_resume(
            [
                *(executable("dft-factory"), "eval", "python-basics", "--backend", "openai"),
                *("--base-url", server.url, "--model", "tiny", "--limit", "30"),
                *("--prompt-style", "completion", "--batch-size", "2", "--out"),
            ],
            tmp_path,
            kills=4,
            environment=clean_environment(),
            now=kill_now,
            after_kill=after_kill,
        )
    assert repeated == []
    assert len(kills) == 4
    assert not any(kill.too_late for kill in kills[:3]), kills
    assert any(0 < kill.kept < 30 for kill in kills), kills
    assert rows_of(tmp_path / "killed")["python-basics"]["score"] == 1.0
