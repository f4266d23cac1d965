"""The report of greedy and sampled scores of one benchmark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dft_eval.errors import UsageError
from dft_eval.report import build_report
from dft_eval.report.collect import read_variants
from dft_eval.report.decodings import gains, sentence
from dft_eval.report.lengths import collapses
from dft_eval.report.overview import headline
from dft_eval.report.pairs import compare_variants
from dft_eval.report.samples import curve
from dft_eval.results import ItemScore, write_items
from dft_factory.cli.app import app
from tests.support.reports import Scores, report, write_completions, write_run

GREEDY = {"strategy": "greedy"}
SAMPLED = {"strategy": "sampling", "temperature": 1.0, "samples": 4}


def write_pair(
    root: Path, label: str, greedy: Scores, sampled: Scores, **fields: Any
) -> list[Path]:
    """``root/label`` and ``root/label/sampled``, as an experiment writes them."""
    folder = root / label
    fields = {"sha": None, **fields}
    return [
        write_run(folder, label, {"toy": greedy}, decoding=GREEDY, **fields),
        write_run(folder / "sampled", label, {"toy": sampled}, decoding=SAMPLED, **fields),
    ]


def items(right: int, of: int = 20, score: float = 1.0) -> dict[str, float | None]:
    return {f"q{n}": score if n < right else 0.0 for n in range(of)}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """base: greedy 10 of 20, at temperature 1 a quarter of the samples of 12; dft: 11 and 12."""
    return [
        *write_pair(tmp_path, "base", items(10), items(12, score=0.25)),
        *write_pair(tmp_path, "dft", items(11), items(12)),
    ]


def test_folders_of_one_label_are_one_run(runs: list[Path], tmp_path: Path) -> None:
    """Compared within a decoding, never across: at temperature 1 12 items of 0.75 each."""
    base, dft = read_variants(runs)
    assert [run.folder for run in base.runs] == [runs[0]]
    names = [key.decoding for key in dft.evaluations]
    assert names == ["greedy", "temperature 1"]
    (pair,) = compare_variants([base, dft])
    effects = {row.name: row.result.effect for row in pair.comparisons}
    differences = {name: effect.difference for name, effect in effects.items() if effect}
    by_hand = {"toy (chat, greedy)": 1 / 20, "toy (chat, temperature 1)": 12 * 0.75 / 20}
    assert differences == pytest.approx(by_hand)


def test_one_evaluation_twice_or_another_model_is_refused(tmp_path: Path) -> None:
    greedy, sampled = write_pair(tmp_path, "dft", items(3), items(3))
    fields = {"sha": None, "decoding": SAMPLED}
    same_decoding = write_run(tmp_path / "b", "dft", {"toy": items(4)}, **fields)
    other_model = write_run(tmp_path / "c", "dft", {"toy": items(4)}, **fields, model="x")
    with pytest.raises(UsageError, match=r"labelled 'dft' and hold toy \(chat, temperature 1\): "):
        read_variants([greedy, sampled, same_decoding])
    with pytest.raises(UsageError, match=r"are of different models, models/dft and x: give one"):
        read_variants([greedy, other_model])


def test_the_first_sample_of_an_item_is_shown(runs: list[Path], tmp_path: Path) -> None:
    texts = {f"q{n}#{k}": f"answer {k}" for n in range(20) for k in range(4)}
    write_completions(runs[3] / "toy.completions.jsonl", texts)
    text = report(runs, tmp_path / "out")
    assert "without an item" not in text
    assert "**dft**: score 1 (first of 4 samples)\n\n```text\nanswer 0\n```" in text
    assert "answer 1" not in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_what_greedy_decoding_leaves_of_a_difference(runs: list[Path], tmp_path: Path) -> None:
    """By hand: 45 points at temperature 1 (0.75 on 12 of 20 items), 5 greedily (1 of 20).

    40 points are of decoding: 0.75 on 11 items, 0.75 - 1 on q10.
    """
    text = report(runs, tmp_path / "out")
    assert "**On toy dft scores 45.0 points above base at temperature 1 (60.0 % against 15." in text
    assert "under greedy decoding the difference is +5.0 points (95 % interval " in text
    assert "apart from chance. Sampling alone accounts for +40.0 points (95 % interval +" in text
    assert "| toy (chat) | base | 50.0 %, 29.9 to 70.1 % | 15.0 %, " in text
    (row,) = re.findall(r"\| toy \(chat\) \| dft \| 55\.0 %.*", text)
    assert "| +5.0 (" in row  # 12 of 20 sampled, 11 greedily


def test_a_difference_that_greedy_decoding_keeps(tmp_path: Path) -> None:
    """Both decodings give 10 of 20 points; a seed that only one of them has counts in neither."""
    runs = write_pair(tmp_path, "sft", items(5), items(5))
    runs += write_pair(tmp_path, "dft", items(15), items(15))
    (pair,) = compare_variants(variants := read_variants(runs))
    (gain,) = gains(pair, variants)
    assert gain.lost is not None
    assert gain.lost.estimate.mean == 0
    assert "under greedy decoding the difference is +50.0 points (" in sentence(gain)
    assert "How much sampling alone accounts for cannot be told: 0.0 points " in sentence(gain)


def test_of_several_temperatures_the_highest_comes_first(runs: list[Path], tmp_path: Path) -> None:
    cool = {**SAMPLED, "temperature": 0.5}
    for label, right in (("base", 12), ("dft", 13)):
        scores = {"toy": items(right)}
        runs.append(write_run(tmp_path / "cool" / label, label, scores, sha=None, decoding=cool))
    variants = read_variants(runs)
    opening = " ".join(headline(compare_variants(variants), variants))
    assert "at temperature 1 (" in opening
    assert "temperature 0.5" not in opening
    text = report(runs, tmp_path / "out")
    assert "cannot be told apart at temperature 0.5: +5.0 points" in text


def test_one_decoding_has_no_such_section(runs: list[Path], tmp_path: Path) -> None:
    text = report(runs[::2], tmp_path / "out")
    assert "Greedy and sampled" not in text
    assert not (tmp_path / "out" / "pass_at_k.png").exists()


def test_pass_at_k_of_items_by_hand(tmp_path: Path) -> None:
    """Of 4 samples 2 are right on one item, none on the other.

    pass@1 (1/2 + 0) / 2; pass@2 1 - C(2, 2) / C(4, 2) = 5/6 on the first; pass@4 1 on the first.
    """
    fields = {"decoding": SAMPLED, "breakdown": {"maj@4": 0.25}}
    run = write_run(tmp_path / "a", "dft", {"toy": {"x": 0.5, "y": 0.0}}, **fields)
    (variant,) = read_variants([run])
    (pooled,) = variant.evaluations.values()
    means = {point.k: point.mean for point in curve(pooled)}
    assert means == pytest.approx({1: 1 / 4, 2: 5 / 12, 4: 1 / 2})
    assert all(0 <= point.low < point.mean < point.high <= 1 for point in curve(pooled))
    report_files = build_report([run], tmp_path / "out")
    assert tmp_path / "out" / "pass_at_k.png" in report_files.pictures
    text = report_files.markdown.read_text(encoding="utf-8")
    assert "| benchmark | run | pass@1 | pass@4 | majority of samples |" in text
    assert "| maj@4 25.0 % |" in text


def test_partial_scores_have_no_pass_at_k(tmp_path: Path) -> None:
    """0.3 of 4 samples is no count."""
    run = write_run(tmp_path / "a", "dft", {"toy": {"x": 0.3, "y": 0.0}}, decoding=SAMPLED)
    (variant,) = read_variants([run])
    assert curve(*variant.evaluations.values()) == ()


@pytest.mark.parametrize(("score", "differs"), [(0.9, True), (0.55, False)])
def test_harnesses_that_differ_are_shown(tmp_path: Path, score: float, differs: bool) -> None:
    """10 of 20 right: a standard error of sqrt(1/4 / 19) = 11.5 points."""
    parts = {"accuracy of qwen": score, "truncated": 0.0}
    fields = {"harness": "math-verify 0.9.0, last box", "breakdown": parts}
    run = write_run(tmp_path / "a", "dft", {"toy": items(10)}, **fields)
    text = report([run], tmp_path / "out")
    line = "| toy (chat) | dft | math-verify 50.0 ± 11.5 % | qwen 90.0 % | +40.0 |"
    assert (line in text) == differs
    assert ("Where harnesses differ" in text) == differs


@pytest.mark.parametrize(
    ("answers", "sign"),
    [
        ("return n", "100.0 % of its completions have the same text as another item's (base: 0.0"),
        (None, "a completion has 3 tokens on average (base: 40)"),
    ],
)
def test_a_collapse_is_named(tmp_path: Path, answers: str | None, sign: str) -> None:
    """12 of 20 right before, 2 after, with one answer to everything or very short ones."""
    base = write_run(tmp_path / "a", "base", {"toy": items(12)}, mean_tokens=40)
    dft = write_run(tmp_path / "b", "dft", {"toy": items(2)}, mean_tokens=40 if answers else 3)
    for run in (base, dft):
        texts = {f"q{n}": answers if answers and run is dft else f"text {n}" for n in range(20)}
        write_completions(run / "toy.completions.jsonl", texts)
    text = report([base, dft], tmp_path / "out")
    assert "dft has collapsed on toy: it scores 50.0 points below base; " in text
    assert sign in text
    # Equal answers without a lower score are no collapse, nor a lower score without them.
    write_items(dft / "b0.items.jsonl", [ItemScore(id=f"q{n}", score=n < 12) for n in range(20)])
    assert collapses(read_variants([base, dft])) == ()
    worse = write_run(tmp_path / "c", "dft", {"toy": items(2)}, mean_tokens=40)
    write_completions(worse / "toy.completions.jsonl", {f"q{n}": f"{n}" for n in range(20)})
    assert collapses(read_variants([base, worse])) == ()


def test_a_note_on_several_benchmarks_is_one_footnote(tmp_path: Path) -> None:
    scores = {"toy": items(3), "other": items(4)}
    run = write_run(tmp_path / "a", "dft", scores, notes=["the sandbox has limits"])
    text = report([run], tmp_path / "out")
    assert text.count("the sandbox has limits") == 1
    assert "toy, other: the sandbox has limits" in text


def test_reference_of_the_command_line(runs: list[Path], tmp_path: Path) -> None:
    args = ["report", *map(str, runs), "--out", str(tmp_path / "out"), "--reference"]
    assert CliRunner().invoke(app, [*args, "dft"]).exit_code == 0
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "### base against dft" in text
    assert "### dft against base" not in text
    unknown = CliRunner().invoke(app, [*args, "dtf"])
    assert isinstance(unknown.exception, UsageError)
    assert "No run is labelled 'dtf'. The labels are: 'base', 'dft'." in str(unknown.exception)
