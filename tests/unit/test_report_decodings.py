"""The report of greedy and sampled scores of one benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dft_eval.errors import UsageError
from dft_eval.report import build_report
from dft_eval.report.collect import read_variants
from dft_eval.report.pairs import compare_variants
from tests.unit.test_report import write_completions, write_run

GREEDY = {"strategy": "greedy"}
SAMPLED = {"strategy": "sampling", "temperature": 1.0, "samples": 4}


def write_both(
    root: Path,
    label: str,
    greedy: Mapping[str, float | None],
    sampled: Mapping[str, float | None],
    **fields: Any,
) -> list[Path]:
    """``root/label`` and ``root/label/sampled``, as an experiment leaves them."""
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
        *write_both(tmp_path, "base", items(10), items(12, score=0.25)),
        *write_both(tmp_path, "dft", items(11), items(12)),
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
    assert differences == pytest.approx(
        {"toy (chat, greedy)": 1 / 20, "toy (chat, temperature 1)": 12 * 0.75 / 20}
    )


def test_one_evaluation_twice_or_another_model_is_refused(tmp_path: Path) -> None:
    greedy, sampled = write_both(tmp_path, "dft", items(3), items(3))
    again = write_run(tmp_path / "b", "dft", {"toy": items(4)}, sha=None, decoding=SAMPLED)
    other = write_run(
        tmp_path / "c", "dft", {"toy": items(4)}, sha=None, model="x", decoding=SAMPLED
    )
    with pytest.raises(UsageError, match=r"labelled 'dft' and hold toy \(chat, temperature 1\): "):
        read_variants([greedy, sampled, again])
    with pytest.raises(UsageError, match=r"are of different models, models/dft and x: give one"):
        read_variants([greedy, other])


def test_the_first_sample_of_an_item_is_shown(runs: list[Path], tmp_path: Path) -> None:
    texts = {f"q{n}#{k}": f"answer {k}" for n in range(20) for k in range(4)}
    write_completions(runs[3] / "toy.completions.jsonl", texts)
    text = build_report(runs, tmp_path / "out").markdown.read_text(encoding="utf-8")
    assert "without an item" not in text
    assert "**dft**: score 1 (first of 4 samples)\n\n```text\nanswer 0\n```" in text
    assert "answer 1" not in (tmp_path / "out/report.html").read_text(encoding="utf-8")
