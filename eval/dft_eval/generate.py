"""Prompts to completions by any backend, resumable: killed at any moment it goes on.

Batches are fixed before the first is run and each is written whole, so that a
resumed run makes the same batches, and so the same completions, as an undisturbed one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from dft_eval.errors import EvaluationError, UsageError
from dft_eval.results import atomic_write


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


class Backend(Protocol):
    """What completes prompts: a model in this process, or a server."""

    @property
    def identity(self) -> str:
        """What completions depend on beside prompts and decoding (the model's hash)."""

    def batches(self, prompts: Sequence[Prompt], size: int) -> list[list[int]]:
        """Places of the prompts in fixed batches, in the order in which they are to run."""

    def complete(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Completion]:
        """Completions of one batch, in its order."""


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


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """``text`` before the first stop text, and whether there was one."""
    places = [place for place in (text.find(each) for each in stop) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def generate(
    prompts: Sequence[Prompt],
    decoding: Decoding,
    cache: Path,
    *,
    backend: Backend,
    progress: Callable[[int, int], None],
) -> list[Completion]:
    """Completions of all prompts, in their order, resuming what ``cache`` holds.

    Args:
        cache: the completions file (JSONL), written batch by batch.
        backend: asked for nothing when nothing is left to do.
        progress: called with (done, all) after every batch.

    Raises:
        UsageError: ``cache`` holds completions made with other settings, or ids repeat.
    """
    if len({prompt.id for prompt in prompts}) != len(prompts):
        raise UsageError("Two prompts share an id; every item needs its own.")
    cache.parent.mkdir(parents=True, exist_ok=True)
    done = _open_cache(cache, _key(prompts, decoding, backend.identity))
    progress(len(done), len(prompts))
    if len(done) < len(prompts):
        planned = backend.batches(prompts, decoding.batch_size)
        with cache.open("a", encoding="utf-8") as stream:
            for batch in _left(planned, prompts, done):
                rows = backend.complete([prompts[i] for i in batch], decoding)
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
