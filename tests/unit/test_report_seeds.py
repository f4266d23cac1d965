"""The report over training seeds, with missing runs, a reference and pairs to compare."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dft_eval.errors import UsageError
from dft_eval.report import MissingRun
from dft_eval.report.browser import browser_data
from dft_eval.report.collect import read_variants
from dft_eval.report.figures import _mean_and_band, learning_curves, token_probabilities
from dft_eval.report.files import Points
from dft_eval.report.pairs import compare_variants
from dft_eval.report.runs import paired_seeds
from tests.support.reports import (
    HOSTILE,
    Page,
    report,
    write_completions,
    write_probabilities,
    write_run,
    write_trainer_state,
)

N = 20


def write_seed(
    folder: Path, label: str, trained: int | None, right: Sequence[int] | range, **fields: Any
) -> Path:
    """A run of ``toy`` with N items, those of ``right`` right, and its training seed."""
    scores = {f"q{n}": float(n in right) for n in range(N)}
    training = None if trained is None else {"objective": label, "seed": trained}
    return write_run(folder, label, {"toy": scores}, sha=None, training=training, **fields)


def write_seeds(root: Path, right: Mapping[str, Mapping[int | None, range]]) -> list[Path]:
    return [
        write_seed(root / label / f"run{seed}", label, seed, items)
        for label, seeds in right.items()
        for seed, items in seeds.items()
    ]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """base: 4 right. sft: 8, 9, 10. dft: 12, 12 and, of seed 2, 15."""
    sft = {0: range(8), 1: range(9), 2: range(10)}
    dft = {0: range(12), 1: range(12), 2: range(15)}
    return write_seeds(tmp_path, {"base": {None: range(4)}, "sft": sft, "dft": dft})


def test_runs_of_one_label_are_one_row(runs: list[Path], tmp_path: Path) -> None:
    """By hand: dft scores 12/20, 12/20, 15/20: mean 65 %, SD 8.66; sft 40, 45, 50 %: SD 5.

    Differences by seed 4/20, 3/20, 5/20: mean 20 points, SD 5. Over items the sums are 3 for six
    items of both differences (q10, q11: 3; q9: 2; q8: 3 - 2), so the exact test has few clusters.
    """
    text = report(runs, tmp_path / "out")
    assert "| dft | 65.0 %, " in text
    assert "| toy (chat) | dft | 65.0 %, " in text
    assert "| 0: 60.0 %, 1: 60.0 %, 2: 75.0 % | 8.7 | " in text
    assert "| 0: 40.0 %, 1: 45.0 %, 2: 50.0 % | 5.0 | " in text
    assert re.search(r"\| toy \(chat\) \| base \| 20\.0 %, [^|]*\| one run \|", text)
    assert "**Over 3 seeds, dft scores 20.0 points above sft on toy (65.0 % against 45.0 %" in text
    assert text.split("\n\n")[2].startswith("The error over items (")
    (pair, *_) = compare_variants(read_variants(runs))
    (row,) = pair.comparisons
    assert row.result.effect is not None
    assert row.result.effect.estimate.by_seed == pytest.approx((0.2, 0.15, 0.25))
    assert (row.result.n_seeds, row.result.n_paired) == (3, N)
    # q8: right in sft of seeds 1 and 2, in dft always.
    assert (row.result.effect.won, row.result.effect.lost) == (7, 0)
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("s") == 3 + 3 + 3 * 3  # a mark per seed of sft, dft and the three pairs


def test_base_is_compared_with_each_seed(runs: list[Path], tmp_path: Path) -> None:
    pairs = {pair.title: pair for pair in compare_variants(read_variants(runs))}
    (row,) = pairs["dft against base"].comparisons
    assert row.result.effect is not None
    assert row.result.effect.estimate.by_seed == pytest.approx((0.4, 0.4, 0.55))
    (remark,) = pairs["dft against base"].remarks
    assert remark.startswith("base is one run, compared with each seed of dft: the interval")
    assert pairs["dft against sft"].remarks == ()


def test_missing_seeds_are_named(runs: list[Path], tmp_path: Path) -> None:
    """The comparison is over the common seeds."""
    text = report([*runs[:2], *runs[3:]], tmp_path / "out")
    assert "sft: no results of seed 1." in text
    assert "base: no results" not in text
    assert "Seeds that both have: 0, 2 (sft has 0, 2; dft has 0, 1, 2)." in text
    assert "Over 2 seeds, dft and sft cannot be told apart on toy: +22.5 points" in text

    text_of_one = report([runs[1], *runs[4:]], tmp_path / "lone")
    assert "sft: no results of seeds 1, 2." in text_of_one
    assert "**dft and sft cannot be told apart on toy: " in text_of_one
    assert "Seeds that both have: 0 (sft has 0; dft has 0, 1, 2)." in text_of_one

    text_of_single_dft = report([*runs[1:3], runs[6]], tmp_path / "apart")
    assert "dft is one run, compared with each seed of sft" in text_of_single_dft


def test_variants_without_a_common_seed_are_not_compared(tmp_path: Path) -> None:
    sft, dft = {0: range(8), 1: range(9)}, {2: range(12), 3: range(12)}
    runs = write_seeds(tmp_path, {"sft": sft, "dft": dft})
    text = report(runs, tmp_path / "out")
    assert "Seeds that both have: none, so there is no comparison (sft has 0, 1; dft has" in text
    assert "**toy (chat)**: not compared" in text
    assert paired_seeds({0: "a", 1: "b"}, {2: "c", 3: "d"}) == []
    assert paired_seeds({None: "a"}, {2: "c", 3: "d"}) == [("a", "c"), ("a", "d")]
    assert paired_seeds({0: "a", 1: "b"}, {1: "c", 2: "d"}) == [("b", "c")]


def test_single_runs_of_different_seeds_are_compared(tmp_path: Path) -> None:
    runs = write_seeds(tmp_path, {"sft": {0: range(8)}, "dft": {1: range(20)}})
    text = report(runs, tmp_path / "out")
    assert "dft scores 60.0 points above sft on toy (100.0 % against 40.0 %, " in text
    assert "Different training seeds: 0 and 1." in text
    assert "Scores by seed" not in text


def test_seeds_from_folder_names(tmp_path: Path) -> None:
    runs = [write_seed(tmp_path / f"seed{n}", "dft", None, range(9 + n)) for n in (3, 12)]
    (variant,) = read_variants(runs)
    assert variant.seeds == (3, 12)
    sampled = {"strategy": "sampling", "temperature": 1.0}
    write_seed(runs[0] / "sampled", "dft", None, range(9), decoding=sampled)
    assert read_variants([*runs, runs[0] / "sampled"])[0].seeds == (3, 12)


def test_a_missing_benchmark_of_one_seed_is_named(runs: list[Path], tmp_path: Path) -> None:
    path = runs[-1] / "results.json"
    document = json.loads(path.read_text())
    second_result = {**document["results"][0], "benchmark": "other"}
    path.write_text(json.dumps({**document, "results": [*document["results"], second_result]}))
    text = report(runs, tmp_path / "out")
    assert "other (chat), dft: not run with seeds 0, 1." in text


def test_an_unscored_seed_keeps_the_interval_of_the_others(tmp_path: Path) -> None:
    runs = write_seeds(tmp_path, {"dft": {0: range(8), 1: range(8)}})
    scores: dict[str, float | None] = {f"q{n}": None for n in range(N)}
    runs.append(write_run(tmp_path / "seed2", "dft", {"toy": scores}, sha=None))
    text = report(runs, tmp_path / "out")
    assert "| toy (chat) | dft | 40.0 %, 21.9 to 61.3 % (40/60) |" in text
    assert "| 0: 40.0 %, 1: 40.0 %, 2: unscored | 0.0 |" in text
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "toy (chat), dft, seed 2: 20 of 20 items unscored." in page.text


def test_runs_that_are_not_seeds_of_one_variant_are_refused(tmp_path: Path) -> None:
    first = write_seed(tmp_path / "a", "dft", 0, range(9))
    same_seed = write_seed(tmp_path / "b", "dft", 0, range(9))
    without_seed = write_seed(tmp_path / "c", "dft", None, range(9))
    longer = write_seed(tmp_path / "d", "dft", 1, range(9), decoding={"max_new_tokens": 9})
    other_evaluation_seed = write_seed(tmp_path / "e", "dft", 2, range(9), seed=2)
    with pytest.raises(UsageError, match=r"a and .*b are labelled 'dft', seed 0 and hold toy "):
        read_variants([first, same_seed])
    with pytest.raises(UsageError, match=r"a and .*c are labelled 'dft': give"):
        read_variants([first, without_seed])
    with pytest.raises(UsageError, match=r"differ in more than .* toy: max_new_tokens None and 9"):
        read_variants([first, longer])
    assert read_variants([first, other_evaluation_seed])[0].seeds == (0, 2)


def test_missing_runs_come_before_the_scores(runs: list[Path], tmp_path: Path) -> None:
    missing = [MissingRun(f"dft, seed 3: {HOSTILE}", "exit status 1", f"Killed\n{HOSTILE}")]
    text = report(runs, tmp_path / "out", missing=missing)
    assert text.index("## Missing") < text.index("exit status 1") < text.index("## Scores")
    assert f"Killed\n{HOSTILE}\n" in text
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.text.index("exit status 1") < page.text.index("Paired differences")
    assert HOSTILE in page.text
    assert page.tags.count("script") == 2


def test_a_report_of_missing_runs_only(tmp_path: Path) -> None:
    missing = [MissingRun("dft: training", "exit status 1")]
    pairs = [("dft", "sft")]
    text = report([], tmp_path / "out", missing=missing, pairs=pairs, against_paper=True)
    assert "**No run has results.**" in text
    assert "**dft: training**: exit status 1" in text


def test_reference_and_pairs_select_comparisons(runs: list[Path], tmp_path: Path) -> None:
    """Only these, DFT first; Holm's correction uses their number."""
    text = report(runs, tmp_path / "out", reference="sft")
    assert text.index("### dft against sft") < text.index("### base against sft")
    assert text.startswith("# Comparison of runs\n\n**Over 3 seeds, dft scores 20.0 points above")
    assert "dft against base" not in text
    assert "| interval mostly from | against sft (points) | p | p, corrected |" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| toy (chat) | dft | 65"))
    assert "| +20.0 (" in row
    text = report(runs, tmp_path / "out", pairs=[("dft", "base")])
    assert "### dft against base" in text
    assert "against sft" not in text
    text_of_both = report(runs, tmp_path / "out", reference="sft", pairs=[("dft", "base")])
    titles = [
        line for line in text_of_both.splitlines() if line.startswith("### ") and "against" in line
    ]
    assert titles == ["### dft against base", "### dft against sft", "### base against sft"]


def test_an_unknown_label_needs_missing_runs(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No run is labelled 'stf'\. The labels are: 'base', 's"):
        report(runs, tmp_path / "out", reference="stf")
    missing = [MissingRun("floor: training", "exit status 1")]
    pairs = [("floor", "sft"), ("dft", "sft")]
    text = report(runs, tmp_path / "out", pairs=pairs, missing=missing)
    assert "### dft against sft" in text


def test_seeds_may_have_different_items(tmp_path: Path) -> None:
    """The items of the two seeds overlap by half; they are paired within a seed."""
    folders = []
    for label, right in (("sft", 2), ("dft", 8)):
        for seed in (0, 1):
            names = [f"q{n}" for n in range(5 * seed, 5 * seed + 10)]
            scores = {name: float(number < right) for number, name in enumerate(names)}
            folders.append(write_run(tmp_path / label / f"seed{seed}", label, {"toy": scores}))
    (pair,) = compare_variants(read_variants(folders))
    (row,) = pair.comparisons
    assert row.result.effect is not None
    assert row.result.effect.estimate.by_seed == pytest.approx((0.6, 0.6))
    assert (row.result.n_paired, row.result.only_first) == (15, 0)


def test_curves_of_seeds_by_hand() -> None:
    """Mean, lowest and highest at common steps; the band ends with the shorter seed."""
    long, short = Points((1, 2, 3), (4.0, 2.0, 1.0)), Points((1, 2), (2.0, 1.0))
    assert _mean_and_band([long, short], smooth=False) == ([1, 2], [3.0, 1.5], [2.0, 1.0], [4, 2])


def test_pictures_have_one_line_per_variant(runs: list[Path]) -> None:
    for number, run in enumerate(runs[1:]):
        history = [{"step": n, "nll": 2.0 / n + number} for n in (1, 2, 3)]
        write_trainer_state(run / "trainer_state.json", [*history, {"step": 3, "eval_nll": 1.0}])
        write_probabilities(run)
    variants = read_variants(runs)
    assert learning_curves(variants).startswith(b"\x89PNG")
    assert token_probabilities(variants).startswith(b"\x89PNG")
    assert learning_curves(variants) != learning_curves(read_variants(runs[:-1]))


def test_completions_of_equal_scores_are_kept_once(runs: list[Path]) -> None:
    for run in runs:
        write_completions(run / "toy.completions.jsonl", {f"q{n}": f"{run} q{n}" for n in range(N)})
    data = browser_data(read_variants(runs))
    items = {item["id"]: item["answers"] for item in data["benchmarks"][0]["items"]}
    base, sft, dft = items["q8"]  # sft of seed 0 is wrong, of 1 and 2 right
    assert [answer["score"] for answer in sft] == [0.0, 1.0, 1.0]
    assert [answer["seed"] for answer in sft] == [0, 1, 2]
    assert ["text" in answer for answer in sft] == [True, True, False]
    assert ["text" in answer for answer in dft] == [True, False, False]
    assert "seed" not in base[0]
