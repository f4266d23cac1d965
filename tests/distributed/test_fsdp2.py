"""FSDP2 on two CPU processes against one: the loss made inside the head of a sharded model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

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
        "fsdp_transformer_layer_cls_to_wrap": "Qwen2DecoderLayer",
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


def test_same_curve_as_one_process(text_bench: Bench, tmp_path: Path) -> None:
    """Steps 2 to 5 show the gradients of the steps before: at lr 1e-2 their losses agree."""
    steps = {"max_steps": 5, "learning_rate": 1e-2, "optim": "sgd"}
    one = train(text_bench.config(**steps), tmp_path / "one").ok()
    spec = importlib.util.find_spec("llamafactory.launcher")
    assert spec is not None
    assert spec.origin is not None
    launch = tmp_path / "fsdp2.accelerate.yaml"
    launch.write_text(yaml.safe_dump({**ACCELERATE, "main_process_port": free_port()}))
    two = train(
        text_bench.config(**steps, per_device_train_batch_size=2),
        tmp_path / "two",
        command=("accelerate", "launch", "--config_file", str(launch), spec.origin),
        environment={"RECORD_GRADIENTS": ""},
        fresh=True,
    ).ok()
    assert "made from whole logits" not in two.output
    assert len(losses(one)) == 5
    for found, expected in zip(losses(two), losses(one), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    assert losses(one)[0] != losses(one)[-1]
