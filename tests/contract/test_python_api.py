"""The code of docs/python-api.md, block by block, on a tiny model; needs no LLaMA-Factory.

scripts/test_trl.sh runs this file in an environment without LLaMA-Factory and with the newest TRL.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dft_factory.tiny import make_tiny

pytest.importorskip("trl")
BLOCKS = re.findall(
    r"```python\n(.*?)```",
    (Path(__file__).parents[2] / "docs" / "python-api.md").read_text("utf-8"),
    re.DOTALL,
)


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        TrainingArguments,
    )

    folder = make_tiny("qwen2.5-coder", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    texts = ["def add(a, b): return a + b", "def one(): return 1", "x = 3", "print('a')"]
    rows = [{"input_ids": ids, "labels": ids} for ids in tokenizer(texts)["input_ids"]]
    collator = DataCollatorForSeq2Seq(tokenizer)
    # SFTConfig's defaults ask for bf16, which not every CPU has.
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    names: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "batches": [[collator(rows[:2]), collator(rows[2:])]],
        "args": TrainingArguments(
            "out", max_steps=2, logging_steps=1, use_cpu=True, report_to="none", eval_strategy="no"
        ),
        "dataset": Dataset.from_list(rows),
        "collator": collator,
    }
    before = model.lm_head.weight.detach().clone()
    trainers = []
    for block in BLOCKS:
        code = block.replace(
            'SFTConfig(output_dir="out")',
            'SFTConfig(output_dir="out", max_steps=2, logging_steps=1, use_cpu=True, bf16=False, '
            'report_to="none", gradient_checkpointing=False)',
        )
        exec(compile(code, "docs/python-api.md", "exec"), names)
        if (trainer := names.pop("trainer", None)) is not None:
            if "SFTTrainer" not in block:
                trainer.train()
            trainers.append(trainer)
    assert len(trainers) == 3
    assert not torch.equal(before, model.lm_head.weight)
    for trainer, chunked in zip(trainers, (False, True, True), strict=True):
        log = trainer.state.log_history[0]
        assert log["loss"] > 0
        assert ("mean_token_prob" in log) is chunked
