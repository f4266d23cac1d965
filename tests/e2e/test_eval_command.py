"""``dft-factory eval`` and ``report`` as a user types them, on a tiny checkpoint."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from dft_eval.results import read_results
from tests.conftest import Bench
from tests.support.cli import executable, run_command

pytestmark = pytest.mark.cli


def dft_factory(*args: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    return run_command([executable("dft-factory"), *args], status=status)


def test_score_and_compare(text_bench: Bench, tmp_path: Path) -> None:
    """A random model passes nothing, and every figure in the file agrees with the items."""
    for label in ("base", "dft"):
        result = dft_factory(
            *("eval", "humaneval", "python-basics", "--model", text_bench.model),
            *("--out", tmp_path / label, "--label", label, "--limit", "3"),
            *("--max-new-tokens", "8", "--prompt-style", "chat"),
        )
        assert "Traceback" not in result.stderr
    results = json.loads((tmp_path / "base/results.json").read_text())
    assert results["schema_version"] == 1
    assert results["label"] == "base"
    assert [row["benchmark"] for row in results["results"]] == ["humaneval", "python-basics"]
    for row in results["results"]:
        assert (row["score"], row["n_total"], row["n_scored"]) == (0.0, 3, 3)
        assert row["notes"][0].startswith("partial: 3 of ")
        assert row["decoding"]["max_new_tokens"] == 8
        assert row["sandbox"] == "bubblewrap"
        assert any("does not protect from: " in note for note in row["notes"])
        items = (tmp_path / "base" / row["items"]).read_text().splitlines()
        assert len(items) == 3
    dft_factory("report", tmp_path / "base", tmp_path / "dft", "--out", tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "identical weights" in page.lower() or "same weights" in page.lower()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("humanevil --model M", "'humanevil' is unknown. Choose from: humaneval"),
        ("humaneval --model /no/such", "there is no such folder"),
        ("humaneval --model M --limit 0", "--limit 0"),
        ("humaneval --model M --prompt-style raw", "completion, chat"),
        ("humaneval --model M --data /no/such.jsonl", "no such file"),
        ("humaneval", "--model"),
    ],
)
def test_one_line_per_mistake(text_bench: Bench, tmp_path: Path, args: str, message: str) -> None:
    words = [text_bench.model if word == "M" else word for word in args.split()]
    stderr = dft_factory("eval", *words, "--out", tmp_path / "out", status=2).stderr
    assert message in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out" / "results.json").exists()


def test_generate_and_score_are_commands(text_bench: Bench, tmp_path: Path) -> None:
    """Together they equal eval; generate refuses options that it would ignore."""
    options = ("--limit", "2", "--max-new-tokens", "8", "--prompt-style", "chat")
    model = ("python-basics", "--model", text_bench.model, *options)
    for command in ("eval", "generate"):
        dft_factory(command, *model, "--out", tmp_path / command)
    assert not (tmp_path / "generate/results.json").exists()
    output = dft_factory("score", tmp_path / "generate").stdout
    assert "python-basics (chat)  pass@1 0.0 %" in output
    evaluated, scored = (tmp_path / command / "results.json" for command in ("eval", "generate"))
    assert scored.read_text() == evaluated.read_text()
    unsafe = (*model, "--out", tmp_path / "x", "--unsafe-no-sandbox")
    refused = dft_factory("generate", *unsafe, status=2)
    assert "--unsafe-no-sandbox is for dft-factory score" in refused.stderr


def test_the_example_of_own_tasks(
    text_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files and commands, from an empty directory, with a tiny model for SmolLM2."""
    text = (Path(__file__).parents[2] / "docs/own-tasks.md").read_text(encoding="utf-8")
    for name in ("arithmetic.yaml", "problems.jsonl"):
        block = re.search(rf"`{name}`[^\n]*:\n\n```\w*\n(.*?)```", text, re.DOTALL)
        assert block is not None
        (tmp_path / name).write_text(block[1])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").symlink_to(text_bench.model)
    commands = re.findall(r"^dft-factory (.+)$", text, re.MULTILINE)
    assert [line.split()[0] for line in commands] == ["validate", "smollm2", "eval", "report"]
    for line in commands:
        if not line.startswith("smollm2"):
            dft_factory(*line.split())
    (row,) = read_results(tmp_path / "runs/base").results
    assert (row.benchmark, row.n_total, row.n_scored) == ("arithmetic", 3, 3)
    assert "arithmetic" in (tmp_path / "report/report.md").read_text(encoding="utf-8")
