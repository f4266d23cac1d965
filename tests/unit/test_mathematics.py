"""Mathematics benchmarks: data, prompts, scores of samples, results through the real command."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dft_eval.benchmark import Request
from dft_eval.benchmarks import BENCHMARKS, check, evaluate
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation.chat import stop_tokens
from dft_eval.generation.run import Completion, Decoding
from dft_eval.mathematics.benchmark import MATHEMATICS
from dft_eval.mathematics.data import PUBLISHED, from_repository, read_data
from dft_eval.mathematics.prompts import INSTRUCTION, raw_prompt, user_turn
from dft_eval.mathematics.scoring import breakdown, majority, rounded_mean
from dft_eval.mathematics.verdicts import Verdict
from dft_eval.results import read_items
from tests.support.jsonl import write_lines
from tests.support.openai_server import FakeServer, serve

RIGHT, WRONG, SILENT = Verdict(True, "3"), Verdict(False, "4"), Verdict(False, None)
OTHER = Verdict(False, "5")


def request(out: Path, **changes: Any) -> Request:
    return Request(**{"model": "tiny", "out": out, "label": "base", **changes})


# ---------------------------------------------------------------- data


def test_every_benchmark_takes_its_published_file(test_data: Path) -> None:
    for benchmark in MATHEMATICS:
        name = "gsm8k_test" if benchmark.name == "gsm8k" else benchmark.name
        problems = read_data(test_data / "mathematics" / f"{name}.jsonl").problems
        assert len(problems) == benchmark.published
        assert BENCHMARKS[benchmark.name] is benchmark


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"problem": "p"}', "line 2 is not a problem"),
        ('{"problem": "p", "answer": " "}', "it is empty"),
        ("[1]", "line 2 is not a problem"),
        ("{", "line 2 is not a problem"),
        ('{"problem": "first ", "answer": "2"}', "line 2 .*the problem 'first ' is there twice"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(f'{{"problem": "first", "answer": "1"}}\n{line}\n')
    with pytest.raises(UsageError, match=message):
        read_data(path)


TWO_BOXES = "\\boxed{1} so \\boxed{\\frac{a}{b}}."


@pytest.mark.parametrize(
    ("name", "row", "answer"),
    [
        ("math500", {"problem": "p", "answer": "\\frac{1}{2}"}, "\\frac{1}{2}"),
        ("minerva", {"problem": "p", "solution": TWO_BOXES}, "\\frac{a}{b}"),
        ("olympiadbench", {"question": "p", "final_answer": ["$1$,$2$"]}, "1$,$2"),
        ("aime24", {"problem": "p", "answer": "025"}, "025"),
        ("amc23", {"problem": "p", "answer": 27.0}, "27"),
        ("gsm8k", {"question": "p", "answer": "so <<1+1=2>>\n#### 1,200"}, "1200"),
    ],
)
def test_rows_of_the_published_files(name: str, row: dict[str, Any], answer: str) -> None:
    assert PUBLISHED[name].read(row) == {"problem": "p", "answer": answer}


def test_another_file_than_the_published_one_is_refused() -> None:
    """The downloaded file must have the published hash."""
    server = FakeServer(lambda text: "")
    with serve(server), pytest.raises(PrerequisiteError, match=r"another file.*\n.*--data"):
        from_repository("aime24", f"{server.url}/models")
    with pytest.raises(PrerequisiteError, match=r"cannot be loaded: ConnectError.*\n.*--data"):
        from_repository("aime24", f"{server.url}/models")


# ---------------------------------------------------------------- prompts


def test_the_prompts_of_each_family_are_those_of_the_paper(tmp_path: Path) -> None:
    turn = f"1+1?\n{INSTRUCTION}"
    assert user_turn(" 1+1?\n") == turn
    prompts = {
        "Qwen/Qwen2.5-Math-1.5B": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{turn}<|im_end|>\n<|im_start|>assistant\n",
        "meta-llama/Llama-3.2-3B": "<|start_header_id|>system<|end_header_id|>\n\n"
        "You are a helpful assistant.<|end_of_text|>\n<|start_header_id|>user<|end_header_id|>\n\n"
        f"{turn}<|end_of_text|>\n<|start_header_id|>assistant<|end_header_id|>\n\n",
        "deepseek-ai/deepseek-math-7b-base": f"User: {turn}\n\nAssistant:",
    }
    for base_model, prompt in prompts.items():
        assert raw_prompt("1+1?", request(tmp_path, base_model=base_model)) == prompt
    with pytest.raises(UsageError, match="Known: qwen, llama, deepseek"):
        raw_prompt("1+1?", request(tmp_path))


def test_a_stop_text_that_is_a_special_token_ends_a_raw_completion() -> None:
    """Decoded text contains no special token, so the stop text alone would never match."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    words = {"<|endoftext|>": 0, "a": 1, "<|im_end|>": 2, "unk": 3}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="unk")), eos_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    model = SimpleNamespace(generation_config=GenerationConfig(eos_token_id=0))
    stop = ("<|im_end|>", "a", "absent")
    assert stop_tokens(model, tokenizer, chat=False) == {0}
    assert stop_tokens(model, tokenizer, chat=False, stop=stop) == {0, 2}


# ---------------------------------------------------------------- scores


def test_majority() -> None:
    assert majority([RIGHT, WRONG, RIGHT]) == 1.0
    assert majority([RIGHT, WRONG, WRONG]) == 0.0
    assert majority([RIGHT, WRONG]) == 0.5
    assert majority([RIGHT, SILENT, SILENT]) == 1.0
    assert majority([RIGHT, WRONG, OTHER, WRONG]) == 0.0
    assert majority([SILENT, SILENT]) == 0.0
    assert majority([RIGHT, Verdict(None, None, "ended")]) is None
    spellings = ("\\dfrac{1}{2}", "\\frac{1}{2}", "\\left( 1, 2 \\right)", "(1,2)")
    halves = [Verdict(True, text) for text in spellings[:2]]
    points = [Verdict(False, text) for text in spellings[2:]]
    assert majority([*halves, points[0]]) == 1.0
    assert majority([halves[0], *points]) == 0.0


def test_means_and_shares() -> None:
    """Three problems, two samples: 1/3 and 2/3 are 33.3 and 66.7 %, mean 50.0; with one sample
    1/3 is 33.3 %, not 33.33."""
    verdicts = [RIGHT, RIGHT, WRONG, RIGHT, WRONG, WRONG]
    assert rounded_mean(verdicts, 2) == pytest.approx(0.5, abs=1e-12)
    assert rounded_mean([RIGHT, WRONG, WRONG], 1) == pytest.approx(0.333, abs=1e-12)
    assert rounded_mean([RIGHT, None], 1) is None

    def row(reason: str) -> Completion:
        return Completion(id="x", prompt="", completion="", finish_reason=reason, n_tokens=1)

    stop = row("stop")
    rows = [(stop, RIGHT), (row("length"), SILENT), (stop, WRONG), (stop, SILENT)]
    parts = breakdown(rows, 2)
    assert (parts["truncated"], parts["no answer"]) == (0.25, 0.5)
    assert parts["maj@2"] == 0.5


# ---------------------------------------------------------------- results

ROWS = [{"problem": f"What is {n} + 0?", "answer": str(n)} for n in (3, 10, 6)]


def run(tmp_path: Path, answers: dict[int, list[str]], **changes: Any) -> Any:
    """Evaluate ``gsm8k`` on :data:`OWN` against a server that gives these answers in turn."""
    turns = {user_turn(row["problem"]): itertools.cycle(answers[n]) for n, row in enumerate(ROWS)}
    server = FakeServer(lambda text: next(turns[text]), talks=False)
    options = {"data": write_lines(tmp_path / "own.jsonl", ROWS), "own_max_new_tokens": True}
    with serve(server):
        backend = {"backend": "openai", "base_url": server.url, "judge_workers": 1}
        request_ = request(tmp_path / "out", **options, **backend, **changes)
        (result,) = evaluate(["gsm8k"], request_).results
    return result


def test_greedy(tmp_path: Path) -> None:
    """Right; right only under qwen (x100); cut before any answer."""
    answers = {0: ["so \\boxed{3.0}"], 1: ["so \\boxed{1000}"], 2: ["hm " * 5000]}
    result = run(tmp_path, answers)
    assert (result.metric, result.score) == ("accuracy", 1 / 3)
    assert (result.n_total, result.n_scored) == (3, 3)
    parts = {"truncated": 1 / 3, "no answer": 1 / 3, "mean of rounded accuracies": 0.333}
    assert result.breakdown == pytest.approx({**parts, "accuracy of qwen": 2 / 3})
    assert result.harness.startswith("math-verify 0.")
    assert result.cluster is None
    assert result.decoding["max_new_tokens"] == 4096
    assert "partial: 3 of 1319" in result.notes
    items = read_items(tmp_path / "out" / result.items)
    assert [item.score for item in items] == [1.0, 0.0, 0.0]
    assert items[1].reason == "answer '1000', right is '10'"
    assert items[2].reason == "no answer, right is '6' (cut at max_new_tokens)"


def test_several_samples(tmp_path: Path) -> None:
    """4, 2 and 0 of 4 samples are right; two of the second problem are right only under qwen."""
    three, ten = "\\boxed{3}", "\\boxed{10}"
    answers = {0: [three], 1: [ten, "\\boxed{1000}"], 2: ["I do not know."]}
    result = run(tmp_path, answers, decoding=Decoding(samples=4, temperature=1.0), harness="qwen")
    assert (result.metric, result.cluster, result.n_completions) == ("avg@4", "problem", 12)
    assert result.score == pytest.approx(8 / 12)
    assert result.harness.startswith("qwen: ")
    parts = {"pass@4": 2 / 3, "maj@4": 2 / 3, "avg@4 of math-verify": 6 / 12}
    parts |= {"no answer": 4 / 12, "truncated": 0.0}
    assert {name: result.breakdown[name] for name in parts} == pytest.approx(parts)
    # Scores 1, 1, 0 of the problems: standard error sqrt(3 / 2 * 6 / 9) / 3.
    assert result.stderr == pytest.approx(1 / 3)
    assert not any("harnesses differ" in note for note in result.notes)


def test_a_difference_of_the_harnesses_is_noted(tmp_path: Path) -> None:
    """All right under qwen, none under math-verify: no standard error, and a gap of 1."""
    answers = {0: ["\\boxed{300}"], 1: ["\\boxed{1000}"], 2: ["\\boxed{0.06}"]}
    result = run(tmp_path, answers)
    assert (result.score, result.breakdown["accuracy of qwen"]) == (0.0, 1.0)
    text = "the harnesses differ by more than a standard error: math-verify 0.00%, "
    assert any(note.startswith(text) for note in result.notes)


def test_an_unknown_harness_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="math500 knows math-verify, qwen"):
        check(["math500"], request(tmp_path, harness="official"))
