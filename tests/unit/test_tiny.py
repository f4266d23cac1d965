"""The tiny checkpoints: tokenizers, models, reproducibility, ``--force``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dft_factory.errors import ConfigError
from dft_factory.tiny import KINDS, make_tiny
from dft_factory.tiny_tokenizers import DEEPSEEK_TOKENS, LLAMA3_TOKENS, SPECIAL_TOKENS
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


@pytest.mark.parametrize(("kind", "eos"), [("llama3", "<|end_of_text|>"), ("deepseek", None)])
def test_llama(kind: str, eos: str | None, tmp_path: Path) -> None:
    """Each special token is one id, a text starts with bos, and the chat template has it once."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    path = make_tiny(kind, tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    assert isinstance(model, LlamaForCausalLM)
    tokens = LLAMA3_TOKENS if kind == "llama3" else DEEPSEEK_TOKENS
    ids = [tokenizer.encode(token, add_special_tokens=False) for token in tokens]
    assert [len(numbers) for numbers in ids] == [1] * len(tokens)
    assert tokenizer.encode("def f(x)")[0] == tokenizer.bos_token_id == ids[0][0]
    assert tokenizer.decode(tokenizer.encode("é≠ x")) == f"{tokens[0]}é≠ x"
    assert tokenizer.eos_token == (eos or tokens[1])
    chat = [{"role": "user", "content": "1 + 1?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.count(tokens[0]) == 1
    assert model(tokenizer(text, return_tensors="pt")["input_ids"]).logits.isfinite().all()


def test_vision(vl_bench: Bench) -> None:
    """A picture becomes image tokens, and the model reads them: another picture, other logits."""
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(vl_bench.model)
    model = AutoModelForImageTextToText.from_pretrained(vl_bench.model)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    logits = []
    for colour in ("red", "blue"):
        image = Image.new("RGB", (84, 56), colour)
        inputs = processor(text=[text], images=[image], return_tensors="pt")
        assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 6
        logits.append(model(**inputs).logits[0, -1])
    assert not torch.allclose(*logits)


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


def test_force_replaces_our_checkpoints(tmp_path: Path) -> None:
    out = make_tiny(KINDS[0], tmp_path / "m", seed=1)
    weights = (out / "model.safetensors").read_bytes()
    make_tiny(KINDS[0], out, seed=2, force=True)
    assert (out / "model.safetensors").read_bytes() != weights
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_force_deletes_nothing_else(tmp_path: Path) -> None:
    """Other folders, files and links are kept, also our checkpoints with other files."""
    folder, file, link = tmp_path / "thesis", tmp_path / "notes.txt", tmp_path / "link"
    (folder / "chapters").mkdir(parents=True)
    (folder / "chapters" / "1.tex").write_text("mine")
    file.write_text("mine")
    trained = make_tiny(KINDS[0], tmp_path / "trained")
    link.symlink_to(make_tiny(KINDS[0], tmp_path / "tiny"))
    (trained / "trainer_state.json").write_text("mine")
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (folder, file, link, empty):
        with pytest.raises(ConfigError, match=rf"{path} --force: not a checkpoint folder"):
            make_tiny(KINDS[0], path, force=True)
    with pytest.raises(ConfigError, match=rf"{trained} --force: .* trainer_state.json"):
        make_tiny(KINDS[0], trained, force=True)
    assert (folder / "chapters" / "1.tex").read_text() == file.read_text() == "mine"
    assert (trained / "trainer_state.json").read_text() == "mine"
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 6


def test_a_failure_leaves_the_former_checkpoint(tmp_path: Path) -> None:
    out = make_tiny(KINDS[0], tmp_path / "m")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(TypeError):
        make_tiny(KINDS[0], out, force=True, corpus=[1])  # type: ignore[list-item]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
