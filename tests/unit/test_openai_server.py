"""The server backend against a real HTTP server on loopback, with its faults."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation.openai_http import Connection, check_base_url
from dft_eval.generation.openai_messages import answer_from
from dft_eval.generation.openai_server import OpenAIServer
from dft_eval.generation.resume import generate_each
from dft_eval.generation.run import Completion, Decoding, Failure, Prompt, samples_of
from tests.support.generate import generate
from tests.support.openai_server import FakeServer, serve

KEY = "sk-a-secret-of-the-test"
DECODING = Decoding(max_new_tokens=50, batch_size=4, stop=("\ndef ",))
PROMPTS = [Prompt(f"q{i}", f"question {i}") for i in range(30)]
BEGINS = "Below is a script:\n```python\n"


def answer(prompt: str) -> str:
    return f"    return {prompt.split()[-1]}\ndef other"


def backend(server: FakeServer, key: str | None = None, **options: Any) -> OpenAIServer:
    return OpenAIServer("tiny", Connection(server.url, key, **options))


OPTIONS: dict[str, Any] = {"progress": lambda done, total: None}


def run(server: FakeServer, prompts: list[Prompt], path: Path, **changes: Any) -> list[Completion]:
    decoding = replace(DECODING, **changes)
    return generate(prompts, decoding, path / "x.jsonl", backend=backend(server), **OPTIONS)


@pytest.mark.parametrize("fault", ["drop", "hang up", "garbage", 429, 500, 503])
def test_failed_requests_change_no_completion(fault: str | int, tmp_path: Path) -> None:
    with serve(FakeServer(answer, fault=lambda n: fault if n % 10 == 0 else None)) as server:
        rows = run(server, PROMPTS, tmp_path)
    assert [row.id for row in rows] == [p.id for p in PROMPTS]
    assert [row.completion for row in rows] == [f"    return {i}" for i in range(30)]
    assert {row.finish_reason for row in rows} == {"stop"}
    assert len(server.seen) == 31  # the call before the run, and one per prompt
    assert server.posts == 31 + 3
    assert server.most_under_way <= 4


@pytest.mark.parametrize("fault", ["drop", 429, 503])
def test_long_restarts(fault: str | int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the sum of the client's waits; the server is up again after 120 seconds."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    down = lambda n: fault if n > 1 and sum(waits) < 120 else None  # noqa: E731
    with serve(FakeServer(answer, fault=down)) as server:
        (row,) = run(server, PROMPTS[:1], tmp_path, batch_size=1)
    assert row.completion == "    return 0"
    assert sum(waits) >= 120


def test_requests_are_raw_greedy_and_stopped(tmp_path: Path) -> None:
    with serve(FakeServer(answer)) as server:
        run(server, PROMPTS[:2], tmp_path)
    assert server.seen[0]["max_tokens"] == 1
    sent = sorted(server.seen[1:], key=lambda body: body["prompt"])
    expected = {
        "model": "tiny",
        "max_tokens": 50,
        "temperature": 0.0,
        "stop": ["\ndef "],
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }
    assert sent == [{**expected, "prompt": f"question {i}"} for i in range(2)]


def test_a_server_that_refuses_sampler_fields(tmp_path: Path) -> None:
    """As OpenAI's does: recorded where the default applies, else an error."""
    refusal = lambda body: "Unrecognized request argument: top_k" if "top_k" in body else ""  # noqa: E731
    with serve(FakeServer(answer, refusal=refusal)) as server:
        model = backend(server)
        generate(PROMPTS[:2], DECODING, tmp_path / "x", backend=model, **OPTIONS)
        assert model.record()["refused_by_server"] == ["top_k", "min_p", "repetition_penalty"]
        assert {body["top_p"] for body in server.seen} == {1.0}
        assert all(body["stop"] for body in server.seen)
        with pytest.raises(UsageError, match="Unrecognized request argument: top_k"):
            run(server, PROMPTS[:1], tmp_path / "y", repetition_penalty=1.1)


def test_a_refused_request_is_a_failure_and_is_tried_again(tmp_path: Path) -> None:
    refused = {PROMPTS[3].text: "the prompt is too long"}
    with serve(FakeServer(answer, refusal=lambda body: refused.get(body["prompt"], ""))) as server:
        path = tmp_path / "x.jsonl"
        rows = generate_each(PROMPTS, DECODING, path, backend=backend(server), **OPTIONS)
        failed = [row for row in rows if isinstance(row, Failure)]
        assert [row.id for row in failed] == ["q3"]
        assert "the prompt is too long" in failed[0].reason
        assert sum(isinstance(row, Completion) for row in rows) == 29
        refused.clear()
        before = len(server.seen)
        completions = run(server, PROMPTS, tmp_path)
        assert [row.completion for row in completions] == [f"    return {i}" for i in range(30)]
        assert len(server.seen) == before + 2  # the call before the run, and what was missing


def test_a_server_that_dies(tmp_path: Path) -> None:
    with serve(FakeServer(answer, fault=lambda n: "drop" if n > 11 else None)) as server:
        model = backend(server, attempts=2)
        rows = generate_each(PROMPTS, DECODING, tmp_path / "x.jsonl", backend=model, **OPTIONS)
    assert sum(isinstance(row, Completion) for row in rows) == 10
    assert any("does not answer any more" in row.reason for row in rows if isinstance(row, Failure))
    assert server.posts <= 11 + 8 * 2  # without all attempts of every prompt


@pytest.mark.parametrize("continues", [True, False])
def test_a_partial_answer(continues: bool, tmp_path: Path) -> None:
    """Both kinds of server give the same completion, and the record names the kind."""
    prompts = [Prompt(f"c{i}", f"question {i}", chat=True, answer_begins=BEGINS) for i in range(3)]
    with serve(FakeServer(answer, continues=continues)) as server:
        model = backend(server)
        decoding = Decoding(max_new_tokens=50, stop=("\n```",))
        rows = generate(prompts, decoding, tmp_path / "x.jsonl", backend=model, **OPTIONS)
    assert [r.completion for r in rows] == [f"    return {i}\ndef other" for i in range(3)]
    kind = "continued by the server" if continues else "not sent"
    assert model.record()["begun_answer"] == kind
    last = server.seen[-1]
    assert [m["role"] for m in last["messages"]] == ["user", "assistant"][: 1 + continues]
    assert ("stop" in last) == continues
    assert rows[0].prompt.endswith(BEGINS) == continues


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BEGINS + "x = 1\n```", "x = 1\n```"),
        ("Sure.\n```py\nx = 1\n```\nIt is 1.", "x = 1\n```\nIt is 1."),
        ("x = 1", "x = 1"),
    ],
)
def test_answer_from_a_server_without_partial_answers(text: str, expected: str) -> None:
    assert answer_from(text, BEGINS) == expected
    assert answer_from("So ```\nx\n```", "The answer is") == "So ```\nx\n```"


def test_a_server_that_accepts_few_stop_texts(tmp_path: Path) -> None:
    with serve(FakeServer(answer, most_stops=4)) as server:
        stop = ("\nclass ", "\nimport ", "\nfrom ", "\ndef ", "\nassert ")
        rows = run(server, PROMPTS[:3], tmp_path, stop=stop)
    assert [row.completion for row in rows] == [f"    return {i}" for i in range(3)]
    assert all("stop" not in body for body in server.seen)


def test_sampling_has_one_seed_per_prompt(tmp_path: Path) -> None:
    with serve(FakeServer(answer)) as server:
        run(server, PROMPTS[:3], tmp_path, temperature=0.5, top_p=0.9, seed=7)
    bodies = server.seen[1:]
    assert {(body["temperature"], body["top_p"]) for body in bodies} == {(0.5, 0.9)}
    seeds = {body["prompt"]: body["seed"] for body in bodies}
    decoding = Decoding(temperature=0.5, seed=7)
    assert seeds == {p.text: decoding.row_seed(p.id) for p in PROMPTS[:3]}
    assert len(set(seeds.values())) == 3


def test_pictures_are_sent_as_data(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(b"\x89PNG picture")
    prompt = Prompt("v", "what is it", chat=True, images=(str(picture),))
    with serve(FakeServer(answer)) as server:
        run(server, [prompt], tmp_path, stop=())
    content = server.seen[-1]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"]
    encoded = content[0]["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert base64.b64decode(encoded) == picture.read_bytes()


def test_finish_reason_length(tmp_path: Path) -> None:
    with serve(FakeServer(lambda prompt: "a b c d e f")) as server:
        (row,) = run(server, PROMPTS[:1], tmp_path, max_new_tokens=4)
    assert (row.completion, row.finish_reason, row.n_tokens) == ("a b c d", "length", 4)


def test_unusable_servers(tmp_path: Path) -> None:
    with serve(FakeServer(answer, models=("alpha", "beta"))) as server:
        with pytest.raises(UsageError, match=r"'tiny'.*does not have it.*alpha, beta"):
            backend(server)
        assert server.posts == 0
    with serve(FakeServer(answer)) as server:
        pass
    with pytest.raises(PrerequisiteError, match="Start the server"):
        backend(server)
    with (
        serve(FakeServer(answer, completions=False)) as server,
        pytest.raises(UsageError, match="--prompt-style chat"),
    ):
        run(server, PROMPTS[:1], tmp_path)


def test_the_key_is_sent_and_never_shown(tmp_path: Path) -> None:
    with serve(FakeServer(answer, key=KEY)) as server:
        model = backend(server, KEY)
        rows = generate(PROMPTS, DECODING, tmp_path / "x", backend=model, **OPTIONS)
        assert len(rows) == 30
        for wrong in (None, KEY + "x"):
            with pytest.raises(PrerequisiteError, match="OPENAI_API_KEY") as caught:
                backend(server, wrong)
            assert KEY not in str(caught.value)
    assert KEY not in repr(model.record()) + model.identity
    assert all(KEY not in path.read_text() for path in tmp_path.iterdir())


@pytest.mark.parametrize("completions", [True, False])
def test_another_model_under_the_same_name_is_asked(completions: bool, tmp_path: Path) -> None:
    """Retrained and served again under the same name and address."""
    prompts = [Prompt(p.id, p.text, chat=True) for p in PROMPTS[:5]]
    with serve(FakeServer(answer, completions=completions)) as server:
        texts = {}
        for weights in ("first", "second", "first"):
            server.weights, server.talks = weights, weights == "second"
            before = len(server.seen)
            rows = run(server, prompts, tmp_path, stop=())
            texts[weights, len(server.seen) - before] = rows[0].completion
    assert set(texts) == {("first", 6), ("second", 6), ("first", 0)}
    assert texts["first", 6] == texts["first", 0] != texts["second", 6]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://h/v1?k=1"])
def test_an_invalid_base_url(url: str) -> None:
    with pytest.raises(UsageError, match="http://host:port/v1"):
        check_base_url(url)


def test_a_base_url_with_a_password_is_refused_without_naming_it() -> None:
    with pytest.raises(UsageError) as caught:
        check_base_url("http://me:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)


SAMPLED = replace(DECODING, samples=4, temperature=1.0, stop=())


def generate_samples(
    server: FakeServer, path: Path, decoding: Decoding = SAMPLED, **options: Any
) -> tuple[list[Completion | Failure], str, list[int]]:
    """Rows of three prompts' samples, the record's note, and the ``n`` of every request."""
    model, before = backend(server, **options), len(server.seen)
    prompts = samples_of(PROMPTS[:3], decoding)
    rows = generate_each(prompts, decoding, path, backend=model, **OPTIONS)
    assert [row.id for row in rows] == [prompt.id for prompt in prompts]
    counts = [body.get("n", 1) for body in server.seen[before:] if body["max_tokens"] == 50]
    return rows, model.record().get("samples_of_a_prompt", ""), counts


def text_of(row: Completion | Failure) -> str:
    assert isinstance(row, Completion)
    return row.completion


def test_the_samples_of_a_prompt_are_one_request(tmp_path: Path) -> None:
    """As in vLLM, choice i has the request's seed plus i; usage counts tokens of all choices."""
    with serve(FakeServer(answer, choices="seeded")) as server:
        rows, note, counts = generate_samples(server, tmp_path / "x")
    assert counts == [4, 4, 4]
    assert note == "in one request (n)"
    tokens = [row.n_tokens for row in rows if isinstance(row, Completion)]
    lengths = [len(text_of(row).split(" ")) for row in rows]
    assert sum(tokens) == sum(lengths)
    assert all(abs(n - length) <= 1 for n, length in zip(tokens, lengths, strict=True))
    for i, row in enumerate(rows):
        seed = SAMPLED.row_seed(f"q{i // 4}#0") + i % 4
        assert text_of(row) == f"{seed} {answer(PROMPTS[i // 4].text)}"


@pytest.mark.parametrize("choices", ["one", "equal", "refused"])
def test_a_server_without_n_gets_one_request_per_sample(choices: Any, tmp_path: Path) -> None:
    """It ignores n, refuses it, or uses one seed for every sample."""
    with serve(FakeServer(answer, choices=choices)) as server:
        rows, note, counts = generate_samples(server, tmp_path / "x")
        seeds = {body["seed"] for body in server.seen if body["max_tokens"] == 50}
    assert counts == [1] * 12
    assert note == "one request each"
    assert all(isinstance(row, Completion) for row in rows)
    assert seeds == {SAMPLED.row_seed(f"q{i}#{k}") for i in range(3) for k in range(4)}


def test_a_server_that_refuses_n_samples(tmp_path: Path) -> None:
    """It accepts four and refuses six: one request per sample."""
    with serve(FakeServer(answer, choices="refused", most_choices=4)) as server:
        rows, _, counts = generate_samples(server, tmp_path / "x", replace(SAMPLED, samples=6))
    assert counts == [1] * 18
    assert len({text_of(row) for row in rows}) == 18


def test_samples_that_a_request_omits(tmp_path: Path) -> None:
    def drop_two(body: dict[str, Any], answer: dict[str, Any]) -> None:
        if body["max_tokens"] == 50:  # not the request before the run
            del answer["choices"][2:]

    with serve(FakeServer(answer, choices="seeded", edit=drop_two)) as server:
        rows, _, counts = generate_samples(server, tmp_path / "x")
    assert sorted(counts) == [1] * 6 + [4] * 3
    assert len({text_of(row) for row in rows}) == 12


def test_only_missing_samples_are_requested(tmp_path: Path) -> None:
    """Two are cached and one is filtered: a run requests the rest, the next one the filtered."""

    def content_filter(body: dict[str, Any], answer: dict[str, Any]) -> None:
        if body["prompt"] == PROMPTS[1].text:
            answer["choices"][-1]["finish_reason"] = "content_filter"

    with serve(FakeServer(answer, choices="seeded")) as server:
        _, _, counts = generate_samples(server, tmp_path / "x", replace(SAMPLED, samples=2))
        assert counts == [2, 2, 2]
        server.edit = content_filter
        rows, _, counts = generate_samples(server, tmp_path / "x")
        assert counts == [2, 2, 2]
        failed = [row for row in rows if isinstance(row, Failure)]
        assert [row.id for row in failed] == ["q1#3"]
        assert "content_filter" in failed[0].reason
        server.edit = lambda body, answer: None
        rows, _, counts = generate_samples(server, tmp_path / "x")
        assert counts == [1]
        assert len({text_of(row) for row in rows}) == 12


@pytest.mark.parametrize("fault", ["drop", "garbage", 503])
def test_a_request_of_several_samples_is_retried(fault: str | int, tmp_path: Path) -> None:
    state = FakeServer(answer, choices="seeded", fault=lambda n: fault if n % 3 == 0 else None)
    with serve(state) as server:
        rows, _, counts = generate_samples(server, tmp_path / "x")
    assert counts == [4, 4, 4]
    assert len({text_of(row) for row in rows}) == 12


def test_samples_of_a_failed_request_are_failures(tmp_path: Path) -> None:
    state = FakeServer(answer, choices="seeded", fault=lambda n: 500 if n > 2 else None)
    with serve(state) as server:
        rows, _, _ = generate_samples(server, tmp_path / "x", attempts=1)
    assert len(rows) == 12
    assert all(isinstance(row, Failure) and "500" in row.reason for row in rows)


@pytest.mark.parametrize("tokenizes", [True, False])
def test_a_served_base_model_stops_at_the_end_of_turn(tokenizes: bool, tmp_path: Path) -> None:
    """It goes on after its turn unless told to stop; special tokens are not in its text."""

    def detokenize(body: dict[str, Any], answer: dict[str, Any]) -> None:
        message = answer["choices"][0]["message"]
        turn, _, rest = message["content"].partition("<|im_end|>")
        message["content"] = turn if 1002 in body.get("stop_token_ids", []) else turn + rest

    vocabulary = {"<|im_start|>": 1001, "<|im_end|>": 1002} if tokenizes else {}
    text = "42<|im_end|>\nuser\nWhat"
    state = FakeServer(lambda _: text, talks=False, vocabulary=vocabulary, edit=detokenize)
    with serve(state) as server:
        model = backend(server)
        chats = [Prompt("c", "question", chat=True)]
        decoding = replace(DECODING, stop=())
        (row,) = generate(chats, decoding, tmp_path / "x.jsonl", backend=model, **OPTIONS)
    if tokenizes:
        assert row.completion == "42"
        assert server.seen[-1]["stop_token_ids"] == [1002]
        assert model.record()["end_of_turn"].startswith("<|im_end|> (stop_token_ids")
    else:
        assert row.completion == "42\nuser\nWhat"
        assert "stop_token_ids" not in server.seen[-1]
        assert model.record()["end_of_turn"] == "the server's own"


def test_a_template_with_a_plain_text_end_of_turn(tmp_path: Path) -> None:
    class Plain(FakeServer):
        def tokenize(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            return 200, {"tokens": [120, 10], "token_strs": ["x", "\n"]}

    with serve(Plain(answer, vocabulary={"unused": 1})) as server:
        assert backend(server).end_of_turn is None
