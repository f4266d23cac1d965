"""The summary of a run and the choice of its best checkpoint, by the stock command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dft_factory.patch.record import FILE_NAME
from tests.conftest import Bench
from tests.support.cli import Run, parseable, train


def evaluating(bench: Bench, **changes: Any) -> dict[str, Any]:
    """DFT on a random model: p begins at 1/vocabulary, so -p·log p rises while the NLL falls."""
    training = {"max_steps": 8, "per_device_train_batch_size": 8, "learning_rate": 2e-3}
    evaluation = {"eval_dataset": "tiny_text", "do_eval": False}
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    return bench.config(**training, **evaluation, **steps, logging_steps=100, **changes)


EACH = {"eval_on_each_dataset": True, "val_size": 0.0}


def curve(run: Run, key: str) -> list[float]:
    return [row[key] for row in run.log if key in row]


@pytest.mark.cli
def test_the_best_model_is_that_of_the_lowest_nll(text_bench: Bench, tmp_path: Path) -> None:
    config = evaluating(text_bench, load_best_model_at_end=True)
    run = train(config, tmp_path / "run").ok()
    nll, loss = curve(run, "eval_nll"), curve(run, "eval_loss")
    assert nll[3] < nll[2] < nll[1] < nll[0]
    assert loss[3] > loss[0]
    state = json.loads((run.folder / "trainer_state.json").read_text())
    assert state["best_global_step"] == 8
    best = load_file(run.folder / "checkpoint-8" / "model.safetensors")
    final = load_file(run.folder / "model.safetensors")
    assert all(torch.equal(final[name], best[name]) for name in best)


@pytest.mark.cli
def test_early_stopping_follows_the_nll(text_bench: Bench, tmp_path: Path) -> None:
    run = train(evaluating(text_bench, early_stopping_steps=1), tmp_path / "run").ok()
    assert len(curve(run, "eval_nll")) == 4


@pytest.mark.cli
def test_the_best_vision_language_model_is_loaded(vl_bench: Bench, tmp_path: Path) -> None:
    """The learning rate rises until it ruins the model, so the best weights are not the last."""
    config = evaluating(vl_bench, load_best_model_at_end=True, warmup_steps=8)
    config |= {"eval_dataset": "tiny_vl", "finetuning_type": "sft", "learning_rate": 0.5}
    config["lr_scheduler_type"] = "constant_with_warmup"
    run = train(config, tmp_path / "run").ok()
    step = 2 * (1 + min(range(4), key=curve(run, "eval_nll").__getitem__))
    assert step < 8
    best = load_file(run.folder / f"checkpoint-{step}" / "model.safetensors")
    final = load_file(run.folder / "model.safetensors")
    assert all(torch.equal(final[name], best[name]) for name in best)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"metric_for_best_model": "eval_loss"}, ("'eval_loss'", "eval_nll")),
        ({"metric_for_best_model": "loss"}, ("'loss'", "Write nll")),
        ({"greater_is_better": True}, ("greater_is_better: true", "'eval_nll'")),
        ({**EACH, "eval_dataset": "one,two"}, ("eval_one_nll, eval_two_nll",)),
    ],
)
@pytest.mark.parametrize("as_words", [False, True])
def test_a_wrong_best_model_is_refused(
    changes: dict[str, Any], parts: tuple[str, ...], as_words: bool
) -> None:
    from dft_factory.errors import ConfigError

    with pytest.raises(ConfigError) as refusal:
        parsed({**BEST, "finetuning_type": "dft", **changes}, as_words)
    assert all(word in str(refusal.value) for word in parts), refusal.value


PROB = "eval_mean_token_prob"
STEPS = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
BEST = parseable(load_best_model_at_end=True, val_size=0.1, **STEPS)


def parsed(config: dict[str, Any], as_words: bool = False) -> Any:
    from llamafactory.hparams import get_train_args

    args = [arg for key, value in config.items() for arg in (f"--{key}", str(value))]
    return get_train_args(args if as_words else config)[2]


@pytest.mark.parametrize(
    ("changes", "metric", "greater"),
    [
        ({"finetuning_type": "dft"}, "eval_nll", False),
        ({"finetuning_type": "sft"}, "eval_nll", False),
        ({"finetuning_type": "dft", "metric_for_best_model": "eval_nll"}, "eval_nll", False),
        ({"finetuning_type": "dft", "metric_for_best_model": "nll"}, "nll", False),
        ({"finetuning_type": "dft", "metric_for_best_model": PROB}, PROB, True),
        ({"finetuning_type": "full"}, "loss", False),
        ({"finetuning_type": "full", "metric_for_best_model": "eval_nll"}, "eval_nll", True),
    ],
)
def test_the_metric_of_the_best_model(changes: dict[str, Any], metric: str, greater: bool) -> None:
    training = parsed({**BEST, **changes})
    assert (training.metric_for_best_model, training.greater_is_better) == (metric, greater)


@pytest.mark.cli
@pytest.mark.parametrize(
    ("changes", "objective", "weight", "tag"),
    [
        ({"dft_weight": "floor:0.1"}, "dft", "floor:0.1", "dft"),
        ({"finetuning_type": "sft_lora"}, "sft", "1", "sft_lora"),
    ],
)
def test_a_run_reports_its_objective_and_result(
    changes: dict[str, Any],
    objective: str,
    weight: str,
    tag: str,
    text_bench: Bench,
    tmp_path: Path,
) -> None:
    config = text_bench.config(max_steps=6, save_strategy="steps", save_steps=2, **changes)
    run = train({**config, "logging_steps": 500}, tmp_path / "run").ok()
    start = f"objective {objective}, weight {weight}, chunked head on, "
    assert run.output.count(start) == 1
    assert "parameters trained" in run.output
    assert len(curve(run, "nll")) == 3  # at the saves alone
    rows = [json.loads(line) for line in (run.folder / FILE_NAME).read_text().splitlines()]
    assert run.output.count(f"NLL {rows[0]['nll']:.3g} -> {rows[-1]['nll']:.3g} nats") == 1
    ends = [row["end_of_turn_prob"] for row in (rows[0], rows[-1])]
    assert f"end-of-turn probability {ends[0]:.3g} -> {ends[1]:.3g}" in run.output
    _, header, body = (run.folder / "README.md").read_text().split("---\n", 2)
    assert tag in yaml.safe_load(header)["tags"]
    assert "full" not in yaml.safe_load(header)["tags"]
    assert f"- finetuning_type: {tag}\n" in body
    assert f"- token weight: {weight}\n" in body


@pytest.mark.cli
def test_the_nll_is_logged_at_the_end_of_training(text_bench: Bench, tmp_path: Path) -> None:
    run = train(text_bench.config(max_steps=3, logging_steps=500), tmp_path / "run").ok()
    assert [row["step"] for row in run.log if "nll" in row] == [3]


@pytest.mark.cli
def test_a_stock_run_is_unchanged(text_bench: Bench, tmp_path: Path) -> None:
    config = text_bench.config(
        finetuning_type="full", max_steps=4, save_strategy="steps", save_steps=2, logging_steps=3
    )
    run = train(config, tmp_path / "run").ok()
    assert [row["step"] for row in run.log if "loss" in row] == [3]
    assert "dft-factory" not in run.output
    assert "full" in (run.folder / "README.md").read_text()
