"""FSDP2 on two CPU processes: the loss inside the head of a sharded model, and resuming."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Bench
from tests.support.cli import Run, free_port, train

ACCELERATE = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "FSDP",
    "fsdp_config": {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_reshard_after_forward": True,
        "fsdp_state_dict_type": "FULL_STATE_DICT",
        "fsdp_cpu_ram_efficient_loading": False,
    },
    "machine_rank": 0,
    "main_process_ip": "127.0.0.1",
    "mixed_precision": "no",
    "num_machines": 1,
    "num_processes": 2,
    "use_cpu": True,
}


def losses(run: Run) -> list[tuple[float, float]]:
    return [(row["loss"], row["nll"]) for row in run.log if "grad_norm" in row]


def train_sharded(config: dict[str, Any], folder: Path) -> Run:
    """The recipe on two processes under FSDP2."""
    spec = importlib.util.find_spec("llamafactory.launcher")
    assert spec is not None
    assert spec.origin is not None
    layers = "Qwen2DecoderLayer"
    if config["template"] == "qwen2_vl":
        layers = "Qwen2_5_VLDecoderLayer,Qwen2_5_VLVisionBlock"
    fsdp = {**ACCELERATE["fsdp_config"], "fsdp_transformer_layer_cls_to_wrap": layers}  # type: ignore[dict-item]
    launch = folder.with_suffix(".accelerate.yaml")
    launch.write_text(
        yaml.safe_dump({**ACCELERATE, "fsdp_config": fsdp, "main_process_port": free_port()})
    )
    return train(
        config,
        folder,
        command=("accelerate", "launch", "--config_file", str(launch), spec.origin),
        environment={"RECORD_GRADIENTS": "", "RECORD_FSDP_ON_CPU": "1"},
        fresh=True,
    )


def test_same_curve_as_one_process(text_bench: Bench, tmp_path: Path) -> None:
    """Steps 2 to 5 show the gradients of the steps before: at lr 1e-2 their losses agree."""
    steps = {"max_steps": 5, "learning_rate": 1e-2, "optim": "sgd"}
    one = train(text_bench.config(**steps), tmp_path / "one").ok()
    two = train_sharded(
        text_bench.config(**steps, per_device_train_batch_size=2), tmp_path / "two"
    ).ok()
    assert "full logits" not in two.output
    assert len(losses(one)) == 5
    for found, expected in zip(losses(two), losses(one), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    assert losses(one)[0] != losses(one)[-1]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("modality", ["text", "vl"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    modality: str, method: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bench: Bench = request.getfixturevalue(f"{modality}_bench")
    config = bench.config(
        finetuning_type=f"dft_{method}",
        max_steps=4,
        learning_rate=1e-2,
        per_device_train_batch_size=2,
        save_strategy="steps",
        save_steps=2,
    )
    run = train_sharded(config, tmp_path / "run").ok()
    before = losses(run)
    assert len(before) == 4
    shutil.rmtree(run.folder / "checkpoint-4")
    resumed = train_sharded(config, tmp_path / "run").ok()
    assert "from checkpoint with epoch" in resumed.output
    for ours, theirs in zip(losses(resumed), before, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
