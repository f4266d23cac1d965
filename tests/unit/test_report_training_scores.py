"""Scores that trainings made of themselves (``scores.jsonl``), as the report shows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dft_eval.errors import UsageError
from dft_eval.report import build_report
from dft_eval.report.collect import read_variants
from dft_eval.report.runs import Variant
from dft_eval.report.training_scores import training_scores
from tests.support.figures import bars, lines_of, panels_of
from tests.support.reports import HOSTILE, Page, parse_markdown, report, write_run

N = 10


def line(step: int, right: int | None, **fields: Any) -> dict[str, Any]:
    """As ``dft_factory.patch.scores`` writes it: ``right`` of ten items; None for a failure."""
    line = {"schema_version": 1, "step": step, "progress": 0.5, "epoch": 1.0, "seconds": 2.0}
    if right is None:
        return {**line, "score": None, "problem": "OutOfMemoryError: no memory", "sandbox": None}
    items = [
        {"id": str(n), "score": float(n < right), "reason": "", "cluster": None, "completion": "x"}
        for n in range(N)
    ]
    result = {"benchmark": "sums", "metric": "exact_match", "score": right / N, "stderr": 0.1}
    result |= {"n_total": N, "n_scored": N, "breakdown": {}, "harness": "toy 1.0"}
    result |= {"prompt_style": "chat", "decoding": {"strategy": "greedy"}, "notes": ["partial: 10"]}
    return {**line, **result, "n_truncated": 0, "items": items, "problem": None, **fields}


def write_scores(folder: Path, *lines: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(one) + "\n" for one in lines)
    (folder / "scores.jsonl").write_text(text, encoding="utf-8")


def trained(root: Path, label: str, *lines: dict[str, Any], seed: int = 0) -> Path:
    """A run folder, its model's folder with the scores of its training."""
    model = root / "models" / f"{label}-{seed}"
    write_scores(model, *lines)
    return write_run(
        root / "runs" / f"{label}-{seed}",
        label,
        {"sums": {"a": 1.0, "b": 0.0}},
        model=str(model),
        sha=f"{label}{seed}",
        training={"seed": seed},
        decoding={"strategy": "greedy"},
    )


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """base; sft 1, 4, 5 of ten right at steps 0, 20, 40; dft 1, 7, 9."""
    base = write_run(
        tmp_path / "runs/base", "base", {"sums": {"a": 0.0, "b": 0.0}}, sha="base",
        decoding={"strategy": "greedy"},
    )  # fmt: skip
    sft = trained(tmp_path, "sft", line(0, 1), line(20, 4), line(40, 5))
    dft = trained(tmp_path, "dft", line(0, 1), line(20, 7), line(40, 9))
    return [base, sft, dft]


def test_both_formats_show_scores_intervals_and_the_number_of_items(
    runs: list[Path], tmp_path: Path
) -> None:
    """Wilson's interval of 7 of 10: 39.7 to 89.2 %."""
    paths = build_report(runs, tmp_path / "out")
    assert [path.name for path in paths.pictures] == ["scores_in_training.png"]
    text = paths.markdown.read_text(encoding="utf-8")
    section = text[text.index("### Scores during training") : text.index("## Token prob")]
    assert text.index("## Learning curves") < text.index("### Scores during training")
    assert "![Score during training against the optimizer step](scores\\_in" not in section
    assert "](scores_in_training.png)" in section
    assert "small, fixed set" in section
    assert "sums (chat, greedy), exact\\_match, the same 10 items at every step:" in section
    assert "| step | sft | dft |" in section
    assert "| 0 | 10.0 %, 1.8 to 40.4 % | 10.0 %, 1.8 to 40.4 % |" in section
    assert "| 20 | 40.0 %, 16.8 to 68.7 % | 70.0 %, 39.7 to 89.2 % |" in section
    page = Page(paths.html.read_text(encoding="utf-8"))
    for part in (
        "Scores during training",
        "small, fixed set",
        "sums (chat, greedy), exact_match, the same 10 items at every step",
        "70.0 %, 39.7 to 89.2 %",
    ):
        assert part in page.text
    assert page.tags.count("img") == 1
    alone = report(runs[:1], tmp_path / "out")
    assert "Scores during training" not in alone
    assert not (tmp_path / "out/scores_in_training.png").exists()


def test_the_picture_draws_each_score_with_its_interval_and_not_the_base(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's score is one of other items, and step 0 is the base."""
    (panel,) = panels_of(lambda: build_report(runs, tmp_path / "out"), monkeypatch)
    assert panel.get_title(loc="left") == "sums (chat, greedy), 10 items"
    drawn = [(list(line.get_ydata()), len(set(line.get_xdata()))) for line in lines_of(panel)]
    assert drawn == [([0.1, 0.4, 0.5], 3), ([0.1, 0.7, 0.9], 3)]
    assert len(bars(panel)) == 6
    heights = sorted((round(low, 3), round(high, 3)) for _, low, high in bars(panel))
    assert (0.397, 0.892) in heights


def test_seeds_are_pooled(tmp_path: Path) -> None:
    """The mean over seeds, (6 + 8) / 2 of ten items; step 40 was scored in one seed only."""
    runs = [
        trained(tmp_path, "dft", line(0, 1), line(20, 6), seed=0),
        trained(tmp_path, "dft", line(0, 3), line(20, 8), line(40, 9), seed=1),
    ]
    text = report(runs, tmp_path / "out")
    assert "| 20 | 70.0 %, " in text
    assert "| 40 | 90.0 %, " in text
    assert "dft: steps without a score of every seed: 40." in text


def variant(folder: Path) -> Variant:
    (variant,) = read_variants([folder])
    return variant


def test_a_checkpoint_has_the_scores_until_its_step(tmp_path: Path) -> None:
    run = trained(tmp_path, "dft", line(0, 1), line(20, 7), line(40, 9))
    (tmp_path / "models/dft-0/checkpoint-20").mkdir()
    folder = tmp_path / "at20"
    write_run(folder, "dft at step 20", {}, model=str(tmp_path / "models/dft-0/checkpoint-20"))
    steps = [list(variant(each).runs[0].training_scores.results) for each in (run, folder)]
    assert steps == [[0, 20, 40], [0, 20]]


def test_a_failed_scoring_is_named_and_is_no_zero(tmp_path: Path) -> None:
    run = trained(tmp_path, "dft", line(0, 1), line(20, None), line(40, 9))
    text = report([run], tmp_path / "out")
    assert "dft: no score at step 20 (OutOfMemoryError: no memory)." in text
    assert "| 20 |" not in text
    (scores,) = training_scores([variant(run)]).tables
    assert [row[0] for row in scores[1].rows] == ["0", "40"]
    failed = trained(tmp_path, "sft", line(0, None), line(20, None))
    paths = build_report([failed], tmp_path / "out")
    assert paths.pictures == ()
    text = paths.markdown.read_text(encoding="utf-8")
    assert "sft: no score at steps 0, 20 (OutOfMemoryError: no memory)." in text


def test_trainings_scored_on_different_items_are_named(tmp_path: Path) -> None:
    less = line(0, 1)
    less |= {"items": less["items"][:5], "n_total": 5, "n_scored": 5, "score": 0.2}
    runs = [trained(tmp_path, "sft", less), trained(tmp_path, "dft", line(0, 1))]
    text = report(runs, tmp_path / "out")
    assert "sums (chat, greedy): not scored on the same items: sft 5, dft 10." in text
    assert "exact\\_match, 5 to 10 items:" in text


def test_a_line_that_a_kill_cut_short_does_not_count(tmp_path: Path) -> None:
    run = trained(tmp_path, "dft", line(0, 1), line(20, 7))
    path = tmp_path / "models/dft-0/scores.jsonl"
    path.write_text(path.read_text()[:-40])
    assert list(variant(run).runs[0].training_scores.results) == [0]


def test_malformed_lines_are_refused_by_number(tmp_path: Path) -> None:
    run = trained(tmp_path, "dft", line(0, 1), line(20, 7, score=7.0))
    with pytest.raises(
        UsageError, match=r"(?s)models/dft-0/scores.jsonl, line 2 is malformed: .*score"
    ):
        variant(run)
    write_scores(tmp_path / "models/dft-0", {"schema_version": 1, "score": 0.5})
    with pytest.raises(UsageError, match=r"(?s)scores.jsonl, line 1 is malformed: .*step"):
        variant(run)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    hostile = [line(0, 1, benchmark=HOSTILE), {**line(20, None), "problem": HOSTILE}]
    run = trained(tmp_path, "dft", *hostile)
    paths = build_report([run], tmp_path / "out")
    page = Page(paths.html.read_text(encoding="utf-8"))
    assert page.tags.count("script") == 2  # the data and ours
    assert page.tags.count("img") == 1
    assert parse_markdown(paths.markdown.read_text(encoding="utf-8"))[2].isdisjoint(
        {"html_block", "html_inline"}
    )


def test_scores_copied_beside_the_results_count(tmp_path: Path) -> None:
    run = trained(tmp_path, "dft", line(0, 1), line(20, 7))
    shutil.move(tmp_path / "models/dft-0/scores.jsonl", run / "scores.jsonl")
    assert list(variant(run).runs[0].training_scores.results) == [0, 20]
