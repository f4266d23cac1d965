"""Prompts to completions, batched by length, on transformers; killed at any moment it goes on.

Batches are fixed before the first is run (longest first) and each is written whole, so that a
resumed run makes the same batches, and so the same completions, as an undisturbed one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dft_eval.errors import EvaluationError, UsageError
from dft_eval.results import atomic_write

ROUND_TOKENS = 64
"""Tokens generated before rows that have ended leave their batch."""


@dataclass(frozen=True)
class Prompt:
    """One prompt as the model reads it.

    Attributes:
        text: the whole input, chat markup included.
        markup: whether ``text`` brings its own special tokens (a rendered chat does).
    """

    id: str
    text: str
    markup: bool


@dataclass(frozen=True)
class Decoding:
    """How completions are made; recorded in the result. Greedy.

    Attributes:
        max_new_tokens: tokens after which a completion is cut ('length').
        batch_size: prompts run together.
        stop: texts at the first of which a completion ends (and which it does not hold).
    """

    max_new_tokens: int = 512
    batch_size: int = 32
    stop: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """For ``results.json``."""
        return {"strategy": "greedy", **asdict(self), "stop": list(self.stop)}


class Completion(BaseModel):
    """One line of a completions file. ``finish_reason``: 'stop' (end of turn or stop text) or
    'length'; ``n_tokens`` counts generated tokens up to the end of turn."""

    model_config = ConfigDict(extra="forbid")

    id: str
    prompt: str
    completion: str
    finish_reason: str
    n_tokens: int


def chat_prompt(tokenizer: Any, id: str, question: str, answer_begins: str = "") -> Prompt:
    """One user turn in the tokenizer's own chat template, the answer already begun.

    Raises:
        UsageError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UsageError(
            "This model's tokenizer has no chat template, so --prompt-style chat cannot be used. "
            "Use --prompt-style completion."
        )
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return Prompt(id, f"{text}{answer_begins}", markup=True)


def _key(prompts: Sequence[Prompt], decoding: Decoding, identity: str) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps([asdict(p) for p in prompts]).encode()).hexdigest()
    return {"model": identity, "prompts_sha256": digest, "decoding": decoding.record()}


def _open_cache(path: Path, key: dict[str, Any]) -> dict[str, Completion]:
    """Completions of an earlier, interrupted run with the same settings."""
    settings = path.with_suffix(".settings.json")
    if not path.exists() or not settings.exists():
        path.unlink(missing_ok=True)
        atomic_write(settings, json.dumps(key, indent=2) + "\n")
        return {}
    former = json.loads(settings.read_text(encoding="utf-8"))
    if former != key:
        changed = [name for name in key if former.get(name) != key[name]]
        raise UsageError(
            f"{path} holds completions made with another {', '.join(changed)}. Use another --out, "
            "or delete that file to make them again."
        )
    done: dict[str, Completion] = {}
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            row = Completion.model_validate_json(line)
        except ValidationError:
            break  # the line at which an earlier run was killed, or the end
        done[row.id] = row
        kept.append(line + "\n")
    atomic_write(path, "".join(kept))
    return done


def batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in fixed batches, longest first, so that memory runs out at once or never."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """``text`` before the first stop text, and whether there was one."""
    places = [place for place in (text.find(each) for each in stop) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def complete_batch(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], decoding: Decoding
) -> list[Completion]:
    """Greedy completions of one batch.

    In rounds of :data:`ROUND_TOKENS`: rows that have ended leave the batch, since a few long
    completions would otherwise be waited for by all.
    """
    import torch

    starts: list[list[int]] = tokenizer(
        [prompt.text for prompt in prompts], add_special_tokens=not prompts[0].markup
    )["input_ids"]
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
    stopping = {"stop_strings": list(decoding.stop), "tokenizer": tokenizer}
    made: list[list[int]] = [[] for _ in prompts]
    rows: dict[int, Completion] = {}
    for begin in range(0, decoding.max_new_tokens, ROUND_TOKENS):
        active = [i for i in range(len(prompts)) if i not in rows]
        if not active:
            break
        inputs = tokenizer.pad(
            {"input_ids": [starts[i] + made[i] for i in active]}, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            output = model.generate(
                **inputs,
                max_new_tokens=min(ROUND_TOKENS, decoding.max_new_tokens - begin),
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id,
                **(stopping if decoding.stop else {}),
            )
        for i, tokens in zip(active, output[:, inputs["input_ids"].shape[1] :], strict=True):
            made[i] += tokens.tolist()
            row = _ended(tokenizer, prompts[i], made[i], ends, decoding)
            if row is not None:
                rows[i] = row
    return [rows[i] for i in range(len(prompts))]


def _ended(
    tokenizer: Any, prompt: Prompt, ids: list[int], ends: set[int], decoding: Decoding
) -> Completion | None:
    """The completion of one row, if it has ended; what follows its end is dropped."""
    end = next((i for i, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(ids if end is None else ids[:end], skip_special_tokens=True)
    text, stopped = cut(text, decoding.stop)
    finished = stopped or end is not None
    if not finished and len(ids) < decoding.max_new_tokens:
        return None
    return Completion(
        id=prompt.id,
        prompt=prompt.text,
        completion=text,
        finish_reason="stop" if finished else "length",
        n_tokens=len(ids) if end is None else end,
    )


def generate(
    prompts: Sequence[Prompt],
    decoding: Decoding,
    cache: Path,
    *,
    identity: str,
    load: Callable[[], tuple[Any, Any]],
    progress: Callable[[int, int], None],
) -> list[Completion]:
    """Completions of all prompts, in their order, resuming what ``cache`` holds.

    Args:
        cache: the completions file (JSONL), written batch by batch.
        identity: what the completions depend on beside prompts and decoding (the model's hash).
        load: gives model and tokenizer; not called when nothing is left to do.
        progress: called with (done, all) after every batch.

    Raises:
        UsageError: ``cache`` holds completions made with other settings, or ids repeat.
    """
    if len({prompt.id for prompt in prompts}) != len(prompts):
        raise UsageError("Two prompts share an id; every item needs its own.")
    cache.parent.mkdir(parents=True, exist_ok=True)
    done = _open_cache(cache, _key(prompts, decoding, identity))
    progress(len(done), len(prompts))
    if len(done) < len(prompts):
        model, tokenizer = load()
        lengths = [
            len(tokenizer(prompt.text, add_special_tokens=False)["input_ids"]) for prompt in prompts
        ]
        with cache.open("a", encoding="utf-8") as stream:
            for batch in _left(batches(lengths, decoding.batch_size), prompts, done):
                rows = complete_batch(model, tokenizer, [prompts[i] for i in batch], decoding)
                stream.write("".join(row.model_dump_json() + "\n" for row in rows))
                stream.flush()
                done.update((row.id, row) for row in rows)
                progress(len(done), len(prompts))
    missing = [prompt.id for prompt in prompts if prompt.id not in done]
    if missing:
        raise EvaluationError(f"{cache} lacks {len(missing)} completions, {missing[0]} first.")
    return [done[prompt.id] for prompt in prompts]


def _left(
    planned: list[list[int]], prompts: Sequence[Prompt], done: dict[str, Completion]
) -> Iterator[list[int]]:
    """Planned batches of which at least one completion is missing; such a batch runs whole."""
    for batch in planned:
        if any(prompts[i].id not in done for i in batch):
            yield batch
