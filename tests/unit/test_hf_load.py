"""Devices and attention of a transformers model: accelerate's placement changes no completion."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from dft_eval.benchmark import PixelRange
from dft_eval.errors import UsageError
from dft_eval.generation.hf_load import DeviceMap, attention, first_device, flash_runs, map_for
from dft_eval.generation.hf_prepare import linear
from dft_eval.generation.hf_text import complete_batch
from dft_eval.generation.run import Decoding, Prompt
from dft_eval.model_files import find_model, weights_bytes
from dft_eval.models import LocalModel, load_model
from dft_eval.vlm import hf_vision
from dft_factory.cli.evaluate import check_evaluation
from tests.conftest import Bench
from tests.support.generate import save_lora
from tests.support.vlm_tables import picture

GB = 10**9
DECODING = Decoding(max_new_tokens=8, batch_size=3)
PROMPTS = [Prompt(f"q{i}", "count " * (1 + 5 * i % 7), chat=True) for i in range(8)]
SPREAD: DeviceMap = {
    "model.embed_tokens": "disk",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}
"""Modules on the disk are read for each forward."""


def completions(model: Any, tokenizer: Any) -> list[tuple[str, int]]:
    rows = complete_batch(model, tokenizer, PROMPTS, DECODING)
    return [(row.completion, row.n_tokens) for row in rows]


@pytest.fixture(scope="module")
def expected(text_bench: Bench) -> list[tuple[str, int]]:
    return completions(*load_model(find_model(str(text_bench.model))))


@pytest.mark.parametrize("device_map", ["cpu", "auto", "sequential", SPREAD])
def test_a_spread_model_completes_alike(
    text_bench: Bench,
    expected: list[tuple[str, int]],
    device_map: DeviceMap,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = find_model(str(text_bench.model))
    model, tokenizer = load_model(files, device_map=device_map)
    assert completions(model, tokenizer) == expected
    assert first_device(model).type == "cpu"
    assert ("a part is on cpu and disk, which is slow" in capsys.readouterr().err) == (
        device_map is SPREAD
    )
    if device_map is SPREAD:
        assert {weight.device.type for weight in model.parameters()} == {"meta", "cpu"}
        assert model.device.type == "meta"
        hooked = [module for module in model.modules() if hasattr(module, "_hf_hook")]
        assert hooked
        assert not any(getattr(m.forward, "__func__", None) is linear for m in hooked)


def test_a_spread_model_with_an_adapter(text_bench: Bench, tmp_path: Path) -> None:
    save_lora(text_bench.model, tmp_path)
    files = find_model(str(tmp_path))
    expected_rows = completions(*load_model(files))
    assert completions(*load_model(files, device_map="auto")) == expected_rows
    with pytest.raises(UsageError, match=r"a part is on cpu and disk\. An adapter is not put on"):
        load_model(files, device_map=SPREAD)


def test_a_spread_vision_model_completes_alike(vl_bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "0.png"
    file.write_bytes(base64.b64decode(picture(0, (64, 48))))
    prompts = [
        Prompt("a", "How many circles?", chat=True, images=(str(file),)),
        Prompt("b", "What is one and one?", chat=True),
    ]
    spread: DeviceMap = {"model.visual": "disk", "model.language_model": "cpu", "lm_head": "disk"}
    rows = []
    for device_map in (None, spread):
        loaded = hf_vision.load(find_model(str(vl_bench.model)), "float32", device_map)
        pixels = PixelRange(56 * 56, 28 * 28 * 40)
        completed = hf_vision.complete_batch(*loaded, prompts, DECODING, pixels)
        rows.append([(row.completion, row.n_tokens) for row in completed])
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("weights", "free", "gpus", "device_map"),
    [
        (60 * GB, 80 * GB, 8, None),
        (79 * GB, 80 * GB, 8, "auto"),
        (140 * GB, 80 * GB, 2, "auto"),
        (140 * GB, 80 * GB, 1, None),
        (140 * GB, 0, 0, None),
    ],
)
def test_device_map_by_memory(weights: int, free: int, gpus: int, device_map: str | None) -> None:
    assert map_for(weights, free, gpus) == device_map


def test_weights_are_measured_in_the_dtype_of_the_run(text_bench: Bench) -> None:
    import torch

    files = find_model(str(text_bench.model))
    model, _ = load_model(files)
    weights = {p.data_ptr(): p.numel() for p in model.parameters()}
    assert model.dtype == torch.float32
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        assert weights_bytes(files, dtype) == pytest.approx(size * sum(weights.values()), rel=0.05)


def test_the_attention_that_runs_is_recorded(text_bench: Bench) -> None:
    subject = LocalModel(str(text_bench.model), "bfloat16", "auto")
    record = subject.record()
    assert record["device_map"] == "auto"
    assert record["attn_implementation"] == attention(subject.files, "bfloat16") == "sdpa"
    config = subject.load()[0].config
    assert "sdpa" in config._attn_implementation
    assert "device_map" not in LocalModel(str(text_bench.model)).record()
    for dtype, expected in (("bfloat16", True), ("float16", True), ("float32", False)):
        assert flash_runs(dtype, gpu=True, installed=True) == expected
    assert not flash_runs("bfloat16", gpu=False, installed=True)
    assert not flash_runs("bfloat16", gpu=True, installed=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device-map", "all"], "--device-map 'all' is unknown. Choose from: auto, balanced"),
        (["--device-map", "auto", "--backend", "vllm"], "for --backend hf: .*--tensor-parallel"),
        (["--device-map", "auto", "--gpus", "2"], "a whole model on each GPU"),
        (["--gpus", "2", "--shard", "1/2"], "leave --shard 1/2 out"),
    ],
)
def test_conflicting_options(options: list[str], message: str) -> None:
    command = ["nq", "--model", "m", "--out", "o"]
    check_evaluation([*command, *options[:2]] if options[1] == "auto" else command)
    with pytest.raises(UsageError, match=message):
        check_evaluation([*command, *options])
