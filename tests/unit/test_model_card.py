"""The model card, as the Hub reads it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from dft_eval.model_files import find_model, model_sha256
from dft_eval.results import ItemScore, ResultFile, merge_results, write_items
from dft_eval.training_file import TRAINING_FILE
from dft_factory.cli.app import app
from dft_factory.errors import ConfigError
from dft_factory.model_card import write_model_card
from tests.support.results import result

RECORD = {
    "schema_version": 1,
    "dft_factory": "0.1.0",
    "finetuning_type": "dft_lora",
    "token_weight": "floor:0.1",
    "system_prompt": None,
    "base_model": "Qwen/Qwen2.5-Coder-3B",
    "dataset": ["ultrafeedback_best"],
    "hyperparameters": {"learning_rate": 1e-5, "num_train_epochs": 1.0, "bf16": True, "seed": 3},
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / TRAINING_FILE).write_text(json.dumps(RECORD))
    return folder


def score(model: Path, folder: Path, passed: int, sha256: str | None = None) -> Path:
    """Results of 10 items, of which some pass."""
    fields = {"harness": "evalplus 0.3.1", "prompt_style": "completion", "seed": 7}
    fields |= {"score": passed / 10, "n_total": 10, "n_scored": 10}
    row = result("humaneval+", decoding={"strategy": "greedy"}, **fields)
    folder.mkdir(parents=True, exist_ok=True)
    items = [ItemScore(id=str(i), score=float(i < passed)) for i in range(10)]
    write_items(folder / row.items, items)
    sha256 = sha256 or model_sha256(find_model(str(model)))
    header = ResultFile(model=str(model), model_sha256=sha256, label="dft")
    merge_results(folder, header, [row])
    return folder


def test_training_scores_and_metadata(model: Path, tmp_path: Path) -> None:
    results = score(model, tmp_path / "results", 4)
    command = CliRunner().invoke(app, ["card", str(model), str(results)])
    assert command.stdout.strip() == str(model / "README.md"), command.output
    card = ModelCard.load(model / "README.md")
    assert card.data.tags == ["dft_lora"]
    assert card.data.base_model == "Qwen/Qwen2.5-Coder-3B"
    (entry,) = card.data.eval_results
    assert (entry.dataset_name, entry.metric_type) == ("humaneval+", "pass@1")
    assert entry.metric_value == 40.0
    # Wilson's interval of 4 of 10: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    z2 = 1.959963984540054**2
    centre, half = 0.4 + z2 / 20, math.sqrt(z2 * (0.024 + z2 / 400))
    low, high = ((centre + sign * half) / (1 + z2 / 10) for sign in (-1, 1))
    between = f"{100 * low:.1f} to {100 * high:.1f}"
    row = f"| humaneval+ | pass@1 | 40.0 % | {between} | 10 | evalplus 0.3.1 |"
    assert f"{row} completion | greedy | 7 |" in card.text
    fields = {"finetuning_type": "dft_lora", "token weight": "floor:0.1", "seed": 3}
    fields |= {"base model": "Qwen/Qwen2.5-Coder-3B", "data": "ultrafeedback_best"}
    for key, value in {**fields, "learning_rate": "1e-05"}.items():
        assert f"\n- {key}: {value}\n" in card.text


def test_an_update_keeps_the_rest_of_the_card(model: Path, tmp_path: Path) -> None:
    """Metadata and text of PEFT and of the user are kept; our part is replaced."""
    path = model / "README.md"
    header = "license: apache-2.0\ntags:\n- lora\nlibrary_name: peft\n"
    path.write_text(f"---\n{header}---\n\n# Mine\n\nMy words.\n")
    results = score(model, tmp_path / "results", 4)
    write_model_card(model, [results])
    path.write_text(path.read_text() + "\nMore of my words.\n")
    text = path.read_text()
    write_model_card(model, [results])
    assert path.read_text() == text
    write_model_card(model, [score(model, tmp_path / "results", 9)])
    card = ModelCard.load(path)
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "peft"
    assert card.data.tags == ["lora", "dft_lora"]
    assert [entry.metric_value for entry in card.data.eval_results] == [90.0]
    assert "# Mine\n\nMy words." in card.text
    assert "More of my words." in card.text
    assert "40.0 %" not in card.text
    assert card.text.count("## Scores") == 1


def test_results_of_other_weights_are_refused(model: Path, tmp_path: Path) -> None:
    results = score(model, tmp_path / "results", 4, sha256="0" * 64)
    with pytest.raises(ConfigError, match=r"Give the results of these weights"):
        write_model_card(model, [results])
    assert not (model / "README.md").exists()
    with pytest.raises(ConfigError, match="no such model folder"):
        write_model_card(tmp_path / "absent", [])


def test_a_model_without_scores_has_a_card(model: Path) -> None:
    card = ModelCard.load(write_model_card(model, []))
    assert card.data.eval_results is None
    assert "## Training" in card.text
    assert "## Scores" not in card.text


def rewrite(folder: Path, **fields: object) -> None:
    path = folder / "results.json"
    content = json.loads(path.read_text())
    content["results"][0].update(fields)
    path.write_text(json.dumps(content))


def test_a_partial_score_is_named_so_on_the_hub_too(model: Path, tmp_path: Path) -> None:
    results = score(model, tmp_path / "results", 4)
    rewrite(results, notes=["partial: 10 of 164"], n_total=12)
    card = ModelCard.load(write_model_card(model, [results]))
    assert "| 12 (partial: 10 of 164, 10 of 12 scored) |" in card.text
    (entry,) = card.data.eval_results
    assert entry.dataset_args["partial"] == "10 of 164, 10 of 12 scored"


def test_a_score_that_is_no_mean_of_items_has_no_interval_of_them(
    model: Path, tmp_path: Path
) -> None:
    """WeMath counts whole problems; a group of lm-eval may average tasks without their sizes."""
    results = score(model, tmp_path / "results", 4)
    rewrite(results, score=0.9)
    assert "| 90.0 % |  | 10 |" in write_model_card(model, [results]).read_text()
    problems = [ItemScore(id=str(i), score=float(i < 9)) for i in range(10)]
    (items,) = results.glob("*.items.jsonl")
    write_items(items.with_name(items.name.replace(".items.", ".problems.")), problems)
    # Wilson's of 9 of 10.
    assert "| 90.0 % | 59.6 to 98.2 | 10 |" in write_model_card(model, [results]).read_text()


@pytest.mark.parametrize("content", [b"---\nlicense: [mit\n---\n# Mine\n", b"\xff\xfe"])
def test_a_card_that_cannot_be_read_is_kept(model: Path, content: bytes) -> None:
    (model / "README.md").write_bytes(content)
    with pytest.raises(ConfigError, match=r"README\.md cannot be read: "):
        write_model_card(model, [])
    assert (model / "README.md").read_bytes() == content
