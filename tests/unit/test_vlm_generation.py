"""Batched completions of prompts with pictures, and the real MATH-Vision items end to end."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft_eval.benchmark import JudgeChoice, PixelRange, Request
from dft_eval.benchmarks import evaluate
from dft_eval.errors import EvaluationError, UsageError
from dft_eval.generation import hf_decode
from dft_eval.generation.hf_cache import GROUPED
from dft_eval.generation.hf_text import GROUP
from dft_eval.generation.run import Completion, Decoding, Prompt, samples_of
from dft_eval.model_files import find_model
from dft_eval.models import LocalModel
from dft_eval.results import read_items
from dft_eval.vlm import hf_vision
from dft_eval.vlm.hf_vision import (
    HfVisionBackend,
    batches,
    complete_batch,
    prompt_ids,
    render,
    rows_together,
)
from tests.conftest import Bench
from tests.support.generate import generate
from tests.support.judge_server import judge_server
from tests.support.vision_models import KINDS, make_vision_model
from tests.support.vlm_tables import picture, write_real_mathvision

PIXELS = PixelRange(56 * 56, 28 * 28 * 40)
DECODING = Decoding(max_new_tokens=28, batch_size=4)


@pytest.fixture(scope="module")
def loaded(vl_bench: Bench) -> tuple[Any, Any]:
    return hf_vision.load(find_model(str(vl_bench.model)), "float32")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """Questions and pictures of many sizes; one with two pictures, two of unlike length with
    none, and two that only their pictures tell apart."""
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
    other = folder / "other.png"
    other.write_bytes(base64.b64decode(picture(50, sizes[0])))
    return [
        made[0],
        replace(made[0], id="other", images=(str(other),)),
        *made[1:],
        both,
        Prompt("none", "What is one and one?", chat=True),
        Prompt("words", "What is one and one? " * 3, chat=True),
    ]


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


class Draw:
    """A logits processor that leaves one token, drawn: of the likeliest whose probabilities exceed
    a random number in sum, the last."""

    def __init__(self, prompt: Prompt, decoding: Decoding) -> None:
        self.temperature = decoding.temperature
        self.draws = random.Random(decoding.row_seed(prompt.id))
        self.entropies: list[float] = []

    def __call__(self, _: Any, scores: Any) -> Any:
        import torch

        p, order = (scores[0].double() / self.temperature).softmax(-1).sort(descending=True)
        self.entropies.append(float(torch.distributions.Categorical(p).entropy()))
        place = int((p.cumsum(0) <= self.draws.random()).sum())
        return torch.full_like(scores, -torch.inf).index_fill(1, order[place], 0.0)


def text_of(processor: Any, tokens: list[int]) -> str:
    return str(processor.tokenizer.decode(tokens, skip_special_tokens=True))


@dataclass
class Subject:
    """A model that answers at unlike lengths, as loaded here and as transformers loads it."""

    folder: Path

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        model, processor = hf_vision.load(find_model(str(self.folder)), "float32")
        model.generation_config.eos_token_id = self.ends
        return model, processor

    @cached_property
    def stock(self) -> Any:
        from transformers import AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_pretrained(self.folder)
        assert model.config._attn_implementation == "sdpa"
        model.generation_config.eos_token_id = self.ends
        return model.eval()

    @property
    def ends(self) -> list[int]:
        """A random model writes one of these after some 20 tokens."""
        return [*range(0, 448, 23), 399]

    @cached_property
    def known(self) -> dict[tuple[Prompt, float, float], tuple[list[int], list[float]]]:
        return {}

    def alone(self, prompt: Prompt, decoding: Decoding) -> tuple[list[int], list[float]]:
        """Tokens and entropies of transformers' own generation, one prompt at a time."""
        penalty, temperature = decoding.repetition_penalty, decoding.temperature
        if (key := (prompt, penalty, temperature)) not in self.known:
            processor = self.loaded[1]
            if temperature > 0:
                draw = Draw(prompt, decoding)
                ids, _ = alone(self.stock, processor, prompt, logits_processor=[draw])
                self.known[key] = ids, draw.entropies
            else:
                self.known[key] = alone(self.stock, processor, prompt, repetition_penalty=penalty)
        return self.known[key]

    def check(
        self, prompts: Sequence[Prompt], decoding: Decoding, rows: Sequence[Completion]
    ) -> list[int]:
        """``rows`` are the answers to each prompt alone; returns their lengths, ends included."""
        assert [row.id for row in rows] == [prompt.id for prompt in prompts]
        made = [self.alone(prompt, decoding) for prompt in prompts]
        for row, (ids, entropies) in zip(rows, made, strict=True):
            ended = ids[-1] in self.ends
            assert row.completion == text_of(self.loaded[1], ids[: len(ids) - ended])
            assert row.n_tokens == len(ids) - ended
            assert row.finish_reason == ("stop" if ended else "length")
            assert row.mean_entropy == pytest.approx(fmean(entropies), abs=1e-4)
        return [len(ids) for ids, _ in made]


@pytest.fixture(scope="module", params=KINDS)
def subject(
    request: pytest.FixtureRequest, vl_bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    folder = tmp_path_factory.mktemp("sharp") / "model"
    return Subject(make_vision_model(request.param, vl_bench.model, folder))


@contextmanager
def watched(model: Any) -> Iterator[list[tuple[int, int]]]:
    """The shapes that the embedding sees: one row a prompt and step."""
    seen: list[tuple[int, int]] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(tuple(args[0].shape))
    )
    try:
        yield seen
    finally:
        hook.remove()


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
        longest = max(lengths[i] for i in batch)
        rows = rows_together(longest, size, tokens)
        assert rows == 1 or (rows <= size and rows * longest <= tokens)
        assert rows == size or (rows + 1) * longest > tokens
        assert len(batch) <= GROUP * rows


@pytest.mark.parametrize(("batch_size", "penalty"), [(1, 1.0), (2, 1.2), (2, 1.0), (5, 1.0)])
def test_a_refilled_batch_gives_what_transformers_gives_one_by_one(
    subject: Subject, prompts: list[Prompt], batch_size: int, penalty: float
) -> None:
    """The batch is full while prompts wait."""
    model, processor = subject.loaded
    assert model.config._attn_implementation == GROUPED
    decoding = replace(DECODING, batch_size=batch_size, repetition_penalty=penalty)
    with watched(model) as seen:
        rows = complete_batch(model, processor, prompts, decoding, PIXELS)
    lengths = subject.check(prompts, decoding, rows)
    assert min(lengths) < 8
    assert max(lengths) == DECODING.max_new_tokens
    last = max(place for place, (_, width) in enumerate(seen) if width > 1)
    assert {count for count, width in seen[:last] if width == 1} == {batch_size}
    steps = [count for count, width in seen if width == 1]
    useful = sum(lengths) - len(prompts)  # the first token is the prompt's own step
    assert useful <= sum(steps) <= useful / hf_decode.KEEP
    batched = [lengths[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    if batch_size > 1:
        assert len(steps) < sum(max(batch) - 1 for batch in batched)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_samples_are_those_of_each_by_itself_and_share_a_look_at_the_picture(
    subject: Subject, prompts: list[Prompt], batch_size: int
) -> None:
    """Whatever the order; counted is what the vision tower sees."""
    model, processor = subject.loaded
    decoding = replace(DECODING, batch_size=batch_size, temperature=0.9, samples=2)
    asked = samples_of(prompts, decoding)
    looks: list[int] = []
    hook = model.model.visual.register_forward_pre_hook(
        lambda _, args, kwargs: looks.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    try:
        rows = complete_batch(model, processor, asked, decoding, PIXELS)
    finally:
        hook.remove()
    assert sum(looks) == sum(len(prompt.images) for prompt in prompts)
    subject.check(asked, decoding, rows)
    assert len({row.completion for row in rows}) > len(prompts)
    asked.reverse()
    subject.check(asked, decoding, complete_batch(model, processor, asked, decoding, PIXELS))


def test_prompts_without_pictures_run_together(subject: Subject, prompts: list[Prompt]) -> None:
    """Also after others with pictures, whose shift of the positions the model remembers."""
    model, processor = subject.loaded
    texts = [prompt for prompt in prompts if not prompt.images]
    texts.append(replace(texts[1], id="more", text=texts[1].text + "And what?"))
    square = [prompt for prompt in prompts if prompt.id == "q3"]
    complete_batch(model, processor, square, DECODING, PIXELS)
    with watched(model) as seen:
        rows = complete_batch(model, processor, texts, DECODING, PIXELS)
    subject.check(texts, DECODING, rows)
    assert [count for count, width in seen if width > 1] == [1, 2]


def test_a_stop_text_ends_an_answer_about_a_picture(
    subject: Subject, prompts: list[Prompt]
) -> None:
    model, processor = subject.loaded
    free = complete_batch(model, processor, prompts, DECODING, PIXELS)
    place = next(i for i, row in enumerate(free) if row.finish_reason == "length")
    stop = free[place].completion[9:12]
    rows = complete_batch(model, processor, prompts, replace(DECODING, stop=(stop,)), PIXELS)
    assert [row.completion for row in rows] == [row.completion.split(stop)[0] for row in free]
    assert (rows[place].finish_reason, free[place].finish_reason) == ("stop", "length")
    assert rows[place].n_tokens < DECODING.max_new_tokens
    for row, before in zip(rows, free, strict=True):
        if row.completion == before.completion:
            assert (row.n_tokens, row.finish_reason) == (before.n_tokens, before.finish_reason)


def test_pictures_that_are_large_run_fewer_at_once(
    subject: Subject, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = subject.loaded
    texts = [render(processor, prompt) for prompt in prompts]
    longest = max(map(len, prompt_ids(processor, prompts, texts, PIXELS)))
    monkeypatch.setattr(hf_vision, "MAX_BATCH_TOKENS", 3 * longest + 1)
    decoding = replace(DECODING, batch_size=8)
    with watched(model) as seen:
        rows = complete_batch(model, processor, prompts, decoding, PIXELS)
    assert max(count for count, _ in seen) == 3
    subject.check(prompts, decoding, rows)
    backend = HfVisionBackend("m", PIXELS, lambda: subject.loaded)
    assert list(map(len, backend.batches(prompts, replace(DECODING, batch_size=2)))) == [8, 2]
    monkeypatch.setattr(hf_vision, "MAX_BATCH_TOKENS", 2 * longest - 1)
    assert len(backend.batches(prompts, decoding)[0]) == GROUP


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_whose_cache_cannot_be_joined_ends_a_batch_before_the_next(
    kind: str,
    vl_bench: Bench,
    prompts: list[Prompt],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Sliding windows, shorter than the prompts: as before there was refilling, and said so."""
    window = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
    made = make_vision_model(kind, vl_bench.model, tmp_path / "model", **window)
    subject = Subject(made)
    model, processor = subject.loaded
    assert model.config.text_config.layer_types == ["full_attention", "sliding_attention"]
    hf_decode._say_not_refilled.cache_clear()
    with watched(model) as seen:
        rows = complete_batch(model, processor, prompts, DECODING, PIXELS)
    subject.check(prompts, DECODING, rows)
    assert [count for count, width in seen if width > 1] == [4, 4, 2]
    assert "cannot be joined" in capsys.readouterr().err


def test_the_pixel_range_is_applied(loaded: tuple[Any, Any], prompts: list[Prompt]) -> None:
    _, processor = loaded
    for prompt in (*prompts[:5], prompts[7]):
        counts = []
        text = render(processor, prompt)
        for pixels in (PIXELS, PixelRange(28 * 28 * 100, 28 * 28 * 200)):
            ids = hf_vision._inputs(processor, [prompt], [text], pixels)["input_ids"].tolist()
            assert prompt_ids(processor, [prompt], [text], pixels) == ids
            counts.append(len(ids[0]))
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
            replace(DECODING, batch_size=1),
            tmp_path / name / "x.completions.jsonl",
            backend=HfVisionBackend("m", PIXELS, lambda: loaded),
            progress=progress,
        )
        return [row.model_dump_json() for row in rows]

    def kill(done: int, total: int) -> None:
        if done == 6:  # the second group of four is in flight
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


def test_a_placeholder_in_the_question_is_refused(vl_bench: Bench, prompts: list[Prompt]) -> None:
    """It would stand for a picture that the prompt does not have."""
    backend = LocalModel(str(vl_bench.model)).vision(PIXELS)
    two = replace(prompts[0], text=f"What is in <|image_pad|>? {prompts[0].text}")
    with pytest.raises(UsageError, match=r"the question holds '<\|image_pad\|>'"):
        backend.batches([two], DECODING)


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
