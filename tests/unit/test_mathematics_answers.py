"""Equal answers in two harnesses: pairs judged by hand, published verdicts, hostile answers."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from benchmarks.mathematics_verdicts import golds
from dft_eval import processes
from dft_eval.mathematics import qwen_text
from dft_eval.mathematics import verdicts as rules
from dft_eval.mathematics.verdicts import HARNESSES, Harness, Question, Verdict, judge_all
from tests.support.jsonl import read_lines

PAIRS = Path(__file__).parents[1] / "data" / "mathematics_answers.jsonl"
ROWS = read_lines(PAIRS)
KINDS = sorted({row["kind"] for row in ROWS})
Judged = dict[Harness, list[Verdict]]


@pytest.fixture(scope="module")
def judged() -> Judged:
    return {
        harness: judge_all([Question(harness, row["completion"], row["gold"]) for row in ROWS])
        for harness in HARNESSES
    }


def test_there_are_two_hundred_pairs_and_every_error_is_explained() -> None:
    assert len({(row["gold"], row["completion"]) for row in ROWS}) == len(ROWS) >= 200
    for row in ROWS:
        errs = {row["math_verify"], row["qwen"]} != {row["right"]}
        assert errs == bool(row.get("note")), row


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harness", HARNESSES)
def test_pairs(kind: str, harness: Harness, judged: Judged) -> None:
    """``right`` was written by hand before either harness ran; ``qwen`` is the pipeline's own."""
    field = harness.replace("-", "_")
    for row, verdict in zip(ROWS, judged[harness], strict=True):
        assert row["kind"] != kind or verdict.correct == row[field], (row, verdict)


def test_no_answer_is_told_from_a_wrong_one(judged: Judged) -> None:
    silent = ("", "I do not know.", "\\boxed{}")
    for harness in HARNESSES:
        rows = zip(ROWS, judged[harness], strict=True)
        answers = {row["completion"]: verdict.answer for row, verdict in rows}
        assert [answers[text] for text in silent] == [None, None, None]


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("\\dfrac12", "\\frac{1}{2}"),
        ("3/4", "\\frac{3}{4}"),
        ("\\sqrt3", "\\sqrt{3}"),
        ("a+b", "+b"),
        ("20 \\text{ m}", "20"),
        ("5 m s", "5"),
        ("m", "m"),
        ("025", "25"),
        ("twenty five", "25"),
        ("two hundred five thousand", "205000"),
        ("3.00", "3"),
        (".5", "0.5"),
        ("x=7", "7"),
        ("30^\\circ", "30"),
        ("\\frac{1}{2", "\\frac{1}{2"),
        ("\\frac1", "\\frac1"),
        ("2j", "2i"),
    ],
)
def test_normalisation_of_the_qwen_rules(text: str, normalised: str) -> None:
    """Values of the pipeline itself, quirks included."""
    assert qwen_text.normalise(text, keep_units=False) == normalised
    assert qwen_text.normalise("a+b", keep_units=True) == "a+b"  # Minerva's


def box(text: str) -> str:
    return f"\\boxed{{{text}}}"


HOSTILE = {
    "tower": box("10^{10^{10^{10}}}"),
    "long number": box("9" * 100_000),
    "long text": "x + " * 25_000,
    "deep": box("\\sqrt{" * 200 + "1" + "}" * 200),
    "many boxes": "\\boxed{" * 5_000,
}


@pytest.mark.parametrize("harness", HARNESSES)
def test_hostile_answers_are_wrong_and_the_next_ones_are_judged(harness: Harness) -> None:
    texts = [*HOSTILE.values(), box("7")]
    verdicts = judge_all([Question(harness, text, "7") for text in texts])
    assert [verdict.correct for verdict in verdicts] == [False] * len(HOSTILE) + [True]
    assert any(
        verdict.problem.startswith((rules.TOO_SLOW, rules.TOO_LARGE)) for verdict in verdicts
    )


def test_nothing_in_an_answer_is_evaluated(tmp_path: Path) -> None:
    target = tmp_path / "written"
    texts = [
        f"open('{target}','w')",
        f"__import__('os').mknod('{target}')",
        f"{{__import__('os').mknod('{target}')}}",
        f"({target!s}).write_text('x')",
        f"1 if open('{target}','w') else 2",
    ]
    texts += [box(text) for text in texts]
    questions = [Question(harness, text, "5") for harness in HARNESSES for text in texts]
    assert {verdict.correct for verdict in judge_all(questions)} == {False}
    assert not target.exists()


def workers_of_this_process() -> list[int]:
    workers = []
    for pid in processes.children(os.getpid()):
        with contextlib.suppress(OSError):
            if b"formula_worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                workers.append(pid)
    return workers


def test_kills_of_the_worker_change_no_verdict() -> None:
    """Whichever questions the four meet."""
    rows = [row for row in ROWS if row["kind"] == "number"]
    kills = 0

    def kill(done: int, all: int) -> None:
        nonlocal kills
        if kills < 4:
            for process in workers_of_this_process():
                with contextlib.suppress(ProcessLookupError):  # ended since it was listed
                    os.kill(process, signal.SIGKILL)
                    kills += 1

    questions = [Question("qwen", row["completion"], row["gold"]) for row in rows]
    verdicts = judge_all(questions, workers=1, progress=kill)
    assert kills == 4
    assert [verdict.correct for verdict in verdicts] == [row["qwen"] for row in rows]


def test_answers_survive_killed_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SIGKILL comes from outside (an operator, the kernel out of memory): not the answer's doing.
    Five workers are killed over one question."""
    left = tmp_path / "left"
    left.write_text("5")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, signal\n"
        f"left = pathlib.Path({str(left)!r})\n"
        "if count := int(left.read_text()):\n"
        "    left.write_text(str(count - 1))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    (verdict,) = judge_all([Question("qwen", box("7"), "7")])
    assert left.read_text() == "0"
    assert (verdict.correct, verdict.answer) == (True, "7")


def test_a_fatal_question_is_unscored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (verdict,) = judge_all([Question("qwen", box("7"), "7")])
    assert verdict.correct is None
    assert "status 3" in verdict.problem


def test_golds_of_the_smaller_sets_are_right_however_written(test_data: Path) -> None:
    """All sets, and both harnesses: ``benchmarks/mathematics_verdicts.py``."""
    cases = list(golds(test_data / "mathematics", "math-verify", ("minerva", "aime24", "amc23")))
    verdicts = judge_all([case.question for case in cases])
    for case, verdict in zip(cases, verdicts, strict=True):
        assert verdict.correct == case.correct, (case, verdict)
    assert sum(case.kind == "minerva, as written" for case in cases) >= 58
