"""What a backend is asked (prompts, decoding) and what it returns (completions, failures)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from dft_eval.errors import UsageError


@dataclass(frozen=True)
class Prompt:
    """One prompt, whoever completes it; the backend renders a chat in its own way.

    Attributes:
        text: raw text to go on from, or with ``chat`` what the user says.
        answer_begins: with ``chat``, the first words of the answer, put into the model's mouth.
        images: with ``chat``, files of pictures that come before the text.
    """

    id: str
    text: str
    chat: bool = False
    answer_begins: str = ""
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoding:
    """How completions are made; recorded in the result. Greedy unless ``temperature`` is set.

    Attributes:
        max_new_tokens: tokens after which a completion is cut ('length').
        batch_size: prompts run together; with a server, requests under way at once.
        stop: texts at the first of which a completion ends (and which it does not hold).
        samples: completions a prompt, for pass@k.
        temperature: divides the logits; 0 is greedy decoding.
        top_p: the smallest set of tokens of at least this probability is sampled from.
        top_k: the most likely tokens that are sampled from; -1 for all (as vLLM spells it).
        min_p: tokens of less than this share of the likeliest one's probability are left out.
        repetition_penalty: divides the positive logits of tokens that are there already and
            multiplies their negative ones; 1 is none.
        system_prompt: of chats: its text, ``none`` for no system message, or None for what the
            chat template does by itself.

    Raises:
        UsageError: a value out of its range, or one that would have no effect.
    """

    max_new_tokens: int = 512
    batch_size: int = 32
    stop: tuple[str, ...] = ()
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        for option in ("max_new_tokens", "batch_size", "samples"):
            if (value := getattr(self, option)) < 1:
                raise UsageError(
                    f"--{option.replace('_', '-')} {value}: give a number of 1 or more."
                )
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"--temperature {self.temperature}: give 0 (greedy) or more.")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p {self.top_p}: give a number above 0 and up to 1.")
        if self.top_k != -1 and self.top_k < 1:
            raise UsageError(f"--top-k {self.top_k}: give a number of 1 or more, or -1 for all.")
        if not 0 <= self.min_p < 1:
            raise UsageError(f"--min-p {self.min_p}: give a number from 0 to below 1.")
        if not 0 < self.repetition_penalty < math.inf:
            raise UsageError(
                f"--repetition-penalty {self.repetition_penalty}: give a number above 0; 1 is none."
            )
        neutral = {"samples": 1, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
        sampling = [name for name, value in neutral.items() if getattr(self, name) != value]
        if self.temperature == 0 and sampling:
            options = (f"--{name.replace('_', '-')} {getattr(self, name)}" for name in sampling)
            raise UsageError(
                f"{' '.join(options)} with --temperature 0: greedy decoding takes the likeliest "
                "token, one completion a prompt. Set --temperature above 0, such as 0.8."
            )

    def record(self) -> dict[str, Any]:
        """For ``results.json``: what was asked of the backend, whichever it is."""
        values = {**asdict(self), "stop": list(self.stop)}
        if self.system_prompt is None:
            del values["system_prompt"]
        if self.temperature > 0:
            return {"strategy": "sampling", **values}
        unused = ("samples", "temperature", "seed")
        return {"strategy": "greedy", **{k: v for k, v in values.items() if k not in unused}}

    def row_seed(self, id: str) -> int:
        """The seed of one prompt's completion, 31 bits: the same in whatever batch it is made."""
        digest = hashlib.sha256(f"{self.seed} {id}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1


def samples_of(prompts: Sequence[Prompt], decoding: Decoding) -> list[Prompt]:
    """Every prompt ``decoding.samples`` times, one after the other, each with an id of its own."""
    if decoding.samples == 1:
        return list(prompts)
    return [
        replace(prompt, id=f"{prompt.id}#{k}")
        for prompt in prompts
        for k in range(decoding.samples)
    ]


class Completion(BaseModel):
    """One line of a completions file.

    Attributes:
        finish_reason: 'stop' (end of turn or stop text) or 'length'.
        n_tokens: generated tokens up to the end of turn.
        mean_entropy: nats a token, over all generated tokens and the end of turn, of the
            distribution that they were drawn from: softmax(logits / temperature), before min_p,
            top_k and top_p; at temperature 1 where decoding was greedy. None where it is not
            known: of a server, or made by an earlier version.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    prompt: str
    completion: str
    finish_reason: str
    n_tokens: int
    mean_entropy: float | None = None


@dataclass(frozen=True)
class Failure:
    """A prompt that could not be completed, and why; a resumed run tries it again."""

    id: str
    reason: str


def noop(row: Completion) -> None:
    """Default callback: does nothing."""


class Backend(Protocol):
    """What completes prompts: a model in this process, or a server.

    Where it has an attribute ``concurrent`` that is true, it runs ``batch_size`` batches at once.
    """

    @property
    def identity(self) -> str:
        """What completions depend on beside prompts and decoding (the model's hash)."""

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Places of the prompts in fixed batches, in the order in which they are to run."""

    def complete(
        self, prompts: Sequence[Prompt], decoding: Decoding, ended: Callable[[Completion], None]
    ) -> Sequence[Completion | Failure]:
        """Completions of one batch, in its order.

        ``ended`` may be called with each completion as it ends, in the calling thread.

        Raises:
            EvaluationError: out of memory; completions that had ended were passed to ``ended``.
        """


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """``text`` before the first stop text, and whether there was one."""
    places = [place for place in (text.find(end) for end in stop) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)
