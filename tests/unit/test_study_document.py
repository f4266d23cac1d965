"""docs/study.md: verdicts that follow from the scores, from results alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dft_eval.results import (
    BenchmarkResult,
    ItemScore,
    ResultFile,
    Training,
    merge_results,
    summarise,
    write_items,
)

STUDY = Path(__file__).parents[2] / "configs" / "study"
MATCHED = {"match_entropy": {"decoding": "temperature 1"}}


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(STUDY))
    module = __import__("make_document")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "STORE", tmp_path / "docs" / "study")
    (tmp_path / "docs").mkdir()
    yield module
    for name in ("make_document", "claims"):
        del sys.modules[name]


def write(
    folder: Path, label: str, right: int, seed: int | None = None, **decoding: object
) -> None:
    """Results of 60 problems, of which the first ``right`` are solved."""
    items = [ItemScore(id=str(i), score=float(i < right)) for i in range(60)]
    write_items(folder / "python-basics.chat.items.jsonl", items)
    result = BenchmarkResult(
        benchmark="python-basics",
        metric="pass@1",
        **summarise(items),
        items="python-basics.chat.items.jsonl",
        harness="ours",
        prompt_style="chat",
        decoding=decoding,
        mean_entropy=0.25,
    )
    training = None if seed is None else Training(objective=label, seed=seed)
    header = ResultFile(model=label, model_sha256=None, label=label, training=training)
    merge_results(folder, header, [result])


def section(text: str, title: str) -> str:
    """The lines below the heading that begins with ``title``."""
    return text.partition(f"### {title}")[2].partition("\n#")[0]


def test_verdicts(document: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs" / "demo"
    sampled = {"strategy": "sampling", "temperature": 1.0, "samples": 1}
    greedy = {"strategy": "greedy"}
    write(run / "base", "base", 30, **greedy)
    write(run / "base/sampled", "base", 10, **sampled)
    write(
        run / "matched",
        "base at the entropy of dft",
        39,
        **{**sampled, "temperature": 0.4},
        **MATCHED,
    )
    for seed in (0, 1):
        write(run / f"sft/{seed}", "sft", 32, seed, **greedy)
        write(run / f"dft/{seed}", "dft", 10, seed, **greedy)
        write(run / f"sft/{seed}/sampled", "sft", 12, seed, **sampled)
        write(run / f"dft/{seed}/sampled", "dft", 40, seed, **sampled)
    (run / "plan.json").write_text(json.dumps({"name": "demo"}))
    monkeypatch.setattr(sys, "argv", ["make_document.py", str(run)])
    document.main()
    text = (tmp_path / "docs" / "study.md").read_text()
    confirmed = section(text, "DFT scores higher than SFT at temperature 1")
    assert "`demo`: **confirmed here**" in confirmed
    assert "+46.7 points" in confirmed
    assert "2 seeds, 60 problems" in confirmed
    assert "**contradicted here**" in section(text, "DFT scores higher than SFT under greedy")
    assert "**contradicted here**" in section(text, "DFT scores higher than the base")
    unclear = section(text, "DFT's gain at temperature 1 is more than sharpening")
    assert "**not confirmed here**" in unclear
    assert "+1.7 points" in unclear
    assert "**not run**: `dft-factory run study/lora`" in section(text, "With LoRA too")
    table = section(text, "demo")
    assert "| dft | 16.7% (" in table
    assert "| base at the entropy of dft |  | 65.0% (" in table
    assert "0.25 (T 0.40)" in table
    # The stored scores alone give the same document.
    monkeypatch.setattr(sys, "argv", ["make_document.py"])
    document.main()
    assert (tmp_path / "docs" / "study.md").read_text() == text
