"""HumanEval+: EvalPlus' data, sanitiser and comparison, with programs run in the real sandbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dft_eval.benchmark import PROMPT_STYLES, PromptStyle, Request
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation.hf_text import render
from dft_eval.generation.run import Completion, Failure
from dft_eval.humaneval_plus import adapter
from dft_eval.humaneval_plus import data as evalplus_data
from dft_eval.humaneval_plus import driver as evalplus_driver
from dft_eval.humaneval_plus.data import EvalPlusProblem, has_evalplus_format, read_data
from dft_eval.humaneval_plus.judge import Output, is_right, judge, make_tests
from dft_eval.humaneval_plus.sanitize import longest_program, sanitize
from dft_eval.python_programs import HUMANEVAL, human_eval
from dft_eval.results import ItemScore
from tests.conftest import Bench
from tests.support.jsonl import write_lines

PROBLEM = EvalPlusProblem(
    task_id="T/0",
    prompt="from typing import List\n\n"
    'def mean(xs: List[float]):\n    """The mean; 0 of none."""\n',
    entry_point="mean",
    canonical_solution="    return sum(xs) / len(xs) if xs else 0\n",
    base_input=[[[1.0, 2.0]], [[1, 2, 3]]],
    plus_input=[[[]], [[0.1] * 10], [[1, 2]]],
    atol=0,
)


def encode(value: Any) -> Output:
    row = {"seconds": 0.0, "value": None, "sha256": None, **evalplus_driver.encode(value)}
    return Output(row["value"], row["sha256"], row["kind"], row["floats"], row["seconds"])


def completion(text: str, id: str = "T/0", finish_reason: str = "stop") -> Completion:
    return Completion(id=id, prompt="", completion=text, finish_reason=finish_reason, n_tokens=1)


Scores = tuple[ItemScore, ItemScore]  # base and plus


def scored(text: str, problem: EvalPlusProblem = PROBLEM, style: PromptStyle = "chat") -> Scores:
    rows = [completion(text, problem.task_id)]
    (pair,) = adapter.score_problem(problem, rows, style, plus=True, sandboxed=True)
    return pair


HEAD = "def mean(xs):\n    "
LIAR = """
class Liar(float):
    def __eq__(self, other): return True
    __hash__ = None
    def __sub__(self, other): return 0.0
    def __abs__(self): return 0.0
"""
FRAMES = """
import gc, sys
def mean(xs):
    frame, values = sys._getframe(), []
    while frame:
        values += list(frame.f_locals.values()) + list(frame.f_globals.values())
        frame = frame.f_back
    values += gc.get_objects()
    for row in values:
        if isinstance(row, dict) and "expected" in row:
            return row["expected"]
    raise SystemExit(0)
"""
# Writes report lines itself, but does not know the right outputs.
FORGED = """
import json, os
def mean(xs):
    line = json.dumps({'value': '9', 'kind': 'float', 'floats': True, 'seconds': 0})
    for descriptor in range(3, 20):
        try: os.write(descriptor, line.encode() + b'\\n')
        except OSError: pass
    return 9.0
"""


@pytest.mark.parametrize(
    ("text", "base", "plus"),
    [
        (HEAD + "return sum(xs) / len(xs) if xs else 0", 1.0, 1.0),
        (HEAD + "return sum(xs) / max(len(xs), 1)", 1.0, 1.0),
        (HEAD + "return sum(x / len(xs) for x in xs)", 1.0, 1.0),  # within the tolerance
        (HEAD + "return sum(xs) / len(xs)", 1.0, 0.0),  # fails on the empty list
        (HEAD + "return sorted(xs)[len(xs) // 2] if len(xs) != 2 else 1.5", 1.0, 0.0),
        *((HEAD + body, 0.0, 0.0) for body in ("return 1.5", "return None", "pass")),
        *((text, 0.0, 0.0) for text in ("x = (", "", "def other(xs):\n    return 1")),
        *((f"import os, sys\n{HEAD}{way}(0)", 0.0, 0.0) for way in ("sys.exit", "os._exit")),
        *((text, 0.0, 0.0) for text in (LIAR + HEAD + "return Liar(7)", FRAMES, FORGED)),
        (HEAD + 'print(\'{"value": "2", "kind": "float"}\' * 9)\n    return 7', 0.0, 0.0),
        (HEAD + "while True: pass", 0.0, 0.0),
    ],
)
def test_verdicts_of_base_and_plus(text: str, base: float, plus: float) -> None:
    base_item, plus_item = scored(text)
    assert (base_item.score, plus_item.score) == (base, plus), (base_item, plus_item)
    assert plus_item.reason == "passed" or plus == 0.0


def test_items_without_reference_or_completion_are_unscored() -> None:
    broken = PROBLEM.model_copy(update={"canonical_solution": "    return 1 / 0\n"})
    base, plus = scored(HEAD + "return 1", broken)
    assert base.score is plus.score is None
    assert "ZeroDivisionError" in base.reason
    none = [Failure("T/0", "no answer")]
    (pair,) = adapter.score_problem(PROBLEM, none, "chat", plus=True, sandboxed=True)
    assert pair[0] == pair[1] == ItemScore(id="T/0", score=None, reason="no answer")


def test_the_raw_style_puts_the_prompt_before(text_bench: Bench) -> None:
    assert scored("    return sum(xs) / len(xs) if xs else 0", style="completion")[1].score == 1.0
    tabbed = "\tif not xs:\n\t\treturn 0\n\treturn sum(xs) / len(xs)"
    assert scored(tabbed, style="completion")[1].score == 1.0


NUMBERS = st.one_of(
    st.integers(), st.booleans(), st.floats(allow_nan=False), st.fractions(), st.decimals(-9, 9)
)
VALUES = st.recursive(
    st.one_of(NUMBERS, st.none(), st.text(), st.binary(), st.complex_numbers(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(st.one_of(st.text(), st.integers(), st.floats(allow_nan=False)), inner),
        st.sets(st.one_of(st.integers(), st.text())),
    ),
    max_leaves=8,
)


@given(a=VALUES, b=VALUES)
def test_equal_encodings_mean_equal_values(a: Any, b: Any) -> None:
    for left, right in ((a, b), (a, a), ([a, b], [a, b])):
        same = encode(left).text == encode(right).text
        assert same == (left == right)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, 1.0, True),
        (True, 1, True),
        (2**70, float(2**70), True),
        (2**70 + 1, float(2**70), False),
        (2**9999, 2**9999, True),
        (2**9999, 2**9999 + 1, False),
        (Fraction(1, 2), 0.5, True),
        (Decimal("0.1"), 0.1, False),
        (-0.0, 0, True),
        (float("nan"), float("nan"), True),  # no canonical solution returns one
        ([1, 2.0], [1.0, 2], True),
        ([1], (1,), False),
        ({1: 2, 3: 4}, {3: 4.0, 1: 2.0}, True),
        ("1", 1, False),
        (None, 0, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_equality_across_types(left: Any, right: Any, equal: bool) -> None:
    assert (encode(left).text == encode(right).text) == equal


def test_long_outputs_are_compared_by_their_hash() -> None:
    long = list(range(10_000))
    assert encode(long).text is None
    assert is_right(encode(long), encode([float(x) for x in long]), 0)
    assert not is_right(encode(long), encode([*long[:-1], 0]), 0)


@pytest.mark.parametrize(
    ("value", "expected", "tolerance", "right"),
    [
        (0.1 + 0.2, 0.3, 0, False),
        (0.1 + 0.2, 0.3, 1e-6, True),
        ([0.30001], [0.3], 1e-6, False),
        ([0.1 + 0.2, 1], [0.3, 1], 1e-6, True),
        ([0.3], [0.3, 0.3], 1e-6, False),
        ((0.1 + 0.2,), [0.3], 1e-6, False),
        ("a", "b", 1e-6, False),
        (None, 0.3, 1e-6, False),
        (float("inf"), 0.3, 1e-6, False),
    ],
)
def test_tolerance(value: Any, expected: Any, tolerance: float, right: bool) -> None:
    assert is_right(encode(value), encode(expected), tolerance) == right


LINES = st.sampled_from(
    ["", " ", "x = 1", "def f(a):", "    return 1", "    if a:", "Text.", "```", "(", ")", "'''"]
)


@settings(deadline=None)
@given(st.lists(LINES, max_size=9).map("\n".join))
def test_longest_program_equals_evalplus(text: str) -> None:
    from evalplus.syncheck import syntax_check

    lines = text.split("\n")
    best, span = 0, (0, 0)
    for i in range(len(lines)):
        for j in range(i + 1, len(lines)):
            size = sum(1 for line in lines[i : j + 1] if line.strip())
            if size > best and syntax_check("\n".join(lines[i : j + 1])):
                best, span = size, (i, j)
    assert longest_program(text) == "\n".join(lines[span[0] : span[1] + 1])


@pytest.mark.parametrize("code", ["x=" + "-" * 100_000 + "1", "def f():\n return '\udc80'\n#\n"])
def test_code_that_evalplus_cannot_sanitise(code: str) -> None:
    assert sanitize(code, "f") == code


def test_prompts_and_stop_texts_equal_evalplus(text_bench: Bench) -> None:
    from evalplus.provider import utility
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(text_bench.model)
    prompt = PROBLEM.prompt.strip() + "\n"  # as its codegen makes it
    begins = adapter.ANSWER_BEGINS.removesuffix("\n```python\n")
    theirs = utility.make_raw_chat_prompt(prompt, adapter.INSTRUCTION, begins, tokenizer)
    assert render(tokenizer, adapter.make_prompt(PROBLEM, "chat")) == theirs
    assert render(tokenizer, adapter.make_prompt(PROBLEM, "completion")) == prompt
    extra = utility.extra_eos_for_direct_completion("humaneval")
    assert set(adapter.COMPLETION_STOP) == {*utility.EOS, *extra}
    assert set(adapter.CHAT_STOP) == {*utility.EOS, "\n```\n"}


def test_data_files(tmp_path: Path) -> None:
    data = read_data(write_lines(tmp_path / "p.jsonl", [PROBLEM.model_dump()]))
    assert data.problems == [PROBLEM]
    assert "not HumanEval+" in data.note()
    assert has_evalplus_format(write_lines(tmp_path / "p.jsonl.gz", [PROBLEM.model_dump()]))
    assert not has_evalplus_format(write_lines(tmp_path / "q.jsonl", [{"task_id": "x"}]))


def test_no_network_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # urllib keeps the proxies of its first call for the whole process.
    monkeypatch.setattr("urllib.request._opener", None)
    with pytest.raises(PrerequisiteError, match="--data"):
        evalplus_data.download()
    assert not list(tmp_path.rglob("*.jsonl"))


def published(test_data: Path) -> dict[str, EvalPlusProblem]:
    data = read_data(test_data / "humanevalplus" / "HumanEvalPlus.jsonl.gz")
    assert data.md5 == evalplus_data.MD5
    return {problem.task_id: problem for problem in data.problems}


def test_the_special_oracle_takes_any_zero(test_data: Path) -> None:
    """HumanEval/32, which no program passes in EvalPlus 0.3.1."""
    problem = published(test_data)["HumanEval/32"]
    tests = make_tests(problem, "base", sandboxed=True)
    right = problem.prompt + problem.canonical_solution
    assert judge(right, problem, tests, sandboxed=True) == (1.0, "passed")
    near = right.replace("return x", "return x + 1e-9")
    assert judge(near, problem, tests, sandboxed=True)[0] == 1.0
    for wrong in ("return x + 1", "return None", "return 10**400", "return 'zero'"):
        program = right.replace("    return x\n", f"    {wrong}\n")
        assert program != right
        assert judge(program, problem, tests, sandboxed=True)[0] == 0.0


WRONG_UNDER_PLUS = {
    "HumanEval/0": "    return any(round(abs(a - b), 2) < threshold for a, b in "
    "zip(sorted(numbers), sorted(numbers)[1:]))\n",
    "HumanEval/2": "    return round(number % 1, 3)\n",
    "HumanEval/13": "    while b:\n        a, b = b, a % b\n        if a > 10**4:\n"
    "            break\n    return a\n",
    "HumanEval/35": "    best = 0\n    for x in l:\n        best = max(best, x)\n    return best\n",
    "HumanEval/49": "    return 2**n % p if n else 1\n",
}


@pytest.mark.parametrize("name", sorted(WRONG_UNDER_PLUS))
def test_programs_that_pass_base_and_fail_plus(test_data: Path, name: str) -> None:
    problem = published(test_data)[name]
    base, plus = scored(WRONG_UNDER_PLUS[name], problem, "completion")
    assert (base.score, plus.score) == (1.0, 0.0), (base, plus)
    assert plus.reason.startswith("plus test ")


def judge_all(
    problems: Sequence[EvalPlusProblem], texts: Sequence[str], style: PromptStyle, *, plus: bool
) -> list[Scores]:
    rows = [completion(text, p.task_id) for text, p in zip(texts, problems, strict=True)]
    options: dict[str, Any] = {"samples": 1, "plus": plus, "sandboxed": True}
    return adapter.score(problems, rows, style, **options, progress=lambda *_: None)


def test_canonical_solutions_of_every_seventh_problem_pass(test_data: Path) -> None:
    """All 164 passed in both styles when measured; the slow ones take minutes."""
    problems = list(published(test_data).values())
    slow = {f"HumanEval/{n}" for n in (15, 36, 59, 83, 94, 100, 130, 139)}
    sample = [p for p in problems[::7] if p.task_id not in slow]
    texts = [p.canonical_solution for p in sample]
    verdicts = judge_all(sample, texts, "completion", plus=True)
    assert [plus.id for _, plus in verdicts if plus.score != 1.0] == []


# --- HumanEval's own problems, judged the same way ----------------------------------------------


Problems = dict[str, EvalPlusProblem]


@pytest.fixture(scope="module")
def human_eval_problems() -> Problems:
    data = evalplus_data.from_human_eval(human_eval(), "human-eval", sandboxed=True)
    assert data.note() == "data: human-eval, on the inputs of its own tests"
    return {problem.task_id: problem for problem in data.problems}


def test_inputs_are_those_of_the_tests(human_eval_problems: Problems, test_data: Path) -> None:
    """EvalPlus copied HumanEval's inputs by hand; all but twelve problems are equal as JSON."""
    theirs = published(test_data)
    different = {
        name
        for name, problem in human_eval_problems.items()
        if json.loads(json.dumps(problem.base_input, default=list)) != theirs[name].base_input
    }
    assert different == {
        f"HumanEval/{n}" for n in (33, 38, 50, 53, 75, 77, 78, 95, 97, 117, 129, 148)
    }
    # JSON turns the key 5 into a string, which changes the answer.
    fruit = [{"p": "pineapple", 5: "banana", "a": "apple"}]
    assert fruit in human_eval_problems["HumanEval/95"].base_input


def test_all_canonical_solutions_pass(human_eval_problems: Problems) -> None:
    problems = list(human_eval_problems.values())
    assert len(problems) == 164
    for style in PROMPT_STYLES:
        heads = ["" if style == "completion" else problem.prompt for problem in problems]
        texts = [head + p.canonical_solution for head, p in zip(heads, problems, strict=True)]
        verdicts = judge_all(problems, texts, style, plus=False)
        assert [base for base, _ in verdicts if base.score != 1.0] == []


FRAME_TRICK = """
    import os, sys
    frame = sys._getframe()
    while 'finish' not in frame.f_locals:
        frame = frame.f_back
    os.write(frame.f_locals['report'], frame.f_locals['finish'])
    os._exit(0)
"""
ANSWERS = [
    ("    return number % 1.0\n", "completion", 1.0),
    ("\treturn number % 1.0\n", "completion", 1.0),
    ("    return number % 1.0\nprint(undefined)\n", "completion", 1.0),
    ("    return number % 1.0\n```\nAnd that is it", "completion", 1.0),
    ("    return number\n", "completion", 0.0),
    (FRAME_TRICK, "completion", 0.0),
    ("def truncate_number(number):\n    return number % 1.0\n\nassert False\n", "chat", 1.0),
    ("def truncate_number(number):\n    return int(number)\n", "chat", 0.0),
]


@pytest.mark.parametrize(("text", "style", "score"), ANSWERS)
def test_humaneval_agrees_with_humaneval_plus(
    text: str, style: PromptStyle, score: float, human_eval_problems: Problems, test_data: Path
) -> None:
    for problem in (human_eval_problems["HumanEval/2"], published(test_data)["HumanEval/2"]):
        base, _ = scored(text, problem, style)
        assert base.score == score, base


def test_humaneval_uses_the_driver_of_humaneval_plus(tmp_path: Path) -> None:
    """From the benchmark's own entry, with the package's problems."""
    request = Request(model="m", out=tmp_path, label="base", limit=2)
    data = HUMANEVAL.load(HUMANEVAL, request)
    assert HUMANEVAL.parts is adapter.parts
    score = HUMANEVAL.scorer(HUMANEVAL, request, data)
    (part,) = HUMANEVAL.parts(HUMANEVAL, request, data)
    texts = [problem.canonical_solution for problem in data.problems[:2]]
    rows = [completion(text, p.id) for text, p in zip(texts, part.prompts, strict=True)]
    result = score([rows])
    assert (result.score, result.n_total, result.harness[:8]) == (1.0, 2, "evalplus")
    assert any(note.startswith("data: human-eval ") for note in result.notes)


def test_problems_without_a_right_solution_are_refused_by_name(tmp_path: Path) -> None:
    right, wrong = human_eval()[:2]
    problems = [right, wrong.model_copy(update={"canonical_solution": "    return 1\n"})]
    with pytest.raises(UsageError, match=f"mine: {wrong.task_id}: canonical_solution fails"):
        evalplus_data.from_human_eval(problems, "mine", sandboxed=True)
