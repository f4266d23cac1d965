"""The callback that scores during a training: what it leaves as it was, and what a failure does."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from dft_eval.errors import UsageError
from dft_eval.in_memory import InMemory, text_benchmark
from dft_factory.patch.scores import FILE_NAME, ScoreCallback, undisturbed
from dft_factory.tiny import make_tiny


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = make_tiny("qwen2.5-coder", tmp_path_factory.mktemp("model") / "tiny")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def items(tmp_path: Path) -> InMemory:
    (tmp_path / "rows.jsonl").write_text('{"q": "1 + 1", "a": "2"}\n{"q": "2 + 2", "a": "4"}\n')
    task = {"data": "rows.jsonl", "prompt": "{q}", "metric": "contains", "answer": "a"}
    path = tmp_path / "sums.yaml"
    path.write_text(json.dumps({**task, "max_new_tokens": 4}))
    return InMemory(text_benchmark(str(path)), str(tmp_path), limit=50, batch_size=8)


def drawn() -> list[Any]:
    return [random.random(), float(np.random.rand()), torch.rand(2).tolist()]


def test_modes_and_random_states_are_as_before(loaded: tuple[Any, Any]) -> None:
    """One module was in evaluation mode before, as a frozen part may be."""
    model = loaded[0].train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = drawn()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    with undisturbed(model):
        assert not any(module.training for module in model.modules())
        assert drawn() == expected
    assert [module.training for module in model.modules()] == modes
    assert drawn() == expected


def test_the_same_after_an_error(loaded: tuple[Any, Any]) -> None:
    model = loaded[0].train()
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    with pytest.raises(KeyError), undisturbed(model):
        {}[torch.rand(5)]
    assert torch.rand(2).tolist() == expected
    assert all(module.training for module in model.modules())


def test_a_failure_ends_neither_the_training_nor_later_scores(
    loaded: tuple[Any, Any], items: InMemory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A forward that fails while ``fails`` holds, as one without memory does."""
    model, tokenizer = loaded
    logs: list[dict[str, float]] = []
    callback = ScoreCallback("sums", items, 2, tmp_path, logs.append, tokenizer)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    state, control = TrainerState(max_steps=8), TrainerControl(should_log=True)
    fails = True

    def forward(*_: Any) -> None:
        if fails:
            raise torch.OutOfMemoryError("no memory left")

    hook = model.register_forward_pre_hook(forward)
    try:
        with caplog.at_level(logging.INFO):
            callback.on_train_begin(args, state, control, model=model)
            for step in (1, 2, 3, 4):
                state.global_step = step
                callback.on_step_end(args, state, control, model=model)
            fails = False
            for step in (5, 6, 7, 8):
                state.global_step = step
                callback.on_step_end(args, state, control, model=model)
                callback.on_evaluate(args, state, control, model=model)
            callback.on_train_end(args, state, control, model=model)
    finally:
        hook.remove()
    lines = [json.loads(line) for line in (tmp_path / FILE_NAME).read_text().splitlines()]
    assert [(line["step"], line["score"] is None) for line in lines] == [
        (0, True),
        (2, True),
        (4, True),
        (6, False),
        (8, False),
    ]
    assert lines[0]["problem"] == "OutOfMemoryError: no memory left"
    assert logs == [{"score_sums": line["score"]} for line in lines[3:]]
    assert control.should_log
    assert caplog.text.count("step 0: no score_sums: OutOfMemoryError") == 1
    assert caplog.text.count("no score_sums: ") == 1
    assert caplog.text.count("score_sums could not be scored at steps 0, 2, 4") == 1
    assert [len(line["items"]) for line in lines[3:]] == [2, 2]


def test_default_scoring_times(loaded: tuple[Any, Any], items: InMemory, tmp_path: Path) -> None:
    model, tokenizer = loaded
    logs: list[dict[str, float]] = []
    callback = ScoreCallback("sums", items, None, tmp_path, logs.append, tokenizer)
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    state, control = TrainerState(max_steps=5), TrainerControl()
    callback.on_train_begin(args, state, control, model=model)
    for step in (1, 2, 3, 4, 5):
        state.global_step = step
        callback.on_step_end(args, state, control, model=model)
        if step in (3, 5):
            callback.on_evaluate(args, state, control, model=model)
    lines = [json.loads(line) for line in (tmp_path / FILE_NAME).read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 3, 5]
    # The report's intervals rest on the cluster.
    assert set(lines[0]["items"][0]) == {"id", "score", "reason", "cluster", "completion"}
    assert len(logs) == 3


def test_no_chat_template_is_refused(loaded: tuple[Any, Any], items: InMemory) -> None:
    tokenizer = loaded[1]
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        with pytest.raises(UsageError, match="has no chat template"):
            items.check(tokenizer)
    finally:
        tokenizer.chat_template = template
