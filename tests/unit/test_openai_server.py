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


def silent(done: int, total: int) -> None:
    pass


def answer(prompt: str) -> str:
    return f"    return {prompt.split()[-1]}\ndef other"


def backend(
    server: FakeServer, key: str | None = None, model: str = "tiny", **options: Any
) -> OpenAIServer:
    return OpenAIServer(model, Connection(server.url, key, **options))


def run(server: FakeServer, prompts: list[Prompt], path: Path, **changes: Any) -> list[Completion]:
    decoding = Decoding(**{**DECODING.__dict__, **changes})
    return generate(prompts, decoding, path / "x.jsonl", backend=backend(server), progress=silent)


@pytest.mark.parametrize("fault", ["drop", "hang up", "garbage", 429, 500, 503])
def test_every_tenth_request_fails_and_nothing_changes(fault: str | int, tmp_path: Path) -> None:
    with serve(FakeServer(answer, fault=lambda n: fault if n % 10 == 0 else None)) as server:
        rows = run(server, PROMPTS, tmp_path)
    assert [row.id for row in rows] == [p.id for p in PROMPTS]
    assert [row.completion for row in rows] == [f"    return {i}" for i in range(30)]
    assert {row.finish_reason for row in rows} == {"stop"}
    assert len(server.seen) == 31  # the call before the run, and one a prompt
    assert server.posts == 31 + 3
    assert server.most_under_way <= 4


@pytest.mark.parametrize("fault", ["drop", 429, 503])
def test_a_restart_of_two_minutes(
    fault: str | int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time is the sum of the client's waits: the server is back after 120 seconds."""
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


def test_a_server_that_refuses_the_fields_of_the_sampler(tmp_path: Path) -> None:
    """OpenAI's own: recorded where they have no effect, refused where one was asked for."""

    class Strict(FakeServer):
        def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            if "top_k" in body:
                return 400, {"error": {"message": "Unrecognized request argument: top_k"}}
            return super().reply(path, body)

    with serve(Strict(answer)) as server:
        model = backend(server)
        generate(PROMPTS[:2], DECODING, tmp_path / "x", backend=model, progress=silent)
        assert model.record()["refused_by_server"] == ["top_k", "min_p", "repetition_penalty"]
        assert {body["top_p"] for body in server.seen} == {1.0}
        assert all(body["stop"] for body in server.seen)
        with pytest.raises(UsageError, match="Unrecognized request argument: top_k"):
            run(server, PROMPTS[:1], tmp_path / "y", repetition_penalty=1.1)


def test_a_request_that_fails_for_good_is_a_failure_and_is_tried_again(tmp_path: Path) -> None:
    refused = PROMPTS[3]

    def reply(body: dict[str, Any]) -> bool:
        return body["prompt"] == refused.text

    class Refusing(FakeServer):
        def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            if reply(body):
                return 400, {"error": {"message": "the prompt is too long"}}
            return super().reply(path, body)

    with serve(Refusing(answer)) as server:
        rows = generate_each(
            PROMPTS, DECODING, tmp_path / "x.jsonl", backend=backend(server), progress=silent
        )
        failed = [row for row in rows if isinstance(row, Failure)]
        assert [row.id for row in failed] == ["q3"]
        assert "the prompt is too long" in failed[0].reason
        assert sum(isinstance(row, Completion) for row in rows) == 29
        reply = lambda body: False  # noqa: E731 - the server is repaired
        before = len(server.seen)
        whole = generate(
            PROMPTS, DECODING, tmp_path / "x.jsonl", backend=backend(server), progress=silent
        )
        assert [row.completion for row in whole] == [f"    return {i}" for i in range(30)]
        assert len(server.seen) == before + 2  # the call before the run, and what was missing


def test_a_server_that_dies_leaves_the_rest_uncompleted(tmp_path: Path) -> None:
    with serve(FakeServer(answer, fault=lambda n: "drop" if n > 11 else None)) as server:
        model = backend(server, attempts=2)
        rows = generate_each(
            PROMPTS, DECODING, tmp_path / "x.jsonl", backend=model, progress=silent
        )
    assert sum(isinstance(row, Completion) for row in rows) == 10
    assert any("does not answer any more" in row.reason for row in rows if isinstance(row, Failure))
    assert server.posts <= 11 + 8 * 2  # not every prompt's every attempt


@pytest.mark.parametrize("continues", [True, False])
def test_a_begun_answer(continues: bool, tmp_path: Path) -> None:
    """Both kinds of server give the same completion, and the record says which it was."""
    prompts = [Prompt(f"c{i}", f"question {i}", chat=True, answer_begins=BEGINS) for i in range(3)]
    with serve(FakeServer(answer, continues=continues)) as server:
        whole = backend(server)
        decoding = Decoding(max_new_tokens=50, stop=("\n```",))
        rows = generate(prompts, decoding, tmp_path / "x.jsonl", backend=whole, progress=silent)
    assert [r.completion for r in rows] == [f"    return {i}\ndef other" for i in range(3)]
    said = {True: "continued by the server", False: "not sent"}
    assert whole.record()["begun_answer"] == said[continues]
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
def test_answer_from_a_server_that_was_not_sent_its_beginning(text: str, expected: str) -> None:
    assert answer_from(text, BEGINS) == expected
    assert answer_from("So ```\nx\n```", "The answer is") == "So ```\nx\n```"


def test_a_server_that_takes_few_stop_texts(tmp_path: Path) -> None:
    with serve(FakeServer(answer, most_stops=4)) as server:
        stop = ("\nclass ", "\nimport ", "\nfrom ", "\ndef ", "\nassert ")
        rows = run(server, PROMPTS[:3], tmp_path, stop=stop)
    assert [row.completion for row in rows] == [f"    return {i}" for i in range(3)]
    assert all("stop" not in body for body in server.seen)


def test_sampling_has_a_seed_a_prompt(tmp_path: Path) -> None:
    with serve(FakeServer(answer)) as server:
        run(server, PROMPTS[:3], tmp_path, temperature=0.5, top_p=0.9, seed=7)
    bodies = server.seen[1:]
    assert {(body["temperature"], body["top_p"]) for body in bodies} == {(0.5, 0.9)}
    seeds = {body["prompt"]: body["seed"] for body in bodies}
    decoding = Decoding(temperature=0.5, seed=7)
    assert seeds == {p.text: decoding.row_seed(p.id) for p in PROMPTS[:3]}
    assert len(set(seeds.values())) == 3


def test_pictures_travel_as_data(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(b"\x89PNG picture")
    prompt = Prompt("v", "what is it", chat=True, images=(str(picture),))
    with serve(FakeServer(answer)) as server:
        run(server, [prompt], tmp_path, stop=())
    content = server.seen[-1]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"]
    encoded = content[0]["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert base64.b64decode(encoded) == picture.read_bytes()


def test_a_cut_completion_says_length(tmp_path: Path) -> None:
    with serve(FakeServer(lambda prompt: "a b c d e f")) as server:
        (row,) = run(server, PROMPTS[:1], tmp_path, max_new_tokens=4)
    assert (row.completion, row.finish_reason, row.n_tokens) == ("a b c d", "length", 4)


def test_an_unknown_model_names_the_choices() -> None:
    with serve(FakeServer(answer, models=("alpha", "beta"))) as server:
        with pytest.raises(UsageError, match=r"'tiny'.*does not have it.*alpha, beta"):
            backend(server)
        assert server.posts == 0


def test_the_key_is_sent_and_told_nobody(tmp_path: Path) -> None:
    with serve(FakeServer(answer, key=KEY)) as server:
        model = backend(server, KEY)
        rows = generate(PROMPTS, DECODING, tmp_path / "x", backend=model, progress=silent)
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
def test_a_base_url_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="http://host:port/v1"):
        check_base_url(url)


def test_a_base_url_with_a_password_is_refused_without_naming_it() -> None:
    with pytest.raises(UsageError) as caught:
        check_base_url("http://me:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)


def test_no_server_and_no_route(tmp_path: Path) -> None:
    with serve(FakeServer(answer)) as server:
        pass
    with pytest.raises(PrerequisiteError, match="Start the server"):
        backend(server)
    with (
        serve(FakeServer(answer, completions=False)) as server,
        pytest.raises(UsageError, match="--prompt-style chat"),
    ):
        run(server, PROMPTS[:1], tmp_path)


SAMPLED = replace(DECODING, samples=4, temperature=1.0, stop=())


def sampled(
    server: FakeServer, path: Path, decoding: Decoding = SAMPLED, **options: Any
) -> tuple[list[Completion | Failure], str, list[int]]:
    """Rows of three prompts' samples, what the record says, and the ``n`` of every request."""
    model, before = backend(server, **options), len(server.seen)
    asked = samples_of(PROMPTS[:3], decoding)
    rows = generate_each(asked, decoding, path, backend=model, progress=silent)
    assert [row.id for row in rows] == [prompt.id for prompt in asked]
    said = model.record().get("samples_of_a_prompt", "")
    return (
        rows,
        said,
        [body.get("n", 1) for body in server.seen[before:] if body["max_tokens"] == 50],
    )


def text_of(row: Completion | Failure) -> str:
    assert isinstance(row, Completion)
    return row.completion


def test_the_samples_of_a_prompt_are_one_request(tmp_path: Path) -> None:
    """As vLLM: choice i has the request's seed plus i. Tokens are counted over all choices."""
    with serve(FakeServer(answer, choices="seeded")) as server:
        rows, said, asked = sampled(server, tmp_path / "x")
    assert asked == [4, 4, 4]
    assert said == "in one request (n)"
    for place, row in enumerate(rows):
        seed = SAMPLED.row_seed(f"q{place // 4}#0") + place % 4
        assert text_of(row) == f"{seed} {answer(PROMPTS[place // 4].text)}"
        assert isinstance(row, Completion)
        assert abs(row.n_tokens - len(row.completion.split(" "))) <= 1
    counts = [row.n_tokens for row in rows if isinstance(row, Completion)]
    assert sum(counts) == sum(len(text_of(row).split(" ")) for row in rows)


@pytest.mark.parametrize("choices", ["one", "equal", "refused"])
def test_a_server_that_does_not_take_n_is_asked_one_by_one(choices: Any, tmp_path: Path) -> None:
    """It ignores n, refuses it, or makes every sample with one seed."""
    with serve(FakeServer(answer, choices=choices)) as server:
        rows, said, asked = sampled(server, tmp_path / "x")
        seeds = {body["seed"] for body in server.seen if body["max_tokens"] == 50}
    assert asked == [1] * 12
    assert said == "one request each"
    assert all(isinstance(row, Completion) for row in rows)
    assert seeds == {SAMPLED.row_seed(f"q{i}#{k}") for i in range(3) for k in range(4)}


def test_more_samples_than_the_server_makes_at_once(tmp_path: Path) -> None:
    """It refuses six, though it makes four: they are asked for one by one."""
    with serve(FakeServer(answer, choices="refused", most_choices=4)) as server:
        rows, _, asked = sampled(server, tmp_path / "x", replace(SAMPLED, samples=6))
    assert asked == [1] * 18
    assert len({text_of(row) for row in rows}) == 18


def test_samples_that_a_request_leaves_out_are_asked_for_alone(tmp_path: Path) -> None:
    class Short(FakeServer):
        def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            status, answer = super().reply(path, body)
            if body["max_tokens"] == 50:
                del answer["choices"][2:]
            return status, answer

    with serve(Short(answer, choices="seeded")) as server:
        rows, _, asked = sampled(server, tmp_path / "x")
    assert sorted(asked) == [1] * 6 + [4] * 3
    assert len({text_of(row) for row in rows}) == 12


def test_only_missing_samples_are_asked_for(tmp_path: Path) -> None:
    """Two are cached, one is refused by a filter: the next run asks for the rest, then for it."""
    filtered = [True]

    class Filtering(FakeServer):
        def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            status, answer = super().reply(path, body)
            if filtered[0] and body["max_tokens"] == 50 and body["prompt"] == PROMPTS[1].text:
                answer["choices"][1]["finish_reason"] = "content_filter"
            return status, answer

    with serve(Filtering(answer, choices="seeded")) as server:
        filtered[0] = False
        _, _, asked = sampled(server, tmp_path / "x", replace(SAMPLED, samples=2))
        assert asked == [2, 2, 2]
        filtered[0] = True
        rows, _, asked = sampled(server, tmp_path / "x")
        assert asked == [2, 2, 2]
        failed = [row for row in rows if isinstance(row, Failure)]
        assert [row.id for row in failed] == ["q1#3"]
        assert "content_filter" in failed[0].reason
        filtered[0] = False
        rows, _, asked = sampled(server, tmp_path / "x")
        assert asked == [1]
        assert len({text_of(row) for row in rows}) == 12


@pytest.mark.parametrize("fault", ["drop", "garbage", 503])
def test_a_request_of_several_samples_is_tried_again(fault: str | int, tmp_path: Path) -> None:
    state = FakeServer(answer, choices="seeded", fault=lambda n: fault if n % 3 == 0 else None)
    with serve(state) as server:
        rows, _, asked = sampled(server, tmp_path / "x")
    assert asked == [4, 4, 4]
    assert len({text_of(row) for row in rows}) == 12


def test_samples_of_a_request_that_fails_for_good_are_failures(tmp_path: Path) -> None:
    state = FakeServer(answer, choices="seeded", fault=lambda n: 500 if n > 2 else None)
    with serve(state) as server:
        rows, _, _ = sampled(server, tmp_path / "x", attempts=1)
    assert len(rows) == 12
    assert all(isinstance(row, Failure) and "500" in row.reason for row in rows)


class BaseModel(FakeServer):
    """Goes on after its turn unless told to stop there; special tokens are not in its text."""

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, answer = super().reply(path, body)
        message = answer["choices"][0]["message"]
        turn, _, rest = message["content"].partition("<|im_end|>")
        stops = self.vocabulary.get("<|im_end|>") in body.get("stop_token_ids", [])
        message["content"] = turn if stops else turn + rest
        return status, answer


@pytest.mark.parametrize("tells", [True, False])
def test_a_served_base_model_stops_at_the_end_of_turn(tells: bool, tmp_path: Path) -> None:
    vocabulary = {"<|im_start|>": 1001, "<|im_end|>": 1002} if tells else {}
    state = BaseModel(lambda _: "42<|im_end|>\nuser\nWhat", talks=False, vocabulary=vocabulary)
    with serve(state) as server:
        model = backend(server)
        chats = [Prompt("c", "question", chat=True)]
        plain = replace(DECODING, stop=())
        (row,) = generate(chats, plain, tmp_path / "x.jsonl", backend=model, progress=silent)
    if tells:
        assert row.completion == "42"
        assert server.seen[-1]["stop_token_ids"] == [1002]
        assert model.record()["end_of_turn"].startswith("<|im_end|> (stop_token_ids")
    else:
        assert row.completion == "42\nuser\nWhat"
        assert "stop_token_ids" not in server.seen[-1]
        assert model.record()["end_of_turn"] == "the server's own"


def test_a_template_that_ends_a_turn_in_plain_text_gives_no_stop_token(tmp_path: Path) -> None:
    class Plain(FakeServer):
        def tokenize(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            return 200, {"tokens": [120, 10], "token_strs": ["x", "\n"]}

    with serve(Plain(answer, vocabulary={"unused": 1})) as server:
        assert backend(server).end_of_turn is None
