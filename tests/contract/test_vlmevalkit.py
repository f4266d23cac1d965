"""Prompts, judge prompts and scores against the installed VLMEvalKit.

One process of VLMEvalKit computes everything, since its import takes seconds.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dft_eval.benchmark import JudgeChoice
from dft_eval.generation.run import Completion, Prompt
from dft_eval.statistics import mean_and_stderr
from dft_eval.vlm import judge_prompts, mathverse, mathvision, openai_scoring, wemath
from dft_eval.vlm.equality import Equality
from dft_eval.vlm.judge import OpenAIJudge
from dft_eval.vlm.openai_scoring import Scoring
from dft_eval.vlm.options import infer_option
from dft_eval.vlm.run import Task
from dft_eval.vlm.tables import Row, read_table
from tests.support.cli import run_command
from tests.support.judge_server import judge_server
from tests.support.stock_vlmevalkit import run_stock
from tests.support.vlm_tables import (
    VERSIONS,
    mathverse_row,
    mathvision_row,
    wemath_problem,
    write_table,
)

EQUAL = [
    *(("8", "8"), ("8.0", "8"), ("7", "8"), ("2**3", "8"), ("3^2", "9"), ("-2", "- 2")),
    *(("1/2", "0.5"), ("\\frac{1}{2}", "0.5"), ("50\\%", "0.5"), ("\\pi", "3.14159265")),
    *(("\\frac{3}{6}", "\\frac{1}{2}"), ("\\sqrt{2}", "\\sqrt2"), ("2^{1/3}", "1.259921049894873")),
    *(("5 cm", "5"), ("", "5"), ("The answer is 5", "5"), ("1,000", "1000"), ("1e3", "1000")),
    *(("x+1", "1+x"), ("(-2,1)", "(-2, 1)"), ("E", "e")),
]
LETTERS = {letter: letter for letter in "ABCDE"}
VALUES = {"A": "12", "B": "14", "C": "$x+1$", "D": "blue whale"}
INFER = [
    ("B", LETTERS),
    ("The answer is (B).", LETTERS),
    ("\\boxed{B}", LETTERS),
    ("Based on the picture it is large and we cannot say more", LETTERS),
    ("A or B", LETTERS),
    ("B is right since all the others are far too small for the figure", LETTERS),
    ("A **C**", VALUES),
    ("It must be 14", VALUES),
    ("a Blue Whale", VALUES),
    ("12 or 14", VALUES),
    ("$x+1$", VALUES),
    ("Cannot determine the answer", VALUES),
    ("Z", VALUES),
    ("nothing of it", VALUES),
]
MATHVISION = [
    *[mathvision_row(i, answer) for i, answer in enumerate(["8", "0.5", "3", "-2"])],
    *[mathvision_row(i, letter, list("ABCDE")) for i, letter in ((4, "B"), (5, "E"))],
    *[mathvision_row(i, letter, ["12", "14", "$x+1$"]) for i, letter in ((6, "C"), (7, "A"))],
]
TEXTS = ["8", "We get \\frac{1}{2}", "So there are 4", "The result: -2", "I choose (B)."]
TEXTS += ["It could be D", "the third, $x+1$", "All of them agree on option C"]
MATHVISION_ANSWERS = {str(i): text for i, text in enumerate(TEXTS)}
MATHVERSE = [
    mathverse_row(i, version, *(("B", "A:40\nB:60") if i % 2 else ("0.5m",)))
    for i, version in enumerate(itertools.chain(VERSIONS, VERSIONS))
]
MATHVERSE_ANSWERS = {
    str(i): ["It is 50cm", "Answer B", "It is 3cm", "So A", "0.5m"][i % 5] for i in range(10)
}
WEMATH = [
    row
    for id, size in enumerate([3] * 8 + [4] * 16)
    for row in wemath_problem(10 * id, id, ("B",) * size)
]
WEMATH_ANSWERS = {
    str(10 * id + i): "<Answer>: <<B>>" if id >> i & 1 else "<Answer>: <<A>>"
    for id, size in enumerate([3] * 8 + [4] * 16)
    for i in range(size)
}
"""All patterns of right and wrong answers: 8 of two steps and the full question, 16 of three."""
WEMATH_IN_WORDS = {
    id: "It is sixty-five degrees." if text.endswith("<<B>>") else "Forty of them."
    for id, text in WEMATH_ANSWERS.items()
}
"""The same patterns in words that need a judge."""
LINES: dict[str, list[dict[str, Any]]] = {
    "mathvision": [{"question": "How many?\n<image1>", "prediction": "I see 'eight'\n{8}"}],
    "mathverse_extract": [{"prediction": "It's {x}\n\\frac{1}{2}"}],
    "wemath": [
        {
            "question": "Which?\nRegarding the format, please answer following the template below, "
            "and be sure to include two <> symbols:\n<Thought process>: <<your thought process>> "
            "<Answer>: <<your option>>",
            "options": {"A": 40.0, "B": "{65}"},
            "prediction": "It's {x}",
        }
    ],
    "mathverse_score": [{"question_for_eval": "Why?", "extract": "2 cm", "answer": "0.02m"}],
}


@dataclass(frozen=True)
class Stock:
    """VLMEvalKit's results by job, and the folder of the tables."""

    results: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    folder = tmp_path_factory.mktemp("stock")
    names = {"MathVision": MATHVISION, "MathVerse_MINI": MATHVERSE, "WeMath": WEMATH}
    tables = {name: str(write_table(folder / f"{name}.tsv", rows)) for name, rows in names.items()}
    with judge_server() as server:
        url = f"{server.url}/chat/completions"
        judge = {"model": "test-judge", "api_base": url, "key": "sk-unused"}
        answers = {"MathVision": MATHVISION_ANSWERS, "MathVerse_MINI": MATHVERSE_ANSWERS}
        answers["WeMath"] = WEMATH_ANSWERS

        def evaluation(name: str, texts: dict[str, str], work: str, asks: bool) -> dict[str, Any]:
            places = {"table": tables[name], "folder": str(folder / work), "format": "tsv"}
            how = {"predictions": texts, "judge": judge if asks else {}}
            return {"job": "evaluate", "dataset": name, **places, **how}

        jobs: dict[str, dict[str, Any]] = {
            "equal": {"job": "equal", "pairs": EQUAL},
            "infer": {"job": "infer", "pairs": INFER},
            **{
                f"judge {k}": {"job": "judge_prompts", "kind": k, "lines": v}
                for k, v in LINES.items()
            },
            **{
                f"prompts {name}": {"job": "prompts", "dataset": name, "table": table}
                for name, table in tables.items()
            },
            **{
                f"score {name}": evaluation(name, texts, "work", name != "WeMath")
                for name, texts in answers.items()
            },
            "judged WeMath": evaluation("WeMath", WEMATH_IN_WORDS, "judged", True),
        }
        results = run_stock(list(jobs.values()), folder)
    return Stock(dict(zip(jobs, results, strict=True)), folder)


def rows_of(task: Task, stock: Stock, tmp_path: Path) -> tuple[Row, ...]:
    return read_table(
        task.tables, task.columns, data=stock.folder, limit=None, pictures=tmp_path / "pictures"
    ).rows


def completions(answers: dict[str, str]) -> list[Completion]:
    return [
        Completion(id=id, prompt="", completion=text, finish_reason="stop", n_tokens=1)
        for id, text in answers.items()
    ]


def test_answers_and_options_are_matched_as_in_vlmevalkit(stock: Stock) -> None:
    with Equality() as equality:
        ours = [equality.vlmevalkit(answer, gold).equal for answer, gold in EQUAL]
    theirs = dict(zip(EQUAL, stock.results["equal"], strict=True))
    assert dict(zip(EQUAL, ours, strict=True)) == theirs
    assert {True, False} == set(ours)
    ours = [infer_option(answer, choices) for answer, choices in INFER]
    answers = [answer for answer, _ in INFER]
    theirs = stock.results["infer"]
    assert dict(zip(answers, ours, strict=True)) == dict(zip(answers, theirs, strict=True))


@pytest.mark.parametrize("kind", list(LINES))
def test_judge_prompts_equal_vlmevalkits(stock: Stock, kind: str) -> None:
    ours = [getattr(judge_prompts, kind)(line) for line in LINES[kind]]
    assert ours == stock.results[f"judge {kind}"]


def test_judge_prompts_do_not_import_vlmevalkit() -> None:
    """Its import takes seconds and switches TLS verification off."""
    use = "judge_prompts.mathvision({'question': 'q', 'prediction': 'p'})"
    code = f"import sys; from dft_eval.vlm import judge_prompts; {use}; "
    run_command([sys.executable, "-c", code + "sys.exit('vlmeval' in sys.modules)"])


@pytest.mark.parametrize(
    ("task", "name"),
    [(mathvision.TASK, "MathVision"), (mathverse.TASK, "MathVerse_MINI"), (wemath.TASK, "WeMath")],
)
def test_prompts_equal_vlmevalkits(stock: Stock, tmp_path: Path, task: Task, name: str) -> None:
    """The same text after the same pixels, in the same order."""

    def prompt_parts(prompt: Prompt) -> dict[str, Any]:
        pictures = [Image.open(path).convert("RGB").tobytes() for path in prompt.images]
        pixels = [hashlib.sha256(data).hexdigest() for data in pictures]
        kinds = ["image"] * len(pixels) + ["text"]
        return {"texts": [prompt.text], "pixels": pixels, "kinds": kinds}

    ours = {row.id: prompt_parts(task.prompt(row)) for row in rows_of(task, stock, tmp_path)}
    assert ours == stock.results[f"prompts {name}"]


@pytest.fixture
def scoring(tmp_path: Path) -> Iterator[Scoring]:
    with judge_server() as server, Equality() as equality:
        judge = OpenAIJudge(JudgeChoice("openai", "test-judge", server.url), tmp_path / "replies")
        yield Scoring("test", equality, judge)


def test_mathvision_equals_vlmevalkit(stock: Stock, tmp_path: Path, scoring: Scoring) -> None:
    rows = rows_of(mathvision.TASK, stock, tmp_path)
    items = mathvision.TASK.score(rows, completions(MATHVISION_ANSWERS), scoring)
    theirs = {row["Subject"]: row["acc"] / 100 for row in stock.results["score MathVision"]}
    mean, _ = mean_and_stderr([item.score for item in items if item.score is not None])
    assert mean == pytest.approx(theirs.pop("Overall"))
    ours = mathvision.mean_by([row.text("category") for row in rows], items)
    assert ours == pytest.approx(theirs)
    # By hand: 8; \frac{1}{2} is 0.5; not 3; -2; B; not E; C by its text; not A.
    assert [item.score for item in items] == [1, 1, 0, 1, 1, 0, 1, 0]


def test_mathverse_equals_vlmevalkit(stock: Stock, tmp_path: Path, scoring: Scoring) -> None:
    rows = rows_of(mathverse.TASK, stock, tmp_path)
    items = mathverse.TASK.score(rows, completions(MATHVERSE_ANSWERS), scoring)
    theirs = {row["split"]: row["Overall"] / 100 for row in stock.results["score MathVerse_MINI"]}
    ours = mathvision.mean_by([row.text("problem_version") for row in rows], items)
    assert ours == pytest.approx(theirs)
    assert set(ours.values()) >= {0.0, 0.5}


@pytest.mark.parametrize("judged", [False, True])
def test_wemath_scores_equal_vlmevalkits(
    stock: Stock, tmp_path: Path, scoring: Scoring, judged: bool
) -> None:
    """All 24 patterns, by VLMEvalKit's counts, since it divides by 525."""
    rows = rows_of(wemath.TASK, stock, tmp_path)
    answers = WEMATH_IN_WORDS if judged else WEMATH_ANSWERS
    items = wemath.TASK.score(
        rows, completions(answers), scoring if judged else replace(scoring, judge=None)
    )
    problems, incomplete = wemath.problems(rows, items)
    assert (len(problems), incomplete) == (24, 0)
    (theirs,) = stock.results["judged WeMath" if judged else "score WeMath"]
    names = {"IK": "InsufficientKnowledge", "IG": "InadequateGeneralization"}
    names |= {"CM": "CompleteMastery", "RM": "RoteMemorization"}
    ours = wemath.dimensions(problems)
    for strict in ("Strict", "Loose"):
        kinds = [problem.kind(strict=strict == "Strict") for problem in problems]
        counts = {name: kinds.count(kind) for kind, name in names.items()}
        cells = {name: theirs[f"{name} ({strict})"] for name in names.values()}
        assert counts == {name: int(cell.split("(")[1].rstrip(")")) for name, cell in cells.items()}
        rote = float(cells["RoteMemorization"].split("%")[0]) / 100
        assert ours[f"RM_{strict.lower()}"] == pytest.approx(rote, abs=5e-5)
    steps = wemath.steps_accuracy(rows, items)
    step_names = {
        "one_step": "One-step(S1)",
        "two_step": "Two-step(S2)",
        "three_step": "Three-step(S3)",
    }
    for key, name in step_names.items():
        assert steps[key] == pytest.approx(float(theirs[name].rstrip("%")) / 100, abs=5e-5)


def test_empty_answers_need_no_judge(scoring: Scoring) -> None:
    empty = Completion(id="1", prompt="", completion=" \n", finish_reason="stop", n_tokens=0)
    graded = [openai_scoring.Graded(empty, "A", LETTERS, "?")]
    (item,) = openai_scoring.mathvision(graded, scoring)
    (other,) = openai_scoring.mathverse(graded, scoring)
    assert (item.score, other.score) == (0.0, 0.0)
    assert item.reason == "empty answer"
