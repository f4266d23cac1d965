"""`dft-factory estimate` through LLaMA-Factory's own model code, on tiny checkpoints."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

from tests.conftest import Bench


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Exit status of ``dft-factory estimate words``, whose worker is a process of its own."""
    from dft_factory.cli import main

    monkeypatch.setattr(sys, "argv", ["dft-factory", "estimate", *map(str, words)])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


def recipe(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**config, "output_dir": "never"}))
    return path


def n_elements(model: Path) -> int:
    with safe_open(model / "model.safetensors", "pt") as file:
        return sum(file.get_tensor(key).numel() for key in file.keys())  # noqa: SIM118


def test_full_training_of_text_without_its_weights(
    text_bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """fp32: weights and gradients 4 bytes a parameter, AdamW 8; nothing on stdout but the JSON."""
    n = n_elements(text_bench.model)
    bare = shutil.copytree(text_bench.model, tmp_path / "model")
    (bare / "model.safetensors").unlink()
    config = text_bench.config(model_name_or_path=str(bare), optim="adamw_torch")
    assert run(monkeypatch, recipe(tmp_path, config), "--json", "cutoff_len=64") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["parameters"] == result["trained"] == n
    assert (result["device"], result["cutoff_len"], result["rows"]) == ("CPU", 64, 4)
    largest = result["largest"]
    buffers = 4 * 1024  # rotary frequencies
    assert 4 * n <= largest["weights"] <= 4 * n + buffers
    assert largest["gradients"] == 4 * n
    assert 8 * n <= largest["optimizer"] <= 8 * n + 4 * 100  # a step count each tensor
    assert result["total"] == sum(result["parts"].values())


def test_lora_with_pictures(
    vl_bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Gradients and AdamW's state are those of the adapters; a larger picture needs more."""
    config = vl_bench.config(finetuning_type="dft_lora", lora_rank=4, optim="adamw_torch")
    config.update(freeze_vision_tower=True, image_max_pixels=56 * 56)
    assert run(monkeypatch, recipe(tmp_path, config), "--json") == 0
    small = json.loads(capsys.readouterr().out)
    assert small["pictures"] == 1
    assert 0 < small["trained"] < small["parameters"] / 10
    assert small["largest"]["gradients"] == 4 * small["trained"]
    assert small["parts"]["optimizer"] >= 8 * small["trained"]
    assert run(monkeypatch, recipe(tmp_path, config), "--json", "image_max_pixels=50176") == 0
    large = json.loads(capsys.readouterr().out)
    # 64 times 196 (14 x 14) pixels in place of 16; the rest of the row shrinks as much.
    assert large["largest"]["pictures"] > 8 * small["largest"]["pictures"]


def test_what_a_simulated_step_does_not_stand_for_is_refused_by_name(
    text_bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = text_bench.config(finetuning_type="dft_lora", optim="adafactor")
    config["quantization_bit"] = 4
    assert run(monkeypatch, recipe(tmp_path, config)) == 2
    message = capsys.readouterr().err
    assert "quantization_bit: 4 (quantised weights (QLoRA))" in message
    assert "optim: 'adafactor' (covered are adamw_torch, adamw_torch_fused, sgd)" in message
