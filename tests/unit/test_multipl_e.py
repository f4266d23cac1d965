"""MultiPL-E without its published programs: data, prompts, cutting, scores of small problems."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dft_eval.benchmark import Request
from dft_eval.benchmarks import BENCHMARKS, evaluate
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.languages import LANGUAGES, toolchains
from dft_eval.languages.answers import closing_brace, extract, function_name, preamble
from dft_eval.languages.programs import from_completion, prompt_text, question, stop_texts
from dft_eval.multipl_e import benchmark as multipl_e
from dft_eval.multipl_e.benchmark import MULTIPL_E
from dft_eval.multipl_e.data import from_hub, read_folder
from dft_eval.requirements import MissingRequirement
from dft_eval.results import BenchmarkResult, ItemScore, read_items
from tests.support.jsonl import write_lines
from tests.support.toolchains import need
from tests.support.written import Written, evaluate_with

JS = {
    "name": "One_1_double",
    "language": "js",
    "prompt": "//Twice x.\nfunction double(x){\n",
    "tests": "const assert = require('node:assert');\nassert.equal(double(3), 6);\n",
    "stop_tokens": ["\nfunction ", "\n/*", "\n//", "\nconsole.log"],
}
SH = {
    "name": "One_1_double",
    "language": "sh",
    "prompt": "#!/bin/bash\n# Twice $1.\n#\n# $1 is an integer\ndouble() {\n",
    "tests": "}\n\nset -e\nrun_test() {\n    [[ $(double 3) = 6 ]]\n}\n\nrun_test",
    "stop_tokens": ["\n}"],
}
PYTHON = {
    "task_id": "Python/7",
    "prompt": 'from typing import List\n\ndef double(x: int) -> int:\n    """Twice x."""\n',
    "test": "def check(candidate):\n    assert candidate(3) == 6\n\ncheck(double)",
    "stop_tokens": [],
}
NO_NODE = MissingRequirement("JavaScript: node not found", "apt-get install nodejs", blocks=False)
GOOD = {"js": "return x * 2;\n}", "sh": "echo $(($1 * 2))\n}\nexit 9", "python": "    return 2 * x"}


def write_data(folder: Path, rows: dict[str, list[dict[str, Any]]]) -> Path:
    for code, lines in rows.items():
        write_lines(folder / f"humaneval-{code}.jsonl", lines)
    return folder


def score(out: Path, data: Path, model: Written, **options: Any) -> BenchmarkResult:
    request = Request(model="by hand", out=out, label="base", data=data, **options)
    return evaluate_with(MULTIPL_E, request, model)


def numbered(row: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Rows with unique names and prompts: equal prompts would share a cached completion."""
    key = "name" if "name" in row else "task_id"
    prompts = [row["prompt"].replace("Twice", f"({n}) Twice") for n in range(count)]
    return [{**row, key: f"{row[key]}{n}", "prompt": text} for n, text in enumerate(prompts)]


# --- Data -----------------------------------------------------------------------------------------


def test_files_are_read_plain_and_packed(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "d", {"js": [JS], "python": [PYTHON]})
    plain = folder / "humaneval-js.jsonl"
    (folder / "humaneval-js.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(UsageError, match=r"humaneval-js\.jsonl and humaneval-js\.jsonl\.gz"):
        read_folder(folder)
    plain.unlink()
    ids = {code: [row.id for row in rows] for code, rows in read_folder(folder).items()}
    assert ids == {"python": ["python/HumanEval_7"], "js": ["js/One_1_double"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "line 1"),
        (json.dumps(JS) + "\nnot json", "line 2"),
        (json.dumps({**JS, "stop_tokens": []}), "needs stop_tokens"),
        (json.dumps({k: v for k, v in JS.items() if k != "tests"}), "needs a name"),
        ("", "is empty"),
    ],
)
def test_an_invalid_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "humaneval-js.jsonl").write_text(text)
    with pytest.raises(UsageError, match=f"humaneval-js.jsonl.*{message}"):
        read_folder(tmp_path)


def test_a_folder_without_any_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="python, cpp, java, php, ts, cs, sh, js"):
        read_folder(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        read_folder(tmp_path / "missing")


def test_the_hub_gives_the_same_problems_as_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be reached, the message names the fix."""
    import datasets

    def refuse(name: str, config: str, split: str) -> None:
        assert (name, config, split) == ("nuprl/MultiPL-E", "humaneval-cpp", "test")
        raise ConnectionError("no network")

    def load(name: str, config: str, split: str) -> list[dict[str, Any]]:
        return [{**JS, "language": config.removeprefix("humaneval-"), "doctests": "transform"}]

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(PrerequisiteError, match=r"no network\nGive the files by --data"):
        from_hub()
    monkeypatch.setattr(datasets, "load_dataset", load)
    problems = from_hub()
    assert list(problems) == list(LANGUAGES)
    assert len(problems["python"]) == 164
    assert problems["python"][0].tests.endswith("\ncheck(has_close_elements)")
    assert problems["js"][0].tests == JS["tests"]


# --- Prompts, cutting, programs -------------------------------------------------------------------


def test_prompts_of_each_harness(tmp_path: Path) -> None:
    (js,) = read_folder(write_data(tmp_path, {"js": [JS]}))["js"]
    assert prompt_text(js, "official") == "//Twice x.\nfunction double(x){"
    assert prompt_text(js, "qwen") == "//Twice x.\nfunction double(x){\n"
    asks = "Please continue to complete the function and return all completed code in a codeblock."
    code = "```js\n//Twice x.\nfunction double(x){\n```"
    assert question(js) == f"{asks} Here is the given code to do completion:\n{code}"


def test_stop_texts_of_the_published_data(test_data: Path) -> None:
    """Those of nuprl/MultiPL-E's translators and of Qwen's harness."""
    problems = {code: rows[0] for code, rows in read_folder(test_data / "multipl-e").items()}
    official = {code: stop_texts(row, "official") for code, row in problems.items()}
    assert official == {
        "python": ("\ndef", "\n#", "\nif", "\nclass"),
        "cpp": ("\n}",),
        "java": ("\n    }\n",),
        "php": ("\nfunction", "\n?>", "\n//", "\n#"),
        "ts": ("\nfunction ", "\n/*", "\n//", "\nclass"),
        "cs": ("\n    }\n",),
        "sh": ("\n}",),
        "js": ("\nfunction ", "\n/*", "\n//", "\nconsole.log"),
    }
    qwen = {code: stop_texts(row, "qwen") for code, row in problems.items()}
    assert qwen.pop("python") == ("\ndef", "\nclass", "\nif", "\n#", "\nprint")
    assert set(qwen.pop("ts")) - set(official["ts"]) == {
        *("\nexport", "\nimport", "\nexport default", "\nimport default", "\nconsole.log")
    }
    assert qwen == {code: official[code] for code in qwen}


def test_programs_of_each_harness(tmp_path: Path) -> None:
    folder = write_data(tmp_path, {"js": [JS], "sh": [SH], "python": [PYTHON]})
    for code in ("cpp", "cs", "php", "ts"):
        write_data(folder, {code: [{**JS, "prompt": "#include<cassert>\nBEGIN\n"}]})
    problems = {code: rows[0] for code, rows in read_folder(folder).items()}

    def text(code: str, harness: Any) -> str:
        return from_completion(problems[code], "BODY\nfunction more", harness).text

    js = problems["js"]
    assert text("js", "official") == f"{js.prompt}BODY\n{js.tests}"
    assert text("js", "qwen") == f"{js.prompt}\nBODY\n{js.tests}"
    assert text("php", "qwen").endswith(f"\nBODY\n{js.tests}?>")
    assert text("cs", "qwen").startswith("using System.Numerics;\nusing System.Diagnostics;\n")
    assert text("cpp", "qwen").startswith("#include<stdlib.h>\n#include<algorithm>\n")
    assert text("cpp", "qwen").count("#include<cassert>") == 1
    assert text("python", "qwen").startswith("import math\nimport re\n")
    assert text("python", "official") == f"{PYTHON['prompt']}BODY\nfunction more\n"


def test_function_names(test_data: Path) -> None:
    for code, rows in read_folder(test_data / "multipl-e").items():
        for row in rows:
            name = function_name(row.prompt, code)
            assert name.replace("$", "").isidentifier(), (row.id, name)
            assert name not in preamble(row.prompt, code).split(), row.id


def test_braces_in_strings_and_comments_are_ignored() -> None:
    code = "{ \"}\" /* } */ '}' // }\n { } } }"
    assert closing_brace(code, 0) == len(code) - 3
    assert closing_brace("{ {}", 0) is None


TWO = "function double(x) { return 2; }\n"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```js\nlet other = 1;\n```", None),
        ("I cannot do that.", None),
        (f"First\n```\nnpm install\n```\nthen\n```js\n{TWO}```", (TWO, "")),
    ],
)
def test_the_block_that_defines_the_function(answer: str, code: tuple[str, str] | None) -> None:
    assert extract(str(JS["prompt"]), "js", answer) == code


# --- Scores ---------------------------------------------------------------------------------------


def test_scores_of_known_answers_are_exact(tmp_path: Path) -> None:
    for code in ("js", "sh"):
        need(code)
    rows = {"js": numbered(JS, 4), "sh": numbered(SH, 2), "python": numbered(PYTHON, 1)}
    folder = write_data(tmp_path / "data", rows)
    answers = {f"js/One_1_double{n}": GOOD["js"] for n in range(4)}
    answers |= {"js/One_1_double1": "return x;\n}", "js/One_1_double2": "process.exit(0)}"}
    answers |= {"sh/One_1_double0": GOOD["sh"], "sh/One_1_double1": "exit 0\n}"}
    answers |= {"python/HumanEval_70": GOOD["python"]}
    model = Written(answers)
    result = score(tmp_path / "out", folder, model)
    assert result.score == pytest.approx(4 / 7)
    assert (result.n_total, result.n_scored, result.metric) == (7, 7, "pass@1")
    parts = {code: value for code, value in result.breakdown.items() if value is not None}
    assert parts == {"python": 1.0, "sh": 0.5, "js": 0.5}
    assert result.breakdown["average"] is None
    assert result.harness.startswith("MultiPL-E, official recipes")
    assert result.prompt_style == "completion"
    assert "partial: 7 of 1280" in result.notes
    assert "no data for C++, Java, PHP, TypeScript, C#" in result.notes
    items = {row.id: row for row in read_items(tmp_path / "out" / result.items)}
    assert items["js/One_1_double2"].score == 0.0
    assert items["js/One_1_double0"].reason == "passed"
    assert len(model.asked) == 7
    assert score(tmp_path / "out", folder, model).score == result.score
    assert len(model.asked) == 7, "completions are cached"


def test_the_average_weighs_languages_alike() -> None:
    items = [ItemScore(id=f"{code}/1", score=1.0) for code in LANGUAGES]
    items += [ItemScore(id=f"js/{n}", score=0.0) for n in range(2, 5)]
    scores = multipl_e.breakdown(items)
    assert scores["js"] == 0.25
    assert scores["average"] == pytest.approx((7 + 0.25) / 8)
    assert list(scores) == [*LANGUAGES, "average"]
    unscored = [row for row in items if not row.id.startswith("cs/")]
    unscored.append(ItemScore(id="cs/1", score=None))
    assert multipl_e.breakdown(unscored)["average"] is None


def test_a_limit_holds_for_each_language(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "d", {"sh": numbered(SH, 3), "python": numbered(PYTHON, 3)})
    problems = [("sh", f"One_1_double{n}") for n in range(2)]
    problems += [("python", f"HumanEval_7{n}") for n in range(2)]
    answers: dict[str, str | None] = {f"{code}/{name}": GOOD[code] for code, name in problems}
    result = score(tmp_path / "out", folder, Written(answers), limit=2)
    assert (result.n_total, result.score) == (4, 1.0)
    rows = read_items(tmp_path / "out" / result.items)
    assert {(row.category, row.cluster) for row in rows} == set(problems)
    assert {"partial: 4 of 1280", "--limit 2 problems a language"} <= set(result.notes)


def test_a_missing_compiler_is_unscored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_data(tmp_path / "d", {"js": [JS], "python": [PYTHON]})
    missing = {"js": NO_NODE}
    monkeypatch.setattr(toolchains, "missing_toolchain", lambda row: missing.get(row.code))
    model = Written({"python/HumanEval_7": GOOD["python"], "js/One_1_double": GOOD["js"]})
    result = score(tmp_path / "out", folder, model)
    assert (result.score, result.n_total, result.n_scored) == (1.0, 2, 1)
    assert (result.breakdown["js"], result.breakdown["python"]) == (None, 1.0)
    reason = read_items(tmp_path / "out" / result.items)[1].reason
    assert reason == "JavaScript: node not found. Install it: `apt-get install nodejs`"
    assert f"unscored: {reason}" in result.notes
    assert len(model.asked) == 2  # `dft-factory score` can judge both where node is installed
    (folder / "humaneval-python.jsonl").unlink()  # without any compiler nothing is generated
    with pytest.raises(PrerequisiteError, match="apt-get install nodejs"):
        score(tmp_path / "out", folder, Written({}))


def test_a_completion_that_failed_is_unscored(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "d", {"python": numbered(PYTHON, 2)})
    answers = {"python/HumanEval_70": None, "python/HumanEval_71": GOOD["python"]}
    result = score(tmp_path / "out", folder, Written(answers))
    assert (result.score, result.n_total, result.n_scored) == (1.0, 2, 1)
    rows = read_items(tmp_path / "out" / result.items)
    assert (rows[0].score, rows[0].reason) == (None, "no answer came")


def test_chat_and_the_other_harness_are_recorded(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "d", {"python": [PYTHON]})
    model = Written({"python/HumanEval_7": "```python\ndef double(x):\n    return x + x\n```"})
    result = score(tmp_path / "out", folder, model, prompt_style="chat", harness="qwen")
    assert (result.score, result.prompt_style) == (1.0, "chat")
    assert "Qwen2.5-Coder" in result.harness
    short = Written({"python/HumanEval_7": "    retur"}, cut_off=["python/HumanEval_7"])
    raw = score(tmp_path / "out", folder, short, harness="qwen")
    assert raw.score == 0.0
    reason = read_items(tmp_path / "out" / raw.items)[0].reason
    assert reason.endswith("(completion cut at max_new_tokens)")


def test_an_unknown_harness_is_refused_with_the_choices(tmp_path: Path) -> None:
    request = Request(model="m", out=tmp_path, label="base", harness="other")
    with pytest.raises(UsageError, match="'other': multipl-e knows official, qwen"):
        evaluate(["multipl-e"], request)
    with pytest.raises(UsageError, match="'qwen': humaneval knows its own alone"):
        evaluate(["humaneval"], replace(request, harness="qwen"))


def test_missing_tools_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BENCHMARKS["multipl-e"] is MULTIPL_E
    monkeypatch.setattr(toolchains, "find_command", lambda name: None)
    missing = MULTIPL_E.missing()
    assert len([row for row in missing if not row.blocks]) == len(LANGUAGES) - 1
    assert all("unscored without it" in row.name and row.fix for row in missing if not row.blocks)
