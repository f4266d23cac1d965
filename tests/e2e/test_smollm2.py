"""Real pre-trained weights without a hub, and the demo's recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dft_factory.smollm2 import answer, find_gguf, make_smollm2

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_smollm2(tmp_path_factory.mktemp("smollm2") / "model")


@pytest.fixture(scope="module")
def loaded(smollm2: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return (
        AutoModelForCausalLM.from_pretrained(smollm2, dtype="auto"),
        AutoTokenizer.from_pretrained(smollm2),
    )


def test_it_answers_plain_questions_and_stops(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    assert "Paris" in answer(model, tokenizer, "What is the capital of France?")
    said = answer(model, tokenizer, "Say hello.", max_new_tokens=64)
    assert len(tokenizer.encode(said)) < 64


def test_its_tokenizer_is_the_files_own(loaded: tuple[Any, Any]) -> None:
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


def test_find_gguf() -> None:
    assert find_gguf().suffix == ".gguf"


def test_the_demos_twins_differ_in_two_fields_alone() -> None:
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
