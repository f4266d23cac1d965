"""``dft-factory eval`` and ``report`` as a user types them, on a tiny checkpoint."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from dft_eval.results import read_results
from tests.conftest import Bench
from tests.support.cli import clean_environment, executable

pytestmark = pytest.mark.cli


def dft_factory(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [executable("dft-factory"), *words],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_score_and_compare(text_bench: Bench, tmp_path: Path) -> None:
    """A random model passes nothing; every figure in the file is one that the items bear out."""
    for label in ("base", "dft"):
        done = dft_factory(
            *("eval", "humaneval", "python-basics", "--model", str(text_bench.model)),
            *("--out", str(tmp_path / label), "--label", label, "--limit", "3"),
            *("--max-new-tokens", "8", "--prompt-style", "chat"),
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    written = json.loads((tmp_path / "base/results.json").read_text())
    assert written["schema_version"] == 1
    assert written["label"] == "base"
    assert [row["benchmark"] for row in written["results"]] == ["humaneval", "python-basics"]
    for row in written["results"]:
        assert (row["score"], row["n_total"], row["n_scored"]) == (0.0, 3, 3)
        assert row["notes"][0].startswith("partial: 3 of ")
        assert row["decoding"]["max_new_tokens"] == 8
        assert row["sandbox"] == "bubblewrap"
        assert any("does not protect from: " in note for note in row["notes"])
        items = (tmp_path / "base" / row["items"]).read_text().splitlines()
        assert len(items) == 3
    report = dft_factory(
        "report", str(tmp_path / "base"), str(tmp_path / "dft"), "--out", str(tmp_path)
    )
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "report.html").read_text()
    assert "identical weights" in page.lower() or "same weights" in page.lower()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("humanevil", "--model", "M"), 2, "'humanevil' is unknown. Choose from: humaneval"),
        (("humaneval", "--model", "/no/such"), 2, "there is no such folder"),
        (("humaneval", "--model", "M", "--limit", "0"), 2, "--limit 0"),
        (("humaneval", "--model", "M", "--prompt-style", "raw"), 2, "completion, chat"),
        (("humaneval", "--model", "M", "--data", "/no/such.jsonl"), 2, "no such file"),
        (("humaneval",), 2, "--model"),
    ],
)
def test_a_users_mistake_is_one_message(
    text_bench: Bench, tmp_path: Path, words: tuple[str, ...], status: int, message: str
) -> None:
    words = tuple(str(text_bench.model) if word == "M" else word for word in words)
    done = dft_factory("eval", *words, "--out", str(tmp_path / "out"))
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "results.json").exists()


def test_generate_and_score_are_commands(text_bench: Bench, tmp_path: Path) -> None:
    """Together they do what eval does; generate takes no option that it would ignore."""
    options = ("--limit", "2", "--max-new-tokens", "8", "--prompt-style", "chat")
    model = ("python-basics", "--model", str(text_bench.model), *options)
    for command, out in (("eval", "whole"), ("generate", "made")):
        done = dft_factory(command, *model, "--out", str(tmp_path / out))
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "made/results.json").exists()
    done = dft_factory("score", str(tmp_path / "made"))
    assert done.returncode == 0, done.stderr
    assert "python-basics (chat)  pass@1 0.0 %" in done.stdout
    whole, made = (tmp_path / out / "results.json" for out in ("whole", "made"))
    assert made.read_text() == whole.read_text()
    refused = dft_factory("generate", *model, "--out", str(tmp_path / "x"), "--unsafe-no-sandbox")
    assert refused.returncode == 2
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
            done = dft_factory(*line.split())
            assert done.returncode == 0, done.stderr
    (row,) = read_results(tmp_path / "runs/base").results
    assert (row.benchmark, row.n_total, row.n_scored) == ("arithmetic", 3, 3)
    assert "arithmetic" in (tmp_path / "report/report.md").read_text(encoding="utf-8")
