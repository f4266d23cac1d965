"""Generation: batches, stops, resumption, with a tiny checkpoint and the real transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft_eval.errors import UsageError
from dft_eval.generate import Decoding, Prompt, cut, generate
from dft_eval.hf_text import HfTextBackend, batches, complete_batch, render
from dft_eval.models import find_model, load_model, model_sha256
from tests.conftest import Bench

DECODING = Decoding(max_new_tokens=12, batch_size=3)


@pytest.fixture(scope="module")
def loaded(text_bench: Bench) -> tuple[Any, Any]:
    return load_model(find_model(str(text_bench.model)))


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    words = "def add for item in items print circles square triangle the answer is"
    questions = [" ".join(words.split()[: 1 + (5 * i) % 12]) for i in range(8)]
    return [Prompt(f"q{i}", text, chat=True) for i, text in enumerate(questions)]


def silent(done: int, total: int) -> None:
    pass


@given(lengths=st.lists(st.integers(1, 50), max_size=40), size=st.integers(1, 9))
def test_batches_hold_every_prompt_once_longest_first(lengths: list[int], size: int) -> None:
    planned = batches(lengths, size)
    flat = [i for batch in planned for i in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[i] for i in flat] == sorted(lengths, reverse=True)
    assert all(len(batch) == size for batch in planned[:-1])


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("return 1\ndef f", ("\ndef ",), ("return 1", True)),
        ("a\nclass b\ndef c", ("\ndef ", "\nclass "), ("a", True)),
        ("nothing", ("\n",), ("nothing", False)),
        ("", (), ("", False)),
    ],
)
def test_cut(text: str, stop: tuple[str, ...], expected: tuple[str, bool]) -> None:
    assert cut(text, stop) == expected


def test_batched_completions_equal_those_of_one_at_a_time(
    loaded: tuple[Any, Any], prompts: list[Prompt]
) -> None:
    """Left padding must not change what a prompt is answered with."""
    model, tokenizer = loaded
    together = complete_batch(model, tokenizer, prompts, DECODING)
    alone = [complete_batch(model, tokenizer, [p], DECODING)[0] for p in prompts]
    assert [row.completion for row in together] == [row.completion for row in alone]
    assert {row.n_tokens for row in together} <= set(range(13))
    assert all(row.finish_reason == "length" for row in together if row.n_tokens == 12)


def test_a_stop_text_ends_a_completion(loaded: tuple[Any, Any], prompts: list[Prompt]) -> None:
    model, tokenizer = loaded
    free = complete_batch(model, tokenizer, prompts[:1], DECODING)[0]
    stop = free.completion[4:6]
    place = free.completion.find(stop)
    held = complete_batch(model, tokenizer, prompts[:1], replace(DECODING, stop=(stop,)))[0]
    assert held.completion == free.completion[:place]
    assert held.finish_reason == "stop"


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 2])
def test_killed_and_resumed_it_gives_what_an_undisturbed_run_gives(
    loaded: tuple[Any, Any], prompts: list[Prompt], tmp_path: Path, after: int
) -> None:
    """Also when the last line was half written; only the batch in flight is made again."""

    def run(folder: str, progress: Any, counter: list[int]) -> list[str]:
        def load() -> tuple[Any, Any]:
            counter.append(1)
            return loaded

        rows = generate(
            prompts,
            DECODING,
            tmp_path / folder / "x.completions.jsonl",
            backend=HfTextBackend("m", load),
            progress=progress,
        )
        return [row.model_dump_json() for row in rows]

    undisturbed = run("whole", silent, [])
    calls: list[int] = []

    def kill(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) > after + 1:
            raise _KilledError

    with pytest.raises(_KilledError):
        run("killed", kill, [])
    cache = tmp_path / "killed" / "x.completions.jsonl"
    with cache.open("a") as stream:
        stream.write('{"id": "q0", "prompt": "half a li')
    seen: list[int] = []
    loads: list[int] = []
    assert run("killed", lambda done, total: seen.append(done), loads) == undisturbed
    assert seen[0] == min(3 * (after + 1), 8)
    assert bool(loads) == (seen[0] < 8)
    written = [json.loads(line)["id"] for line in cache.read_text().splitlines()]
    assert sorted(written) == sorted({p.id for p in prompts})
    assert run("killed", silent, loads) == undisturbed
    assert bool(loads) == (seen[0] < 8)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"decoding": replace(DECODING, max_new_tokens=5)}, "decoding"),
        ({"identity": "another"}, "model"),
        ({"prompts": [Prompt("q", "x")]}, "prompts_sha256"),
    ],
)
def test_completions_of_other_settings_are_refused(
    loaded: tuple[Any, Any],
    prompts: list[Prompt],
    tmp_path: Path,
    change: dict[str, Any],
    named: str,
) -> None:
    def go(prompts: list[Prompt], decoding: Decoding, identity: str) -> None:
        generate(
            prompts,
            decoding,
            tmp_path / "x.jsonl",
            backend=HfTextBackend(identity, lambda: loaded),
            progress=silent,
        )

    settings: dict[str, Any] = {"prompts": prompts, "decoding": DECODING, "identity": "m"}
    go(**settings)
    with pytest.raises(UsageError, match=named):
        go(**{**settings, **change})


def test_no_chat_template_is_named(loaded: tuple[Any, Any]) -> None:
    class Bare:
        chat_template = None

    with pytest.raises(UsageError, match="--prompt-style completion"):
        render(Bare(), Prompt("x", "hello", chat=True))


def test_model_hash_covers_weights_alone(text_bench: Bench, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(text_bench.model, tmp_path / "copy")
    first = model_sha256(find_model(str(text_bench.model)))
    (copy / "training_args.bin").write_bytes(b"x")
    (copy / "README.md").write_text("x")
    assert model_sha256(find_model(str(copy))) == first
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_sha256(find_model(str(copy))) != first


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "one-word", "a/b/c"])
def test_a_model_that_is_not_there(name: str) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find_model(name)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a model"):
        find_model(str(tmp_path))
