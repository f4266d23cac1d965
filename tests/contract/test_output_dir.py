"""A training into the ``output_dir`` of an earlier LoRA run, through the stock CLI."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch  # noqa: F401  activates dft-factory, before anything here imports llamafactory
from huggingface_hub import ModelCard

from tests.conftest import Bench
from tests.support.cli import train

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


@pytest.mark.cli
def test_full_training_after_a_lora_run(text_bench: Bench, tmp_path: Path) -> None:
    """Refused while the adapter is there, which would be evaluated instead of the new weights.

    The card that remains of it names peft, under which transformers' card creation fails.
    """
    run = tmp_path / "run"
    train(text_bench.config(finetuning_type="dft_lora", max_steps=1), run).ok()
    assert ModelCard.load(run / "README.md").data.library_name == "peft"
    full = text_bench.config(finetuning_type="dft", max_steps=1, overwrite_output_dir=True)
    for name in ADAPTER:
        (run / name).rename(tmp_path / name)
    done = train(full, run).ok()
    card = ModelCard.load(run / "README.md")
    assert card.data.library_name == "transformers"
    assert "dft" in card.data.tags
    assert not {"lora", "dft_lora"} & set(card.data.tags)
    (tmp_path / ADAPTER[0]).rename(run / ADAPTER[0])
    done = train(full, run)
    assert done.status != 0
    assert f"output_dir: {str(run)!r} holds the adapter of an earlier run" in done.output
    assert "Traceback" not in done.output
