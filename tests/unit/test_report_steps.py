"""Scores over steps: one line per training; the best step is chosen on other items than scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dft_eval.report import build_report
from dft_eval.report.collect import read_variants
from dft_eval.report.figures import side_by_side
from dft_eval.report.runs import benchmarks
from dft_eval.report.selection import choose, in_validation, select
from dft_eval.report.steps import find_series, rows_of, series_name, step_of
from dft_eval.results import ItemScore
from tests.support.figures import bars, lines_of, panels_of
from tests.support.reports import Page, report, write_run, write_trainer_state

ITEMS = [f"q{n}" for n in range(40)]
CHOOSE = [name for name in ITEMS if in_validation(ItemScore(id=name))]
"""The 20 items of the validation half."""
REST = [name for name in ITEMS if name not in CHOOSE]
"""The other 20."""
SAMPLED = {"strategy": "sampling", "temperature": 1.0}


def write_step(
    folder: Path,
    label: str,
    right: tuple[int, int],
    *,
    step: int | None = None,
    seed: int | None = None,
    sha: str | None = None,
    **fields: Any,
) -> Path:
    """A run with this many right items in the validation half and in the other half."""
    correct = {*CHOOSE[: right[0]], *REST[: right[1]]}
    scores = {name: float(name in correct) for name in ITEMS}
    training = {"step": step, "seed": seed}
    return write_run(folder, label, {"toy": scores}, sha=sha, training=training, **fields)


Right = dict[int, tuple[int, int]]


def write_line(root: Path, name: str, right: Right, **fields: Any) -> list[Path]:
    """The checkpoints of a training and its final weights, which equal the last checkpoint."""
    runs = [(f"at{step}", f"{name} at step {step}", step) for step in right]
    runs.append(("final", name, max(right)))
    return [
        write_step(root / name / folder, label, right[n], step=n, sha=f"{name}{n:064d}", **fields)
        for folder, label, n in runs
    ]


@pytest.fixture
def lines(tmp_path: Path) -> list[Path]:
    """By half: sft's best step is 20 (12 and 10 right), dft's 10 (17 and 17).

    Over all items dft is best at step 30, with 36 of 40.
    """
    base = write_step(tmp_path / "base", "base", (1, 2))
    sft = write_line(tmp_path, "sft", {10: (5, 5), 20: (12, 10), 30: (11, 19)}, seed=0)
    dft = write_line(tmp_path, "dft", {10: (17, 17), 20: (3, 20), 30: (16, 20)}, seed=0)
    return [base, *sft, *dft]


def test_halves_are_fixed_and_hold_whole_problems() -> None:
    """`printf q0 | sha256sum` begins with 34, even; that of q1 with c7, odd."""
    assert (len(CHOOSE), len(REST)) == (20, 20)
    assert in_validation(ItemScore(id="q0"))
    assert not in_validation(ItemScore(id="q1"))
    assert not any(in_validation(ItemScore(id=name, cluster="q1")) for name in ITEMS)


def test_checkpoints_of_a_training_are_one_line(lines: list[Path]) -> None:
    variants = read_variants(lines)
    series = find_series(variants)
    steps = {line.name: list(line.variants) for line in series}
    assert steps == {"sft": [10, 20, 30], "dft": [10, 20, 30]}
    # At step 30 the final weights replace their checkpoint.
    assert [line.row.label for line in series] == ["sft", "dft"]
    assert [row.label for row in rows_of(variants, series)] == ["base", "sft", "dft"]
    named = rows_of(variants, series, {"dft at step 10"})
    assert [row.label for row in named] == ["base", "sft", "dft at step 10", "dft"]


@pytest.mark.parametrize(
    ("label", "recorded", "name", "step"),
    [
        ("dft at step 40", None, "dft", 40),
        ("dft, learning_rate 1e-05 at step 6", 6, "dft, learning_rate 1e-05", 6),
        ("dft", 47, "dft", 47),
        ("dft", None, "dft", None),
        ("dft at step", None, "dft at step", None),
    ],
)
def test_steps_of_old_results_are_those_of_their_labels(
    tmp_path: Path, label: str, recorded: int | None, name: str, step: int | None
) -> None:
    (variant,) = read_variants([write_step(tmp_path / "run", label, (1, 1), step=recorded)])
    assert (series_name(label), step_of(variant)) == (name, step)


def test_final_weights_of_an_earlier_step_are_the_row(tmp_path: Path) -> None:
    """As with ``load_best_model_at_end``."""
    folders = write_line(tmp_path, "dft", {10: (1, 1), 20: (2, 2)})[:-1]
    folders.append(write_step(tmp_path / "final", "dft", (1, 1), step=10))
    variants = read_variants(folders)
    (line,) = find_series(variants)
    assert [variant.label for variant in line.variants.values()] == ["dft", "dft at step 20"]
    assert [row.label for row in rows_of(variants, [line])] == ["dft"]


def test_without_final_weights_the_last_checkpoint_is_the_row(tmp_path: Path) -> None:
    variants = read_variants(write_line(tmp_path, "dft", {10: (1, 1), 20: (2, 2)})[:-1])
    rows = rows_of(variants, find_series(variants))
    assert [row.label for row in rows] == ["dft at step 20"]
    single = variants[:1]
    assert find_series(single) == ()
    assert rows_of(single, ()) == single


def test_best_steps_are_chosen_and_scored_on_different_halves(lines: list[Path]) -> None:
    """By hand: dft 17/20 at step 10 against sft's 10/20 at step 20: 7 items won, none lost."""
    variants = read_variants(lines)
    series = find_series(variants)
    selection = select(series, variants)
    assert selection.table is not None
    sft, dft = selection.table.rows
    assert sft[2:5] == ("3, 10 to 30", "20", "60.0 % (20 items)")  # 12/20
    assert dft[2:5] == ("3, 10 to 30", "10", "85.0 % (20 items)")
    assert sft[5].startswith("50.0 %, ")
    for cell, start, end in ((dft[5], "85.0 %, ", "(20 items)"), (dft[6], "100.0 %", "(step 30)")):
        assert (cell.startswith(start), cell.endswith(end)) == (True, True), cell
    (pair,) = selection.pairs
    (row,) = pair.comparisons
    assert pair.title == "dft at its best step against sft at its best step"
    assert row.result.effect is not None
    assert (row.result.n_paired, row.result.effect.won, row.result.effect.lost) == (20, 7, 0)
    assert row.result.effect.difference == pytest.approx(7 / 20)
    assert row.result.effect.p == pytest.approx(2 / 2**7)
    (sentence,) = selection.sentences
    assert sentence.startswith("dft at its best step scores 35.0 points above sft at its best step")


def test_the_earlier_of_equal_steps_is_chosen(tmp_path: Path) -> None:
    variants = read_variants(write_line(tmp_path, "dft", {10: (3, 1), 20: (9, 2), 30: (9, 20)}))
    (line,) = find_series(variants)
    choice = choose(line, benchmarks(variants)[0])
    assert not isinstance(choice, str)
    assert choice.step == 20


def test_seeds_choose_a_common_step(tmp_path: Path) -> None:
    """On the validation half step 10 has (4 + 8)/2 = 6 right, step 20 has (9 + 1)/2 = 5."""
    rows = [(10, 0, (4, 10)), (10, 1, (8, 12)), (20, 0, (9, 3)), (20, 1, (1, 3)), (30, 0, (20, 20))]
    folders = [
        write_step(tmp_path / f"{step}-{seed}", f"dft at step {step}", right, step=step, seed=seed)
        for step, seed, right in rows
    ]
    variants = read_variants(folders)
    selection = select(find_series(variants), variants)
    assert selection.table is not None
    (row,) = selection.table.rows
    assert row[2:5] == ("2, 10 to 20", "10", "30.0 % (20 items)")
    assert row[5].startswith("55.0 %, ")
    (note,) = selection.notes
    assert note.endswith("not among the steps compared, for want of results or of a seed: 30.")


def test_a_half_without_a_score_chooses_nothing(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / str(step), f"dft at step {step}", {"toy": {CHOOSE[0]: 1.0}}, sha=None)
        for step in (10, 20)
    ]
    variants = read_variants(folders)
    selection = select(find_series(variants), variants)
    assert (selection.table, selection.pairs, selection.sentences) == (None, (), ())
    (note,) = selection.notes
    assert note == "toy (chat), dft: no best step, one half of its items has no score."


def test_only_requested_pairs_are_compared(lines: list[Path]) -> None:
    variants = read_variants(lines)
    series = find_series(variants)
    assert select(series, variants, [("dft", "base")]).pairs == ()
    (pair,) = select(series, variants, [("sft", "dft"), ("sft", "base")]).pairs
    assert pair.title == "sft at its best step against dft at its best step"


def test_a_report_has_a_picture_and_no_row_per_checkpoint(
    lines: list[Path], tmp_path: Path
) -> None:
    sampled = []
    for i, label, n, step in ((5, "dft at step 10", 9, 10), (8, "dft", 12, 30)):
        folder = lines[i].with_name(f"{lines[i].name}-sampled")
        fields: dict[str, Any] = {"sha": f"dft{step:064d}", "decoding": SAMPLED}
        sampled.append(write_step(folder, label, (n, n), step=step, seed=0, **fields))
    greedy = [write_greedy(folder) for folder in lines]
    paths = build_report([*greedy, *sampled], tmp_path / "out")
    text = paths.markdown.read_text(encoding="utf-8")
    assert "scores_over_steps.png" in [path.name for path in paths.pictures]
    assert "| step | sft | dft |" in text
    assert "| 10 | 25.0 %, " in text  # 10/40
    assert "toy (chat, temperature 1):\n\n| step | dft |" in text
    assert "### dft against sft" in text
    assert "### dft at step" not in text
    assert "Best steps, chosen on half of the items. On the rest: dft at its best step sc" in text
    assert "have the same weights" not in text
    assert "| dft at step 10 | models/dft at step 10 |" in text  # provenance names all
    page = Page(paths.html.read_text(encoding="utf-8"))
    assert "Scores over steps" in page.text
    data = json.loads(page.text[page.text.index('{"benchmarks"') :].splitlines()[0])
    assert data["runs"] == ["base", "sft", "dft"]
    named = report(greedy, tmp_path / "named", reference="dft at step 10")
    assert "### dft against dft at step 10" in named
    assert "Scores over steps" not in report([greedy[0], greedy[4]], tmp_path / "out")
    assert not (tmp_path / "out/scores_over_steps.png").exists()


def test_bars_of_equal_steps_stand_side_by_side(
    lines: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each bar at its marker; further from the other line's than both are wide, and than no step
    from its own."""
    (panel,) = panels_of(lambda: build_report(lines, tmp_path / "out"), monkeypatch)
    sft, dft = ([*map(float, line.get_xdata())] for line in lines_of(panel))
    assert sorted(place for place, _, _ in bars(panel)) == sorted([*sft, *dft])
    to_points = panel.transData.transform
    for left, right, step in zip(sft, dft, (10, 20, 30), strict=True):
        assert left < step < right
        assert right - left < 2.5  # the steps are 10 apart
        pixels = to_points((right, 0))[0] - to_points((left, 0))[0]
        assert pixels * 72 / panel.figure.dpi > 2 * 1.4


def test_bars_stay_nearer_to_their_step_than_to_the_next() -> None:
    """Four lines of 51 steps 2 apart: 0.5 · 2 / 4 from line to line, less than 1.2 % of 100."""
    steps = range(0, 101, 2)
    assert side_by_side([steps] * 4) == pytest.approx([-0.375, -0.125, 0.125, 0.375])
    assert side_by_side([[0, 500, 999, 1000], [0, 500, 1000]]) == pytest.approx([-6, 6])
    assert side_by_side([steps]) == [0.0]
    assert side_by_side([[0], [0]]) == pytest.approx([-0.05, 0.05])


def test_bars_of_evaluations_in_the_learning_curves_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two variants of two seeds, evaluated at the same steps."""
    folders = []
    for label in ("sft", "dft"):
        for seed in (0, 1):
            folder = write_step(tmp_path / f"{label}{seed}", label, (1, 1), step=20, seed=seed)
            history = [{"step": n, "eval_nll": 2.0 + seed} for n in (10, 20)]
            write_trainer_state(folder / "trainer_state.json", history)
            folders.append(folder)
    panel = panels_of(lambda: build_report(folders, tmp_path / "out"), monkeypatch)[0]
    places = [place for place, _, _ in bars(panel)]
    assert len(set(places)) == 4
    assert sorted(round(place, -1) for place in places) == [10, 10, 20, 20]


def write_greedy(folder: Path) -> Path:
    path = folder / "results.json"
    document = json.loads(path.read_text())
    document["results"][0]["decoding"] = {"strategy": "greedy"}
    path.write_text(json.dumps(document))
    return folder
