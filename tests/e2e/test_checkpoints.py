"""``dft-factory eval --checkpoints`` on what a real training leaves, and its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dft_eval.results import read_results
from dft_factory.cli.app import app
from tests.conftest import Bench
from tests.support.cli import train

pytestmark = pytest.mark.cli


@pytest.mark.parametrize("method", ["full", "lora"])
def test_checkpoints_are_one_line(text_bench: Bench, tmp_path: Path, method: str) -> None:
    from typer.testing import CliRunner

    objective = "dft" if method == "full" else "dft_lora"
    config = text_bench.config(
        finetuning_type=objective, max_steps=3, save_strategy="steps", save_steps=1
    )
    run = train(config, tmp_path / "run").ok().folder
    rows = [{"question": f"circle {n}", "answer": ["circle"]} for n in range(6)]
    data = tmp_path / "nq.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    words = ("--checkpoints", run, "--every", 2, "--out", out, "--label", "dft", "--data", data)
    done = CliRunner().invoke(app, ["eval", "nq", *map(str, words), "--max-new-tokens", "2"])
    assert done.exit_code == 0, done.output
    places = [out / "checkpoint-2", out / "checkpoint-3", out]
    assert sorted(path.parent for path in out.rglob("results.json")) == sorted(places)
    results = [read_results(place) for place in places]
    assert [each.label for each in results] == ["dft at step 2", "dft at step 3", "dft"]
    for each, step in zip(results, (2, 3, 3), strict=True):
        assert each.training is not None
        assert (each.training.objective, each.training.method) == ("dft", method)
        assert each.training.step == step
    shas = [each.model_sha256 for each in results]
    assert shas[0] != shas[1] == shas[2]
    done = CliRunner().invoke(app, ["report", *map(str, places), "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert "nq (chat, greedy):\n\n| step | dft |\n| --- | --- |\n| 2 | " in text
    assert "| nq (chat, greedy) | dft | 2, 2 to 3 | " in text
