"""Devices and attention of a model of transformers: spread by accelerate, it completes alike."""

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
"""Those on the disk are read for each forward."""


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
        assert {each.device.type for each in model.parameters()} == {"meta", "cpu"}
        assert model.device.type == "meta"
        hooked = [each for each in model.modules() if hasattr(each, "_hf_hook")]
        assert hooked
        assert not any(getattr(each.forward, "__func__", None) is linear for each in hooked)


def test_a_spread_model_with_an_adapter(text_bench: Bench, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(text_bench.model, dtype=torch.float32)
    tuned = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    generator = torch.Generator().manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.5
    tuned.save_pretrained(tmp_path)
    files = find_model(str(tmp_path))
    whole = completions(*load_model(files))
    assert completions(*load_model(files, device_map="auto")) == whole
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
        done = hf_vision.complete_batch(*loaded, prompts, DECODING, pixels)
        rows.append([(row.completion, row.n_tokens) for row in done])
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
def test_a_model_is_spread_that_does_not_fit(
    weights: int, free: int, gpus: int, device_map: str | None
) -> None:
    assert map_for(weights, free, gpus) == device_map


def test_weights_are_measured_in_the_dtype_that_they_run_in(text_bench: Bench) -> None:
    import torch

    files = find_model(str(text_bench.model))
    model, _ = load_model(files)
    weights = {each.data_ptr(): each.numel() for each in model.parameters()}
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
    assert [
        flash_runs(dtype, gpu=gpu, installed=installed)
        for dtype, gpu, installed in (
            ("bfloat16", True, True),
            ("float16", True, True),
            ("float32", True, True),
            ("bfloat16", False, True),
            ("bfloat16", True, False),
        )
    ] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--device-map", "all"], "--device-map 'all' is unknown. Choose from: auto, balanced"),
        (["--device-map", "auto", "--backend", "vllm"], "for --backend hf: .*--tensor-parallel"),
        (["--device-map", "auto", "--gpus", "2"], "a whole model on each GPU"),
        (["--gpus", "2", "--shard", "1/2"], "leave --shard 1/2 out"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], says: str) -> None:
    command = ["nq", "--model", "m", "--out", "o"]
    check_evaluation([*command, *words[:2]] if words[1] == "auto" else command)
    with pytest.raises(UsageError, match=says):
        check_evaluation([*command, *words])
