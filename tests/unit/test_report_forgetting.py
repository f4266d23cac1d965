"""What a trained model gained and lost against the base."""

from __future__ import annotations

from pathlib import Path

from dft_eval.report import build_report
from dft_eval.report.collect import read_variants
from dft_eval.report.forgetting import forgetting_table
from tests.support.reports import write_run
from tests.unit.test_report_decodings import items


def _runs(root: Path, *benchmarks: str) -> list[Path]:
    scores = {"toy": (items(4), items(16)), "kept": (items(15), items(3)), "same": (items(9),) * 2}
    return [
        write_run(root / label, label, {name: scores[name][index] for name in benchmarks}, sha=None)
        for index, label in enumerate(("base", "dft"))
    ]


def test_every_benchmark_is_held_against_the_base(tmp_path: Path) -> None:
    """12 of 20 more, 12 fewer, and none: the interval of the last holds 0."""
    table = forgetting_table(read_variants(_runs(tmp_path, "toy", "kept", "same")))
    assert table is not None
    assert table.head == ("benchmark", "base", "dft minus base (points)")
    names, bases, changes = zip(*table.rows, strict=True)
    assert [name.partition(" ")[0] for name in names] == ["toy", "kept", "same"]
    assert bases[0].startswith("20.0 %")
    assert changes[0].startswith("+60.0 (")
    assert changes[0].endswith("), gained")
    assert changes[1].startswith("−60.0 (")
    assert changes[1].endswith("), lost")
    assert changes[2].startswith("0.0 (")
    assert changes[2].endswith(")")


def test_one_benchmark_or_no_base_has_no_table(tmp_path: Path) -> None:
    runs = _runs(tmp_path, "toy")
    assert forgetting_table(read_variants(runs)) is None
    two = _runs(tmp_path / "two", "toy", "kept")
    assert forgetting_table(read_variants(two[1:])) is None
    build_report(two, tmp_path / "report")
    for name in ("report.md", "report.html"):
        text = (tmp_path / "report" / name).read_text()
        assert text.count("Gained and lost") == 1
        assert "), lost" in text
