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

from dft_factory.errors import ConfigError
from dft_factory.estimate import measure, worker
from tests.conftest import Bench
from tests.contract.test_scores import write_task


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
    config.update(val_size=2, eval_strategy="epoch")
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


def simulated(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What the worker answers, in this process."""
    flags = {"on_gpu": False, "sharded": False, "zero": False, "plan": False, **changes}
    return worker.estimate({"values": config, "pictures": None, **flags})


def test_lora_with_pictures(vl_bench: Bench) -> None:
    """Gradients and AdamW's state are those of the adapters; a larger picture needs more."""
    config = vl_bench.config(finetuning_type="dft_lora", lora_rank=4, optim="adamw_torch")
    config.update(freeze_vision_tower=True, image_max_pixels=56 * 56)
    small = simulated(config)
    assert small["pictures"] == 1
    assert 0 < small["trained"] < small["frozen"] / 10
    assert small["largest"]["gradients"] == 4 * small["trained"]
    assert small["at_peak"]["optimizer"] >= 8 * small["trained"]
    # 256 patches of 14 x 14 pixels in place of 16.
    large = simulated({**config, "image_max_pixels": 224 * 224})
    assert large["largest"]["pictures"] > 8 * small["largest"]["pictures"]


def test_hours_know_the_data_set_and_sharding_the_layers(text_bench: Bench) -> None:
    """Eight examples; where sharded the model itself is in bf16 and no state is counted."""
    config = text_bench.config(bf16=True, optim="adamw_torch", per_device_train_batch_size=2)
    result = simulated(config, sharded=True, zero=True, plan=True)
    plan = result["plan"]
    assert (plan["examples"], plan["rows"], plan["max_steps"]) == (8, 2, 1)
    assert 10 < plan["mean_tokens"] < 200
    assert result["width"] == 2
    assert not any(result["at_peak"].get(kind) for kind in ("weights", "gradients", "optimizer"))
    assert result["at_peak"]["activations"] > 0
    assert result["trained"] == n_elements(text_bench.model)
    fsdp = simulated(config, sharded=True)
    assert fsdp["at_peak"]["activations"] > 0
    # Two layers, of which one is the largest, and the rest.
    assert result["trained"] == result["root"] + 2 * result["layer"]


def test_uncovered_trainings_are_refused(text_bench: Bench, vl_bench: Bench) -> None:
    config = text_bench.config(finetuning_type="dft_lora", optim="adafactor", use_unsloth_gc=True)
    with pytest.raises(ConfigError) as refusal:
        simulated(config)
    assert "use_unsloth_gc: True" in str(refusal.value)
    assert "optim: 'adafactor' (covered are adamw_torch, " in str(refusal.value)
    config = vl_bench.config(image_max_pixels=448 * 448, cutoff_len=128)
    with pytest.raises(ConfigError, match="cutoff_len: 128 is too short for 1 pictures"):
        simulated(config)


def evaluated(folder: Path) -> dict[str, Any]:
    """Settings of evaluation and scores during a training: they change no step."""
    task = str(write_task(folder))
    return {"eval_strategy": "epoch", "eval_dataset": "tiny_text", "score_task": task}


def test_a_measurement_has_a_rate_hours_and_a_peak(
    text_bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = text_bench.config(optim="adamw_torch", num_train_epochs=5, max_steps=None)
    path = recipe(tmp_path, config | evaluated(tmp_path))
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, path, "--measure", "--json") == 0
    assert sorted(tmp_path.iterdir()) == before
    result = json.loads(capsys.readouterr().out)
    duration = result["duration"]
    assert duration["basis"].startswith("8 examples x 5 epochs, ")
    assert duration["peak"] >= n_elements(text_bench.model) * 16
    assert duration["hours"] == pytest.approx(
        duration["tokens"] / duration["tokens_per_second"] / 3600
    )


def test_padding_is_no_token_of_the_rate(
    text_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All eight examples, of unlike lengths, in each of the two steps that count."""
    from llamafactory.train.sft import workflow

    monkeypatch.setattr(workflow, "load_model", workflow.load_model)  # put back afterwards
    config = text_bench.config(optim="adamw_torch", per_device_train_batch_size=8)
    config |= evaluated(tmp_path)
    mean = simulated(config, plan=True)["plan"]["mean_tokens"]
    assert measure.measure(config)["tokens"] == 2 * 8 * mean


def test_a_gpu_training_is_not_measured_on_a_cpu(
    text_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="--measure: torch sees no GPU"):
        measure.measure(text_bench.config(use_cpu=False))
