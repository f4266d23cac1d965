"""The result schema, its arithmetic, and what a reader of broken files is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft_eval.errors import UsageError
from dft_eval.generation.run import Decoding
from dft_eval.results import (
    ItemScore,
    ResultFile,
    merge_results,
    read_items,
    read_results,
    summarise,
    write_items,
)
from dft_eval.statistics import mean_and_stderr
from tests.support.results import result


def header(model: str = "m", sha: str | None = "s") -> ResultFile:
    return ResultFile(model=model, model_sha256=sha, label="base")


def test_mean_and_standard_error_by_hand() -> None:
    """Scores 1, 0, 0, 1: mean 1/2, variance 4·(1/4)/3 = 1/3, error sqrt(1/3/4) = 0.288675."""
    mean, error = mean_and_stderr([1, 0, 0, 1])
    assert mean == 0.5
    assert error == pytest.approx(0.2886751346)
    assert mean_and_stderr([]) == (None, None)
    assert mean_and_stderr([1.0]) == (1.0, None)
    items = [ItemScore(id=str(i), score=s) for i, s in enumerate([1.0, None, 0.0, 1.0])]
    summary = summarise(items)
    assert (summary["n_total"], summary["n_scored"]) == (4, 3)
    assert summary["score"] == pytest.approx(2 / 3)


@given(st.lists(st.builds(ItemScore, id=st.text(), score=st.none(), reason=st.text()), max_size=5))
def test_items_keep_text(tmp_path_factory: pytest.TempPathFactory, items: list[ItemScore]) -> None:
    path = tmp_path_factory.mktemp("items") / "x.jsonl"
    write_items(path, items)
    assert read_items(path) == items


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.items.jsonl"
    path.write_text('{"id": "a", "score": 1.0}\n{"id": "b", "score": 2.0}\n')
    with pytest.raises(UsageError, match="line 2"):
        read_items(path)


def test_merging(tmp_path: Path) -> None:
    """A benchmark scored again replaces its row; another style and benchmark stand beside it."""
    merge_results(tmp_path, header(), [result(score=0.1)])
    rows = [result(prompt_style="completion"), result("python-basics")]
    merge_results(tmp_path, header(), rows)
    merged = merge_results(tmp_path, header(), [result(score=0.9)])
    assert read_results(tmp_path) == merged
    assert merged.results == [*rows, result(score=0.9)]
    keys = {"schema_version", "model", "model_sha256", "base_model", "label", "training"}
    assert set(json.loads((tmp_path / "results.json").read_text())) == {*keys, "results"}


@pytest.mark.parametrize("other", [header("n"), header(sha="t")])
def test_results_of_another_model_are_not_mixed(tmp_path: Path, other: ResultFile) -> None:
    merge_results(tmp_path, header(), [result()])
    with pytest.raises(UsageError, match="Use another --out"):
        merge_results(tmp_path, other, [result()])


def test_unreadable_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dft-factory eval"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text('{"schema_version": 2}')
    with pytest.raises(UsageError, match="schema"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("decoding", "name"),
    [
        (Decoding().record(), "greedy"),
        (Decoding(temperature=0.7, samples=4).record(), "temperature 0.7"),
        (
            Decoding(temperature=1.0, top_p=0.95, min_p=0.1).record(),
            "temperature 1, top-p 0.95, min-p 0.1",
        ),
        ({"strategy": "greedy", "temperature": 0.01, "top_k": 1}, "greedy"),
        ({}, ""),
    ],
)
def test_decodings_have_names(decoding: dict[str, Any], name: str) -> None:
    assert result(decoding=decoding).decoding_name == name
