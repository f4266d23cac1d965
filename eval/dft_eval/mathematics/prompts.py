r"""How problems are asked: in chat, or in the turns that the paper's evaluation writes itself.

The paper's evaluation never uses a tokenizer's chat template: it writes the turns of each model
family itself (``PROMPT_TEMPLATES`` in ``math_evaluation/utils.py`` at ``yongliang-wu/DFT``
e153181f). ``--prompt-style completion`` does the same, by the family of ``--base-model`` (or
``--model``); it serves base models without a chat template. ``--prompt-style chat`` sends the same
user turn through the model's own template.
"""

from __future__ import annotations

from dataclasses import dataclass

from dft_eval.benchmark import Request
from dft_eval.errors import UsageError

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        names: parts of a model's name, in lower case.
        template: the whole prompt; ``{user}`` stands for the user's turn.
        stop: ends of turn and of text.
        system: the system message of the paper's prompts, in chat too; None for none.
    """

    names: tuple[str, ...]
    template: str
    stop: tuple[str, ...]
    system: str | None


FAMILIES: dict[str, Family] = {
    "qwen": Family(
        ("qwen",),
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{{user}}<|im_end|>\n"
        "<|im_start|>assistant\n",
        ("<|im_end|>", "<|endoftext|>"),
        SYSTEM,
    ),
    "llama": Family(
        ("llama",),
        f"<|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|end_of_text|>\n"
        "<|start_header_id|>user<|end_header_id|>\n\n{user}<|end_of_text|>\n"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|end_of_text|>", "<|eot_id|>"),
        SYSTEM,
    ),
    "deepseek": Family(
        ("deepseek",), "User: {user}\n\nAssistant:", ("<｜end▁of▁sentence｜>",), None
    ),
}


def family_of(request: Request) -> Family | None:
    """The family that the base model's name, else the model's, tells; None for another."""
    for name in (request.base_model, request.model):
        for family in FAMILIES.values():
            if name is not None and any(part in name.lower() for part in family.names):
                return family
    return None


def user_turn(problem: str) -> str:
    """The problem and the instruction."""
    return f"{problem.strip()}\n{INSTRUCTION}"


def raw_prompt(problem: str, request: Request) -> str:
    """The whole prompt in the family's turns.

    Raises:
        UsageError: the family is unknown.
    """
    family = family_of(request)
    if family is None:
        raise UsageError(
            f"--prompt-style completion: neither --base-model {request.base_model!r} nor --model "
            f"{request.model!r} tells the model family, whose turns the prompt is written in. "
            f"Known: {', '.join(FAMILIES)}. Give --base-model, such as Qwen/Qwen2.5-Math-1.5B, or "
            "use --prompt-style chat."
        )
    return family.template.replace("{user}", user_turn(problem))
