"""Held-out prompts, summaries of their answers, and JSON lines of a resumed run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from dft_factory.losses.token import IGNORE_INDEX
from dft_factory.patch.answers import N_PROMPTS, NEW_TOKENS, greedy, held_out, summarise
from dft_factory.patch.lines import JsonLines

I = IGNORE_INDEX  # noqa: E741


def test_prompts_references_lengths_and_repeats() -> None:
    rows = [
        {"input_ids": [1, 2, 3, 4, 5, 6, 7], "labels": [I, I, 3, 4, I, I, 7]},
        {"input_ids": [1, 2], "labels": [1, 2]},  # no prompt
        {"input_ids": [1, 2], "labels": [I, I]},  # no answer
        {"input_ids": [1, *range(100)], "labels": [I, *range(100)]},
    ]
    first, second = held_out(rows)
    assert (first.prompt, first.reference) == ((1, 2), (3, 4))
    assert (second.prompt, second.reference) == ((1,), tuple(range(NEW_TOKENS)))
    assert len(held_out(rows * N_PROMPTS)) == N_PROMPTS
    # Three of four answers are equal; the references have 2, 4, 2, 4 tokens and differ.
    references = [[1, 2], [1, 2, 3, 4], [3, 4], [3, 4, 5, 6]]
    summary = summarise([[1, 2], [1, 2], [1, 2], [3, 4, 5, 6]], references)
    assert (summary.n, summary.length, summary.repeated) == (4, 2.5, 0.75)
    assert (summary.reference_length, summary.reference_repeated) == (3.0, 0.0)


def test_answers_in_one_batch_are_those_of_each_prompt_alone(tmp_path: Path) -> None:
    """Prompts of different length, padded on the left; the end is removed; training continues.

    The sampling of the model's generation_config.json is not used.
    """
    from transformers import AutoModelForCausalLM

    from dft_factory.tiny import make_tiny

    model = AutoModelForCausalLM.from_pretrained(make_tiny("qwen2.5-coder", tmp_path / "model"))
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=3.0)
    prompts = [[5, 6, 7, 8, 9], [10, 11], [12]]
    single = [greedy(model, [prompt], [0])[0] for prompt in prompts]
    assert greedy(model, prompts, [0]) == single
    assert all(len(ids) == NEW_TOKENS for ids in single)
    end = single[0][3]
    assert greedy(model, [prompts[0]], [end]) == [single[0][: single[0].index(end)]]
    ids = torch.tensor([prompts[0] + single[0]])
    start = len(prompts[0])
    best = model(input_ids=ids).logits[0, start - 1 : -1].argmax(-1)
    assert best.tolist() == single[0]
    model(input_ids=ids, labels=ids).loss.backward()


def test_lines_after_the_step_of_a_resumed_run_go(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    lines = JsonLines(path, resumed_at=0)
    assert not path.exists()
    for step in (1, 2, 3):
        lines.append({"step": step, "nll": math.nan})
    with path.open("a") as stream:
        stream.write('{"step": 2, "nl')  # a kill
    resumed = JsonLines(path, resumed_at=2)
    assert [line["step"] for line in resumed.before] == [1, 2]
    resumed.append({"step": 3})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0] == {"schema_version": 1, "step": 1, "nll": None}
    assert JsonLines(path, resumed_at=0).before == []
    assert path.read_text() == ""


def test_full_disks_do_not_end_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = JsonLines(tmp_path / "folder" / "lines.jsonl", resumed_at=0)
    (tmp_path / "folder").write_text("a file where a folder should be")
    for step in (1, 2):
        lines.append({"step": step})
    assert caplog.text.count("is written no further") == 1
