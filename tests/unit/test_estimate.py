"""Tracked sizes against values derived by hand and torch's allocator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from dft_factory.errors import ConfigError
from dft_factory.estimate.duration import duration_of
from dft_factory.estimate.layout import BUFFERS, Layout, Model, layout_of, per_gpu
from dft_factory.estimate.run import Estimate, estimate, render
from dft_factory.estimate.tracker import (
    ACTIVATIONS,
    GRADIENTS,
    LOGITS,
    OPTIMIZER,
    WEIGHTS,
    MemoryTracker,
)

ROWS, WIDTH, VOCABULARY = 512, 256, 2048


def make_step() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, VOCABULARY))
    return model, torch.optim.AdamW(model.parameters())


def run_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    logits = model(torch.randn(ROWS, WIDTH))
    labels = torch.zeros(ROWS, dtype=torch.int64)
    nn.functional.cross_entropy(logits, labels).backward()
    optimizer.step()
    optimizer.zero_grad()


def kind_of(tensor: torch.Tensor) -> str:
    return LOGITS if tensor.dim() == 2 and tensor.shape[1] == VOCABULARY else ACTIVATIONS


def test_states_are_those_of_adamw_in_fp32() -> None:
    """Weights and gradients 4 bytes a parameter, AdamW 8 and one step count a tensor."""
    n = (WIDTH + 1) * WIDTH + (WIDTH + 1) * VOCABULARY
    tracker = MemoryTracker(kind_of)
    with tracker:
        model, optimizer = make_step()
        tracker.label(WEIGHTS, model.parameters())
        assert tracker.live[WEIGHTS] == 4 * n
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(
                lambda p: tracker.label(GRADIENTS, [p.grad])
            )
        run_step(model, optimizer)
        states = [x for state in optimizer.state.values() for x in state.values()]
        tracker.label(OPTIMIZER, states)
    assert tracker.largest[GRADIENTS] == 4 * n
    assert tracker.live[GRADIENTS] == 0
    assert tracker.live[OPTIMIZER] == 8 * n + 4 * 4
    # The logits, their log-softmax and the gradient of both.
    assert 2 * 4 * ROWS * VOCABULARY <= tracker.largest[LOGITS] <= 4 * 4 * ROWS * VOCABULARY


def test_no_memory_is_allocated_and_integers_are_real() -> None:
    tracker = MemoryTracker(lambda tensor: ACTIVATIONS)
    with tracker:
        large = torch.zeros(2**40)
        assert tracker.live[ACTIVATIONS] == 4 * 2**40
        view = large[5:]
        assert tracker.live[ACTIVATIONS] == 4 * 2**40
        labels = torch.tensor([3, -100, 4])
        assert labels.ne(-100).nonzero().flatten().tolist() == [0, 2]
        del large, view
    assert tracker.live[ACTIVATIONS] < 1000
    assert tracker.peak >= 4 * 2**40


def allocated_by_torch(model: nn.Module, optimizer: torch.optim.Optimizer, out: Path) -> int:
    """Peak of torch's allocator during one step, above its start."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run_step(model, optimizer)
    profile.export_chrome_trace(str(out))
    events = [
        event["args"]
        for event in json.loads(out.read_text())["traceEvents"]
        if event["name"] == "[memory]" and event["args"]["Device Type"] == 0
    ]
    before = events[0]["Total Allocated"] - events[0]["Bytes"]
    return int(max(event["Total Allocated"] for event in events) - before)


def test_the_peak_of_a_step_is_what_torch_allocates(tmp_path: Path) -> None:
    real, real_optimizer = make_step()
    run_step(real, real_optimizer)  # makes the optimizer's state
    measured = allocated_by_torch(real, real_optimizer, tmp_path / "trace.json")
    tracker = MemoryTracker(kind_of, without=(WEIGHTS, OPTIMIZER))
    with tracker:
        model, optimizer = make_step()
        tracker.label(WEIGHTS, model.parameters())
        run_step(model, optimizer)
        tracker.label(OPTIMIZER, (x for s in optimizer.state.values() for x in s.values()))
        tracker.start()
        run_step(model, optimizer)
    assert tracker.peak == pytest.approx(measured, rel=0.15)


SEVEN = Model(frozen=0, trained=8000, root=2000, layer=1000, hidden=10, width=2)
WORKING = {ACTIVATIONS: 700, LOGITS: 300}


def test_zero_stages() -> None:
    """8,000 parameters on 4 GPUs: 2,000 on each; a bucket of 10 squared elements, twice in bf16."""
    parts = {
        stage: per_gpu(Layout("zero", 4, stage, bucket=None, live=3000), SEVEN, WORKING)
        for stage in (1, 2, 3)
    }
    assert {stage: part[WEIGHTS] for stage, part in parts.items()} == {1: 16000, 2: 16000, 3: 4000}
    assert {stage: part[GRADIENTS] for stage, part in parts.items()} == {1: 16000, 2: 4000, 3: 4000}
    assert all(part[OPTIMIZER] == 12 * 2000 for part in parts.values())
    assert all(part[ACTIVATIONS] == 700 for part in parts.values())
    # The fp32 gradients of the step, less the activations that are gone by then.
    step = 4 * 2000 - 1000
    assert parts[2][BUFFERS] == 2 * 2 * 100 + step
    assert parts[3][BUFFERS] == 2 * 2 * 100 + 2 * 3000 + step


def test_zero_offload_and_fsdp() -> None:
    """Offloaded parts use no GPU memory. FSDP keeps fp32 shards and gathers root and two layers."""
    offload = frozenset((OPTIMIZER, WEIGHTS))
    parts = per_gpu(Layout("zero", 4, 3, offload, bucket=50, live=3000), SEVEN, WORKING)
    assert (parts[WEIGHTS], parts[GRADIENTS], parts[OPTIMIZER]) == (0, 0, 0)
    assert parts[BUFFERS] == 2 * 2 * 50 + 2 * 3000
    parts = per_gpu(Layout("fsdp2", 4), SEVEN, WORKING)
    assert (parts[WEIGHTS], parts[GRADIENTS], parts[OPTIMIZER]) == (8000, 8000, 16000)
    assert parts[BUFFERS] == 2 * 2 * (2000 + 2 * 1000)


QUANTIZED = {"stage": 3, "zero_quantized_weights": True}


def deepspeed_file(tmp_path: Path, **zero: Any) -> str:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": zero}))
    return str(path)


def test_a_layout_is_read_from_the_files_of_a_training(tmp_path: Path) -> None:
    root = Path(__file__).parents[2] / "configs"
    values = {"deepspeed": str(root / "deepspeed" / "zero3.json")}
    assert layout_of(values, None, 8) == Layout("zero", 8, 3, bucket=None)
    assert layout_of({}, root / "accelerate" / "fsdp2.yaml", None) == Layout("fsdp2", 8)
    assert layout_of({}, None, None).kind == "single"
    assert layout_of({}, None, 2).kind == "ddp"
    offload = {"device": "cpu"}
    values = {"deepspeed": deepspeed_file(tmp_path, stage=2, offload_optimizer=offload)}
    layout = layout_of(values, None, 2)
    assert (layout.stage, layout.offload, layout.bucket) == (2, {OPTIMIZER}, 500_000_000)


@pytest.mark.parametrize(
    ("values", "accelerate", "message"),
    [
        ({"fsdp": "full_shard"}, None, "--accelerate"),
        ({"deepspeed": "no.json"}, None, "no.json"),
        ({"deepspeed": {"zero_optimization": {"stage": 4}}}, None, "Covered are 1, 2 and 3"),
        ({"deepspeed": {"zero_optimization": QUANTIZED}}, None, "zero_quantized_weights"),
        ({"deepspeed": {"zero_optimization": {"stage": 3}}}, "fsdp2.yaml", "deepspeed=null"),
    ],
)
def test_uncovered_layouts(values: dict[str, Any], accelerate: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layout_of(values, None if accelerate is None else Path(accelerate), 2)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"model_name_or_path": None}, {}, "model_name_or_path"),
        ({"use_cpu": True}, {"gpus": 2}, "--gpus 2"),
        ({}, {"gpus": 0}, "--gpus 0: give a number of 1 or more"),
        ({}, {"pictures": -1}, "--pictures -1: give a number of 0 or more"),
        ({}, {"tokens_per_second": 0.0}, "--tokens-per-second 0: give a rate above 0"),
        (
            {},
            {"tokens_per_second": 5.0, "measure": True},
            "--tokens-per-second 5 and --measure both give the rate. Leave one of",
        ),
        ({}, {"measure": True, "gpus": 2}, "--tokens-per-second X"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, {"gpus": 2}, "bf16: true"),
    ],
)
def test_unsupported_estimates(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    values = {"model_name_or_path": "some/model", "stage": "sft", "do_train": True, **changes}
    recipe = tmp_path / "train.yaml"
    recipe.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))
    with pytest.raises(ConfigError, match=message):
        estimate(recipe, **options)


def test_the_table_adds_up() -> None:
    parts = {WEIGHTS: 2 * 10**9, GRADIENTS: 10**9}
    result = Estimate(
        *("recipe.yaml", "no sharding", 1, "GPU", parts, 3 * 10**9),
        largest={WEIGHTS: 2 * 10**9, GRADIENTS: 15 * 10**8, LOGITS: 5 * 10**8},
        notes=("Full batches.",),
        outside=10**9,
        parameters=1000,
        trained=10,
        rows=4,
        cutoff_len=2048,
        pictures=0,
        duration=None,
    )
    text = render(result)
    assert [line.split() for line in text.splitlines()[2:6]] == [
        ["weights", "2.000", "2.000"],
        ["gradients", "1.000", "1.500"],
        ["logits", "0.000", "0.500"],
        ["total", "of", "torch's", "tensors", "3.000"],
    ]
    assert "CUDA context" in text
    assert text.endswith("- Full batches.")


PLAN = {"max_steps": 0, "epochs": 2.0, "rows": 4, "accumulated": 8, "cutoff_len": 2048}
PLAN |= {"examples": 1000, "mean_tokens": 360.0}


def test_hours_of_a_training() -> None:
    """1,000 x 2 x 360 = 720,000 tokens; at 100 tokens/s 7,200 s."""
    duration = duration_of(PLAN, 8, 100.0)
    assert (duration.tokens, duration.hours) == (720_000, 2.0)
    bounded = duration_of({**PLAN, "mean_tokens": None}, 8, 100.0)
    assert bounded.tokens == 2 * 1000 * 2048
    assert "upper bound" in bounded.basis
    # 10 steps x 4 rows x 8 accumulated x 2 GPUs = 640 examples.
    assert duration_of({**PLAN, "max_steps": 10}, 2, 1.0).tokens == 640 * 360
    with pytest.raises(ConfigError, match="max_steps=N"):
        duration_of({**PLAN, "examples": None}, 1, 1.0)
