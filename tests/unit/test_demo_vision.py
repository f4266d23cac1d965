"""The multimodal demo's own arithmetic: chance, and the table that it prints."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from dft_eval.vlm.wemath import POINTS, Problem
from dft_factory.demo.vision import Score, chance, table, without_system_prompt


def test_chance_of_a_multiple_choice_question() -> None:
    found = chance("mathverse", 240)
    assert found.value == 0.25
    assert found.stderr == pytest.approx((0.25 * 0.75 / 240) ** 0.5)


def test_chance_of_wemath_is_that_of_its_own_score() -> None:
    """Every way in which four-option guesses at two and three steps can come out, counted."""
    mean = second = 0.0
    for steps in (2, 3):
        for guesses in itertools.product(range(4), repeat=steps + 1):
            right = [guess == 0 for guess in guesses]
            points = POINTS[Problem("", tuple(right[:-1]), right[-1]).kind(strict=True)]
            share = 0.25 ** (steps + 1) / 2
            mean, second = mean + points * share, second + points**2 * share
    found = chance("wemath", 68)
    assert found.value == pytest.approx(mean)
    assert found.stderr == pytest.approx(((second - mean**2) / 68) ** 0.5)


def test_table_has_a_row_each_and_says_unscored() -> None:
    cell = Score(0.25, 0.03)
    row = dict.fromkeys(("mathverse", "mathvision", "wemath", "wemath steps"), cell)
    lines = table({"chance": row, "sft": {**row, "wemath": Score(None, None)}}).splitlines()
    assert lines[1].split("  ")[0] == "chance"
    assert lines[1].count("25.0 % ± 3.0") == 4
    assert lines[2].count("unscored") == 1


def test_set_is_registered_again_without_its_system_prompt(tmp_path: Path) -> None:
    columns = {"messages": "messages", "system": "system", "images": "images"}
    entry = {"file_name": "wethink.jsonl", "columns": columns}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"wethink": entry}))
    without_system_prompt(tmp_path)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info["wethink"] == entry
    assert info["wethink_plain"] == {
        **entry,
        "columns": {"messages": "messages", "images": "images"},
    }
