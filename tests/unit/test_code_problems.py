"""From a completion to a program and its verdict, through the real sandbox."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from dft_eval.code_problems import (
    ANSWER_BEGINS,
    CHAT_STOP,
    COMPLETION_STOP,
    INSTRUCTION,
    CodeProblem,
    extract_program,
    judge,
    make_prompt,
    preamble,
    read_problems,
)
from dft_eval.errors import UsageError
from dft_eval.generation.hf_text import render
from dft_eval.generation.run import Completion, cut
from dft_eval.python_programs import human_eval, python_basics
from tests.conftest import Bench

PROBLEM = CodeProblem(
    task_id="T/0",
    prompt="from typing import List\n\ndef one() -> int:\n    return 1\n\n\n"
    'def total(xs: List[int]) -> int:\n    """Sum."""\n',
    entry_point="total",
    test="def check(candidate):\n    assert candidate([1, 2]) == 3\n",
)


def completion(text: str, finish_reason: str = "stop") -> Completion:
    return Completion(id="T/0", prompt="", completion=text, finish_reason=finish_reason, n_tokens=1)


def silent(done: int, total: int) -> None:
    pass


def test_the_preamble_is_what_stands_before_the_asked_function() -> None:
    assert preamble(PROBLEM) == "from typing import List\n\ndef one() -> int:\n    return 1\n\n\n"


@pytest.mark.parametrize(
    ("text", "style", "score"),
    [
        ("    return sum(xs)", "completion", 1.0),
        ("\n    return sum(xs)\n", "completion", 1.0),
        ("    return max(xs)", "completion", 0.0),
        ("", "completion", 0.0),
        ("def total(xs: List[int]) -> int:\n    return sum(xs) * one()", "chat", 1.0),
        ("def total(xs):\n    return sum(xs)\n```\nThis is wrong text", "chat", 1.0),
        ("```python\ndef total(xs):\n    return sum(xs)\n```", "chat", 1.0),
        ("def sum_up(xs):\n    return sum(xs)", "chat", 0.0),
        ("I cannot do that.", "chat", 0.0),
        ("import sys; sys.exit(0)", "chat", 0.0),
        ("def total(xs):\n    raise SystemExit(0)", "chat", 0.0),
    ],
)
def test_verdicts(text: str, style: str, score: float) -> None:
    (row,) = judge([PROBLEM], [completion(text)], style, sandboxed=True, progress=silent)
    assert (row.id, row.score) == ("T/0", score)
    assert row.reason == "passed" or score == 0.0


def test_a_cut_completion_says_so() -> None:
    (row,) = judge(
        [PROBLEM],
        [completion("    return", "length")],
        "completion",
        sandboxed=True,
        progress=silent,
    )
    assert row.score == 0.0
    assert "max_new_tokens" in row.reason


def test_prompts_are_evalplus_own(text_bench: Bench) -> None:
    """Held against EvalPlus' function on the same tokenizer."""
    from evalplus.provider.utility import make_raw_chat_prompt
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(text_bench.model)
    theirs = make_raw_chat_prompt(
        PROBLEM.prompt, INSTRUCTION, ANSWER_BEGINS.removesuffix("\n```python\n"), tokenizer
    )
    assert render(tokenizer, make_prompt(PROBLEM, "chat")) == theirs
    # Its codegen hands on the stripped prompt and a line's end.
    raw = render(tokenizer, make_prompt(PROBLEM, "completion"))
    assert raw == PROBLEM.prompt.strip() + "\n"


def test_stop_texts_are_evalplus_own() -> None:
    from evalplus.provider.utility import EOS, extra_eos_for_direct_completion

    theirs = {s for s in EOS if s.startswith("\n")} | set(
        extra_eos_for_direct_completion("humaneval")
    )
    assert theirs == set(COMPLETION_STOP) - {"\n```"}
    assert cut("x\n```\n", CHAT_STOP) == ("x", True)


def test_canonical_solutions_pass_in_both_styles() -> None:
    """Through extraction and sandbox, every published solution is scored 1.0 (60 of 60)."""
    problems = python_basics()
    assert len(problems) == 60
    for style in ("completion", "chat"):
        texts = [
            p.canonical_solution if style == "completion" else p.prompt + p.canonical_solution
            for p in problems
        ]
        rows = judge(
            problems, [completion(t) for t in texts], style, sandboxed=True, progress=silent
        )
        assert [row.id for row in rows if row.score != 1.0] == []


def test_problem_files(tmp_path: Path) -> None:
    record: dict[str, Any] = PROBLEM.model_dump()
    plain, packed = tmp_path / "p.jsonl", tmp_path / "p.jsonl.gz"
    plain.write_text(json.dumps(record) + "\n\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_problems(plain) == read_problems(packed) == [PROBLEM]
    plain.write_text(json.dumps(record) + "\n{}\n")
    with pytest.raises(UsageError, match="line 2"):
        read_problems(plain)
    plain.write_text("")
    with pytest.raises(UsageError, match="no problem"):
        read_problems(plain)
    with pytest.raises(UsageError, match="no such file"):
        read_problems(tmp_path / "absent.jsonl")
    packed.write_bytes(b"not gzip")
    with pytest.raises(UsageError, match="cannot be read"):
        read_problems(packed)


def test_extraction_keeps_the_prompt_whole() -> None:
    program = extract_program(PROBLEM, "    return 0", "completion")
    assert program.startswith(PROBLEM.prompt.rstrip())


def test_the_published_humanevalplus_file_is_read(test_data: Path) -> None:
    """As ``--data``: the same 164 problems, compressed as published."""
    published = read_problems(test_data / "humanevalplus" / "HumanEvalPlus.jsonl.gz")
    ours = human_eval()
    assert [p.task_id for p in published] == [p.task_id for p in ours]
    assert [p.entry_point for p in published] == [p.entry_point for p in ours]
