"""The recipes of configs/mathematics on tiny checkpoints of their own architecture and tokenizer.

Only places and sizes are changed: prompt, answer's end, optimizer and objective are the recipe's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from dft_eval.system_prompts import trained_with
from dft_factory.data.prepare import prepare
from dft_factory.tiny import make_tiny
from dft_factory.tiny_tokenizers import DEEPSEEK_TOKENS
from tests.support.cli import train

RECIPES = Path(__file__).parents[2] / "configs" / "mathematics"
PROBLEM = "What is 2 + 3?"
SOLUTION = "It is $\\boxed{5}$."
BEGIN, END = DEEPSEEK_TOKENS
FAMILIES = {
    "qwen2_5_math": (
        "qwen2.5-coder",
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{PROBLEM}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n",
    ),
    "llama3": ("llama3", f"<|begin_of_text|>User: {PROBLEM}\n\nAssistant:", "<|end_of_text|>"),
    "deepseek_math": ("deepseek", f"{BEGIN}User: {PROBLEM}\n\nAssistant:", END),
}
"""How a family's recipes begin: its tiny checkpoint, what it asks, how an answer ends."""
BASE_MODELS = sorted(
    path.stem.removesuffix("_sft")
    for path in RECIPES.glob("*_sft.yaml")
    if "smollm2" not in path.stem
)
"""Every pair of recipes, LoRA's and OpenR1's too."""
TRAINED = [f"{name}_{objective}" for name in BASE_MODELS for objective in ("sft", "dft")]
if os.environ.get("DFT_TEST_EVERY_RECIPE") != "1":  # minutes; six stand for all
    TRAINED = [
        f"{name}_{method}"
        for name in ("qwen2_5_math_1_5b", "llama3_2_3b", "deepseek_math_7b")
        for method in ("dft", "lora_dft")
    ]


def family_of(recipe: str) -> str:
    return next(family for family in FAMILIES if recipe.startswith(family))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets in one folder: the recipes' names stay as they are."""
    folder = tmp_path_factory.mktemp("data")
    row = {"problem": PROBLEM, "solution": SOLUTION}
    row |= {"generations": [SOLUTION], "correctness_math_verify": [True]}
    (folder / "rows.jsonl").write_text((json.dumps(row) + "\n") * 8)
    info = {}
    for name in ("numinamath", "openr1_math"):
        prepare(name, str(folder / "rows.jsonl"), folder / name)
        info |= json.loads((folder / name / "dataset_info.json").read_text())
        (folder / name / f"{name}.jsonl").rename(folder / f"{name}.jsonl")
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny checkpoints by family; Llama's base models have no chat template."""
    folder = tmp_path_factory.mktemp("models")
    paths = {kind: make_tiny(kind, folder / kind) for kind, _, _ in FAMILIES.values()}
    (paths["llama3"] / "chat_template.jinja").unlink()
    return {family: paths[kind] for family, (kind, _, _) in FAMILIES.items()}


def config_of(name: str, model: Path, data: Path) -> dict[str, Any]:
    config = dict(yaml.safe_load((RECIPES / f"{name}.yaml").read_text()))
    for key in ("deepspeed", "output_dir"):
        config.pop(key, None)
    return {
        **config,
        "model_name_or_path": str(model),
        "dataset_dir": str(data),
        "use_cpu": True,
        "bf16": False,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "preprocessing_num_workers": 1,
        "save_strategy": "no",
        "logging_steps": 1,
        "max_steps": 2,
    }


@pytest.mark.parametrize("base_model", [n for n in BASE_MODELS if "lora" not in n])
def test_prompt_and_end_of_the_answer(
    base_model: str, models: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    """The plain problem without an instruction; only the answer and its end are labelled."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    family = family_of(base_model)
    config = config_of(f"{base_model}_sft", models[family], data)
    config.update(output_dir=str(tmp_path), finetuning_type="full")
    model_args, data_args, training_args, *_ = get_train_args(config)
    module = load_tokenizer(model_args)
    tokenizer = module["tokenizer"]
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    rows = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
    row = rows["train_dataset"][0]
    labels = row["labels"]
    first = next(place for place, label in enumerate(labels) if label != -100)
    _, asked, end = FAMILIES[family]
    assert tokenizer.decode(row["input_ids"][:first]) == asked
    assert tokenizer.decode(labels[first:]) == f"{SOLUTION}{end}"


@pytest.mark.cli
@pytest.mark.parametrize("recipe", TRAINED)
def test_two_steps(recipe: str, models: dict[str, Path], data: Path, tmp_path: Path) -> None:
    """Finite losses, and a checkpoint that asks in evaluation as it was asked in training."""
    from transformers import AutoTokenizer

    family = family_of(recipe)
    run = train(config_of(recipe, models[family], data), tmp_path / "m").ok()
    steps = [row for row in run.log if "nll" in row]
    assert len(steps) == 2
    assert all(5 < row["nll"] < 8 for row in steps)  # log(576) = 6.4: random weights
    weights = "adapter_model" if "lora" in recipe else "model"
    assert (run.folder / f"{weights}.safetensors").is_file()
    system = trained_with(str(run.folder))
    chat = [{"role": "system", "content": system}] if system else []
    tokenizer = AutoTokenizer.from_pretrained(run.folder)
    rendered = tokenizer.apply_chat_template(
        [*chat, {"role": "user", "content": PROBLEM}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == FAMILIES[family][1]
