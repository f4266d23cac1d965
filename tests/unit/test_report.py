"""The report of evaluated runs: numbers derived by hand, hostile text, missing files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dft_eval.errors import UsageError
from dft_eval.report import build_report
from dft_eval.report.collect import read_variants
from dft_eval.report.comparison import compare, verdict
from dft_eval.report.examples import choose
from dft_eval.report.figures import learning_curves, smoothed, token_probabilities
from dft_eval.report.formats import markdown_fence, markdown_inline, points
from dft_eval.report.pairs import compare_variants
from dft_eval.report.runs import Variant
from dft_eval.results import ItemScore, write_items
from dft_eval.statistics import mean_and_stderr
from tests.support.jsonl import write_lines
from tests.support.reports import (
    HOSTILE,
    Page,
    parse_markdown,
    report,
    write_completions,
    write_probabilities,
    write_run,
    write_trainer_state,
)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """base: a 1, b 0, c 0, d 0. sft: a 1, b 1, c 1, d unscored."""
    monkeypatch.chdir(tmp_path)
    base, sft = {"a": 1, "b": 0, "c": 0, "d": 0}, {"a": 1, "b": 1, "c": 1, "d": None}
    run = write_run(Path("base"), "base", {"toy": base})
    return [run, write_run(Path("sft"), "sft", {"toy": sft}, sha=None, model="m_2")]


GOLDEN = """\
# Toys

**sft and base cannot be told apart on toy: +66.7 points (95 % interval −100.0 to +100.0).**

## Scores

Score, 95 % interval (Wilson, versions of one problem as one draw); in brackets items scored / \
items.

| run | toy, accuracy (chat) |
| --- | --- |
| base | 25.0 %, 4.6 to 69.9 % |
| sft | 100.0 %, 43.9 to 100.0 % (3/4) |

## Paired comparisons

Over the items that both runs have scored. Difference: mean of the paired differences ± its \
standard error, in percentage points; versions of one problem count as one draw. p: exact \
sign-flip permutation test over problems, two-sided (for items right or wrong that is McNemar's \
exact test). Interval: 95 %, of the same test. The verdict follows p after Holm's correction for \
the number of comparisons in this report, at the 5 % level.

### sft against base

- **toy (chat)**: no difference can be told apart from chance (p = 0.50, 3 items); differences \
from −100.0 to +100.0 points are compatible with the data

| benchmark | items in both | base | sft | difference (points) | 95 % interval (points) | won / \
lost / tied | p | p, corrected |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| toy (chat) | 3 | 33.3 % | 100.0 % | +66.7 ± 33.3 | −100.0 to +100.0 | 2 / 0 / 1 | 0.50 | 0.50 |

toy (chat): left out 1 item in both but unscored in at least one.

## Failures, length and settings

| benchmark | run | cut at the token limit | empty | same text as another item | mean tokens |
| --- | --- | --- | --- | --- | --- |
| toy (chat) | base | 0.0 % | 0.0 % | 0.0 % | not recorded |

### Failure reasons: toy (chat)

| reason, items not fully right | base | sft |
| --- | --- | --- |
| no reason recorded | 3 | 0 |
| unscored: no reason recorded | 0 | 1 |

## Learning curves

No learning curves: no trainer\\_state.json in base (base), sft (sft) or beside the model.

## Token probabilities

No token probabilities: no token\\_probabilities.json or probe.json in base (base), sft (sft).

## Completions side by side

Items on which the runs' scores disagree come first, then others, taken in turn from each \
benchmark; within a benchmark those with the most completions, in the order of a hash of their \
id. They are not hand-picked.

No completions of sft for toy (chat): no such .completions.jsonl in sft.

### 1. toy (chat), item b

Prompt:

```text
2+2?
```

**base**: score 0

````text
```
five
```
````

**sft**: score 1

No completion recorded.

## Provenance

| run | model | SHA-256 of the weights | base model |
| --- | --- | --- | --- |
| base | models/base | abababababab | toy/base |
| sft | m\\_2 | none (a served model has no files to sum) | toy/base |

### How the scores were computed

| benchmark | runs | harness | judge | seed | decoding |
| --- | --- | --- | --- | --- | --- |
| toy (chat) | base, sft | toy 1.0 | none | 0 | {} |
"""


def test_markdown_golden(pair: list[Path]) -> None:
    """All numbers by hand.

    base: mean 1/4, Wilson's interval at n = 4. sft: three scored items, all 1: n / (n + z²) = 3 /
    6.84 = 43.9 %. Paired over a, b, c: differences 0, 1, 1; mean 2/3; variance ((2/3)² +
    2·(1/3)²)/2 = 1/3; stderr sqrt(1/3 / 3) = 1/3. Won 2, lost 0: p = 2·(1/2)² = 1/2; three signs
    can reject no difference at the 5 % level (1/4 at the least), so the interval is everything.
    """
    write_completions(Path("base/toy.completions.jsonl"), {"b": "```\nfive\n```"})
    report_files = build_report(pair, Path("out"), title="Toys")
    assert report_files.markdown.read_text(encoding="utf-8") == GOLDEN
    assert report_files.pictures == ()
    page = Page(report_files.html.read_text(encoding="utf-8")).text
    texts = ("100.0 %, 43.9 to 100.0 % (3/4)", "+66.7 ± 33.3", "2 / 0 / 1", "unscored in at least")
    assert all(text in page for text in texts)


def test_differences_are_paired_by_id() -> None:
    """The same scores in another order differ nowhere; a and d swapped differ twice.

    Swapped: differences +1, 0, 0, -1; mean 0; variance 2/3; stderr sqrt(2/3 / 4) = 0.408. The
    unpaired standard error were sqrt(1/12 + 1/12) = 0.408 too, so pairing shows in ``shuffled``.
    """
    first = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0}
    shuffled = compare([(first, dict(reversed(first.items())))]).effect
    assert shuffled is not None
    assert (shuffled.won, shuffled.lost, shuffled.tied, shuffled.estimate.stderr) == (0, 0, 4, 0.0)
    swapped = compare([(first, {"a": 0.0, "b": 1.0, "c": 0.0, "d": 1.0})]).effect
    assert swapped is not None
    assert (swapped.won, swapped.lost, swapped.tied, swapped.difference) == (1, 1, 2, 0.0)
    assert swapped.estimate.stderr == pytest.approx(math.sqrt(1 / 6))
    assert swapped.p == 1.0
    first = {"a": 1.0, "x": 0.0, "u": None}
    result = compare([(first, {"a": 0.0, "y": 1.0, "z": 1.0, "u": 1.0})])
    assert (result.n_paired, result.only_first, result.only_second, result.unscored) == (1, 1, 2, 1)
    assert result.effect is not None
    assert (result.effect.difference, result.effect.estimate.stderr) == (-1.0, None)
    assert result.effect.interval == (-1.0, 1.0)


def test_verdicts() -> None:
    """Eight won, none lost: p = 2/2^8 = 0.0078. 5 won, 1 lost: 2·(1 + 6)/2^6 = 0.21875."""
    zeros = {str(n): 0.0 for n in range(8)}
    ones = dict.fromkeys(zeros, 1.0)
    won = compare([(zeros, ones)])
    by = "by 100.0 points (p = 0.00781"
    assert verdict(won, "a", "b", 2 / 2**8) == f"b scores higher than a, {by}, 8 items)"
    lost = verdict(compare([(ones, zeros)]), "a", "b", 6 / 2**8)
    assert lost == f"a scores higher than b, {by}, corrected 0.0234, 8 items)"
    corrected = verdict(won, "a", "b", 0.0625)
    assert corrected.startswith("a difference of +100.0 points that does not hold after the corr")
    even = compare([({**zeros, "7": 1.0}, {**ones, "5": 0.0, "6": 0.0, "7": 0.0})])
    assert "no difference can be told apart from chance (p = 0.22" in verdict(even, "a", "b", 0.22)
    same = verdict(compare([(ones, ones)]), "a", "b", 1.0)
    assert same == "the same score on every item compared (8 items)"
    none = verdict(compare([({}, ones)]), "a", "b", 1.0)
    assert none == "not compared: no item is scored in both"
    versions = compare([(zeros, ones)], {name: str(int(name) // 2) for name in zeros})
    assert versions.effect is not None
    assert versions.effect.p == 2 / 2**4
    assert "8 items of 4 problems" in verdict(versions, "a", "b", 0.125)


def test_unscored_is_never_zero(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", "a", {"toy": {"x": None, "y": None}})
    second_run = write_run(tmp_path / "b", "b", {"toy": {"x": 1, "y": 0}}, sha=None)
    text = report([run, second_run], tmp_path / "out")
    assert "| a | unscored (0/2) |" in text
    assert "not compared: no item is scored in both" in text
    assert "left out 2 items in both but unscored in at least one" in text


def test_notes_become_footnotes(tmp_path: Path) -> None:
    """For partial sets, and for a score that is not the mean of its items."""
    fields = {"notes": ["partial: 2 of 3040"], "score": 0.9, "stderr": None}
    parts = {"easy": 0.5, "hard": None}
    run = write_run(tmp_path / "a", "a", {"toy": {"x": 1, "y": 0}}, breakdown=parts, **fields)
    text = report([run], tmp_path / "out")
    assert "| a | 90.0 % (2/2) [1] [2] |" in text
    assert "[1] toy: partial: 2 of 3040" in text
    assert "[2] toy: the score is not the mean of its items (50.0 %)" in text
    assert "| easy | 50.0 % |" in text
    assert "| hard | unscored |" in text
    assert "One run: nothing to compare." in text


def test_scores_of_problems_are_compared_by_problem(tmp_path: Path) -> None:
    """WeMath: the strict score is compared over its problems, and also single questions.

    Problem p has two questions, q one. base: p 0, q 1; sft: p 1, q 1. Single questions: mean 1/3;
    residuals by problem 1 - 2/3 and -1/3; stderr sqrt(2 · 2/9) / 3 = 2/9.
    """
    runs = []
    for label, problems in (("base", {"p": 0.0, "q": 1.0}), ("sft", {"p": 1.0, "q": 1.0})):
        score, stderr = mean_and_stderr(list(problems.values()))
        questions = {"1": 1.0, "2": problems["p"], "3": 1.0}
        fields = {"score": score, "stderr": stderr, "cluster": "problem"}
        fields["clusters"] = {"1": "p", "2": "p", "3": "q"}
        folder = write_run(tmp_path / label, label, {"wemath": questions}, **fields)
        rows = [ItemScore(id=name, score=score) for name, score in problems.items()]
        write_items(folder / "b0.problems.jsonl", rows)
        runs.append(folder)
    text = report(runs, tmp_path / "out")
    assert "| wemath (chat) | 2 | 50.0 % | 100.0 % | +50.0 ± 50.0 |" in text
    single = "| wemath (chat), single questions | 3 (2 problems) | 66.7 % | 100.0 % "
    assert f"{single}| +33.3 ± 22.2 |" in text
    assert "not the mean of its items" not in text


def test_missing_problem_ids_are_noted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", "a", {"mathverse": {"x": 1, "y": 0}})
    text = report([run], tmp_path / "out")
    assert "mathverse: made before results.json named the problem of each item" in text


def test_all_comparisons_of_a_report_are_corrected_together(tmp_path: Path) -> None:
    """Two benchmarks, won 6 to 0 (p = 2/2⁶ = 0.03125) and 8 to 0 (p = 2/2⁸): by Holm the first
    needs no correction as the last, the second is doubled. DFT against SFT stands first."""
    names = {n: [str(i) for i in range(n)] for n in (6, 8)}
    scores = {
        label: {f"b{n}": dict.fromkeys(names[n], value) for n in names}
        for label, value in (("dft", 1.0), ("base", 0.0), ("sft", 0.0))
    }
    runs = [write_run(tmp_path / label, label, rows) for label, rows in scores.items()]
    first = compare_variants(read_variants(runs[::2]))[0]
    assert (first.first, first.second) == ("sft", "dft")
    assert [row.adjusted for row in first.comparisons] == [2 / 2**6, 2 * 2 / 2**8]
    pairs = compare_variants(read_variants(runs))
    titles = [pair.title for pair in pairs]
    assert titles == ["dft against sft", "base against dft", "sft against base"]
    # Six comparisons: two of 2/2⁸, two of 2/2⁶, two ties of p = 1.
    assert [row.adjusted for row in pairs[0].comparisons] == [4 * 2 / 2**6, 6 * 2 / 2**8]


def test_different_settings_and_equal_weights_are_named(tmp_path: Path) -> None:
    """Evaluation d uses the chat template's default system prompt."""
    scores = {"toy": {"x": 1, "y": 0}}
    runs = [
        write_run(tmp_path / "a", "a", scores),
        write_run(tmp_path / "b", "b", scores, harness="toy 2.0"),
        write_run(tmp_path / "c", "c", {"other": {"x": 1}}, sha="cd" * 32),
    ]
    text = report(runs, tmp_path / "out")
    assert "a and b have the same weights (SHA-256 abababababab)" in text
    assert "toy (chat): not like for like, harness 'toy 1.0' and 'toy 2.0'." in text
    assert "toy (chat): not compared, only a has run it." in text
    assert "other (chat): not compared, only c has run it." in text
    assert "| c | not run |" in text

    greedy = {"strategy": "greedy"}
    runs = [
        write_run(tmp_path / "d", "d", scores, decoding=greedy),
        write_run(tmp_path / "e", "e", scores, decoding={**greedy, "system_prompt": "Think."}),
    ]
    text = report(runs, tmp_path / "out")
    unlike = "toy (chat, greedy): not like for like, system_prompt None and 'Think.'."
    assert unlike in text.replace("\\_", "_")


def test_items_of_another_file_are_named(tmp_path: Path) -> None:
    """HumanEval/0 of one file is not that of another, and has the same id."""
    runs = [
        write_run(tmp_path / label, label, {"toy": {"x": 1}}, notes=[f"data: a, md5 {digit * 32}"])
        for label, digit in (("base", "a"), ("sft", "a"), ("dft", "b"))
    ]
    text = report(runs, tmp_path / "out")
    differ = f"toy (chat): not like for like, data 'md5 {'a' * 32}' and 'md5 {'b' * 32}'."
    assert text.count(differ) == 2  # dft against each of the others


@pytest.fixture
def hostile(tmp_path: Path) -> list[Path]:
    """Two runs in which each string from outside is an attack."""
    folders = []
    texts = dict.fromkeys(("reason", "harness", "judge", "metric", "model"), HOSTILE)
    fields = {"notes": [HOSTILE], "decoding": {HOSTILE: HOSTILE}, "breakdown": {HOSTILE: 0.5}}
    for name, score in (("a", 1.0), ("b", 0.0)):
        scores = {f"bench{HOSTILE}": {HOSTILE: score, "fine": 1.0}}
        label = f"_$\\frac${name}{HOSTILE}"
        folder = write_run(tmp_path / name, label, scores, **texts, **fields)
        write_completions(folder / "b0.completions.jsonl", {HOSTILE: HOSTILE}, prompt=HOSTILE)
        write_probabilities(folder, dataset=HOSTILE, model=HOSTILE)
        write_trainer_state(folder / "trainer_state.json", [{"step": 1, "nll": 1.0}])
        folders.append(folder)
    return folders


def test_hostile_text_stays_text_in_html(hostile: list[Path], tmp_path: Path) -> None:
    html = build_report(hostile, tmp_path / "out", title=HOSTILE).html.read_text(encoding="utf-8")
    page = Page(html)
    # The page's data and script, which its policy lists by checksum.
    assert page.tags.count("script") == 2
    assert not {name for name, _ in page.attributes if name.startswith("on")}
    assert page.tags.count("img") == 2
    for name, value in page.attributes:
        if name in {"src", "href", "action", "data", "poster", "srcset"}:
            assert (value or "").startswith(("data:image/png;base64,", "#"))
    # Unchanged in the prompt and completion of both runs (and on one line elsewhere).
    assert page.text.count(HOSTILE) >= 4
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "url(" not in html
    assert "@import" not in html


def test_hostile_text_stays_text_in_markdown(hostile: list[Path], tmp_path: Path) -> None:
    text = report(hostile, tmp_path / "out", title=HOSTILE)
    tokens, inline, kinds = parse_markdown(text)
    assert not kinds & {"html_block", "html_inline", "link_open", "em_open", "code_inline"}
    images = [child.attrs["src"] for child in inline if child.type == "image"]
    assert images == ["learning_curves.png", "token_probabilities.png"]
    # One prompt and two completions, complete.
    fences = [token.content for token in tokens if token.type == "fence"]
    assert fences == [HOSTILE + "\n"] * 3
    assert "table_open" in kinds


@given(st.text(alphabet="`~\n\r a<", max_size=40))
def test_fences_hold_any_text(text: str) -> None:
    block = f"before\n\n{markdown_fence(text)}\n\nafter\n"
    tokens = MarkdownIt("commonmark").parse(block)
    kinds = [t.type for t in tokens if t.type in {"fence", "paragraph_open"}]
    assert kinds == ["paragraph_open", "fence", "paragraph_open"]


@given(st.text(alphabet="`*_[]()!<>&|~#\\ab1.-+= \n\x00\u202e", max_size=30), st.booleans())
def test_inline_text_is_shown_unchanged(text: str, behind: bool) -> None:
    """After a word or at the start of a line, any text is one paragraph of that text."""
    visible = " ".join(text.split()).replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    if behind or not visible:
        text, visible = f"x {text}", f"x {visible}".rstrip()
    tokens = MarkdownIt("commonmark", {"html": True}).parse(markdown_inline(text))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    children = tokens[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    assert "".join(child.content for child in children) == visible


def test_missing_pieces_are_named(pair: list[Path]) -> None:
    report_files = build_report(pair, Path("out"))
    page = Page(report_files.html.read_text(encoding="utf-8"))
    assert "img" not in page.tags
    for text in (
        "No learning curves: no trainer_state.json in base (base), sft (sft) or beside the model.",
        "No token probabilities: no token_probabilities.json or probe.json in base (base)",
        "No completions of base for toy (chat)",
    ):
        assert text in page.text


def test_curves_and_histogram(pair: list[Path]) -> None:
    """Trainer states of subfolders are read, those of checkpoints are not; NaN is reported."""
    history = [
        {"step": 1, "loss": 2.0, "nll": 2.0, "mean_token_prob": 0.25, "epoch": 0.5},
        {"step": 2, "loss": 1.0, "nll": float("nan"), "mean_token_prob": 0.5, "epoch": 1.0},
        {"step": 2, "eval_loss": 1.5, "eval_nll": 1.5},
        {"step": 2, "train_runtime": 3.0},
    ]
    write_trainer_state(Path("sft/model/trainer_state.json"), history)
    write_trainer_state(Path("sft/checkpoint-2/trainer_state.json"), history)
    write_trainer_state(Path("base/trainer_state.json"), [{"step": 1, "loss": 2.0}])
    write_probabilities(Path("sft"))
    report_files = build_report(pair, Path("out"))
    names = [path.name for path in report_files.pictures]
    assert names == ["learning_curves.png", "token_probabilities.png"]
    text = report_files.markdown.read_text(encoding="utf-8")
    assert "| sft | 2 | not finite | 0.500 | 1.500 | not logged |" in text
    assert "sft: 1 logged value not finite" in text
    assert "sft has no evaluation mean\\_token\\_prob in its log." in text
    assert "No learning curves of base: base/trainer\\_state.json logs neither nll nor" in text
    assert "| sft | toy | toys | 4 | 0.700 | 0.750 | 25.0 % | 50.0 % | 0.900 |" in text
    assert "no token\\_probabilities.json or probe.json in base (base)." in text
    page = Page(report_files.html.read_text(encoding="utf-8"))
    assert page.tags.count("img") == 2
    assert "stock LLaMA-Factory" not in text

    # A later report without that data removes the picture.
    Path("sft/token_probabilities.json").unlink()
    assert len(build_report(pair, Path("out")).pictures) == 1
    assert not Path("out/token_probabilities.png").exists()


def test_curves_are_those_of_the_model(tmp_path: Path) -> None:
    """In the model's folder, or above a checkpoint or merged model in it."""
    history = [{"step": 1, "nll": 2.0, "mean_token_prob": 0.25}]
    write_trainer_state(tmp_path / "out" / "sft" / "trainer_state.json", history)
    (tmp_path / "out" / "sft" / "merged").mkdir()
    for label, model in (("sft", "sft"), ("merged", "sft/merged"), ("other", "elsewhere")):
        write_run(tmp_path / "r" / label, label, {}, model=str(tmp_path / "out" / model))
    variants = read_variants([tmp_path / "r" / label for label in ("sft", "merged", "other")])
    path = tmp_path / "out" / "sft" / "trainer_state.json"
    paths = [run.curves and run.curves.path for variant in variants for run in variant.runs]
    assert paths == [path, path, None]


def means(variants: Sequence[Variant]) -> list[float | None]:
    return [
        run.probabilities and run.probabilities.mean for variant in variants for run in variant.runs
    ]


def test_files_of_probe_are_read(pair: list[Path]) -> None:
    """In a separate folder or a run's; matched by label, then by model."""
    write_probabilities(Path("base"), label="base")
    probe_row = json.loads(Path("base/token_probabilities.json").read_text())
    Path("base/token_probabilities.json").unlink()
    models = [probe_row, {**probe_row, "label": "tuned", "model": "m_2", "mean": 0.75}]
    Path("probe").mkdir()
    Path("probe/probe.json").write_text(json.dumps({"schema_version": 1, "models": models}))
    runs = read_variants([*pair, Path("probe")])
    assert means(runs) == [0.7, 0.75]
    Path("sft/probe.json").write_text(json.dumps({"models": models}))
    runs = read_variants(pair)
    assert means(runs) == [None, 0.75]
    models = [{**probe_row, "label": "nobody", "model": "nobody"}]
    Path("probe/probe.json").write_text(json.dumps({"models": models}))
    with pytest.raises(UsageError, match=r"holds 'nobody', the runs are 'base', 'sft'"):
        read_variants([*pair, Path("probe")])


def test_running_mean_and_standard_error_by_hand() -> None:
    values = [1.0, 4.0, math.nan, 2.0, 6.0]
    assert smoothed(values, 3) == [2.5, 2.5, 3.0, 4.0, 4.0]
    assert math.isnan(smoothed([math.nan], 3)[0])
    # Scores 1, 0, 0, 0: sqrt(1/4 / 4) = 1/4; and a signed zero is shown without its sign.
    assert mean_and_stderr([1, 0, 0, 0]) == (0.25, 0.25)
    assert points(-0.0001) == "0.0"
    assert points(-0.5, 0.125) == "−50.0 ± 12.5"


def test_truncation_and_length_are_shown(tmp_path: Path) -> None:
    """base: 1 of 2 cut (results.json), 150 tokens; sft: none, one empty (completions), 50."""
    scores = {"toy": {"x": 1, "y": 0}}
    counts = {"n_truncated": 1, "n_empty": 0, "mean_tokens": 150}
    base = write_run(tmp_path / "a", "base", scores, **counts)
    sft = write_run(tmp_path / "b", "sft", scores)
    rows = [
        {"id": name, "prompt": "", "completion": text, "finish_reason": "stop", "n_tokens": 50}
        for name, text in (("x", "one"), ("y", " "), ("stale", ""))
    ]
    write_lines(sft / "toy.completions.jsonl", rows)
    text = report([base, sft], tmp_path / "out")
    assert "| toy (chat) | base | 50.0 % | 0.0 % | not recorded | 150 |" in text
    assert "| toy (chat) | sft | 0.0 % | 50.0 % | 0.0 % | 50 |" in text
    assert "completions cut at the token limit: 50.0 % of base's, 0.0 % of sft's." in text
    assert "completions empty: 0.0 % of base's, 50.0 % of sft's." in text
    assert "mean tokens of a completion: base 150, sft 50." in text


def test_tables_of_failures_and_settings(tmp_path: Path) -> None:
    runs = []
    for label, scores, reason, dtype in (
        ("a", {"x": 0, "y": 0, "z": None}, "TypeError: 12", "bf16"),
        ("b", {"x": 1, "y": 0}, "12 is not 3", "fp32"),
    ):
        fields = {"reason": reason, "decoding": {"dtype": dtype, "seed": 1}}
        runs.append(write_run(tmp_path / label, label, {"toy": scores}, **fields))
    text = report(runs, tmp_path / "out")
    assert "| TypeError | 2 | 0 |" in text
    assert "| \\# is not \\# | 0 | 1 |" in text
    assert "| unscored: TypeError | 1 | 0 |" in text
    assert '| toy (chat): dtype | "bf16" | "fp32" |' in text
    assert "toy (chat): seed" not in text


def test_the_report_opens_with_the_verdict(tmp_path: Path) -> None:
    scores = {"base": 0.0, "sft": 0.0, "dft": 1.0}
    runs = [
        write_run(tmp_path / label, label, {"toy": {str(n): score for n in range(8)}})
        for label, score in scores.items()
    ]
    html = build_report(runs, tmp_path / "out").html.read_text(encoding="utf-8")
    text = " ".join(Page(html).text.split())
    verdict = text.index("dft scores 100.0 points above sft on toy (100.0 % against 0.0 %, ")
    assert verdict < text.index("sft against base: the same score on every item of toy.")
    assert verdict < text.index("Note:")
    assert verdict < text.index("SHA-256 of the weights")


def test_a_picture_outside_the_run_folder_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", "a", {"toy": {"x": 1}})
    write_items(run / "b0.items.jsonl", [ItemScore(id="x", score=1, pictures=("../p.png",))])
    with pytest.raises(UsageError, match=r"picture '\.\./p\.png' of an item lies outside"):
        build_report([run], tmp_path / "out")


def test_the_same_runs_give_the_same_bytes(hostile: list[Path], tmp_path: Path) -> None:
    first = build_report(hostile, tmp_path / "first")
    second = build_report(hostile, tmp_path / "second")
    assert first.markdown.read_bytes() == second.markdown.read_bytes()
    assert first.html.read_bytes() == second.html.read_bytes()
    pictures = [path.read_bytes() for path in first.pictures]
    assert pictures == [path.read_bytes() for path in second.pictures]
    # No software version and no time.
    assert not any(b"tEXt" in data for data in pictures)


def test_pictures_do_not_change_matplotlib_settings(hostile: list[Path]) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    runs = read_variants(hostile)
    assert learning_curves(runs).startswith(b"\x89PNG")
    assert token_probabilities(runs).startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before


def test_examples_begin_with_disagreements_of_each_benchmark(tmp_path: Path) -> None:
    same = {f"s{n}": 1.0 for n in range(20)}
    scores = {**same, "d1": 0.0, "d2": 1.0, "d3": None}
    changed = {**same, "d1": 1.0, "d2": 0.0, "d3": 1.0}
    first = write_run(tmp_path / "a", "a", {"p": scores, "q": same})
    second = write_run(tmp_path / "b", "b", {"p": changed, "q": {**same, "s7": 0.0}})
    for folder in (first, second):
        write_completions(folder / "p.completions.jsonl", dict.fromkeys(scores, "text"))
        write_completions(folder / "q.completions.jsonl", dict.fromkeys(same, "text"))
    chosen = choose([variant.runs[0] for variant in read_variants([first, second])])
    assert len(chosen) == len(set(chosen)) == 10
    assert {(key[0], item) for key, item in chosen[:3]} == {("p", "d1"), ("p", "d2"), ("q", "s7")}
    assert [key[0] for key, _ in chosen[3:]] == ["p", "q", "p", "q", "p", "q", "p"]


def test_the_text_of_completions(tmp_path: Path) -> None:
    """Long ones are cut, and unusual line separators do not split one."""
    run = write_run(tmp_path / "a", "a", {"toy": {"x": 1}})
    write_completions(run / "toy.completions.jsonl", {"x": "y" * 1600, "ghost": ""})
    text = report([run], tmp_path / "out")
    assert "cut here: 1,500 of 1,600 characters are shown" in text
    assert "y" * 1500 + "\n" in text
    assert "a, toy (chat): 1 completion without an item." in text
    write_completions(run / "toy.completions.jsonl", {"x": "one\u2028two\x85three"})
    assert "one\u2028two" in report([run], tmp_path / "out")


def test_two_prompt_styles_never_mix(tmp_path: Path) -> None:
    """Each style has its own column, and completions of unclear style are not used."""
    scores = {"toy": {"x": 1.0, "y": 0.0}}
    chat = write_run(tmp_path / "a", "a", scores)
    raw = write_run(tmp_path / "b", "b", scores, sha=None, prompt_style="completion")
    text = report([chat, raw], tmp_path / "out")
    assert "| run | toy, accuracy (chat) | toy, accuracy (completion) |" in text
    assert "No benchmark was run by both." in text

    document = json.loads((chat / "results.json").read_text())
    document["results"].append({**document["results"][0], "prompt_style": "completion"})
    (chat / "results.json").write_text(json.dumps(document))
    write_completions(chat / "toy.completions.jsonl", {"x": "whose?"})
    assert choose(read_variants([chat])[0].runs) == []


def test_refusals_name_the_files(tmp_path: Path) -> None:
    scores = {"toy": {"x": 1.0}}
    first, second = (write_run(tmp_path / name, "same", scores) for name in ("a", "b"))
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"a and .*b are labelled 'same'"):
        build_report([first, second], out)
    with pytest.raises(UsageError, match=r"No results at .*nowhere"):
        build_report([tmp_path / "nowhere"], out)
    with pytest.raises(UsageError, match="No run folder given"):
        build_report([], out)
    with pytest.raises(UsageError, match="is a file"):
        build_report([first / "results.json"], out)

    third = write_run(tmp_path / "c", "c", scores)
    write_probabilities(first)
    write_probabilities(third, bin_edges=[0.0, 0.25, 1.0])
    with pytest.raises(UsageError, match=r"a/token_.* and .*c/token_.* different bin_edges"):
        build_report([first, third], out)
    write_probabilities(third, counts=[1, 1])
    with pytest.raises(UsageError, match=r"c/token_.*malformed.*[\s\S]*add up to 2"):
        build_report([first, third], out)
    (third / "token_probabilities.json").unlink()

    for name in ("x", "y"):
        write_trainer_state(third / name / "trainer_state.json", [])
    with pytest.raises(UsageError, match=r"2 files trainer_state.json.*x/trainer.*y/trainer"):
        build_report([third], out)

    write_items(first / "b0.items.jsonl", [ItemScore(id="x", score=1)] * 2)
    with pytest.raises(UsageError, match=r"b0\.items\.jsonl.*more than once, first 'x'"):
        build_report([first], out)
    (first / "b0.items.jsonl").unlink()
    with pytest.raises(UsageError, match=r"No .*b0\.items\.jsonl.*dft-factory eval toy"):
        build_report([first], out)
    fourth = write_run(tmp_path / "d", "d", scores, items="../c/b0.items.jsonl")
    with pytest.raises(UsageError, match=r"must lie beside results\.json"):
        build_report([fourth], out)
    assert not out.exists()
