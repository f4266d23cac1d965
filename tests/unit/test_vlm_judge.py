"""The judge model: a real server on loopback that is up, down, slow, busy, or replies nonsense."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dft_eval.benchmark import JudgeChoice
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.vlm.judge import OUTAGE_AFTER, REPLY_TRIES, OpenAIJudge
from tests.support.judge_server import Answer, judge_server

KEY = "sk-proj-THISmustNEVERbeSEEN-0123456789"


def judge_at(url: str, folder: Path, reply_seconds: float = 30.0) -> OpenAIJudge:
    choice, cache = JudgeChoice("openai", "judge-model", url), folder / "replies.jsonl"
    return OpenAIJudge(choice, cache, attempts=4, reply_seconds=reply_seconds)


def ask(url: str, folder: Path, *prompts: str, accepts: Any = bool, **options: Any) -> list[Any]:
    return judge_at(url, folder, **options).ask(prompts, accepts, lambda done, total: None)


def echo(prompt: str, number: int) -> Answer:
    return Answer(f"re: {prompt}")


def test_replies_come_in_order_and_are_cached(tmp_path: Path) -> None:
    prompts = [f"p{i % 20}" for i in range(50)]
    with judge_server(echo) as server:
        replies = ask(server.url, tmp_path, *prompts)
        assert [reply.text for reply in replies] == [f"re: {prompt}" for prompt in prompts]
        assert sorted(server.prompts) == sorted(set(prompts))
        assert ask(server.url, tmp_path, *prompts) == replies
        assert len(server.prompts) == 20
        ask(server.url, tmp_path, "new")
        assert server.prompts[20:] == ["new"]
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge-model", 0.0, 128)


def test_replies_of_another_model_or_server_are_not_used(tmp_path: Path) -> None:
    with judge_server(echo) as server, judge_server(lambda p, n: Answer("other")) as other:
        ask(server.url, tmp_path, "p")
        (reply,) = ask(other.url, tmp_path, "p")
    assert reply.text == "other"


def test_a_partial_line_of_a_killed_run_is_dropped(tmp_path: Path) -> None:
    with judge_server(echo) as server:
        ask(server.url, tmp_path, "a")
        cache = tmp_path / "replies.jsonl"
        cache.write_text(cache.read_text() + '{"asked": "123", "rep')
        ask(server.url, tmp_path, "a", "b")
        ask(server.url, tmp_path, "a", "b")
        assert server.prompts == ["a", "b"]
    keys = [set(json.loads(line)) for line in cache.read_text().splitlines()]
    assert keys == [{"asked", "reply"}] * 2


def test_a_busy_server_is_retried(tmp_path: Path) -> None:
    def busy(prompt: str, number: int) -> Answer:
        if number <= 2:
            return Answer(status=429, raw="{}", headers={"Retry-After": "0"})
        return Answer(status=503, raw="") if number == 3 else Answer("yes")

    with judge_server(busy) as server:
        (reply,) = ask(server.url, tmp_path, "p")
    assert reply.text == "yes"
    assert len(server.prompts) == 4


@pytest.mark.parametrize(("status", "requests", "works"), [(429, 5, True), (503, 3, False)])
def test_the_first_call_waits_for_a_busy_server_alone(
    tmp_path: Path, status: int, requests: int, works: bool
) -> None:
    """One that is down is the user's to start: after three attempts there is a message."""

    def late(prompt: str, number: int) -> Answer:
        headers = {"Retry-After": "0"}
        return Answer("yes") if number >= 5 else Answer(status=status, raw="{}", headers=headers)

    with judge_server(late) as server:
        judge = judge_at(server.url, tmp_path)
        if works:
            judge.check()
        else:
            with pytest.raises(PrerequisiteError, match=r"does not work: .*status 503"):
                judge.check()
    assert len(server.prompts) == requests


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (lambda p, n: Answer(status=500, raw="boom"), "500"),
        (lambda p, n: Answer(raw="<html>"), "no JSON object"),
        (lambda p, n: Answer("x", seconds=3.0), "Timeout"),
    ],
)
def test_failed_replies(tmp_path: Path, behave: Callable[[str, int], Answer], message: str) -> None:
    with judge_server(behave) as server:
        (reply,) = ask(server.url, tmp_path, "p", reply_seconds=0.2)
    assert reply.text is None
    assert message in reply.reason
    assert not (tmp_path / "replies.jsonl").exists()


@pytest.mark.parametrize("raw", [None, "{}", '{"choices": []}', '{"choices": [{"message": {}}]}'])
def test_unusable_replies_are_retried_and_then_given_up(tmp_path: Path, raw: str | None) -> None:
    """At rising temperature; unusable replies are not cached."""
    with judge_server(lambda p, n: Answer("maybe", raw=raw)) as server:
        (reply,) = ask(server.url, tmp_path, "p", accepts={"0", "1"}.__contains__)
    assert reply.text is None
    assert "without sense" in reply.reason
    assert [body["temperature"] for body in server.bodies] == [0.5 * i for i in range(REPLY_TRIES)]
    assert not (tmp_path / "replies.jsonl").exists()


def test_one_unusable_reply_is_retried(tmp_path: Path) -> None:
    with judge_server(lambda p, n: Answer("maybe" if n < 3 else " 1\n")) as server:
        (reply,) = ask(server.url, tmp_path, "p", accepts={"0", "1"}.__contains__)
    assert reply.text == "1"


def test_an_outage_ends_the_requests(tmp_path: Path) -> None:
    """Ten replies, then none: the rest is unscored, and a later run requests only the rest."""
    prompts = [f"p{i}" for i in range(60)]
    limit = [10]

    def fails(prompt: str, number: int) -> Answer:
        return echo(prompt, number) if number <= limit[0] else Answer(status=500, raw="{}")

    with judge_server(fails) as server:
        replies = ask(server.url, tmp_path, *prompts)
        assert sum(reply.text is not None for reply in replies) == 10
        assert all(reply.reason for reply in replies if reply.text is None)
        assert len(server.prompts) <= 10 + 6 * (OUTAGE_AFTER + 8)  # six tries
        before = len(server.prompts)
        limit[0] = 10**9
        replies = ask(server.url, tmp_path, *prompts)
        assert [reply.text for reply in replies] == [f"re: {prompt}" for prompt in prompts]
        assert len(server.prompts) - before == 50


def test_refused_prompts_do_not_stop_the_others(tmp_path: Path) -> None:
    def refuses(prompt: str, number: int) -> Answer:
        long = prompt.startswith("long")
        return Answer(status=400, raw='{"error": "context"}') if long else echo(prompt, number)

    prompts = [*(f"long{i}" for i in range(2 * OUTAGE_AFTER)), "short"]
    with judge_server(refuses) as server:
        replies = ask(server.url, tmp_path, *prompts)
    assert replies[-1].text == "re: short"
    assert "context" in replies[0].reason


def test_models_that_refuse_max_tokens(tmp_path: Path) -> None:
    def reasons(prompt: str, number: int) -> Answer:
        if "max_tokens" in server.bodies[-1]:
            return Answer(status=400, raw='{"error": {"message": "Use max_completion_tokens."}}')
        return Answer("1")

    with judge_server(reasons) as server:
        judge = judge_at(server.url, tmp_path)
        judge.check()
        assert ask(server.url, tmp_path, "p")[0].text == "1"
    assert "temperature" not in server.bodies[-1]
    assert "max_completion_tokens 2048" in judge.described


def test_an_unusable_judge_is_found_before_the_run(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(PrerequisiteError, match=r"--judge-base-url.*--judge rules") as error:
        judge_at(f"http://127.0.0.1:{port}/v1", tmp_path).check()
    assert str(port) in str(error.value)
    with (
        judge_server(lambda p, n: Answer(raw='{"choices": []}')) as server,
        pytest.raises(PrerequisiteError, match="without a text"),
    ):
        judge_at(server.url, tmp_path).check()


def test_the_key_goes_to_the_server_and_nowhere_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also where the server repeats all or part of it, as OpenAI's does."""
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    errors = []
    reply = f'{{"error": {{"message": "Incorrect API key provided: {KEY[:12]}***{KEY[-6:]}"}}}}'
    for answer in (Answer(status=401, raw=reply), Answer(status=500, raw=f"failed for {KEY}")):
        with judge_server(lambda p, n, answer=answer: answer) as server:
            judge = judge_at(server.url, tmp_path)
            with pytest.raises(PrerequisiteError) as error:
                judge.check()
            assert server.headers["Authorization"] == f"Bearer {KEY}"
            errors += [str(error.value), judge.described]
            errors += [reply.reason for reply in ask(server.url, tmp_path, "p")]
    with judge_server(echo) as server:
        judge_at(server.url, tmp_path).announce(["p"])
        ask(server.url, tmp_path, "p")
    files = "".join(path.read_text() for path in tmp_path.iterdir())
    everything = "\n".join([*errors, caplog.text, *capfd.readouterr(), files])
    assert "JUDGE_API_KEY" in errors[0]
    for part in (KEY, KEY[:12], KEY[-6:]):
        assert part not in everything


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (JudgeChoice("openai"), "--judge-model"),
        (JudgeChoice("openai", "m", "localhost:8000"), "--judge-base-url"),
        (JudgeChoice("openai", "m", "http://user:secret@host/v1"), "JUDGE_API_KEY"),
    ],
)
def test_invalid_options_are_named(choice: JudgeChoice, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as error:
        OpenAIJudge(choice, tmp_path / "replies.jsonl")
    assert "secret" not in str(error.value)


def test_requests_are_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with judge_server(echo) as server:
        judge = judge_at(server.url, tmp_path)
        judge.estimate(96, 2048, "mathvision")
        judge.announce(["x" * 400, "x" * 400, "y" * 800])
        ask(server.url, tmp_path, "y" * 800)
        judge = judge_at(server.url, tmp_path)
        judge.announce(["x" * 400, "y" * 800])
    lines = capsys.readouterr().err.splitlines()
    assert "at most 96 requests, 254,208 tokens in" in lines[0]  # 96 * (600 + 2048)
    assert "2 requests to make, about 300 tokens in" in lines[1]
    assert "1 requests to make, about 100 tokens in" in lines[2]
    assert "1 answered already" in lines[2]
