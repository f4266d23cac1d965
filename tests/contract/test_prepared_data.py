"""A folder of ``data prepare`` through LLaMA-Factory's own loader."""

from __future__ import annotations

import json
import types
from pathlib import Path

from llamafactory.data.loader import _get_merged_dataset
from llamafactory.hparams import DataArguments, ModelArguments

from dft_factory.data.prepare import prepare

SOURCE = Path(__file__).parents[2] / "configs/demo/code_instructions.jsonl"


def test_llamafactory_loads_the_folder(tmp_path: Path) -> None:
    """Every instruction and answer comes back as one turn each, in order, without a system text."""
    out = tmp_path / "out"
    prepare("ultrafeedback", str(SOURCE), out, limit=20, seed=0)
    dataset = _get_merged_dataset(
        ["ultrafeedback"],
        ModelArguments(model_name_or_path="none", cache_dir=str(tmp_path / "cache")),
        DataArguments(dataset="ultrafeedback", dataset_dir=str(out)),
        types.SimpleNamespace(local_process_index=0, should_log=False, seed=0),
        "sft",
    )
    lines = (out / "ultrafeedback.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    expected = [(r["instruction"], r["output"]) for r in map(json.loads, lines)]
    assert len(expected) == 20
    assert [
        (prompt["content"], response["content"])
        for record in dataset
        for prompt, response in zip(record["_prompt"], record["_response"], strict=True)
    ] == expected
    assert {(r["_prompt"][0]["role"], r["_system"]) for r in dataset} == {("user", "")}
