"""Batched completions of prompts with pictures, and the real MATH-Vision items end to end."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft_eval.benchmark import JudgeChoice, PixelRange, Request
from dft_eval.benchmarks import evaluate
from dft_eval.errors import EvaluationError, UsageError
from dft_eval.generation.hf_cache import GROUPED
from dft_eval.generation.run import Completion, Decoding, Prompt
from dft_eval.model_files import find_model
from dft_eval.models import LocalModel
from dft_eval.results import read_items
from dft_eval.vlm import hf_vision
from dft_eval.vlm.hf_vision import HfVisionBackend, batches, complete_batch, prompt_tokens, render
from tests.conftest import Bench
from tests.support.generate import generate
from tests.support.judge_server import judge_server
from tests.support.vlm_tables import picture, write_real_mathvision

PIXELS = PixelRange(56 * 56, 28 * 28 * 40)
DECODING = Decoding(max_new_tokens=40, batch_size=4)


@pytest.fixture(scope="module")
def loaded(vl_bench: Bench) -> tuple[Any, Any]:
    return hf_vision.load(find_model(str(vl_bench.model)), "float32")


@pytest.fixture(scope="module")
def stock(vl_bench: Bench) -> Any:
    """The same weights as transformers loads them, with its own attention and cache."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(vl_bench.model)
    assert model.config._attn_implementation == "sdpa"
    return model.eval()


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """Questions and pictures of many sizes; one with two pictures, one with none."""
    folder = tmp_path_factory.mktemp("pictures")
    sizes = [(64, 48), (300, 40), (40, 300), (200, 200), (90, 140), (120, 60)]
    files = []
    for i, size in enumerate(sizes):
        files.append(folder / f"{i}.png")
        files[-1].write_bytes(base64.b64decode(picture(i, size)))
    made = [
        Prompt(f"q{i}", "How many circles are there? " * (1 + i % 3), chat=True, images=(str(f),))
        for i, f in enumerate(files)
    ]
    both = Prompt("two", "Which is larger?", chat=True, images=(str(files[0]), str(files[3])))
    return [*made, both, Prompt("none", "What is one and one?", chat=True)]


def alone(
    model: Any, processor: Any, prompt: Prompt, **options: Any
) -> tuple[list[int], list[float]]:
    """transformers' own greedy generation of one prompt, the oracle: tokens and their entropies."""
    from torch import stack
    from torch.distributions import Categorical

    inputs = hf_vision._inputs(processor, [prompt], [render(processor, prompt)], PIXELS)
    output = model.generate(
        **inputs,
        max_new_tokens=DECODING.max_new_tokens,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    tokens: list[int] = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens, Categorical(logits=stack(output.scores)).entropy()[:, 0].tolist()


def text_of(processor: Any, tokens: list[int]) -> str:
    return str(processor.tokenizer.decode(tokens, skip_special_tokens=True))


@given(
    lengths=st.lists(st.integers(1, 50), max_size=30),
    size=st.integers(1, 9),
    tokens=st.integers(1, 200),
)
def test_batches_are_bounded(lengths: Sequence[int], size: int, tokens: int) -> None:
    planned = batches(lengths, size, tokens)
    flat = [i for batch in planned for i in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[i] for i in flat] == sorted(lengths, reverse=True)
    for batch in planned:
        assert len(batch) <= size
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens


@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_a_batch_gives_what_transformers_gives_one_by_one(
    loaded: tuple[Any, Any], stock: Any, prompts: list[Prompt], penalty: float
) -> None:
    assert loaded[0].config._attn_implementation == GROUPED
    decoding = replace(DECODING, repetition_penalty=penalty)
    rows = complete_batch(*loaded, prompts, decoding, PIXELS)
    alone_rows = [alone(stock, loaded[1], prompt, repetition_penalty=penalty) for prompt in prompts]
    assert [row.completion for row in rows] == [text_of(loaded[1], ids) for ids, _ in alone_rows]
    entropies = [fmean(values) for _, values in alone_rows]
    assert [row.mean_entropy for row in rows] == pytest.approx(entropies, abs=1e-4)
    assert [row.id for row in rows] == [prompt.id for prompt in prompts]


def test_rows_that_have_ended_leave_the_batch(
    loaded: tuple[Any, Any], stock: Any, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row's fourth token is made an end of turn; the others go on unchanged."""
    model, processor = loaded
    tokens, entropies = zip(*(alone(stock, processor, prompt) for prompt in prompts), strict=True)
    ends = {tokens[0][3], processor.tokenizer.eos_token_id}
    lengths = [
        next((i for i, token in enumerate(each) if token in ends), len(each)) for each in tokens
    ]
    assert {lengths[0], DECODING.max_new_tokens} <= set(lengths)
    widths: list[int] = []
    forward = model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        widths.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.generation_config, "eos_token_id", sorted(ends))
    monkeypatch.setattr(model, "forward", watched)
    rows = complete_batch(model, processor, prompts, DECODING, PIXELS)
    assert widths[0] == len(prompts)
    assert widths[-1] == sum(length > 32 for length in lengths) < len(prompts)
    assert [row.n_tokens for row in rows] == lengths
    for row, each, values, length in zip(rows, tokens, entropies, lengths, strict=True):
        assert row.completion == text_of(processor, each[:length])
        assert row.mean_entropy == pytest.approx(fmean(values[: length + 1]), abs=1e-4)
        assert row.finish_reason == ("length" if length == len(each) else "stop")


def test_the_pixel_range_is_applied(loaded: tuple[Any, Any], prompts: list[Prompt]) -> None:
    _, processor = loaded
    for prompt in prompts[:4]:
        counts = []
        for pixels in (PIXELS, PixelRange(28 * 28 * 100, 28 * 28 * 200)):
            inputs = hf_vision._inputs(processor, [prompt], [render(processor, prompt)], pixels)
            counts.append(inputs["input_ids"].shape[1])
            # One placeholder stands for the picture before it is filled.
            assert counts[-1] == prompt_tokens(processor, prompt, pixels) - 1
        assert counts[1] > counts[0] + 50
    assert HfVisionBackend("m", PIXELS, lambda: loaded).identity != (
        HfVisionBackend("m", PixelRange(1, 2), lambda: loaded).identity
    )


def test_killed_and_resumed_it_gives_what_an_undisturbed_run_gives(
    loaded: tuple[Any, Any], prompts: list[Prompt], tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def run(name: str, progress: Any) -> list[str]:
        rows = generate(
            prompts,
            DECODING,
            tmp_path / name / "x.completions.jsonl",
            backend=HfVisionBackend("m", PIXELS, lambda: loaded),
            progress=progress,
        )
        return [row.model_dump_json() for row in rows]

    def kill(done: int, total: int) -> None:
        if done == 6:  # the second batch of four is in flight
            raise KilledError

    whole = run("whole", lambda done, total: None)
    with pytest.raises(KilledError):
        run("killed", kill)
    assert run("killed", lambda done, total: None) == whole


def test_a_lora_adapter_is_put_on_its_base(
    vl_bench: Bench, loaded: tuple[Any, Any], prompts: list[Prompt], tmp_path: Path
) -> None:
    """The oracle is peft's own, unmerged model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    base, processor = AutoModelForImageTextToText.from_pretrained(vl_bench.model), loaded[1]
    config = LoraConfig(
        r=4,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=False,
        base_model_name_or_path=str(vl_bench.model),
    )
    torch.manual_seed(1)
    adapted = get_peft_model(base, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.mul_(5)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = [text_of(processor, alone(adapted, processor, each)[0]) for each in prompts[:3]]
    subject = LocalModel(str(tmp_path / "adapter"))
    rows = subject.vision(PIXELS).complete(prompts[:3], DECODING)
    texts = [row.completion for row in rows if isinstance(row, Completion)]
    assert texts == expected
    plain = complete_batch(*loaded, prompts[:3], DECODING, PIXELS)
    assert texts != [row.completion for row in plain]


def test_a_model_without_eyes_is_refused(text_bench: Bench, prompts: list[Prompt]) -> None:
    backend = LocalModel(str(text_bench.model)).vision(PIXELS)
    with pytest.raises(UsageError, match="reads no pictures"):
        backend.batches(prompts, DECODING)


def test_published_items_by_both_judges(vl_bench: Bench, test_data: Path, tmp_path: Path) -> None:
    """48 published MATH-Vision items: data, generation, both judges, resumption, an outage."""
    items = write_real_mathvision(test_data / "mathvision", tmp_path / "data")

    def request(judge: JudgeChoice, **changes: Any) -> Request:
        return Request(
            model=str(vl_bench.model),
            out=tmp_path / "out",
            label="tiny",
            data=tmp_path / "data",
            judge=judge,
            min_pixels=PIXELS.min_pixels,
            max_pixels=PIXELS.max_pixels,
            decoding=Decoding(max_new_tokens=8, batch_size=16),
            **changes,
        )

    (rules,) = evaluate(["mathvision"], request(JudgeChoice("rules"))).results
    assert (rules.n_total, rules.n_scored) == (48, 48)
    assert "partial: 48 of 3040" in rules.notes
    assert rules.judge is not None
    assert rules.judge.startswith("rules")
    assert set(rules.breakdown) == {item["subject"] for item in items}
    assert rules.decoding["min_pixels"] == PIXELS.min_pixels
    made = (tmp_path / "out" / "mathvision.chat.completions.jsonl").read_bytes()
    entropies = [json.loads(line)["mean_entropy"] for line in made.splitlines()]
    assert rules.mean_entropy == pytest.approx(fmean(entropies))
    with judge_server() as server:
        choice = JudgeChoice("openai", "judge-model", server.url)
        (judged,) = evaluate(["mathvision"], request(choice)).results
        assert (judged.n_total, judged.n_scored) == (48, 48)
        assert judged.judge is not None
        assert judged.judge.startswith("openai: judge-model at http://127.0.0.1")
        assert 0 < len(server.judged) <= 48
    assert (tmp_path / "out" / "mathvision.chat.completions.jsonl").read_bytes() == made
    with pytest.raises(EvaluationError, match="does not work"):
        evaluate(["mathvision"], request(choice))  # the server is gone
    ids = [row.id for row in read_items(tmp_path / "out" / judged.items)]
    assert ids == [item["id"] for item in items]
