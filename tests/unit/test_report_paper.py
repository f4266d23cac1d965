"""The report against the paper: its figures, differences derived by hand, missing comparisons."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from dft_eval.benchmarks import BENCHMARKS
from dft_eval.generation.run import Decoding
from dft_eval.languages import LANGUAGES
from dft_eval.mathematics.benchmark import _harness_name
from dft_eval.report import build_report
from dft_eval.report.paper.match import label_of
from dft_eval.report.paper.section import NOTHING
from dft_eval.report.paper.tables import Column, load_paper, normal_form
from dft_eval.results import ItemScore, summarise
from dft_eval.vlm.mathverse import VERSIONS
from dft_eval.vlm.run import MAX_NEW_TOKENS, STOCK_PIXELS
from dft_factory.cli.app import app
from tests.support import reports
from tests.support.reports import HOSTILE, Page, Scores, parse_markdown, report

PAPER = load_paper()
CODER = "Qwen/Qwen2.5-Coder-3B"
MATH = {"math500": 500, "minerva": 272, "olympiadbench": 675, "aime24": 30, "amc23": 40}
MATH_FIELDS = {
    "metric": "avg@16",
    "prompt_style": "chat",
    "harness": _harness_name("qwen"),
    "decoding": Decoding(samples=16, temperature=1.0, max_new_tokens=4096).record(),
}
PIXELS = {"min_pixels": 1003520, "max_pixels": 12845056}
VISION_DECODING = {"strategy": "greedy", "max_new_tokens": 2048, **PIXELS}
VISION_FIELDS = {
    "metric": "accuracy",
    "prompt_style": "chat",
    "harness": "VLMEvalKit 0.0.20 (data, prompts, rules)",
    "judge": "openai: gpt-4o-mini at https://api.openai.com/v1",
    "decoding": VISION_DECODING,
}


def first_right(right: int, of: int, prefix: str = "HumanEval/") -> dict[str, float | None]:
    """Items of which the first ``right`` score 1."""
    return {f"{prefix}{number}": float(number < right) for number in range(of)}


def write_run(folder: Path, label: str, evaluations: Mapping[str, Scores], **fields: Any) -> Path:
    """By default a greedy run of code."""
    defaults = {
        "metric": "pass@1",
        "prompt_style": "completion",
        "decoding": {"strategy": "greedy"},
    }
    header = {"sha": None, "base_model": CODER, "model": "models/mine"}
    return reports.write_run(folder, label, evaluations, **{**header, **defaults, **fields})


def section(runs: list[Path], out: Path) -> str:
    """The Markdown between the section's heading and the next."""
    text = report(runs, out, against_paper=True)
    return text.split("\n## Against the paper\n")[1].split("\n## Learning curves\n")[0]


def lines(text: str, *starts: str) -> list[str]:
    """The cells of the table lines with these first cells, joined by ' | '."""
    begin = "| " + " | ".join(starts) + " |"
    return [line.strip("| ") for line in text.splitlines() if line.startswith(begin)]


def note(text: str, number: int) -> str:
    """A note of the section."""
    return next(line for line in text.splitlines() if line.startswith(f"P{number}: "))


# The figures


def cells(measured: str) -> list[tuple[Any, Column, Decimal]]:
    """(row, column, figure) of all tables of one kind of measurement."""
    columns = PAPER.measured[measured].columns
    return [
        (row, column, value)
        for table in PAPER.tables
        if table.measured == measured
        for row in table.rows
        for column, value in zip(columns, row.values, strict=True)
    ]


def test_models_have_three_rows_and_equal_base_rows() -> None:
    """5 models of 6 figures, 3 of 11, 1 of 6, 1 of 6 and 2 of 6, three rows each."""
    for table in PAPER.tables:
        labels = [(row.model, row.label) for row in table.rows]
        models = dict.fromkeys(row.model for row in table.rows)
        assert labels == [(model, one) for model in models for one in ("base", "sft", "dft")]
    counts = [sum(len(row.values) for row in table.rows) for table in PAPER.tables]
    assert counts == [90, 99, 18, 18, 36]
    assert [table.number for table in PAPER.tables] == [1, 3, 4, 8, 9]
    figures: dict[tuple[str, str], set[Decimal]] = {}
    for row, column, value in cells("mathematics"):
        if row.label == "base":
            figures.setdefault((row.model, column.title), set()).add(value)
    assert all(len(values) == 1 for values in figures.values())


@pytest.mark.parametrize(
    ("measured", "parts", "average"), [("mathematics", slice(0, 5), 5), ("code", slice(2, 10), 10)]
)
def test_averages_are_the_means_of_their_cells(measured: str, parts: slice, average: int) -> None:
    """Up to rounding, except three of LoRA that exceed the mean by 0.40, with a remark."""
    exceed = {}
    for table in PAPER.tables:
        if table.measured != measured:
            continue
        for row in table.rows:
            defaults = row.values[parts]
            excess = row.values[average] - sum(defaults) / len(defaults)
            title = PAPER.measured[measured].columns[average].title
            if abs(excess) > Decimal("0.005"):
                exceed[table.number, row.model, row.label] = round(excess, 2)
                mean = round(sum(defaults) / len(defaults), 2)
                assert str(row.values[average]) in row.remarks[title]
                assert str(mean) in row.remarks[title]
            else:
                assert title not in row.remarks
    labels = [("LLaMA-3.2-3B", "sft"), ("Qwen2.5-Math-1.5B", "sft"), ("Qwen2.5-Math-1.5B", "dft")]
    lora = {(9, model, label): Decimal("0.40") for model, label in labels}
    assert exceed == (lora if measured == "mathematics" else {})


def test_figures_are_multiples_of_one_item() -> None:
    """Up to rounding a share of n items is k/n, so a wrong digit is detected.

    WeMath's strict score has half points over 525 problems.
    """
    sizes = {"WeMath": 1050}
    checked = 0
    for _, column, value in [*cells("code"), *cells("multimodal")]:
        if column.part == "average":
            continue
        n = sizes.get(column.title, sum(column.items.values()))
        nearest = Decimal(100 * round(value * n / 100)) / n
        assert abs(nearest - value) <= Decimal(5).scaleb((value.as_tuple().exponent or 0) - 1), (
            column.title,
            value,
        )
        checked += 1
    assert checked == 9 * 10 + 3 * 6


def test_figures_agree_with_the_papers_prose() -> None:
    """A second source for the tables: average gains in the section on mathematics, single gains in
    those on code and pictures."""

    def gain(number: int, model: str, title: str, first: str, second: str) -> str:
        (table,) = (table for table in PAPER.tables if table.number == number)
        columns = [column.title for column in PAPER.columns(table)]
        rows = {row.label: row.values for row in table.rows if row.model == model}
        place = columns.index(title)
        return str(rows[second][place] - rows[first][place])

    average = "Mathematics Avg."
    for model, dft, sft in (
        ("Qwen2.5-Math-1.5B", "15.66", "2.09"),
        ("LLaMA-3.2-3B", "3.46", "2.05"),
        ("LLaMA-3.1-8B", "10.02", "5.33"),
        ("DeepSeekMath-7B", "15.51", "7.18"),
        ("Qwen2.5-Math-7B", "15.90", "2.37"),
    ):
        assert gain(1, model, average, "base", "dft") == dft
        assert gain(1, model, average, "base", "sft") == sft
    assert gain(1, "Qwen2.5-Math-1.5B", "Olympiad Bench", "base", "dft") == "11.20"
    assert gain(1, "Qwen2.5-Math-7B", "AIME24", "base", "sft") == "-4.20"
    assert gain(1, "Qwen2.5-Math-7B", "AMC23", "base", "dft") == "17.04"
    assert gain(3, "Qwen2.5-Coder-7B", "HumanEval", "sft", "dft") == "12.8"
    assert gain(3, "Qwen2.5-Coder-7B", "HumanEval+", "sft", "dft") == "11.0"
    assert gain(3, "Qwen2.5-Coder-7B", "MultiPL-E Avg.", "sft", "dft") == "4.68"
    assert gain(4, "Qwen2.5-VL-3B", "MathVerse Overall", "base", "dft") == "3.71"
    assert gain(4, "Qwen2.5-VL-3B", "MathVerse Overall", "base", "sft") == "1.83"
    assert gain(4, "Qwen2.5-VL-3B", "WeMath", "base", "sft") == "19.23"
    assert gain(8, "Qwen2.5-Math-1.5B", average, "base", "sft") == "13.24"
    assert gain(8, "Qwen2.5-Math-1.5B", average, "sft", "dft") == "9.03"
    assert gain(9, "LLaMA-3.2-3B", average, "base", "dft") == "3.44"


def test_the_papers_settings_are_those_of_our_benchmarks() -> None:
    """Columns, sizes and settings, for the benchmarks of this package."""
    vision = PAPER.measured["multimodal"]
    assert vision.decoding["max_new_tokens"] == MAX_NEW_TOKENS
    assert vision.decoding["min_pixels"] == STOCK_PIXELS.min_pixels
    assert vision.decoding["max_pixels"] == STOCK_PIXELS.max_pixels
    columns = [column for how in PAPER.measured.values() for column in how.columns]
    for column in columns:
        (*other_items, benchmark) = column.items
        if not other_items and benchmark in BENCHMARKS and len(column.categories) != 1:
            assert column.items[benchmark] == BENCHMARKS[benchmark].published, column.title
    code = PAPER.measured["code"].columns
    single = {column.part: column for column in code if len(column.categories) == 1}
    assert set(single) == set(LANGUAGES)
    assert sum(column.items["multipl-e"] for column in single.values()) == 1280
    for name, column in single.items():
        assert column.categories == (name,)
        assert column.title == f"MultiPL-E {LANGUAGES[name or ''].title}"
    versions = [column.part for column in vision.columns if column.categories]
    assert set(versions) <= set(VERSIONS.values())


# Names and labels


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Qwen/Qwen2.5-Coder-3B", "Qwen2.5-Coder-3B"),
        ("qwen2_5_coder_3b", "Qwen2.5-Coder-3B"),
        ("models/QWEN-2.5-Coder-3B/", "Qwen2.5-Coder-3B"),
        ("Qwen/Qwen2.5-3B", "Qwen2.5-3B"),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen2.5-VL-3B"),
        ("Qwen2.5-VL-3B", "Qwen2.5-VL-3B"),
        ("meta-llama/Meta-Llama-3.1-8B", "LLaMA-3.1-8B"),
        ("meta-llama/Llama-3.2-3B", "LLaMA-3.2-3B"),
        ("deepseek-ai/deepseek-math-7b-base", "DeepSeekMath-7B"),
        ("Qwen/Qwen2.5-Math-1.5B", "Qwen2.5-Math-1.5B"),
        ("Qwen/Qwen2.5-3B-Instruct", None),
        ("Qwen/Qwen2.5-Coder-3B-Instruct", None),
        ("Qwen/Qwen2.5-Math-1.5B-Instruct", None),
        ("meta-llama/Llama-3.1-8B-Instruct", None),
        ("deepseek-ai/deepseek-math-7b-instruct", None),
        ("deepseek-ai/deepseek-math-7b-rl", None),
        ("Qwen/Qwen2.5-VL-7B-Instruct", None),
        ("Qwen/Qwen2.5-VL-3B-Instruct-AWQ", None),
        ("Qwen/Qwen2-53B", None),
        ("Qwen/Qwen2.53B", None),
        ("Qwen/Qwen2.5-Math-15B", None),
        ("Qwen2.5-3B-中文", None),
        ("Qwen2.5-3B (mine)", None),
        ("Qwen/", None),
        ("", None),
    ],
)
def test_names_never_match_another_checkpoint(name: str, model: str | None) -> None:
    row = PAPER.find(name)
    assert (row and row.name) == model


def test_no_two_models_share_a_name() -> None:
    forms = [{normal_form(name) for name in (model.name, *model.aliases)} for model in PAPER.models]
    assert sum(map(len, forms)) == len(set().union(*forms))


@pytest.mark.parametrize(
    ("label", "means"),
    [
        ("dft", ("dft", False)),
        (" DFT ", ("dft", False)),
        ("base", ("base", False)),
        ("dft_lora", ("dft", True)),
        ("LoRA-SFT", ("sft", True)),
        ("base_lora", None),
        ("lora", None),
        ("dft-seed1", None),
        ("dft sft", None),
        ("dft dft", None),
        ("lora_dft_lora", None),
        ("iw-sft", None),
        ("full", None),
        ("", None),
    ],
)
def test_labels(label: str, means: tuple[str, bool] | None) -> None:
    assert label_of(label) == means


# Differences


def test_a_score_and_a_change_by_hand(tmp_path: Path) -> None:
    """HumanEval: base passes 70 of 164, DFT those and 20 more. Printed: 52.4 and 56.7.

    base: 0.42683, stderr sqrt(0.42683 · 0.57317 / 163) = 0.03874; Wilson: 35.4 to 50.3, not 52.4.
    DFT: 0.54878, stderr sqrt(0.54878 · 0.45122 / 163) = 0.03898; 47.2 to 62.3, with 56.7.
    Change: 20 differences of 1 in 164: 0.12195, stderr sqrt(0.12195 · 0.87805 / 163) = 0.02563;
    7.2 to 17.2, without 56.7 - 52.4 = 4.3. Unpaired it were 0.0550, with 4.3 in the interval.
    """
    base = write_run(tmp_path / "base", "base", {"humaneval": first_right(70, 164)})
    dft = write_run(tmp_path / "dft", "dft", {"humaneval": first_right(90, 164)})
    text = section([base, dft], tmp_path / "out")
    assert lines(text, "base", "HumanEval (completion, greedy)") == [
        "base | HumanEval (completion, greedy) | 3 | 52.4 % | 42.7 ± 3.9 % | −9.7 ± 3.9 "
        "| 35.4 % to 50.3 % | no | P1"
    ]
    assert lines(text, "dft", "HumanEval (completion, greedy)") == [
        "dft | HumanEval (completion, greedy) | 3 | 56.7 % | 54.9 ± 3.9 % | −1.8 ± 3.9 "
        "| 47.2 % to 62.3 % | yes | P1, P2"
    ]
    assert lines(text, "base to dft") == [
        "base to dft | HumanEval (completion, greedy) | 3 | +4.3 | +12.2 ± 2.6 | +7.9 "
        "| +7.2 to +17.2 | no | P1, P2"
    ]
    assert note(text, 1) == "P1: The paper names no harness for HumanEval and HumanEval+."
    assert "**With a counterpart in the paper: 2 figures of ours. Nothing known speaks" in text
    assert "against comparing: 2. Of these with an interval: 2. Of these with the paper's " in text
    assert "figure within it: 1.**" in text
    assert f"dft (base model {CODER}): Qwen2.5-Coder-3B, DFT, of Table 3, code generation." in text
    assert "no counterpart" not in text
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).text
    for cell in ("47.2 % to 62.3 %", "+7.2 to +17.2", "base to dft"):
        assert cell in page


def test_the_section_needs_the_option(tmp_path: Path) -> None:
    run = write_run(tmp_path / "dft", "dft", {"humaneval": first_right(90, 164)})
    for options in ([], ["--against-paper"]):
        args = ["report", str(run), "--out", str(tmp_path / "out"), *options]
        done = CliRunner().invoke(app, args)
        assert done.exit_code == 0, done.output
        for name in ("report.md", "report.html"):
            text = (tmp_path / "out" / name).read_text(encoding="utf-8")
            assert ("Against the paper" in text) == bool(options)


def test_constant_scores_have_wilsons_interval(tmp_path: Path) -> None:
    run = write_run(tmp_path / "dft", "dft", {"humaneval": first_right(164, 164)})
    (line,) = lines(section([run], tmp_path / "out"), "dft", "HumanEval (completion, greedy)")
    # 164 / (164 + z²) = 97.7 %.
    assert "| 100.0 % | +43.3 | 97.7 % to 100.0 % | no |" in line


def test_versions_of_a_problem_change_together(tmp_path: Path) -> None:
    """Four problems of five equal versions, one of them won: as four items, 1/4 ± 1/4."""
    runs = []
    for label, right in (("base", 0), ("dft", 5)):
        scores = first_right(right, 20, "")
        clusters = {name: str(int(name) // 5) for name in scores}
        runs.append(vision_run(tmp_path / label, label, scores, clusters=clusters, breakdown={}))
    text = section(runs, tmp_path / "out")
    (line,) = lines(text, "base to dft", "MathVerse Overall (chat, greedy)")
    assert "| +25.0 ± 25.0 |" in line


def multipl_e(right: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, float | None]:
    """Items of all languages, the first ``right`` of each passing."""
    items: dict[str, float | None] = {}
    for code, size in sizes.items():
        items |= first_right(right.get(code, 0), size, prefix=f"{code}/HumanEval_")
    return items


SIZES = {
    column.part or "": column.items["multipl-e"]
    for column in PAPER.measured["code"].columns
    if len(column.categories) == 1
}


def code_run(folder: Path, items: Mapping[str, float | None], **fields: Any) -> Path:
    """A MultiPL-E run; translations of a problem share its number."""
    languages = {name: name.partition("/")[0] for name in items}
    problems = {name: name.rpartition("_")[2] for name in items}
    scores = {"multipl-e": items}
    return write_run(folder, "dft", scores, clusters=problems, categories=languages, **fields)


def test_languages_have_their_own_items(tmp_path: Path) -> None:
    """Java passes 81 of 158, the others 80: 0.51266, stderr sqrt(0.51266 · 0.48734 / 157) = 0.0399.

    C++ is cut to 20 items: it and the average are not comparable, the other languages are.
    """
    sizes = {**SIZES, "cpp": 20}
    right = {**dict.fromkeys(SIZES, 80), "java": 81, "cpp": 10}
    parts = {code: right[code] / sizes[code] for code in sizes}
    parts["average"] = math.fsum(parts.values()) / 8
    notes = ["partial: 1139 of 1280", "--limit 20 problems a language"]
    run = code_run(tmp_path / "dft", multipl_e(right, sizes), breakdown=parts, notes=notes)
    text = section([run], tmp_path / "out")
    (java,) = lines(text, "dft", "MultiPL-E Java (completion, greedy)")
    assert "| 51.27 % | 51.3 ± 4.0 % | 0.0 ± 4.0 | 43.5 % to 58.9 % | yes |" in java
    for name in ("C++", "Avg."):
        (line,) = lines(text, "dft", f"MultiPL-E {name} (completion, greedy)")
        assert "| not comparable: P" in line
    assert "MultiPL-E C++: 20 items where the paper's set has 161." in text
    assert "MultiPL-E Avg.: 1,139 items where the paper's set has 1,280." in text
    assert text.count("not comparable:") == 2
    # The average's standard error is over problems: larger than that of 1,139 single draws.
    (average,) = lines(text, "dft", "MultiPL-E Avg. (completion, greedy)")
    stderr = float(re.findall(r"± ([0-9.]+)", average)[0])
    assert stderr > 2.5


def test_a_language_without_toolchain_is_listed_and_not_zero(tmp_path: Path) -> None:
    items = multipl_e(dict.fromkeys(SIZES, 80), SIZES)
    items |= {name: None for name in items if name.startswith("cs/")}
    parts: dict[str, float | None] = {code: 80 / size for code, size in SIZES.items()}
    run = code_run(tmp_path / "dft", items, breakdown={**parts, "cs": None, "average": None})
    text = section([run], tmp_path / "out")
    for name, part in (("MultiPL-E C\\#", "cs"), ("MultiPL-E Avg.", "average")):
        (line,) = lines(text, "dft", f"{name} (completion, greedy)")
        assert line.endswith(f"no counterpart | its part '{part}' is unscored.")
    assert len(lines(text, "dft", "MultiPL-E Bash (completion, greedy)")) == 1


def vision_run(folder: Path, label: str, scores: Mapping[str, float | None], **fields: Any) -> Path:
    """MathVerse; item n is of problem n // 5 and of version n % 5."""
    versions = ("vision_only", "vision_intensive", "vision_dominant", "text_dominant", "text_lite")
    categories = {name: versions[int(name) % 5] for name in scores}
    items = [ItemScore(id=name, score=score) for name, score in scores.items()]
    parts = {
        version: summarise(item for item in items if categories[item.id] == version)["score"]
        for version in versions[:3]
    }
    settings = {**VISION_FIELDS, "breakdown": parts, "categories": categories, **fields}
    model = "Qwen/Qwen2.5-VL-3B-Instruct"
    return write_run(folder, label, {"mathverse": scores}, base_model=model, **settings)


def test_parts_of_a_benchmark_have_their_own_items(tmp_path: Path) -> None:
    """MathVerse, base 985 and DFT 1,182 of 3,940 right; each version 197 and 237 or 236 of 788.

    Vision Only: base 0.25, stderr sqrt(0.25 · 0.75 / 787) = 0.01544. DFT wins 40 of 788 (items 985
    to 1,181 that are multiples of 5): 0.05076, stderr sqrt(0.05076 · 0.94924 / 787) = 0.00782: 3.5
    to 6.6, with 32.49 - 28.81 = 3.68. Overall: 197 differences of 1 in 3,940, stderr
    sqrt(0.05 · 0.95 / 3939) = 0.0035.
    """
    runs = [
        vision_run(tmp_path / "a", "base", first_right(985, 3940, "")),
        vision_run(tmp_path / "b", "dft", first_right(1182, 3940, "")),
    ]
    text = section(runs, tmp_path / "out")
    (only,) = lines(text, "base", "MathVerse Vision Only (chat, greedy)")
    assert "| 4 | 28.81 % | 25.0 ± 1.5 % | −3.8 ± 1.5 | 22.1 % to 28.1 % | no | P1" in only
    (change,) = lines(text, "base to dft", "MathVerse Vision Only (chat, greedy)")
    assert "| +3.68 | +5.1 ± 0.8 | +1.4 | +3.5 to +6.6 | yes |" in change
    (overall,) = lines(text, "base to dft", "MathVerse Overall (chat, greedy)")
    assert "| +3.71 | +5.0 ± 0.3 | +1.3 | +4.3 to +5.7 | no |" in overall
    assert "Qwen/Qwen2.5-VL-3B-Instruct (the paper leaves out Instruct, but no base" in text
    assert "The paper does not name the model that judged MathVerse, MathVision and WeMath." in text


def test_other_scores_than_means_have_no_interval(tmp_path: Path) -> None:
    """WeMath's strict score without the file of its problems: 0.2 and 0.25."""
    scores = {"wemath": first_right(900, 1740, "")}
    fields = {**VISION_FIELDS, "metric": "strict", "base_model": "Qwen2.5-VL-3B", "stderr": 0.01}
    runs = [
        write_run(tmp_path / label, label, scores, **fields, score=score)
        for label, score in (("base", 0.2), ("sft", 0.25))
    ]
    text = section(runs, tmp_path / "out")
    (line,) = lines(text, "base to sft", "WeMath (chat, greedy)")
    assert "| +19.23 | +5.0 | −14.2 | undefined | no interval |" in line


def test_seeds_are_a_mean_with_the_spread_between_them(tmp_path: Path) -> None:
    """Two seeds of HumanEval pass 80 and 100 of 164: 54.9 %. Four numbers by hand.

    Between seeds: ((20/164)² / 2) / 2 = 0.003719, of which items explain 1/2 · 164/163 · (144 a² +
    20 (1 - a)²) / 2 / 164² = 0.000164 with a = 20/164. Over items, scores 80 times 1, 20 times 1/2,
    64 times 0: 0.21712 / 163 = 0.001332. Root of the sum: 0.0699. The interval is everything: t of
    one degree of freedom is 12.7.
    """
    runs = [
        write_run(tmp_path / f"seed{seed}", "dft", {"humaneval": first_right(right, 164)})
        for seed, right in ((0, 80), (1, 100))
    ]
    (line,) = lines(section(runs, tmp_path / "out"), "dft", "HumanEval (completion, greedy)")
    assert "| 56.7 % | 54.9 ± 7.0 % | −1.8 ± 7.0 | 0.0 % to 100.0 % | yes |" in line


def math_run(folder: Path, label: str, leave_out: str = "", offset: int = 0, **fields: Any) -> Path:
    """Half of the items of each set right, and ``offset`` more."""
    sizes = {name: size for name, size in MATH.items() if name != leave_out}
    scores = {name: first_right(size // 2 + offset, size, "") for name, size in sizes.items()}
    settings = {**MATH_FIELDS, **fields}
    return write_run(folder, label, scores, base_model="Qwen/Qwen2.5-Math-1.5B", **settings)


def test_the_average_of_mathematics_and_the_lora_table(tmp_path: Path) -> None:
    """Mean (250/500 + 136/272 + 337/675 + 15/30 + 20/40) / 5 = 0.49985. Variances p (1-p) / n:
    0.000500, 0.000919, 0.000370, 0.008333, 0.006250; root of their sum 0.016373, 0.12796, / 5 =
    0.02559: 45.0 to 55.0. The printed 32.90 stays, though the mean of its cells is 32.50.

    DFT solves 3 more of each set than base. Mean change (3/500 + 3/272 + 3/675 + 3/30 + 3/40) / 5 =
    0.03930; variances of the pairs p (1-p) / (n-1): 0.0000120, 0.0000403, 0.0000066, 0.0031034,
    0.0017788; root of their sum 0.07029, / 5 = 0.01406: 1.2 to 6.7.
    """
    dft = math_run(tmp_path / "dft", "dft")
    lora = math_run(tmp_path / "lora", "dft_lora", model="runs/lora/dft")
    base = math_run(tmp_path / "base", "base", offset=-3)
    text = section([base, dft, lora], tmp_path / "out")
    (average,) = lines(text, "dft", "Mathematics Avg. (chat, temperature 1)")
    assert "| 1 | 31.58 % | 50.0 ± 2.6 % | +18.4 ± 2.6 | 45.0 % to 55.0 % | no |" in average
    (average,) = lines(text, "dft\\_lora", "Mathematics Avg. (chat, temperature 1)")
    assert "| 9 | 32.90 % | 50.0 ± 2.6 % | +17.1 ± 2.6 |" in average
    assert "prints 32.90, which exceeds the mean of the row's own five cells, 32.50" in text
    assert "(Table 7) prints other figures, 30.67 on average instead of 31.58" in text
    (change,) = lines(text, "base to dft\\_lora", "Mathematics Avg. (chat, temperature 1)")
    assert "| 9 | +16.98 | +3.9 ± 1.4 | −13.1 | +1.2 to +6.6 | no |" in change
    assert "Table 9, mathematics with LoRA" in text
    assert "speaks of LoRA" not in text


@pytest.mark.parametrize(
    ("training", "table"),
    [
        (None, "1 | 38.13 %"),
        ({"method": "full", "dataset": ["numinamath"]}, "1 | 38.13 %"),
        ({"method": "full", "dataset": ["openr1_math"]}, "8 | 48.91 %"),
        ({"method": "lora", "dataset": ["numinamath"]}, "9 | 40.78 %"),
        ({"method": "lora", "dataset": ["under_another_name"]}, "9 | 40.78 %"),
    ],
)
def test_selection_of_tables(tmp_path: Path, training: dict[str, Any] | None, table: str) -> None:
    fields = {**MATH_FIELDS, "base_model": "Qwen/Qwen2.5-Math-1.5B", "training": training}
    run = write_run(tmp_path / "a", "dft", {"amc23": first_right(20, 40, "")}, **fields)
    (line,) = lines(section([run], tmp_path / "out"), "dft", "AMC23 (chat, temperature 1)")
    assert line.startswith(f"dft | AMC23 (chat, temperature 1) | {table} | 50.0 ")


def test_an_average_needs_all_its_benchmarks(tmp_path: Path) -> None:
    text = section([math_run(tmp_path / "a", "dft", leave_out="aime24")], tmp_path / "out")
    (line,) = lines(text, "dft", "Mathematics Avg. (chat, temperature 1)")
    assert line.endswith("no counterpart | the mean of 5 benchmarks, without aime24.")


# What is not comparable


def test_known_differences_remove_the_verdict(tmp_path: Path) -> None:
    """The same run with one thing changed each time; unchanged it is comparable."""
    whole = first_right(90, 164)
    unscored = {**whole, "HumanEval/3": None}
    sampled = {"strategy": "sampling", "samples": 10}
    instruct = {"model": "Qwen/Qwen2.5-Coder-3B-Instruct"}
    lora = "speaks of LoRA; the paper has figures by LoRA on mathematics alone"
    changes: list[tuple[str, str, Scores, dict[str, Any]]] = [
        ("40 items where the paper's set has 164", "dft", first_right(20, 40), {}),
        ("partial: the first half", "dft", whole, {"notes": ["partial: the first half"]}),
        ("1 of 164 items unscored", "dft", unscored, {}),
        ("data: not HumanEval+ v0", "dft", whole, {"notes": ["data: not HumanEval+ v0, md5 0"]}),
        ("data of 170 rows", "dft", whole, {"notes": ["data of 170 rows; the"]}),
        ("style chat; the paper's base rows", "base", whole, {"prompt_style": "chat"}),
        ("decoding with strategy 'sampling' where", "dft", whole, {"decoding": sampled}),
        ("decoding with strategy not recorded where", "dft", whole, {"decoding": {}}),
        (lora, "dft", whole, {"model": "runs/coder_3b_lora_dft"}),
        ("speaks of an Instruct variant; the row Qwen2.5-Coder-3B is", "base", whole, instruct),
    ]
    plain = write_run(tmp_path / "plain", "dft", {"humaneval": whole})
    assert "not comparable" not in section([plain], tmp_path / "out")
    for number, (reason, label, scores, fields) in enumerate(changes):
        run = write_run(tmp_path / f"{number}", label, {"humaneval": scores}, **fields)
        text = section([run], tmp_path / "out")
        assert text.count("| not comparable: P1 |") == 1, reason
        rendered = MarkdownIt("commonmark").render(note(text, 1)).replace("&quot;", '"')
        assert reason in rendered, rendered
        assert "none of them comparable: each note says why." in text
        # The figures stand side by side all the same.
        assert re.search(r"\| 5[26]\.[47] % \| [45][0-9]\.[0-9] ± ", text)


SMALL_PIXELS = {**VISION_DECODING, "max_pixels": 262144}
THINK = {**VISION_DECODING, "system_prompt": "Think."}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"judge": "rules: answer extraction and math-verify 0.9.0"}, "judged by rules: answer"),
        ({"judge": None}, "no judge is recorded; the paper scores with VLMEvalKit, where a model"),
        ({"harness": "lmms-eval 0.3"}, "harness 'lmms-eval 0.3'; the paper scores with VLMEvalKit"),
        ({"decoding": SMALL_PIXELS}, "max_pixels 262144 where the paper's is taken for strategy"),
        ({"decoding": THINK}, "decoding with system_prompt 'Think.' where the paper's is taken"),
        ({"notes": ["MathVerse_MINI.tsv: 3940 rows, md5 0, not the published file"]}, "md5 0, not"),
        ({"n_total": 3941}, "3,941 items where the paper's set has 3,940"),
    ],
)
def test_incomparable_pictures(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    run = vision_run(tmp_path / "a", "dft", first_right(1182, 3940, ""), **fields)
    text = section([run], tmp_path / "out")
    # Versions have their own number of items.
    assert text.count("| not comparable: P") == (1 if "n_total" in fields else 4)
    assert reason in MarkdownIt("commonmark").render(text)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt_style": "completion"}, "prompt style completion; the paper asks with the def"),
        ({"decoding": {"strategy": "greedy"}}, "temperature not recorded, max_new_tokens not"),
        ({"harness": "toy 1.0"}, "harness 'toy 1.0'; the paper scores with the evaluation pipel"),
    ],
)
def test_incomparable_mathematics(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    """The average inherits the reasons of its five parts."""
    text = section([math_run(tmp_path / "a", "dft", **fields)], tmp_path / "out")
    assert text.count("| not comparable: P") == 6
    assert reason in MarkdownIt("commonmark").render(text)


def test_a_change_needs_two_comparable_scores(tmp_path: Path) -> None:
    base = write_run(tmp_path / "a", "base", {"humaneval": first_right(70, 160)})
    sft = write_run(tmp_path / "b", "sft", {"humaneval": first_right(80, 164)})
    text = section([base, sft], tmp_path / "out")
    (line,) = lines(text, "base to sft", "HumanEval (completion, greedy)")
    assert "| not comparable: P1 |" in line
    assert "| yes |" in lines(text, "sft", "HumanEval (completion, greedy)")[0]


def test_both_prompt_styles_of_tuned_models_are_compared(tmp_path: Path) -> None:
    """With the one printed figure; the paper gives the style of base rows only."""
    run = write_run(tmp_path / "a", "sft", {"humaneval": first_right(80, 164)}, prompt_style="chat")
    text = section([run], tmp_path / "out")
    assert "| yes | P1, P2" in lines(text, "sft", "HumanEval (chat, greedy)")[0]
    assert "does not say whether tuned models were asked in chat or by raw" in note(text, 2)


# What has no counterpart


NO_BASE = (
    "no base model is given: run `dft-factory eval` again with --base-model NAME, which takes the "
    "completions that are there. The paper's names are LLaMA-3.2-3B, LLaMA-3.1-8B, "
    "DeepSeekMath-7B, Qwen2.5-Math-1.5B, Qwen2.5-Math-7B, Qwen2.5-3B, Qwen2.5-Coder-3B, "
    "Qwen2.5-Coder-7B, Qwen2.5-VL-3B; most like the model, runs/qwen2_5_coder_3b_dft, is "
    "Qwen2.5-Coder-3B."
)
NO_PROTOCOL = (
    "the paper names neither model nor protocol nor metric of its figures, base 31.24 %, SFT 36.62 "
    "%, DFT 30.14 % (from base +5.38 and −1.10 points)"
)
INSTRUCT = "most like it is Qwen2.5-3B: Qwen/Qwen2.5-3B, the paper names no hub id and no"
CODE_MODELS = "it for Qwen2.5-3B, Qwen2.5-Coder-3B, Qwen2.5-Coder-7B, not for Qwen2.5-VL-3B."
LORA_MODELS = "has it by LoRA for LLaMA-3.2-3B, Qwen2.5-Math-1.5B, not for Qwen2.5-Math-7B."


@pytest.mark.parametrize(
    ("label", "benchmark", "fields", "reason"),
    [
        ("dft", "humaneval", {"base_model": None, "model": "runs/qwen2_5_coder_3b_dft"}, NO_BASE),
        ("dft", "humaneval", {"base_model": "toy"}, "the base model toy names no row of the paper"),
        ("dft", "humaneval", {"base_model": "Qwen/Qwen2.5-3B-Instruct"}, INSTRUCT),
        ("dft2", "humaneval", {}, "the label 'dft2' is none of base, sft and dft"),
        ("dft2", "humaneval", {"base_model": None}, "give one by --label; no base model is given"),
        ("dft", "python-basics", {}, "the paper has no figure on it."),
        ("dft", "humaneval", {"base_model": "Qwen2.5-VL-3B"}, CODE_MODELS),
        ("dft_lora", "math500", {"base_model": "Qwen/Qwen2.5-Math-7B"}, LORA_MODELS),
        ("dft_lora", "humaneval", {}, "the paper has figures by LoRA on mathematics alone."),
        ("dft", "humaneval", {"metric": "pass@10"}, "metric is 'pass@10', the paper's pass@1."),
        ("dft", "humaneval", {"score": None, "stderr": None}, "unscored."),
        ("dft", "multipl-e", {}, "its result has no part 'python'."),
        ("dft", "nq", {"metric": "exact_match"}, NO_PROTOCOL),
    ],
)
def test_missing_counterparts_are_listed_with_reasons(
    tmp_path: Path, label: str, benchmark: str, fields: dict[str, Any], reason: str
) -> None:
    """The report is still written and states that nothing was matched."""
    run = write_run(tmp_path / "run", label, {benchmark: first_right(90, 164)}, **fields)
    text = section([run], tmp_path / "out")
    assert f"**{NOTHING}**" in text
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert NOTHING in Page(html).text
    assert reason in " ".join(Page(html).text.split("no counterpart")[1].split())
    assert lines(text, label.replace("_", "\\_"))


def test_runs_without_counterparts_are_listed(tmp_path: Path) -> None:
    text = section([write_run(tmp_path / "a", "dft", {})], tmp_path / "out")
    (line,) = lines(text, "dft", "no evaluation")
    assert line.endswith("no counterpart | its results.json holds none.")
    runs = [
        write_run(tmp_path / label, label, {"python-basics": first_right(1, 2)})
        for label in ("base", "sft", "dft")
    ]
    text = section(runs, tmp_path / "out")
    (line,) = lines(text, "base, sft, dft", "python-basics (completion, greedy)")
    assert line.endswith("|  |  |  |  |  | no counterpart | the paper has no figure on it.")


def hostile_runs(folder: Path) -> list[Path]:
    """Labels and base models that are attacks, and a matched run in which all else is an attack."""
    nine, ninety = ({"humaneval": first_right(right, 164)} for right in (9, 90))
    scores = {**ninety, "nq": {HOSTILE: 1.0}, f"x{HOSTILE}": {"a": 1.0}}
    notes = [f"partial: {HOSTILE}", f"data: not {HOSTILE}"]
    fields = {"model": f"lora/instruct/{HOSTILE}", "decoding": {"strategy": HOSTILE}}
    return [
        write_run(folder / "a", "dft", scores, notes=notes, judge=HOSTILE, **fields),
        write_run(folder / "b", f"_$\\frac{HOSTILE}", nine, base_model=None),
        write_run(folder / "c", "base", nine, base_model=HOSTILE),
        write_run(folder / "d", "sft", nine, metric=HOSTILE),
    ]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    runs = hostile_runs(tmp_path)
    report_files = build_report(runs, tmp_path / "out", against_paper=True)
    page = Page(report_files.html.read_text(encoding="utf-8"))
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert not {name for name, _ in page.attributes if name.startswith("on")}
    rendered = " ".join(HOSTILE.split())
    assert f"the base model {rendered} names no row of the paper" in " ".join(page.text.split())

    text = report_files.markdown.read_text(encoding="utf-8")
    _, _, kinds = parse_markdown(text)
    assert not kinds & {"html_block", "html_inline", "link_open", "em_open", "code_inline", "image"}
