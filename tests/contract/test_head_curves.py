"""The loss made inside the head against LLaMA-Factory's own from full logits, over many steps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dft_factory.tiny import make_tiny
from tests.conftest import Bench
from tests.support.cli import Run, train

pytestmark = pytest.mark.cli

STEPS = 50
CASES = [
    ("text", "full", False),
    ("text", "full", True),
    ("text", "lora", False),
    ("vl", "full", False),
    ("vl", "lora", True),
]


@pytest.mark.parametrize(
    ("modality", "method", "tied"),
    CASES,
    ids=[f"{m}-{k}-{'tied' if t else 'untied'}" for m, k, t in CASES],
)
def test_fifty_steps_have_the_same_loss_curve(
    text_bench: Bench, vl_bench: Bench, tmp_path: Path, modality: str, method: str, tied: bool
) -> None:
    """50 steps in fp32 against ``use_dft_loss``: the loss agrees within 1e-5 at every step."""
    bench = {"text": text_bench, "vl": vl_bench}[modality]
    model = bench.model
    if tied:
        names = {"text": "qwen2.5-coder", "vl": "qwen2.5-vl"}
        model = make_tiny(names[modality], tmp_path / "model", tie_word_embeddings=True)

    def go(name: str) -> Run:
        ours = {"finetuning_type": "dft" if method == "full" else f"dft_{method}"}
        theirs = {"finetuning_type": method, "use_dft_loss": True}
        return train(
            bench.config(
                **(ours if name == "ours" else theirs),
                model_name_or_path=str(model),
                max_steps=STEPS,
                per_device_train_batch_size=2,
                learning_rate=1e-4,
            ),
            tmp_path / name,
        ).ok()

    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(go, ("ours", "theirs"))
    assert "materialising the full logits" not in ours.output
    found, expected = ([r["loss"] for r in run.log if "grad_norm" in r] for run in (ours, theirs))
    assert len(found) == len(expected) == STEPS
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(set(found)) == STEPS
