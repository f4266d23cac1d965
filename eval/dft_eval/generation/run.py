"""Prompts to completions by any backend, resumable: killed at any moment it goes on.

Batches are fixed before the first is run and each is written whole, so that a
resumed run makes the same batches, and so the same completions, as an undisturbed one.
Each row is sampled with a seed of its own (of ``Decoding.seed`` and the prompt's id).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
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
    """One line of a completions file. ``finish_reason``: 'stop' (end of turn or stop text) or
    'length'; ``n_tokens`` counts generated tokens up to the end of turn."""

    model_config = ConfigDict(extra="forbid")

    id: str
    prompt: str
    completion: str
    finish_reason: str
    n_tokens: int


@dataclass(frozen=True)
class Failure:
    """A prompt that could not be completed, and why; a resumed run tries it again."""

    id: str
    reason: str


def unwatched() -> None:
    """For rows whose ends nobody waits for."""


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
        self, prompts: Sequence[Prompt], decoding: Decoding, ended: Callable[[], None]
    ) -> Sequence[Completion | Failure]:
        """Completions of one batch, in its order.

        ``ended`` may be called, in the thread that calls, as each of several ends.
        """


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


def share_cache(
    source: Path, target: Path, prompts: Sequence[Prompt], decoding: Decoding, identity: str
) -> None:
    """Copy completions of the same prompts and settings that another benchmark has made."""
    settings = source.with_suffix(".settings.json")
    if target.exists() or not source.exists() or not settings.exists():
        return
    if json.loads(settings.read_text(encoding="utf-8")) == _key(prompts, decoding, identity):
        atomic_write(target, source.read_text(encoding="utf-8"))
        atomic_write(target.with_suffix(".settings.json"), settings.read_text(encoding="utf-8"))


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
    """As :func:`generate_each`, where every prompt must have a completion.

    Raises:
        UsageError: as :func:`generate_each`.
        EvaluationError: some failed; those that did not are in ``cache``.
    """
    rows = generate_each(prompts, decoding, cache, backend=backend, progress=progress)
    failed = [row for row in rows if isinstance(row, Failure)]
    if failed:
        raise EvaluationError(
            f"{cache} lacks {len(failed)} of {len(prompts)} completions, first {failed[0].id}: "
            f"{failed[0].reason} The same command goes on from there."
        )
    return [row for row in rows if isinstance(row, Completion)]


def generate_each(
    prompts: Sequence[Prompt],
    decoding: Decoding,
    cache: Path,
    *,
    backend: Backend,
    progress: Callable[[int, int], None],
) -> list[Completion | Failure]:
    """A completion or a failure of every prompt, in their order, resuming what ``cache`` holds.

    Args:
        cache: the completions file (JSONL), written batch by batch, without failures.
        backend: asked for nothing when nothing is left to do.
        progress: called with (done, all) as completions end and when their batch is written.

    Raises:
        UsageError: ``cache`` holds completions made with other settings, or ids repeat.
    """
    if len({prompt.id for prompt in prompts}) != len(prompts):
        raise UsageError("Two prompts share an id; every item needs its own.")
    cache.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, Completion | Failure] = {}
    done.update(_open_cache(cache, _key(prompts, decoding, backend.identity)))
    progress(len(done), len(prompts))
    if len(done) < len(prompts):
        planned = backend.batches(prompts, decoding)
        left = [[prompts[i] for i in batch] for batch in _left(planned, prompts, done)]
        in_flight = 0

        def ended() -> None:
            nonlocal in_flight
            in_flight += 1
            # A batch that runs again may have completions that are done already.
            progress(min(len(done) + in_flight, len(prompts)), len(prompts))

        with cache.open("a", encoding="utf-8") as stream:
            for rows in _run(backend, left, decoding, ended):
                in_flight = 0
                made = [row for row in rows if isinstance(row, Completion)]
                stream.write("".join(row.model_dump_json() + "\n" for row in made))
                stream.flush()
                done.update((row.id, row) for row in rows)
                progress(len(done), len(prompts))
    return [
        done.get(prompt.id, Failure(prompt.id, "The backend returned nothing for it."))
        for prompt in prompts
    ]


def _left(
    planned: list[list[int]], prompts: Sequence[Prompt], done: Iterable[str]
) -> Iterator[list[int]]:
    """Planned batches of which at least one completion is missing; such a batch runs whole."""
    known = set(done)
    for batch in planned:
        if any(prompts[i].id not in known for i in batch):
            yield batch


def _run(
    backend: Backend,
    batches: Sequence[Sequence[Prompt]],
    decoding: Decoding,
    ended: Callable[[], None],
) -> Iterator[Sequence[Completion | Failure]]:
    """The rows of each batch, in the order in which they are finished."""
    if not getattr(backend, "concurrent", False):
        yield from (backend.complete(batch, decoding, ended) for batch in batches)
        return
    pool = ThreadPoolExecutor(decoding.batch_size)
    try:
        futures = [pool.submit(backend.complete, batch, decoding, ended) for batch in batches]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
