"""The tiny checkpoints are what they claim to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dft_factory.errors import ConfigError
from dft_factory.tiny import KINDS, SPECIAL_TOKENS, make_tiny
from tests.conftest import Bench


def test_text(text_bench: Bench) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(text_bench.model)
    model = AutoModelForCausalLM.from_pretrained(text_bench.model)
    assert isinstance(model, Qwen2ForCausalLM)
    text = "<|im_start|>user\ndef f(x): return 'é≠'<|im_end|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<|im_end|>") == [tokenizer.eos_token_id]
    assert model.config.vocab_size >= len(tokenizer)
    assert all(len(tokenizer.encode(token)) == 1 for token in SPECIAL_TOKENS)


def test_vision(vl_bench: Bench) -> None:
    """A picture becomes image tokens, and the model reads them: another picture, other logits."""
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(vl_bench.model)
    model = AutoModelForImageTextToText.from_pretrained(vl_bench.model)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    found = []
    for colour in ("red", "blue"):
        inputs = processor(
            text=[text], images=[Image.new("RGB", (84, 56), colour)], return_tensors="pt"
        )
        assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 6
        found.append(model(**inputs).logits[0, -1])
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_same_seed_same_file(kind: str, tied: bool, tmp_path: Path) -> None:
    """Reproducible, tied or not, without touching the caller's random state."""
    state = torch.random.get_rng_state()
    paths = [
        make_tiny(kind, tmp_path / str(i), seed=seed, tie_word_embeddings=tied)
        for i, seed in enumerate((1, 1, 2))
    ]
    assert torch.equal(state, torch.random.get_rng_state())
    contents = [(path / "model.safetensors").read_bytes() for path in paths]
    assert contents[0] == contents[1] != contents[2]
    assert (b"lm_head" in contents[0]) != tied


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'qwen9'.*qwen2.5-vl"):
        make_tiny("qwen9", tmp_path / "x")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "keep").write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        make_tiny(KINDS[0], tmp_path / "there")
    assert (tmp_path / "there" / "keep").read_text() == "mine"
