"""The chunked head on real model classes: used, exact, released, and never silently wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dft_factory.losses.head import PROBE, HeadLoss, find_head, transform_of
from dft_factory.losses.token import TokenLoss, token_weighted_nll
from dft_factory.losses.weights import UNIT_WEIGHT, TokenWeight, parse_weight
from dft_factory.tiny import make_tiny
from tests.conftest import Bench
from tests.support.cli import free_port, relative_error, train

TOKEN = parse_weight("token")


def batch(vocabulary: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (3, 11), generator=generator)
    labels = ids.clone()
    labels[:, :4] = -100
    labels[1] = -100
    return {"input_ids": ids, "labels": labels}


def gradients(model: nn.Module, loss: TokenLoss) -> dict[str, Tensor]:
    model.zero_grad()
    loss.total.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def compare_losses(
    model: Any, vocabulary: int = 400, weight: TokenWeight = TOKEN, rel: float = 1e-9
) -> tuple[dict[str, Tensor], float]:
    """The loss of chunks equals that of full logits; its gradient, and the gradient's error."""
    data = batch(vocabulary)
    inputs = {"input_ids": data["input_ids"]}
    full = token_weighted_nll(model(**inputs).logits, data["labels"], weight)
    expected = gradients(model, full)
    head = find_head(model)
    assert head is not None
    head_loss = HeadLoss(head, transform_of(model.config))
    with head_loss.request(data["labels"], weight):
        logits = model(**inputs).logits
        assert logits.numel() == len(PROBE)
        assert head_loss.is_untouched(logits)
        chunked = head_loss.answer(logits)
    assert chunked is not None
    gradient = gradients(model, chunked)
    head_loss.release()
    assert model(**inputs).logits.shape[-1] == head.weight.shape[0]
    assert chunked.total.item() == pytest.approx(full.total.item(), rel=rel)
    if rel == 1e-9:
        torch.testing.assert_close(chunked.rows, full.rows)
    return gradient, relative_error(gradient, expected)


def models() -> dict[str, Any]:
    from transformers import (
        CohereConfig,
        CohereForCausalLM,
        Gemma2Config,
        Gemma2ForCausalLM,
        GraniteConfig,
        GraniteForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
    )

    small = {
        "vocab_size": 120,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "pad_token_id": 0,
    }
    return {
        "llama": (LlamaForCausalLM, LlamaConfig(**small)),
        "gemma2": (Gemma2ForCausalLM, Gemma2Config(**small, final_logit_softcapping=3.0)),
        "cohere": (CohereForCausalLM, CohereConfig(**small, logit_scale=0.25)),
        "granite": (GraniteForCausalLM, GraniteConfig(**small, logits_scaling=4.0)),
    }


@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere", "granite"])
@pytest.mark.parametrize("spec", ["token", "geometric_mean"])
def test_models_that_scale_or_cap_their_logits(name: str, spec: str) -> None:
    kind, config = models()[name]
    torch.manual_seed(0)
    model = kind(config).double().train()
    assert compare_losses(model, 120, parse_weight(spec))[1] <= 1e-9


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("peft", ["full", "lora", "modules_to_save"])
def test_tied_untied_and_lora(tied: bool, peft: str, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    path = make_tiny("qwen2.5-coder", tmp_path / "m", tie_word_embeddings=tied)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).train()
    if peft != "full":
        saved = ["lm_head"] if peft == "modules_to_save" else None
        lora = LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=saved)
        model = get_peft_model(model, lora)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.01
    gradient, error = compare_losses(model)
    assert error <= 1e-9
    assert any("lm_head" in name for name in gradient) == (peft != "lora" and not tied) or tied


def test_under_autocast_parameters_stay_fp32(text_bench: Bench) -> None:
    """LLaMA-Factory's bf16 training: fp32 weights under autocast. As exact as full logits."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(text_bench.model, dtype=torch.float32).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradient, error = compare_losses(model, rel=2e-2)
    assert {g.dtype for g in gradient.values()} == {torch.float32}
    assert error <= 3e-2


def test_an_unknown_change_of_the_logits_is_detected(text_bench: Bench) -> None:
    """A model that changes its logits after the head is detected."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(text_bench.model)
    head = find_head(model)
    assert head is not None
    head_loss = HeadLoss(head, transform_of(model.config))
    data = batch(400)
    with head_loss.request(data["labels"], TOKEN):
        logits = model(input_ids=data["input_ids"]).logits
    assert head_loss.is_untouched(logits)
    assert not head_loss.is_untouched(logits * 1.25)
    assert not head_loss.is_untouched(logits + 1)
    assert not head_loss.is_untouched(logits[..., :3])


@pytest.mark.parametrize("value", [1.0, float("nan"), float("inf")])
def test_a_loss_that_fp16_cannot_hold(value: float) -> None:
    """A loss above 65,504, infinite or NaN still uses the chunked head; its gradient is right."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(models()["llama"][1]).half()
    head = model.lm_head
    head.weight.data *= 1e5
    head.weight.data[0, 0] *= value
    ids = torch.randint(1, 120, (3, 11))
    head_loss = HeadLoss(head, transform_of(model.config))
    with head_loss.request(ids, UNIT_WEIGHT):
        logits = model(input_ids=ids).logits
        assert head_loss.is_untouched(logits)
        loss = head_loss.answer(logits)
    assert loss is not None
    assert logits.dtype == torch.float16
    assert bool(torch.isfinite(logits).all())
    head_loss.release()
    total = token_weighted_nll(model(input_ids=ids).logits, ids, UNIT_WEIGHT).total
    assert not total.item() < 65504
    assert bool(torch.isfinite(loss.total)) == bool(torch.isfinite(total)) == (value == 1.0)
    if value == 1.0:
        assert loss.total.item() == pytest.approx(total.item(), rel=1e-3)
        # Divided, or the gradients of the layers before the head would overflow in fp16.
        gradient = gradients(model, replace(loss, total=loss.total / 1e4))
        expected = gradients(model, replace(loss, total=total / 1e4))
        assert relative_error(gradient, expected) <= 1e-2


@pytest.mark.cli
def test_ranks_fall_back_together(text_bench: Bench, tmp_path: Path) -> None:
    """If rank 1 cannot use its head, both ranks use full logits from then on, with one warning.

    A rank that repeated its forward pass alone would wait for collectives of the other.
    """
    outputs = tmp_path / "outputs.txt"
    run = train(
        text_bench.config(max_steps=3, per_device_train_batch_size=2, ddp_timeout=60),
        tmp_path / "run",
        command=(
            *("torchrun", "--nproc_per_node=2", f"--master_port={free_port()}"),
            *("-m", "tests.support.scaled_logits", "train"),
        ),
        environment={"RECORD_HEAD_OUTPUTS": str(outputs), "RECORD_GRADIENTS": ""},
        fresh=True,
    ).ok()
    sizes = [int(line) for line in outputs.read_text().split()]
    assert sizes[:2] == [len(PROBE)] * 2
    assert len(sizes) == 2 + 2 * 3
    assert min(sizes[2:]) > len(PROBE)
    assert run.output.count("materialising the full logits") == 1


def test_unsupported_heads(text_bench: Bench) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(text_bench.model)
    assert find_head(nn.Linear(2, 2)) is None
    wrapped = get_peft_model(model, LoraConfig(target_modules=["lm_head"]))
    assert find_head(wrapped) is None


@pytest.mark.cli
def test_training_without_full_logits(text_bench: Bench, vl_bench: Bench, tmp_path: Path) -> None:
    """The head's module returns a few numbers in training and evaluation, full and LoRA.

    With a LoRA on the head itself the run goes on with full logits and a warning.
    """
    for bench in (text_bench, vl_bench):
        run = train(
            bench.config(
                finetuning_type="dft_lora",
                eval_dataset=bench.config()["dataset"],
                do_eval=True,
                per_device_eval_batch_size=3,
            ),
            tmp_path / bench.modality,
            environment={"RECORD_HEAD_OUTPUTS": str(tmp_path / f"{bench.modality}.txt")},
        ).ok()
        sizes = {int(x) for x in (tmp_path / f"{bench.modality}.txt").read_text().split()}
        assert sizes == {len(PROBE)}
        assert "full logits" not in run.output
    run = train(
        text_bench.config(finetuning_type="dft_lora", lora_target="q_proj,lm_head"),
        tmp_path / "head_lora",
    ).ok()
    assert run.output.count("materialising the full logits") == 1
    assert "nll" in run.log[0]


def test_ligers_forward_uses_the_chunked_head(tmp_path: Path) -> None:
    """The forward that ``enable_liger_kernel: true`` installs.

    Without labels, which transformers removes for a custom loss function, it calls the head like
    any model. Liger's other kernels need a GPU.
    """
    from liger_kernel.transformers import apply_liger_kernel_to_qwen2
    from transformers import AutoModelForCausalLM

    path = make_tiny("qwen2.5-coder", tmp_path / "m")
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).train()
    apply_liger_kernel_to_qwen2(rope=False, rms_norm=False, swiglu=False, model=model)
    assert "lce_forward" in model.forward.__name__
    assert compare_losses(model)[1] <= 1e-9
