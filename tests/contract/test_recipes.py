"""All files under configs/: valid, pairs that differ only in the weight, headers that are true.

The tiny recipe runs through the stock command line, and a prepared WeThink record is decoded from
LLaMA-Factory's tokens.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dft_eval.flow import training_of
from dft_eval.system_prompts import WETHINK, trained_with
from dft_factory.validate import Finding, validate_files
from tests.support.cli import train
from tests.support.drawn import tiny_wethink

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
FILES = sorted(
    path
    for path in CONFIGS.rglob("*")
    if path.suffix in (".yaml", ".yml", ".json") and path.name != "dataset_info.json"
)
OTHERS = {CONFIGS / "experiments", CONFIGS / "accelerate"}
TASKS = {CONFIGS / "study" / "arithmetic.yaml", CONFIGS / "study" / "python.yaml"}
RECIPES = [
    p for p in FILES if p.suffix == ".yaml" and not OTHERS & set(p.parents) and p not in TASKS
]
SFT = [p for p in RECIPES if re.search(r"_sft\b", p.stem)]

BATCHES = {"wethink": 64, "ultrafeedback": 16, "nq": 16, "tiny": 8, "mathematics": 256}
MATHEMATICS = (
    *("qwen2_5_math_1_5b", "qwen2_5_math_7b"),
    *("llama3_2_3b", "llama3_1_8b", "deepseek_math_7b"),
)
EVALUATION_PIXELS = (1280 * 28 * 28, 16384 * 28 * 28)
"""VLMEvalKit's Qwen2.5-VL."""


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def header(path: Path) -> str:
    """The comment before the first key, as one line."""
    lines = path.read_text().split("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in lines), path
    return " ".join(line.lstrip("# ") for line in lines)


def values(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


@pytest.fixture(scope="module")
def zero3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ZeRO-3 recipe with use_cpu: accelerate then starts no DeepSpeed communication."""
    path = tmp_path_factory.mktemp("lonely") / "lonely.yaml"
    config = values(CONFIGS / "tiny" / "qwen2_5_vl_zero3_dft.yaml")
    config["deepspeed"] = str(ROOT / config["deepspeed"])
    path.write_text(yaml.safe_dump({**config, "use_cpu": True}))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with a trained SFT model."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "run/sft/model").mkdir(parents=True)
    (folder / "run/sft/model/config.json").write_text("{}")
    path = folder / "finished.yaml"
    config = values(CONFIGS / "experiments" / "demo.yaml")
    path.write_text(yaml.safe_dump({**config, "out": str(folder / "run")}))
    return path


@pytest.fixture(scope="module")
def findings(zero3: Path, finished: Path) -> list[Finding]:
    return validate_files([*FILES, zero3, finished])


def test_findings_of_shipped_files(findings: list[Finding], finished: Path, zero3: Path) -> None:
    assert [str(finding) for finding in findings if finding.file == finished] == []
    errors = [f for f in findings if f.file == zero3 and f.severity == "error"]
    assert [f.key for f in errors] == ["use_cpu, deepspeed"]
    assert "DS_ACCELERATOR=cpu" in errors[0].message
    # Warnings may only be about this machine.
    findings = [finding for finding in findings if finding.file != zero3]
    assert [str(finding) for finding in findings if finding.severity == "error"] == []
    absent = ("is not here yet", "not here yet.", "needs a GPU that supports it", "start it with")
    unexpected = [str(f) for f in findings if not any(text in f.message for text in absent)]
    assert unexpected == []


def test_the_recipes_of_the_paper_are_there() -> None:
    names = {name_of(path) for path in RECIPES}
    for stem in (
        *(f"wethink/qwen2_5_vl_{size}{lora}" for size in ("3b", "7b") for lora in ("", "_lora")),
        *(f"ultrafeedback/qwen2_5_{model}{lora}" for model in ("3b", "coder_3b", "coder_7b")
          for lora in ("", "_lora")),
        "ultrafeedback/smollm2",
        "nq/qwen2_5_3b",
        "nq/smollm2",
        *(f"mathematics/{model}{lora}" for model in MATHEMATICS for lora in ("", "_lora")),
        "mathematics/qwen2_5_math_1_5b_openr1",
        "mathematics/smollm2",
        "tiny/qwen2_5_vl",
        "tiny/qwen2_5_vl_zero3",
    ):  # fmt: skip
        assert {f"{stem}_sft.yaml", f"{stem}_dft.yaml"} <= names


@pytest.mark.parametrize("sft", SFT, ids=name_of)
def test_paired_recipes_are_the_same_text(sft: Path) -> None:
    """Also their comments, after exchanging the words dft and sft."""
    dft = sft.with_name(sft.name.replace("_sft", "_dft"))
    swapped = re.sub(r"(?<![a-z])sft(?![a-z])", "dft", dft.read_text()).replace("DFT", "SFT")
    stock = re.sub(r"(?<![a-z])sft(?![a-z])", "dft", sft.read_text()).replace("DFT", "SFT")
    assert swapped == stock
    first, second = values(sft), values(dft)
    differing = {key for key in first if first[key] != second.get(key)}
    assert differing == {"finetuning_type", "output_dir"}
    assert first.keys() == second.keys()
    assert first["finetuning_type"] == second["finetuning_type"].replace("dft", "sft")


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_header(path: Path) -> None:
    """Requirements and start command, with the recipe's path."""
    text = header(path)
    assert "Needs:" in text
    commands = re.findall(r"llamafactory-cli train (\S+\.yaml)", text)
    assert str(path.relative_to(ROOT)) in commands
    assert all((ROOT / command).is_file() for command in commands)
    assert values(path)["output_dir"].startswith("runs/")
    if "deepspeed" in values(path):
        assert "FORCE_TORCHRUN=1 " in text
        assert (ROOT / values(path)["deepspeed"]).is_file()


@pytest.mark.parametrize(
    "path", [p for p in RECIPES if p.parent.name in BATCHES], ids=name_of
)  # fmt: skip
def test_batch_and_memory(path: Path) -> None:
    """The header's product equals the recipe's and is the same in all recipes of an experiment."""
    text, config = header(path), values(path)
    batch = re.search(r"Batch: (\d+) = (\d+) a \w+ x (\d+) accumulated", text)
    assert batch is not None
    total, device, accumulated = map(int, batch.groups())
    assert device == config["per_device_train_batch_size"]
    assert accumulated == config["gradient_accumulation_steps"]
    ranks = re.search(r"accumulated x (\d+) (?:GPU|process)", text)
    assert total == device * accumulated * (int(ranks[1]) if ranks else 1)
    small_mathematics = name_of(path).startswith("mathematics/smollm2")
    assert total == (32 if small_mathematics else BATCHES[path.parent.name])
    assert re.search(r"Expected (GPU )?memory: about [\d.]+ GB.*(estimated|measured)", text)


def paper_settings(path: Path) -> dict[str, float | str]:
    shared: dict[str, float | str] = {"num_train_epochs": 1.0, "learning_rate": 5e-5}
    if path.parent.name == "ultrafeedback":
        shared |= {"warmup_ratio": 0.05}
    if path.parent.name == "mathematics":
        shared |= {"warmup_ratio": 0.1, "lr_scheduler_type": "cosine", "optim": "adamw_torch"}
        shared |= {"adam_beta1": 0.9, "adam_beta2": 0.95, "weight_decay": 0.01}
        shared |= {} if "smollm2" in path.stem else {"cutoff_len": 2048}
        shared |= {"num_train_epochs": 3.0} if "openr1" in path.stem else {}
        shared |= {"learning_rate": 2e-5} if "llama3_1_8b" in path.stem else {}
    return shared


@pytest.mark.parametrize(
    "path",
    [p for p in RECIPES if p.parent.name in ("wethink", "ultrafeedback", "mathematics")],
    ids=name_of,
)
def test_settings_of_the_paper(path: Path) -> None:
    config = values(path)
    assert {key: config[key] for key in paper_settings(path)} == paper_settings(path)
    if "_lora" in path.stem:
        assert (config["lora_rank"], config["lora_alpha"]) == (8, 16)


@pytest.mark.parametrize(
    "path", [p for p in RECIPES if p.parent.name == "nq"], ids=name_of
)  # fmt: skip
def test_choices_beyond_the_paper_are_called_ours(path: Path) -> None:
    """Of Natural Questions it gives scores alone; each part with choices says whose they are."""
    assert "The paper" in header(path)
    assert re.search(r"names neither the model nor a setting nor the protocol", header(path))
    parts = path.read_text().split("\n### ")
    for name in ("data", "training"):
        (part,) = [part for part in parts if part.startswith(f"{name}\n")]
        assert "# Ours: " in part


@pytest.mark.parametrize(
    "path", [p for p in RECIPES if "image_max_pixels" in p.read_text()], ids=name_of
)
def test_pixel_ranges_agree_or_the_header_warns(path: Path) -> None:
    config = values(path)
    pixels = (config["image_min_pixels"], config["image_max_pixels"])
    assert pixels == EVALUATION_PIXELS or "WARNING: " in header(path)
    # A picture's tokens must fit the cutoff twice over, or LLaMA-Factory may cut it in two.
    assert config["cutoff_len"] > 2 * math.ceil(pixels[1] / 28**2)


def test_pictures_are_always_bounded() -> None:
    """LLaMA-Factory's own limit lies below what the evaluation shows at least."""
    for path in RECIPES:
        if values(path)["template"] == "qwen2_vl":
            assert {"image_min_pixels", "image_max_pixels"} <= values(path).keys(), path


# ---------------------------------------------------------------- the tiny recipe


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny_wethink(tmp_path_factory.mktemp("tiny"))


@pytest.mark.cli
@pytest.mark.parametrize("objective", ["sft", "dft"])
def test_tiny_recipe_trains(objective: str, tiny: dict[str, str], tmp_path: Path) -> None:
    """One step through the stock command line; only the recipe's places are others."""
    config = values(CONFIGS / "tiny" / f"qwen2_5_vl_{objective}.yaml")
    del config["output_dir"]
    run = train({**config, **tiny, "max_steps": 1, "seed": 5}, tmp_path / "model").ok()
    assert trained_with(str(run.folder)) == WETHINK  # what an evaluation asks it with
    training = training_of(str(run.folder))
    assert training is not None
    assert (training.objective, training.seed) == (objective, 5)
    row = run.log[0]
    assert row["loss"] == pytest.approx(row["nll"] if objective == "sft" else 0.0, abs=0.1)
    assert 5 < row["nll"] < 8  # log(576) = 6.4: random weights
    assert (run.folder / "model.safetensors").is_file()
    frozen = [name for name in run.gradients if "visual" in name]
    assert run.gradients
    assert not frozen


def test_a_record_through_llamafactorys_data_code(tiny: dict[str, str], tmp_path: Path) -> None:
    """System prompt, sixteen picture tokens and the question unlabelled; the answer labelled."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    from dft_eval.generation.run import Prompt
    from dft_eval.vlm.hf_vision import render
    from dft_factory.data.drawn import drawings

    config = values(CONFIGS / "tiny" / "qwen2_5_vl_sft.yaml")
    config.update(tiny, output_dir=str(tmp_path), finetuning_type="full")
    model_args, data_args, training_args, *_ = get_train_args(config)
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    dataset = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
    tokenizer = module["tokenizer"]
    rows = dataset["train_dataset"]
    assert len(rows) == 16
    for row, drawing in zip(rows, drawings("train", 0), strict=False):
        ids, labels = row["input_ids"], row["labels"]
        first = next(place for place, label in enumerate(labels) if label != -100)
        asked, answered = tokenizer.decode(ids[:first]), tokenizer.decode(labels[first:])
        assert asked.count("<|image_pad|>") == 16
        # The prompt of an evaluation with --system-prompt wethink is that of the training.
        prompt = Prompt("x", drawing.kind.lettered.strip(), chat=True, images=("picture",))
        rendered = render(module["processor"], prompt, WETHINK)
        assert asked == rendered.replace("<|image_pad|>", "<|image_pad|>" * 16)
        assert answered.strip() == (
            f"<think> {drawing.reasoning} </think>\n<answer> {drawing.letter} </answer><|im_end|>"
        )
