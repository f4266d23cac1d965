"""docs/study.md: verdicts that follow from the scores, from results alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from dft_eval.results import (
    ItemScore,
    ResultFile,
    Training,
    merge_results,
    summarise,
    write_items,
)
from dft_eval.training_file import TRAINING_FILE
from tests.support.results import result

STUDY = Path(__file__).parents[2] / "configs" / "study"
MATCHED = {"match_entropy": {"decoding": "temperature 1"}}


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(STUDY))
    module = __import__("make_document")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(sys.modules["stored"], "STORE", tmp_path / "docs" / "study")
    (tmp_path / "docs").mkdir()
    yield module
    for name in ("make_document", "claims", "stored"):
        del sys.modules[name]


def write(
    folder: Path,
    label: str,
    right: int,
    seed: int | None = None,
    benchmark: str = "python-basics",
    **decoding: object,
) -> None:
    """Results of 60 problems, of which the first ``right`` are solved."""
    items = [ItemScore(id=str(i), score=float(i < right)) for i in range(60)]
    row = result(benchmark, **summarise(items), decoding=decoding, mean_entropy=0.25)
    write_items(folder / row.items, items)
    training = None if seed is None else Training(objective=label, seed=seed)
    header = ResultFile(
        model=str(folder / "model"), model_sha256=None, label=label, training=training
    )
    merge_results(folder, header, [row])


def train(folder: Path, label: str, right: int, seed: int, learning_rate: float) -> None:
    """A DFT training without evaluations, its recipe, and its results on the word problems."""
    write(folder, label, right, seed, "arithmetic", strategy="greedy")
    (folder / "model").mkdir()
    settings = {"learning_rate": learning_rate, "max_steps": 18, "num_processes": 1}
    settings |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    record = {"finetuning_type": "dft", "token_weight": "token", "hyperparameters": settings}
    (folder / "model" / TRAINING_FILE).write_text(json.dumps({**record, "system_prompt": None}))
    recipe = {"learning_rate": learning_rate, "seed": seed, "output_dir": str(folder)}
    (folder / "train.yaml").write_text(yaml.safe_dump(recipe))


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
    assert "| DFT scores higher than SFT at temperature 1 | 1 | 0 | 0 |" in text
    assert "| DFT scores higher than SFT under greedy decoding | 0 | 0 | 1 |" in text
    assert "**not run**: `dft-factory run study/lora`" in section(text, "With LoRA too")
    table = section(text, "demo")
    assert "| dft | 16.7% (" in table
    assert "| base at the entropy of dft |  | 65.0% (" in table
    assert "0.25 (T 0.40)" in table
    # The stored scores alone give the same document.
    monkeypatch.setattr(sys, "argv", ["make_document.py"])
    document.main()
    assert (tmp_path / "docs" / "study.md").read_text() == text


def test_seeds_run_later_are_added_and_collapse_is_counted(
    document: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def document_with(name: str, seed: int, right: int, learning_rate: float) -> str:
        run = tmp_path / name
        point = "dataset notation, learning_rate 5e-05"
        write(run / "base", "base", 30, None, "arithmetic", strategy="greedy")
        write(run / "sft", f"sft, {point}", 40, seed, "arithmetic", strategy="greedy")
        train(run / "dft", f"dft, {point}", right, seed, learning_rate)
        (run / "plan.json").write_text(json.dumps({"name": "study/first_words"}))
        monkeypatch.setattr(sys, "argv", ["make_document.py", str(run)])
        document.main()
        return (tmp_path / "docs" / "study.md").read_text()

    document_with("first", 0, 28, 5e-5)
    text = document_with("second", 1, 4, 5e-5)
    style = section(text, "DFT learns less than SFT of a style")
    assert "-40.0 points" in style  # (28 + 4) / 2 of 60 less 40
    assert "2 seeds, 60 problems" in style
    # Problems answered in prefix notation do not count for SmolLM2's own style.
    assert "dataset notation" not in section(text, "DFT scores higher than SFT under")
    assert "| at risk | 1 | 1 |" in text
    assert "| no record | 1 | 1 |" in text
    assert "-43.3 (" in text
    # Seeds of another recipe are dropped.
    text = document_with("third", 1, 30, 1e-5)
    assert "1 seed, 60 problems" in section(text, "DFT learns less than SFT of a style")
    assert "| no known risk | 0 | 1 |" in text
    assert "| at risk | 1" not in text
