"""The gradient of one step of the stock command line against independent implementations.

The gradient is recorded before the optimizer step and compared as one relative error over all
parameters: |g - g'| / |g'|.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Bench
from tests.support.cli import Run, relative_error, train

pytestmark = pytest.mark.cli

SINGLE = {"per_device_train_batch_size": 1}
RUNS: dict[str, tuple[dict[str, Any], int]] = {
    "dft": ({"finetuning_type": "dft"}, 1),
    "sft": ({"finetuning_type": "sft"}, 1),
    "native": ({"finetuning_type": "full", "use_dft_loss": True}, 1),
    **{
        f"{objective} {name}": ({"finetuning_type": objective, **split}, ranks)
        for objective in ("dft", "sft")
        for name, split, ranks in (
            ("accumulated", {**SINGLE, "gradient_accumulation_steps": 4}, 1),
            ("two ranks", {"per_device_train_batch_size": 2}, 2),
        )
    },
}


@pytest.fixture(scope="module", params=["text", "vl"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return request.getfixturevalue(f"{request.param}_bench")


@pytest.fixture(scope="module")
def runs(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp(f"runs-{bench.modality}")

    def run_one(name: str) -> Run:
        changes, ranks = RUNS[name]
        return train(bench.config(**changes), folder / name.replace(" ", "-"), ranks=ranks)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(RUNS, pool.map(run_one, RUNS), strict=True))


def tokenised(bench: Bench, model: Any) -> tuple[Any, Any]:
    """Data set and collator of LLaMA-Factory's own data code."""
    from llamafactory.data import (
        SFTDataCollatorWith4DAttentionMask,
        get_dataset,
        get_template_and_fix_tokenizer,
    )
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    config = bench.config(output_dir=str(bench.data / "reference"), finetuning_type="full")
    model_args, data_args, training_args, *_ = get_train_args(config)
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    dataset = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
    collator = SFTDataCollatorWith4DAttentionMask(
        template=template, model=model, label_pad_token_id=-100, **module
    )
    return dataset["train_dataset"], collator


def reference_gradients(bench: Bench, objective: str) -> dict[str, torch.Tensor]:
    """The same batch through LLaMA-Factory's data code, with a plain float64 loss."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    loader = AutoModelForCausalLM if bench.modality == "text" else AutoModelForImageTextToText
    model = loader.from_pretrained(bench.model, dtype=torch.float64).train()
    dataset, collator = tokenised(bench, model)
    batch = collator([dataset[i] for i in range(4)])
    labels = batch.pop("labels")
    pictures = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    logits = model(**pictures).logits

    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in range(labels.shape[0]):
        for position in range(1, labels.shape[1]):
            label = int(labels[row, position])
            if label == -100:
                continue
            probability = torch.softmax(logits[row, position - 1], dim=-1)[label]
            weight = probability.item() if objective == "dft" else 1.0
            total = total - weight * torch.log(probability)
            count += 1
    (total / count).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("objective", ["dft", "sft"])
def test_gradient_equals_an_independent_float64_implementation(
    bench: Bench, runs: dict[str, Run], objective: str, record_property: Any
) -> None:
    error = relative_error(runs[objective].ok().gradients, reference_gradients(bench, objective))
    record_property(f"{bench.modality} {objective} against float64", error)
    assert error <= 1e-5


def test_gradient_of_use_dft_loss(bench: Bench, runs: dict[str, Run], record_property: Any) -> None:
    error = relative_error(runs["dft"].ok().gradients, runs["native"].ok().gradients)
    record_property(f"{bench.modality} dft against use_dft_loss", error)
    assert error <= 1e-5


@pytest.mark.parametrize("objective", ["dft", "sft"])
@pytest.mark.parametrize("trainer", ["Trainer", "SFTTrainer", "compute_loss_func"])
def test_trainers_without_llamafactory_give_its_gradient(
    bench: Bench, runs: dict[str, Run], trainer: str, objective: str, tmp_path: Path
) -> None:
    """transformers' and TRL's, four examples one by one and accumulated."""
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )
    from trl import SFTConfig, SFTTrainer

    from dft_factory.losses import UNIT_WEIGHT
    from dft_factory.trainer import DFTTrainerMixin, dft_loss_func

    class Record(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            parameters = kwargs["model"].named_parameters()
            gradients.update({n: p.grad.clone() for n, p in parameters if p.grad is not None})

    gradients: dict[str, torch.Tensor] = {}
    loader = AutoModelForCausalLM if bench.modality == "text" else AutoModelForImageTextToText
    model = loader.from_pretrained(bench.model, dtype=torch.float32)
    dataset, collator = tokenised(bench, model)
    dataset = dataset.select(range(4))  # what LLaMA-Factory's step has seen
    if bench.modality == "text":  # TRL takes these for a sign of pictures
        dataset = dataset.remove_columns(["images", "videos", "audios"])
    settings: dict[str, Any] = {
        "output_dir": str(tmp_path),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "max_steps": 1,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 4,
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "logging_steps": 1,
        "remove_unused_columns": False,
        "gradient_checkpointing": False,
    }
    parts = {"model": model, "train_dataset": dataset, "data_collator": collator}
    parts["callbacks"] = [Record()]
    instance: Any
    if trainer == "Trainer":
        instance = type("MyTrainer", (DFTTrainerMixin, Trainer), {})(
            objective=objective, args=TrainingArguments(**settings), **parts
        )
    elif trainer == "SFTTrainer":
        processing = collator.processor if bench.modality == "vl" else collator.tokenizer
        config = SFTConfig(**settings, dataset_kwargs={"skip_prepare_dataset": True})
        instance = type("MyTrainer", (DFTTrainerMixin, SFTTrainer), {})(
            objective=objective, args=config, processing_class=processing, **parts
        )
    else:
        weight = dft_loss_func("token" if objective == "dft" else UNIT_WEIGHT)
        instance = Trainer(compute_loss_func=weight, args=TrainingArguments(**settings), **parts)
    instance.train()
    llamafactory = runs[objective].ok()
    assert relative_error(gradients, llamafactory.gradients) <= 1e-5
    if trainer != "compute_loss_func":
        ours, theirs = instance.state.log_history[0], llamafactory.log[0]
        for name in ("nll", "mean_token_prob", "token_weight_mean"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)
        assert instance._head is not None  # no full logits


@pytest.mark.parametrize("objective", ["dft", "sft"])
@pytest.mark.parametrize("split", ["accumulated", "two ranks"])
def test_gradient_is_independent_of_the_batch_split(
    bench: Bench, runs: dict[str, Run], objective: str, split: str, record_property: Any
) -> None:
    """Four examples at once, one by one, or two on each of two ranks: the same gradient."""
    whole, parts = runs[objective].ok(), runs[f"{objective} {split}"].ok()
    error = relative_error(parts.gradients, whole.gradients)
    record_property(f"{bench.modality} {objective} {split}", error)
    assert error <= 1e-6
    for name in ("loss", "nll", "mean_token_prob", "token_weight_mean", "mean_token_entropy"):
        assert parts.log[0][name] == pytest.approx(whole.log[0][name], rel=1e-5)


def test_stock_multimodal_sft_depends_on_the_batch_split(
    vl_bench: Bench, tmp_path: Path, record_property: Any
) -> None:
    """Why ``sft`` exists beside ``full``: with a processor LLaMA-Factory averages micro-batches.

    When this fails, LLaMA-Factory has fixed it, and the README's warning can go.
    """
    whole = train(vl_bench.config(finetuning_type="full"), tmp_path / "whole").ok()
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    parts = train(vl_bench.config(finetuning_type="full", **split), tmp_path / "parts").ok()
    error = relative_error(parts.gradients, whole.gradients)
    record_property("vl full, accumulated", error)
    assert error > 0.1


def test_objectives_differ(bench: Bench, runs: dict[str, Run]) -> None:
    """Both log the same data; only the weight differs."""
    dft, sft = runs["dft"].ok().log[0], runs["sft"].ok().log[0]
    assert sft["loss"] == pytest.approx(sft["nll"], rel=1e-5)
    assert sft["token_weight_mean"] == 1.0
    assert dft["nll"] == pytest.approx(sft["nll"], rel=1e-5)
    assert dft["token_weight_mean"] == pytest.approx(dft["mean_token_prob"])
    assert 0 < dft["loss"] < sft["loss"] / 10
    assert relative_error(runs["dft"].gradients, runs["sft"].gradients) > 0.5


def _tokenized(folder: Path, labelled: list[bool]) -> Path:
    """A data set tokenized beforehand, some of whose examples have no label at all."""
    from datasets import Dataset, DatasetDict

    rows: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for index, has_labels in enumerate(labelled):
        ids = [(7 * index + 3 * k) % 300 for k in range(12)]
        rows["input_ids"].append(ids)
        rows["attention_mask"].append([1] * 12)
        rows["labels"].append([-100] * 6 + (ids[6:] if has_labels else [-100] * 6))
    rows.update({key: [None] * len(labelled) for key in ("images", "videos", "audios")})
    DatasetDict({"train": Dataset.from_dict(rows)}).save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize("objective", ["dft", "sft"])
@pytest.mark.parametrize(
    ("labelled", "changes", "ranks"),
    [
        # optimizer steps without any label, in one process
        ([True, False, True, False], {**SINGLE, "max_steps": 4}, 1),
        # one micro-batch of an accumulated step
        ([True, False], {**SINGLE, "gradient_accumulation_steps": 2, "max_steps": 2}, 1),
        # one rank of two
        ([True, False, True, False], {**SINGLE, "max_steps": 2}, 2),
    ],
    ids=["one process", "accumulated", "two ranks"],
)
def test_micro_batches_without_a_label_train_on(
    text_bench: Bench,
    tmp_path: Path,
    objective: str,
    labelled: list[bool],
    changes: dict[str, Any],
    ranks: int,
) -> None:
    config = text_bench.config(
        finetuning_type=objective,
        dataset="tiny_text",
        tokenized_path=str(_tokenized(tmp_path / "tokenized", labelled)),
        max_grad_norm=1e9,  # clips nothing; transformers 4 logs grad_norm only where it clips
        **changes,
    )
    run = train(config, tmp_path / "run", ranks=ranks).ok()
    steps = [row for row in run.log if "loss" in row]
    assert len(steps) == changes["max_steps"]
    assert all(row["loss"] == row["loss"] and row["loss"] < 100 for row in steps)
    assert steps[0]["loss"] > 0
    assert steps[0]["grad_norm"] > 0
    if ranks == 1 and "gradient_accumulation_steps" not in changes:
        assert steps[1]["loss"] == 0.0
        assert steps[1]["grad_norm"] == 0.0


def test_an_empty_micro_batch_changes_nothing(text_bench: Bench, tmp_path: Path) -> None:
    """[labelled, empty] accumulated is [labelled] alone: N counts labelled tokens only."""
    gradients = []
    for labelled in ([True], [True, False]):
        config = text_bench.config(
            tokenized_path=str(_tokenized(tmp_path / f"t{len(labelled)}", labelled)),
            per_device_train_batch_size=1,
            gradient_accumulation_steps=len(labelled),
        )
        gradients.append(train(config, tmp_path / f"run{len(labelled)}").ok().gradients)
    assert relative_error(gradients[1], gradients[0]) <= 1e-6


@pytest.mark.parametrize("ranks", [1, 2])
def test_evaluation_ignores_the_batch_size(text_bench: Bench, tmp_path: Path, ranks: int) -> None:
    """5 examples in batches of 1, 2, 4: all metrics agree, on 1 and 2 ranks.

    With two ranks the last batch is padded with examples that are already counted.
    """
    evaluations = []
    for size in (1, 2, 4):
        config = text_bench.config(
            do_train=False,
            do_eval=True,
            eval_dataset="tiny_text",
            dataset=None,
            max_samples=5,
            max_steps=None,
            per_device_eval_batch_size=size,
            compute_accuracy=size == 2,
        )
        run = train(config, tmp_path / f"bs{size}", ranks=ranks).ok()
        evaluations.append(json.loads((run.folder / "eval_results.json").read_text()))
        assert ("eval_accuracy" in evaluations[-1]) == (size == 2)
    names = ("loss", "nll", "mean_token_prob", "token_weight_mean", "mean_token_entropy")
    for name in names:
        values = [row[f"eval_{name}"] for row in evaluations]
        assert values == pytest.approx([values[0]] * 3, rel=1e-5), name
    assert evaluations[0]["eval_nll"] > 10 * evaluations[0]["eval_loss"]


@pytest.mark.parametrize("method", ["lora", "freeze", "oft"])
def test_every_method_trains(text_bench: Bench, tmp_path: Path, method: str) -> None:
    """dft_<method> trains what LLaMA-Factory's <method> trains, with our loss."""
    changes = {"oft_block_size": 8, "oft_rank": 0} if method == "oft" else {}
    dft = text_bench.config(finetuning_type=f"dft_{method}", **changes)
    ours = train(dft, tmp_path / "ours").ok()
    stock = text_bench.config(finetuning_type=method, use_dft_loss=True, **changes)
    native = train(stock, tmp_path / "native").ok()
    assert "nll" in ours.log[0]
    assert relative_error(ours.gradients, native.gradients) <= 1e-5


def test_weights_of_the_whole_sequence(text_bench: Bench, tmp_path: Path) -> None:
    """geometric_mean: one weight per example, between the smallest and the largest token weight."""
    run = train(text_bench.config(dft_weight="geometric_mean"), tmp_path / "run").ok()
    row = run.log[0]
    assert 0 < row["token_weight_mean"] < row["mean_token_prob"]
