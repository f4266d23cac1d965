"""Own tasks: errors of the file and of rows, every metric, and features of all benchmarks."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dft_eval.benchmark import JudgeChoice, Request
from dft_eval.benchmarks import check, evaluate, get_benchmark, score
from dft_eval.errors import EvaluationError, UsageError
from dft_eval.generation.run import Decoding
from dft_eval.mathematics.prompts import INSTRUCTION
from dft_eval.natural_questions.prompts import INSTRUCTION as NQ_INSTRUCTION
from dft_eval.own_tasks.items import TaskData, load_items
from dft_eval.own_tasks.metrics import verdict_of
from dft_eval.own_tasks.numbers import last_number
from dft_eval.own_tasks.task import METRICS, InvalidTaskError, Task, read_task
from dft_eval.results import BenchmarkResult, ItemScore, read_items, read_results
from tests.support.jsonl import write_lines
from tests.support.judge_server import Answer, judge_server
from tests.support.openai_server import FakeServer, serve
from tests.support.reports import report
from tests.support.tasks import write_task

RAW = {"prompt_style": "completion"}
ROWS = [{"question": "1 + 1", "answer": 2}, {"question": "2 + 2", "answer": [4, "4.0"]}]


def load(folder: Path, rows: list[Any], data: Path | None = None, **fields: Any) -> TaskData:
    return load_items(read_task(write_task(folder, rows, **fields)), data)


Outcome = tuple[BenchmarkResult, list[ItemScore], FakeServer]


def run(path: Path, answer: Callable[[str], str], **changes: Any) -> Outcome:
    """The result by a new server with these answers."""
    with serve(FakeServer(answer, talks=False)) as server:
        return run_on(server, path, **changes)


def request_to(server: FakeServer, out: Path, **changes: Any) -> Request:
    fields: dict[str, Any] = {"model": "tiny", "label": "base", "own_max_new_tokens": True}
    return Request(**{**fields, "out": out, "backend": "openai", "base_url": server.url, **changes})


def run_on(server: FakeServer, path: Path, *, out: str = "out", **changes: Any) -> Outcome:
    """The result as ``dft-factory eval`` computes it; items may be unscored."""
    request = request_to(server, path.parent / out, **changes)
    try:
        evaluate([str(path)], request)
    except EvaluationError as error:
        if not str(error).startswith("Items without a score"):
            raise
    (result,) = read_results(request.out).results
    return result, read_items(request.out / result.items), server


# ---------------------------------------------------------------- the file


FIELD_ERRORS: list[tuple[dict[str, Any], str, str]] = [
    ({"name": "a b"}, "name", "'a b': use letters"),
    ({"data": None}, "data", "is missing"),
    ({"split": 1}, "split", "1: Input should be a valid string"),
    ({"prompt": None}, "prompt", "is missing"),
    ({"prompt": "no field"}, "prompt", "names no field in braces"),
    ({"prompt": "{a.b}"}, "prompt", "{a.b}: write a field's name in braces"),
    ({"prompt": "{a:3}"}, "prompt", "{a:3}: write a field's name"),
    ({"prompt": "{a!r}"}, "prompt", "{a!r}: write a field's name"),
    ({"prompt": "{question"}, "prompt", "write a field's name in braces, and {{ or }}"),
    ({"metric": "bleu"}, "metric", "'bleu' is unknown. Choose from: exact_match, contains"),
    ({"answer": None}, "-", "metric numeric needs 'answer'"),
    ({"tests": "t"}, "-", "'tests' has no effect with metric numeric"),
    ({"choices": "c"}, "-", "'choices' has no effect with metric numeric"),
    ({"metric": "choice"}, "-", "metric choice needs 'choices'"),
    ({"metric": "pass@1"}, "-", "needs 'tests', the name of a field of the data; 'answer' has"),
    ({"entry_point": "e", "solution": None}, "-", "'entry_point' and 'solution' go together"),
    ({"solution": "s"}, "-", "'solution' has no effect with metric numeric"),
    ({"metric": "math", "tolerance": 1}, "-", "'tolerance' has no effect with metric math"),
    ({"tolerance": -1}, "tolerance", "-1: Input should be greater than or equal to 0"),
    ({"extract": "("}, "extract", "'(': it is no regular expression: missing )"),
    ({"extract": "a"}, "extract", "0 groups; put the answer in one pair of parentheses"),
    ({"extract": "(a)(b)"}, "extract", "2 groups"),
    ({"max_new_tokens": 0}, "max_new_tokens", "0: Input should be greater than or equal to 1"),
    ({"prompt_style": "raw"}, "prompt_style", "'raw' is unknown. Choose from: completion, c"),
    ({**RAW, "system_prompt": "x"}, "-", "'system_prompt' has no effect"),
    ({"stop": [""]}, "stop", "an empty text ends every completion"),
    ({"judge": {"model": "m"}}, "-", "'judge' has no effect with metric numeric"),
    ({"metric": "judge", "judge": {"url": "u"}}, "judge.url", "unknown key. Choose from: mod"),
    ({"metric": "judge", "judge_prompt": "{a}"}, "judge_prompt", "must hold {completion} once"),
    ({"metric": "judge", "answer": None}, "-", "needs 'answer', or a 'judge_prompt'"),
    ({"cluster": ["a"]}, "cluster", "Input should be a valid string"),
    ({"id": 3}, "id", "Input should be a valid string"),
    ({"description": []}, "description", "Input should be a valid string"),
    ({"shots": 5}, "shots", "unknown key. Choose from: name, description, data"),
]


@pytest.mark.parametrize(("fields", "key", "message"), FIELD_ERRORS)
def test_field_errors(tmp_path: Path, fields: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        read_task(write_task(tmp_path, ROWS, **fields))
    (problem,) = [row for row in caught.value.problems if row[0] == key]
    assert message in problem[1]
    assert f"{tmp_path}/task.yaml: {key}: " in str(caught.value)


def test_the_cases_above_cover_every_field() -> None:
    assert set(Task.model_fields) <= {field for fields, _, _ in FIELD_ERRORS for field in fields}


def test_all_problems_of_a_file_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        read_task(write_task(tmp_path, ROWS, prompt="x", metric="y", extract="z"))
    assert [key for key, _ in caught.value.problems] == ["prompt", "metric", "extract"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("a: [", "cannot be read as YAML"),
        ("- a", "holds no keys and values"),
        ("prompt: a\nprompt: b", "the key 'prompt' is there twice"),
        (b"\xff", "cannot be read as YAML"),
    ],
)
def test_an_unreadable_file(tmp_path: Path, text: Any, message: str) -> None:
    path = tmp_path / "task.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=message):
        get_benchmark(str(path))


def test_task_names_are_unique(tmp_path: Path) -> None:
    paths = [str(write_task(tmp_path / name, ROWS)) for name in "ab"]
    with pytest.raises(UsageError, match="Two task files are named 'task'"):
        check(paths, Request(model="m", out=tmp_path, label="base"))
    with pytest.raises(UsageError, match="'gsm8k' is the name of a benchmark of this package"):
        get_benchmark(str(write_task(tmp_path, ROWS, stem="gsm8k")))
    with pytest.raises(UsageError, match=r"'nope' is unknown.*or give the path of a task file"):
        get_benchmark("nope")


# ---------------------------------------------------------------- the rows


CHOICE = {"metric": "choice", "choices": "c"}
CODE = {"metric": "pass@1", "answer": None, "tests": "t"}
RUBRIC = {"metric": "judge", "judge_prompt": "{rubric} {completion}"}


@pytest.mark.parametrize(
    ("row", "fields", "message"),
    [
        ([1], {}, "a list, not an object with fields"),
        ({"questoin": "x", "answer": 1}, {}, "no field 'question'. Choose from: questoin, answer."),
        ({"questions": "x", "answer": 1}, {}, "Did you mean 'questions'?"),
        ({"question": None, "answer": 1}, {}, "the field 'question' is null"),
        ({"question": ["x"], "answer": 1}, {}, """the field 'question' is ["x"]; a text"""),
        ({"answer": True}, {}, "the field 'answer' is true; a text or a number"),
        ({"answer": []}, {}, "the field 'answer' holds no answer"),
        ({"answer": " "}, {"metric": "math"}, "the field 'answer' holds no answer"),
        ({"answer": "two"}, {}, "the field 'answer' is 'two', no number"),
        ({"answer": 1}, {"id": "key"}, "no field 'key'"),
        ({"answer": 1}, {"cluster": "group"}, "no field 'group'"),
        ({"answer": "E", "c": ["p", "q"]}, CHOICE, "'E'. Give a letter of AB, the text of a"),
        ({"answer": 2, "c": ["p", "q"]}, CHOICE, "the field 'answer' is 2. Give a letter of AB"),
        (
            {"answer": 2, "c": [2, 4, 6]},
            CHOICE,
            "2, the place of one choice and the text of another. Give the letter",
        ),
        (
            {"answer": "A", "c": ["B", "A"]},
            CHOICE,
            "'A', the letter of one choice and the text of another. Give the place from 0",
        ),
        ({"answer": "A", "c": ["p"]}, CHOICE, "the field 'c' is no list of 2 to 26 texts"),
        ({"answer": "A", "c": ["p", "p"]}, CHOICE, "the field 'c' holds an empty text, or one"),
        ({"t": "assert f("}, CODE, "was never closed"),
        ({"t": "# none"}, CODE, "the field 't' holds no test"),
        ({"answer": "y"}, RUBRIC, "no field 'rubric'"),
    ],
)
def test_unusable_rows(tmp_path: Path, row: Any, fields: dict[str, Any], message: str) -> None:
    if isinstance(row, dict) and not any(name.startswith("quest") for name in row):
        row = {"question": "x", **row}
    good = {"question": "x", "answer": "A", "c": ["A", "2"], "t": "f()", "rubric": "r"}
    good |= {"key": 1, "group": 1}
    rows = [{**good, "answer": 1} if fields.get("metric") != "choice" else good, row]
    with pytest.raises(UsageError, match=r"rows\.jsonl, line 2: ") as caught:
        load(tmp_path, rows, **fields)
    assert message in str(caught.value)


def test_unreadable_data(tmp_path: Path) -> None:
    path = write_task(tmp_path, [])
    with pytest.raises(UsageError, match=r"rows\.jsonl holds no rows"):
        load_items(read_task(path))
    (tmp_path / "rows.jsonl").write_text('{"question": 1, "answer": 1}\n\n{')
    with pytest.raises(UsageError, match=r"rows\.jsonl, line 3: no JSON"):
        load_items(read_task(path))
    with pytest.raises(UsageError, match=r"line 2: the id '7' is there twice"):
        load(tmp_path, [{"question": "x", "answer": 1, "n": 7}] * 2, id="n")
    with pytest.raises(UsageError, match=r"data: .*gone\.jsonl cannot be read: No such file"):
        load(tmp_path, ROWS, data=tmp_path / "gone.jsonl")
    packed = gzip.compress(b"{}")
    (tmp_path / "broken.jsonl.gz").write_bytes(packed[:10] + b"\xff" * 4 + packed[14:])
    with pytest.raises(UsageError, match=r"data: .*broken\.jsonl\.gz cannot be read: Error -3"):
        load(tmp_path, ROWS, data=tmp_path / "broken.jsonl.gz")


def test_rows_become_items(tmp_path: Path) -> None:
    """Numbers, braces, ids that count blank lines, gzip; a choice by letter, text or index."""
    data = tmp_path / "rows.jsonl.gz"
    data.write_bytes(gzip.compress(b'{"n": 1, "m": 2.5, "a": 3}\n\n{"n": "{x}", "m": 0, "a": 4}\n'))
    items = load(tmp_path, [], data, prompt="{{{n}}} + {m}", answer="a").items
    rows = [(item.id, item.prompt, item.answers) for item in items]
    assert rows == [("1", "{1} + 2.5", ("3",)), ("3", "{{x}} + 0", ("4",))]
    rows = [{"q": "?", "a": a, "c": ["y", "x", 7]} for a in ("y", "x", 2, "C", "7")]
    items = load(tmp_path, rows, prompt="{q}\n{c}", answer="a", **CHOICE).items
    assert [item.answers for item in items] == [("A",), ("B",), ("C",), ("C",), ("C",)]
    assert items[0].prompt == "?\nA. y\nB. x\nC. 7"


def test_a_hub_split_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``datasets`` takes a folder ``owner/name`` of the working directory for that hub id."""
    pytest.importorskip("datasets")
    write_lines(tmp_path / "owner/name/test.jsonl", ROWS[:1])
    monkeypatch.chdir(tmp_path)
    path = write_task(tmp_path, [], data="owner/name", split="test")
    data = load_items(read_task(path))
    assert [item.prompt for item in data.items] == ["1 + 1"]
    assert data.source == "owner/name, test"


# ---------------------------------------------------------------- metrics


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 1,234.50 dollars.", Fraction("1234.5")),
        ("x = -3", -3),
        ("3-5", 5),
        ("−2", -2),
        ("10{,}000", 10000),
        ("1, 2, 3.", 3),
        ("it is 3/4.", Fraction(3, 4)),
        ("1/0", 0),
        ("2.5e-3 m", Fraction("0.0025")),
        (".5", Fraction(1, 2)),
        ("24cm", 24),
        ("room B12", None),
        ("none", None),
        ("9" * 401, None),
    ],
)
def test_the_last_number(text: str, number: Fraction | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("fields", "answer", "completions"),
    [
        ({}, [2, "2.50"], {"It is 2": 1, "2.5": 1, "2.51": 0, "12": 0, "two": 0}),
        ({"tolerance": 0.3}, 2.5, {"2.8": 1, "2.81": 0}),
        ({"extract": r"#### *(\S+)"}, 2, {"#### 1 #### 2 or 3": 1, "2": 0, "#### x": 0}),
        ({"metric": "exact_match"}, ["New York"], {"new york.": 1, "in New York": 0, "": 0}),
        ({"metric": "contains"}, "New York", {"in New  York!": 1, "New Yorker": 0}),
        ({"metric": "math"}, [r"\frac12", "3"], {r"\boxed{0.5}": 1, r"\boxed{3}": 1, "4": 0}),
        ({"metric": "math", "extract": "A: (.*)"}, "x^2", {"3 A: $x\\cdot x$": 1, "x^2": 0}),
        (CHOICE, "B", {"B": 1, "The answer is (B).": 1, "Rome": 1, "A": 0, "Oslo": 0, "": 0}),
    ],
)
def test_metrics_by_rules(
    tmp_path: Path, fields: dict[str, Any], answer: Any, completions: dict[str, int]
) -> None:
    capitals = ["Paris", "Rome", "Oslo"]
    rows = [{"question": text, "answer": answer, "c": capitals} for text in completions]
    result, items, _ = run(write_task(tmp_path, rows, **fields), lambda prompt: prompt)
    assert {text: item.score for text, item in zip(completions, items, strict=True)} == completions
    assert result.score == sum(completions.values()) / len(completions)
    assert (result.n_total, result.n_scored, result.benchmark) == (len(rows), len(rows), "task")


def test_a_pattern_timeout_leaves_the_item_unscored(tmp_path: Path) -> None:
    """(a+)+b backtracks without end on a row of a's; the other items are scored."""
    rows = [{"question": text, "answer": "aab"} for text in ("aab", "a" * 60, "no")]
    path = write_task(tmp_path, rows, metric="exact_match", extract="((?:a+)+b)")
    result, items, _ = run(path, lambda prompt: prompt)
    assert [item.score for item in items] == [1.0, None, 0.0]
    assert "it takes too long on this text" in items[1].reason
    assert "matches nothing" in items[2].reason
    assert (result.n_total, result.n_scored, result.score) == (3, 2, 0.5)


def test_programs_run_in_the_sandbox_with_their_tests(tmp_path: Path) -> None:
    right, wrong = "def f(x):\n    return x + 1\n", "def f(x):\n    return x\n"
    answers = {
        f"Here:\n```python\n{right}```\nTry it:\n```\nf(1)\n```": 1.0,
        right: 1.0,
        f"```\n{right}": 1.0,
        f"```python\n{wrong}```": 0.0,
        "import os\nos._exit(0)\n": 0.0,
        "I cannot.": 0.0,
    }
    tests = ["assert f(1) == 2", "assert f(2) == 3"]
    path = write_task(tmp_path, [{"question": text, "t": tests} for text in answers], **CODE)
    result, items, _ = run(path, lambda prompt: prompt)
    assert [item.score for item in items] == list(answers.values())
    assert result.metric == "pass@1"
    assert result.sandbox not in (None, "none")


FORGER = """
import sys
class Equal:
    def __eq__(self, other):
        return True
def f(x):
    return Equal()
"""


def test_with_a_solution_outputs_are_compared_outside_the_sandbox(tmp_path: Path) -> None:
    """The forger passes where tests run in its process. The task's find_zero is not judged by the
    rules of HumanEval's find_zero, which accept any zero within 1e-4."""
    right = "def find_zero(x):\n    return [float(x), 0.1 + 0.2]\n"
    answers = {
        "right": right,
        "near": right.replace("0.1 + 0.2", "0.3"),
        "wrong": right.replace("0.2", "0.20001"),
        "forger": FORGER.replace("def f", "def find_zero"),
    }
    tests = "def check(candidate):\n    assert candidate(1)[0] == 1\n    candidate(2)"
    row = {"t": tests, "name": "find_zero", "right": right}
    rows = [{"question": name, **row} for name in answers]
    path = write_task(tmp_path, rows, **CODE, entry_point="name", solution="right")
    result, items, _ = run(path, answers.__getitem__)
    assert [item.score for item in items] == [1.0, 1.0, 0.0, 0.0]
    assert "outputs compared outside the sandbox" in result.notes
    rows[1]["right"] = "def find_zero(x):\n    return [0]"
    path = write_task(tmp_path, rows, **CODE, entry_point="name", solution="right")
    with pytest.raises(UsageError, match=r"task\.yaml: 2: canonical_solution fails its tests"):
        run(path, answers.__getitem__, out="other")
    path = write_task(tmp_path, [{"question": "forger", "t": "assert f(1) == 2"}], **CODE)
    result, items, _ = run(path, lambda _: FORGER, out="beside")
    assert [item.score for item in items] == [1.0]
    assert "tests run in the program's process; one that searches for them can pass" in result.notes


def test_a_raw_completion_continues_its_prompt(tmp_path: Path) -> None:
    rows = [{"question": "def f(x):\n", "t": "assert f(1) == 2"}]
    path = write_task(tmp_path, rows, **CODE, **RAW, stop=["\n\n"])
    result, _, server = run(path, lambda _: "    return x + 1\n\nf(")
    assert result.score == 1.0
    assert server.seen[-1]["stop"] == ["\n\n"]


def test_a_judge_model_grades(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": "Oslo", "rubric": "city {x}"} for n in range(4)]
    path = write_task(tmp_path, rows, metric="judge")
    replies = {"right": "CORRECT", "false": "This is INCORRECT.", "mute": "Unclear", "down": ""}
    answers = dict(zip(("q0", "q1", "q2", "q3"), replies, strict=True))

    def behave(prompt: str, _: int) -> Answer:
        word = next((word for word in replies if f"\n{word}\n" in prompt), "")
        return Answer(replies.get(word, "hi"), status=400 if word == "down" else 200)

    with judge_server(behave) as judge:
        choice = JudgeChoice("openai", "grader", judge.url)
        result, items, _ = run(path, answers.__getitem__, judge=choice)
        default_prompt = next(prompt for prompt in judge.judged if "q0" in prompt)
        spec = {"model": "grader", "base_url": judge.url}
        fields = {"judge": spec, "judge_prompt": "{rubric}: {{}} {completion} {question}"}
        path = write_task(tmp_path, rows[:1], metric="judge", answer=None, **fields)
        run(path, answers.__getitem__, out="own")
        assert "city {x}: {} right q0\n\nReply with one word" in judge.judged[-1]
    assert [item.score for item in items] == [1.0, 0.0, None, None]
    assert "[Right answer]\nOslo\n\n[Answer to grade]\nright\n" in default_prompt
    assert "replies without sense" in items[2].reason
    assert result.judge is not None
    assert result.judge.startswith("openai: grader at http://127.0.0.1")


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("CORRECT", True),
        ("**Incorrect**.", False),
        ("It agrees: CORRECT.", True),
        ("CORRECT would be Oslo, so INCORRECT", False),
        ("This is not correct.", None),
        ("not CORRECT", None),
        ("", None),
    ],
)
def test_verdicts_of_judge_replies(reply: str, verdict: bool | None) -> None:
    assert verdict_of(reply) is verdict


def test_a_judge_needs_a_name(tmp_path: Path) -> None:
    path = write_task(tmp_path, ROWS, metric="judge")
    with pytest.raises(UsageError, match=r"--judge openai --judge-model NAME .* in task\.yaml"):
        run(path, str)
    request = Request(model="m", out=tmp_path, label="b", judge=JudgeChoice("rules"))
    with pytest.raises(UsageError, match="--judge rules has no effect on task"):
        check([str(write_task(tmp_path, ROWS))], request)


# ---------------------------------------------------------------- features of all benchmarks


def test_samples_clusters_limit_and_record(tmp_path: Path) -> None:
    """Two samples per item, equal because the server always gives the same answer."""
    rows = [{"question": f"{n}", "answer": n % 2, "template": n // 2} for n in range(5)]
    path = write_task(tmp_path, rows, cluster="template", max_new_tokens=9, system_prompt="Count.")
    decoding = Decoding(samples=2, temperature=0.5)
    result, items, server = run(path, lambda prompt: prompt, limit=4, decoding=decoding)
    assert (result.metric, result.score) == ("avg@2", 0.5)
    assert result.breakdown == {"pass@2": 0.5, "maj@2": 0.5}
    assert [item.cluster for item in items] == ["0", "0", "1", "1"]
    assert result.cluster == "template"
    assert result.decoding["max_new_tokens"] == 9
    assert server.seen[-1]["messages"][0] == {"role": "system", "content": "Count."}
    assert "partial: 4 of 5" in result.notes
    assert "own task: task.yaml on rows.jsonl" in result.notes
    for key, file in (("data_sha256", tmp_path / "rows.jsonl"), ("task_sha256", path)):
        assert result.decoding[key] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_changed_answer_reuses_completions_and_is_recorded(tmp_path: Path) -> None:
    path = write_task(tmp_path, ROWS)
    changed_rows = [ROWS[0], {**ROWS[1], "answer": 2}]
    results, requests = [], []
    with serve(FakeServer(lambda _: "2", talks=False)) as server:
        for rows, prompt in ((ROWS, None), (changed_rows, None), (ROWS, "{question} = ")):
            write_task(tmp_path, rows, **({"prompt": prompt} if prompt else {}))
            results.append(run_on(server, path)[0])
            requests.append(sum(body["max_tokens"] > 1 for body in server.seen))
    assert requests == [2, 2, 4]
    assert [row.score for row in results] == [0.5, 1.0, 0.5]
    tasks = [row.decoding["task_sha256"] for row in results]
    data = [row.decoding["data_sha256"] for row in results]
    assert tasks[0] == tasks[1] != tasks[2]
    assert data[0] == data[2] != data[1]


MATH_PROMPT = f"{{problem}}\n{INSTRUCTION.replace('{}', '{{}}')}"
NQ_PROMPT = f"{NQ_INSTRUCTION}\n\n{{question}}?"


@pytest.mark.parametrize(
    ("benchmark", "file", "prompt", "metric"),
    [
        ("gsm8k", "mathematics/gsm8k_test.jsonl", MATH_PROMPT, "math"),
        ("nq", "natural_questions/nq_open_dev.jsonl", NQ_PROMPT, "exact_match"),
    ],
)
def test_a_benchmark_as_a_task_has_equal_scores(
    tmp_path: Path, test_data: Path, benchmark: str, file: str, prompt: str, metric: str
) -> None:
    """Every second answer is right, in part worded differently."""
    data = test_data / file
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").split("\n")[:24]]
    answers = [row["answer"] if benchmark == "gsm8k" else row["answer"][0] for row in rows]
    questions = [row.get("problem") or row["question"] for row in rows]
    path = write_task(tmp_path, rows, prompt=prompt, metric=metric)
    replies: dict[str, str] = {}

    def answer(prompt: str) -> str:
        i = next(i for i, question in enumerate(questions) if question in prompt)
        return replies.setdefault(prompt, f"{answers[i]}." if i % 2 else f"{answers[i - 1]} x")

    with serve(FakeServer(answer, talks=False)) as server:
        result, items, _ = run_on(server, path)
        request = request_to(server, tmp_path / "built-in", data=tmp_path / "rows.jsonl")
        (built_in,) = evaluate([benchmark], request).results
    assert len(replies) == len(rows)
    expected = read_items(tmp_path / "built-in" / built_in.items)
    assert [item.score for item in items] == [item.score for item in expected]
    assert 0 < (result.score or 0) < 1


def test_reports_name_tasks_with_different_data(tmp_path: Path) -> None:
    rows = [{"question": f"{n}", "answer": n} for n in range(8)]
    path = write_task(tmp_path, rows)
    run(path, lambda prompt: prompt, out="dft", label="dft")
    write_task(tmp_path, [*rows[:-1], {"question": "7", "answer": 8}])
    run(path, lambda prompt: "3", out="sft", label="sft")
    text = report([tmp_path / "sft", tmp_path / "dft"], tmp_path / "report")
    assert re.search(r"^\| dft \| 100.0 %", text, re.MULTILINE)
    assert "+87.5" in text
    assert re.search(r"^\| task \(chat, greedy\): data\\_sha256 \|", text, re.MULTILINE)
    assert not re.search(r"^\| task \(chat, greedy\): task\\_sha256 \|", text, re.MULTILINE)


def test_completions_are_scored_without_the_task_file(tmp_path: Path) -> None:
    path = write_task(tmp_path / "task", ROWS, extract="(.)", cluster="question", stop=["x"])
    result, items, _ = run(path, lambda _: "2")
    shutil.move(path.parent / "out", tmp_path / "elsewhere")
    shutil.rmtree(path.parent)
    (tmp_path / "elsewhere/results.json").unlink()
    assert score(tmp_path / "elsewhere").results == [result]
    assert read_items(tmp_path / "elsewhere" / result.items) == items


# ---------------------------------------------------------------- documentation


def test_the_documentation_names_every_field_and_metric() -> None:
    text = (Path(__file__).parents[2] / "docs/own-tasks.md").read_text(encoding="utf-8")
    names = [*Task.model_fields, *METRICS]
    assert [name for name in names if not re.search(rf"^\|.*`{name}`", text, re.MULTILINE)] == []
