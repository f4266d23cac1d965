"""Answers compared; what a model wrote is never run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft_eval.vlm.equality import Equality, arithmetic
from dft_eval.vlm.options import DECLINED, infer_option
from dft_eval.worker import Worker, WorkerEndedError


@pytest.fixture(scope="module")
def equality() -> Iterator[Equality]:
    with Equality() as compare:
        yield compare


NUMBERS = st.one_of(st.integers(-50, 50), st.floats(-9, 9).map(lambda x: round(x, 3)))
EXPRESSIONS = st.recursive(
    NUMBERS.map(lambda x: f"({x})"),
    lambda inner: st.builds(
        "({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "%"]), inner
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_arithmetic_is_pythons(text: str) -> None:
    """eval() is the oracle here, on expressions that this test made."""
    try:
        expected = eval(text)
    except ZeroDivisionError:
        expected = None
    assert arithmetic(text) == expected


@given(st.text(max_size=40))
def test_arithmetic_breaks_on_no_text(text: str) -> None:
    value = arithmetic(text)
    assert value is None or isinstance(value, int | float | complex)


NO_ARITHMETIC = "open('x')", "x", "[1]", "'1'", "True", "9**9**9**9", "1/0", "lambda: 1", "1;2", ""


@pytest.mark.parametrize("text", [*NO_ARITHMETIC, "(" * 300])
def test_what_is_no_arithmetic(text: str) -> None:
    assert arithmetic(text) is None


@pytest.mark.parametrize(
    ("answer", "gold", "vlmevalkit", "math_verify"),
    [
        ("8", "8", True, True),
        ("1/2", "0.5", True, True),
        ("\\frac{1}{2}", "0.5", True, True),
        ("\\sqrt{8}", "2\\sqrt{2}", False, True),
        ("12 cm", "12", False, True),
        ("\\left(-2, 1\\right]", "(-2,1]", False, True),
        ("(-2,1)", "(-2,1]", False, False),
        ("13", "12", False, False),
        ("1" * 3000, "1", False, False),
    ],
)
def test_two_rules(
    equality: Equality, answer: str, gold: str, vlmevalkit: bool, math_verify: bool
) -> None:
    assert equality.vlmevalkit(answer, gold).equal is vlmevalkit
    assert equality.math_verify(answer, gold).equal is math_verify


def test_math_verify_finds_the_answer_in_a_sentence(equality: Equality) -> None:
    assert equality.math_verify("Thus the area is 12", "12", sentence=True).equal
    assert not equality.math_verify("Thus the area is 13", "12", sentence=True).equal


def test_a_model_that_writes_python_runs_nothing(equality: Equality, tmp_path: Path) -> None:
    target = tmp_path / "written"
    for answer in (f"open('{target}','w')", f"__import__('os').mknod('{target}')", f"{target}=1"):
        assert not equality.vlmevalkit(answer, "5").equal
        assert not equality.math_verify(answer, "5").equal
        assert not equality.math_verify(answer, "5", sentence=True).equal
    assert not target.exists()


def test_formulas_beyond_the_bounds_are_wrong(equality: Equality) -> None:
    """The kernel ends the worker; the next question is answered by a new one."""
    verdict = equality.math_verify("9^{9^{9^{9}}}", "5")
    assert not verdict.equal
    assert "too long" in verdict.reason
    assert equality.math_verify("10/2", "5").equal
    verdict = equality.vlmevalkit("\\sqrt{" * 200 + "1" + "}" * 200, "2")
    assert not verdict.equal
    assert verdict.reason == "a formula too large to read (RecursionError)"


def test_a_worker_that_fails_is_an_error_and_no_verdict() -> None:
    with Worker("dft_eval.no_such_module") as worker, pytest.raises(WorkerEndedError) as error:
        worker.ask({})
    assert "no_such_module" in str(error.value)


def test_no_key_reaches_a_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps(sorted(os.environ)), flush=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("JUDGE_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with Worker("spy") as worker:
        names = worker.ask({})
    assert "PYTHONPATH" in names
    assert not [name for name in names if name.endswith("_API_KEY")]


LETTERS = {letter: letter for letter in "ABCDE"}


@pytest.mark.parametrize(
    ("answer", "choices", "letter"),
    [
        ("", LETTERS, None),
        ("nan", LETTERS, None),
        ("None", LETTERS, None),
        ("12", {"A": "2", "B": "3"}, None),
        ("= 2.", {"A": "2", "B": "3"}, "A"),
        ("-2", {"A": "2", "B": "3"}, None),
        ("Cannot determine the answer", LETTERS, DECLINED),
    ],
)
def test_options_within_words(answer: str, choices: dict[str, str], letter: str | None) -> None:
    """VLMEvalKit finds A in 'nan', E in 'None' and 2 in 12."""
    assert infer_option(answer, choices) == letter
