"""The files and warnings of training runs of the stock command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dft_factory.losses.histogram import N_BINS
from dft_factory.patch.record import EVALUATIONS_FILE, FILE_NAME
from tests.conftest import Bench
from tests.support.cli import Run, train

pytestmark = pytest.mark.cli

WARNINGS = {
    "nll_rises": "the NLL has risen",
    "end_of_turn": "end-of-turn token does not rise",
    "weight_near_zero": "next to nothing is trained",
}


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (run.folder / FILE_NAME).read_text().splitlines()]


def evaluations(run: Run) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (run.folder / EVALUATIONS_FILE).read_text().splitlines()]


def warnings_of(run: Run) -> dict[str, int]:
    """The number of each warning in the output, without zeros."""
    counts = {rule: run.output.count(text) for rule, text in WARNINGS.items()}
    return {rule: count for rule, count in counts.items() if count}


@pytest.mark.parametrize("modality", ["text", "vl"])
def test_each_line_agrees_with_the_log(
    modality: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The same tokens in the same bins, accumulated in one process or on two ranks."""
    bench: Bench = request.getfixturevalue(f"{modality}_bench")
    runs = {}
    for name, ranks, changes in (
        ("one", 1, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}),
        ("two", 2, {"per_device_train_batch_size": 2}),
    ):
        config = bench.config(max_steps=4, logging_steps=2, **changes)
        runs[name] = train(config, tmp_path / name, ranks=ranks).ok()
    for name, run in runs.items():
        rows = lines(run)
        logged = [row for row in run.log if "nll" in row]
        assert [row["step"] for row in rows] == [row["step"] for row in logged] == [2, 4]
        for row, log in zip(rows, logged, strict=True):
            assert sum(row["counts"]) == row["n_tokens"] > 0
            assert len(row["counts"]) == N_BINS == len(row["bin_edges"]) - 1
            for key in ("nll", "mean_token_prob", "token_weight_mean", "mean_token_entropy"):
                assert row[key] == pytest.approx(log[key], rel=1e-9)
            assert row["ranks"] == (1 if name == "one" else 2)
            assert row["n_end_of_turn"] == 8  # two steps of four examples of one turn
            assert 0 < row["end_of_turn_prob"] < 1
    assert [row["n_tokens"] for row in lines(runs["one"])] == [
        row["n_tokens"] for row in lines(runs["two"])
    ]
    assert lines(runs["one"])[0]["counts"] == lines(runs["two"])[0]["counts"]


def test_the_end_of_turn_probability_by_full_logits(text_bench: Bench, tmp_path: Path) -> None:
    """Against full logits of the checkpoint on the same four examples before the first step."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = train(text_bench.config(), tmp_path / "run").ok()
    tokenizer = AutoTokenizer.from_pretrained(text_bench.model)
    model = AutoModelForCausalLM.from_pretrained(text_bench.model, dtype=torch.float64)
    rows = json.loads((text_bench.data / "tiny_text.json").read_text())[:4]
    probabilities = []
    for row in rows:
        text = (
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
            f"assistant.<|im_end|>\n<|im_start|>user\n{row['instruction']}<|im_end|>\n"
            f"<|im_start|>assistant\n{row['output']}"
        )
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        logits = model(input_ids=ids).logits[0, -1]
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        probabilities.append(logits.softmax(-1)[end].item())
    expected = sum(probabilities) / len(probabilities)
    assert lines(run)[0]["end_of_turn_prob"] == pytest.approx(expected, rel=1e-4)


def test_a_resumed_run_appends_and_a_new_run_starts_over(text_bench: Bench, tmp_path: Path) -> None:
    config = text_bench.config(max_steps=4, save_strategy="steps", save_steps=2)
    first = train(config, tmp_path / "run").ok()
    assert [row["step"] for row in lines(first)] == [1, 2, 3, 4]
    before = lines(first)
    resumed = train(
        {**config, "resume_from_checkpoint": str(first.folder / "checkpoint-2")}, tmp_path / "run"
    ).ok()
    assert [row["step"] for row in lines(resumed)] == [1, 2, 3, 4]
    assert lines(resumed)[:2] == before[:2]
    new_run = train(
        text_bench.config(max_steps=3, logging_steps=3, overwrite_output_dir=True),
        tmp_path / "run",
    ).ok()
    assert [row["step"] for row in lines(new_run)] == [3]


def test_a_stock_run_writes_nothing(text_bench: Bench, tmp_path: Path) -> None:
    run = train(text_bench.config(finetuning_type="full"), tmp_path / "run").ok()
    assert not (run.folder / FILE_NAME).exists()


STEADY = {"max_steps": 40, "per_device_train_batch_size": 8}


def fitted(bench: Bench, folder: Path, **changes: Any) -> str:
    """The tiny checkpoint after 60 steps of SFT: it partly knows the eight answers."""
    config = bench.config(
        finetuning_type="sft",
        max_steps=60,
        learning_rate=1e-2,
        per_device_train_batch_size=8,
        save_strategy="steps",
        **changes,
    )
    run = train(config, folder).ok()
    assert lines(run)[-1]["nll"] < lines(run)[0]["nll"] / 3
    return str(run.folder)


def test_random_weights_give_one_warning(text_bench: Bench, tmp_path: Path) -> None:
    """p is about 1/vocabulary for every token; SFT has no warning."""
    steady = {**STEADY, "learning_rate": 1e-5}
    run = train(text_bench.config(**steady), tmp_path / "dft").ok()
    assert warnings_of(run) == {"weight_near_zero": 1, "end_of_turn": 1}
    assert "[WARNING|" in run.output
    twin = train(text_bench.config(finetuning_type="sft", **steady), tmp_path / "sft").ok()
    assert warnings_of(twin) == {}


def test_a_healthy_run_has_no_warning(text_bench: Bench, tmp_path: Path) -> None:
    """DFT of a model that partly knows the data: NLL and loss fall together."""
    model = fitted(text_bench, tmp_path / "sft")
    run = train(
        text_bench.config(model_name_or_path=model, learning_rate=1e-3, **STEADY), tmp_path / "run"
    ).ok()
    rows = lines(run)
    assert rows[-1]["nll"] < rows[0]["nll"]
    assert warnings_of(run) == {}


def test_rising_nll_with_falling_loss_warns_once(text_bench: Bench, tmp_path: Path) -> None:
    """One question with the answer yes five times of eight and no three times.

    SFT learns both at their frequency; DFT's weight then drives the more frequent one to 1, and the
    NLL of the other without bound.
    """
    rows = [
        {"instruction": "Is it?", "input": "", "output": "yes" if i % 8 < 5 else "no"}
        for i in range(8)
    ]
    data = {"dataset_dir": str(tmp_path)}
    (tmp_path / "tiny_text.json").write_text(json.dumps(rows))
    info = {"tiny_text": {"file_name": "tiny_text.json"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    model = fitted(text_bench, tmp_path / "sft", **data)
    run = train(
        text_bench.config(model_name_or_path=model, learning_rate=1e-3, **STEADY, **data),
        tmp_path / "run",
    ).ok()
    first, *_, last = lines(run)
    assert last["nll"] > first["nll"]
    assert last["objective"] < first["objective"]
    assert last["polarisation"] > first["polarisation"]
    assert warnings_of(run) == {"nll_rises": 1}


def test_evaluations_are_recorded_with_greedy_answers(text_bench: Bench, tmp_path: Path) -> None:
    """Before the first step and after two; in one process and two; answers against generate()."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    changes = {
        "eval_dataset": "tiny_text",
        "eval_strategy": "steps",
        "eval_steps": 2,
        "eval_on_start": True,
        "max_steps": 2,
    }
    one_process = train(text_bench.config(**changes), tmp_path / "one").ok()
    two_ranks = train(
        text_bench.config(**changes, per_device_train_batch_size=2), tmp_path / "two", ranks=2
    ).ok()
    first, last = evaluations(one_process)
    assert (first["step"], last["step"]) == (0, 2)
    for line, line_of_two in zip((first, last), evaluations(two_ranks), strict=True):
        logged = [
            row for row in one_process.log if row.get("step") == line["step"] and "eval_nll" in row
        ]
        for key in ("nll", "mean_token_entropy"):
            assert line[key] == pytest.approx(logged[0][f"eval_{key}"], rel=1e-9)
            assert line[key] == pytest.approx(line_of_two[key], rel=1e-4)
        assert line["answers"]["n"] == len(line["texts"]) == 8
    tokenizer = AutoTokenizer.from_pretrained(text_bench.model)
    model = AutoModelForCausalLM.from_pretrained(text_bench.model)
    row = json.loads((text_bench.data / "tiny_text.json").read_text())[0]
    prompt = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
        f"assistant.<|im_end|>\n<|im_start|>user\n{row['instruction']}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    tokens = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=32,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=ends[0],
    )[0, ids.shape[1] :].tolist()
    assert first["texts"][0] == tokenizer.decode([token for token in tokens if token not in ends])


def test_missing_answers_are_reported(vl_bench: Bench, tmp_path: Path) -> None:
    config = vl_bench.config(
        eval_dataset=vl_bench.config()["dataset"], eval_strategy="steps", eval_steps=1
    )
    run = train(config, tmp_path / "run").ok()
    assert run.output.count("evaluations record no answers to held-out prompts") == 1
    assert [line["answers"] for line in evaluations(run)] == [None]
