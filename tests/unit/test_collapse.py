"""The benchmark that holds advice and watch against what came of finished trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.collapse import confusion, outcomes, table
from dft_eval.errors import UsageError
from dft_eval.report.collect import read_run
from dft_eval.results import ItemScore, ResultFile, merge_results, write_items
from dft_eval.training_file import TRAINING_FILE
from dft_factory.patch.record import EVALUATIONS_FILE
from tests.support.results import result

N = 60


def evaluated(folder: Path, passed: int) -> Path:
    """Results of 60 items, the first of which pass."""
    row = result("python-basics", score=passed / N, n_total=N, n_scored=N)
    folder.mkdir(parents=True)
    items = [ItemScore(id=str(i), score=float(i < passed)) for i in range(N)]
    write_items(folder / row.items, items)
    header = ResultFile(model=str(folder / "model"), model_sha256=None, label=folder.name)
    merge_results(folder, header, [row])
    return folder


def trained(folder: Path, passed: int, entropy: float | None, **changes: Any) -> Path:
    """``entropy``: at the last evaluation, 1 at the first; None for no evaluation."""
    evaluated(folder, passed)
    (folder / "model").mkdir()
    settings = {"num_processes": 2, "learning_rate": 5e-5, "max_steps": -1, **changes}
    settings |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    record = {"finetuning_type": "dft", "token_weight": "token", "system_prompt": None}
    record |= {"hyperparameters": settings}
    (folder / "model" / TRAINING_FILE).write_text(json.dumps(record))
    if entropy is not None:
        lines = [
            json.dumps({"progress": x, "nll": 1.0, "mean_token_entropy": value, "answers": None})
            for x, value in ((0.0, 1.0), (0.6, entropy))
        ]
        (folder / "model" / EVALUATIONS_FILE).write_text("\n".join(lines))
    return folder


def test_outcome_advice_and_watch(tmp_path: Path) -> None:
    """24 of 60 before; 6 after is a collapse, 20 is not: 4 items lost are within the interval."""
    base = read_run(evaluated(tmp_path / "base", 24))
    folders = [
        trained(tmp_path / "far", 6, 0.4),
        trained(tmp_path / "near", 20, 0.8),
        trained(tmp_path / "gentle", 30, None, learning_rate=1e-5),
    ]
    rows = [row for folder in folders for row in outcomes(base, read_run(folder))]
    assert [row.collapsed for row in rows] == [True, False, False]
    assert [row.risk for row in rows] == [True, True, False]
    assert [row.warned for row in rows] == [True, False, None]
    assert [row.plan.batch for row in rows] == [8, 8, 8]
    assert "| 40.0 | 10.0 | -30.0 (" in table(rows)
    text = confusion("watch", [("warned", True), ("silent", False), ("warned", False)])
    assert "| warned | 1 | 1 |" in text
    assert "| silent | 0 | 1 |" in text


def test_a_missing_training_record_is_named(tmp_path: Path) -> None:
    base = read_run(evaluated(tmp_path / "base", 24))
    with pytest.raises(UsageError, match="base: no training record"):
        list(outcomes(base, base))
