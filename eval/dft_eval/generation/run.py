"""Prompts to completions by any backend, resumable: killed at any moment it goes on.

Every completion is cached by what it depends on (prompt, decoding, model, sample). Batches are
planned over all prompts and cached whole, so that a resumed run makes the same batches as an
undisturbed one. Each row is sampled with a seed of its own (of ``Decoding.seed`` and the prompt's
id).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
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


def completion_key(prompt: Prompt, decoding: Decoding, identity: str) -> str:
    """SHA-256 over everything that this completion depends on; neither batch size nor id."""
    parts: dict[str, Any] = {
        "model": identity,
        "prompt": [prompt.text, prompt.chat, prompt.answer_begins],
        "images": [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in prompt.images],
        **asdict(decoding),
    }
    for name in ("batch_size", "samples", "seed"):
        del parts[name]
    if decoding.temperature > 0:
        parts["row_seed"] = decoding.row_seed(prompt.id)  # of the seed, the item and the sample
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _CachedCompletion(Completion):
    """A line of the cache; ``created`` in UTC."""

    key: str
    created: str

    def plain(self) -> Completion:
        return Completion(**self.model_dump(exclude={"key", "created"}))


class CompletionCache:
    """Every completion that was made into a folder, by its key; the newest of each counts.

    Lines are only ever appended; the half line of a killed run is skipped.
    """

    NAME = "completions.cache.jsonl"

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        """Read the cache of ``folder``; with ``fresh``, ignore what it holds."""
        self._path = folder / self.NAME
        self._rows: dict[str, _CachedCompletion] = {}
        self._added: set[str] = set()
        self._torn = False
        if not self._path.exists():
            return
        text = self._path.read_text(encoding="utf-8", errors="replace")
        self._torn = not text.endswith("\n")
        for line in () if fresh else text.split("\n"):
            # Validation fails for the half line of a killed run.
            with contextlib.suppress(ValidationError):
                row = _CachedCompletion.model_validate_json(line)
                self._rows[row.key] = row

    def get(self, key: str) -> Completion | None:
        """The completion of this key."""
        row = self._rows.get(key)
        return None if row is None else row.plain()

    def announce(self, keys: Iterable[str]) -> None:
        """Say on stderr how many of these were made by earlier calls, and when."""
        dates = [self._rows[key].created for key in keys if key not in self._added]
        if dates:
            first, last = min(dates), max(dates)
            when = first if first == last else f"{first} to {last}"
            sys.stderr.write(
                f"reusing {len(dates)} completions from {when} (--fresh makes them again)\n"
            )

    def add(self, rows: Iterable[tuple[str, Completion]]) -> None:
        """Append completions by their keys."""
        created = datetime.now(UTC).isoformat(" ", "seconds")
        new = [_CachedCompletion(**row.model_dump(), key=key, created=created) for key, row in rows]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            lines = "".join(f"{row.model_dump_json()}\n" for row in new)
            stream.write(f"\n{lines}" if self._torn else lines)
        self._torn = False
        self._rows.update((row.key, row) for row in new)
        self._added.update(row.key for row in new)


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """``text`` before the first stop text, and whether there was one."""
    places = [place for place in (text.find(each) for each in stop) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def generate(
    prompts: Sequence[Prompt],
    decoding: Decoding,
    path: Path,
    *,
    backend: Backend,
    progress: Callable[[int, int], None],
) -> list[Completion]:
    """As :func:`generate_each`, where every prompt must have a completion.

    Raises:
        UsageError: as :func:`generate_each`.
        EvaluationError: some failed; those that did not are in ``path``.
    """
    rows = generate_each(prompts, decoding, path, backend=backend, progress=progress)
    failed = [row for row in rows if isinstance(row, Failure)]
    if failed:
        raise EvaluationError(
            f"{path}: {len(failed)} of {len(prompts)} completions are missing, first "
            f"{failed[0].id}: {failed[0].reason} Run the same command again to make the rest."
        )
    return [row for row in rows if isinstance(row, Completion)]


def generate_each(
    prompts: Sequence[Prompt],
    decoding: Decoding,
    path: Path,
    *,
    backend: Backend,
    progress: Callable[[int, int], None],
    cache: CompletionCache | None = None,
) -> list[Completion | Failure]:
    """A completion or a failure of every prompt, in their order.

    Args:
        path: the completions file (JSONL), written when all is done, without failures.
        backend: asked only for what ``cache`` does not hold.
        progress: called with (done, all) as completions end and when their batch is cached.
        cache: None for the one in ``path``'s folder.

    Raises:
        UsageError: two prompts have the same id.
        EvaluationError: out of memory; what was completed is in ``cache``.
    """
    if len({prompt.id for prompt in prompts}) != len(prompts):
        raise UsageError("Two prompts share an id; every item needs its own.")
    if cache is None:
        cache = CompletionCache(path.parent)
    keys = {prompt.id: completion_key(prompt, decoding, backend.identity) for prompt in prompts}
    done: dict[str, Completion | Failure] = {}
    for prompt in prompts:
        if (row := cache.get(keys[prompt.id])) is not None:
            done[prompt.id] = row.model_copy(update={"id": prompt.id})
    cache.announce(keys[id] for id in done)
    progress(len(done), len(prompts))
    if len(done) < len(prompts):
        planned = backend.batches(prompts, decoding)
        batches = [[prompts[i] for i in batch if prompts[i].id not in done] for batch in planned]
        in_flight: list[Completion] = []

        def ended(row: Completion) -> None:
            in_flight.append(row)
            progress(len(done) + len(in_flight), len(prompts))

        try:
            for rows in _run(backend, [batch for batch in batches if batch], decoding, ended):
                in_flight.clear()
                cache.add((keys[row.id], row) for row in rows if isinstance(row, Completion))
                done.update((row.id, row) for row in rows)
                progress(len(done), len(prompts))
        except EvaluationError:
            cache.add((keys[row.id], row) for row in in_flight)
            raise
    rows = [
        done.get(prompt.id, Failure(prompt.id, "The backend returned nothing for it."))
        for prompt in prompts
    ]
    completions = [row for row in rows if isinstance(row, Completion)]
    atomic_write(path, "".join(f"{row.model_dump_json()}\n" for row in completions))
    return rows


def _run(
    backend: Backend,
    batches: Sequence[Sequence[Prompt]],
    decoding: Decoding,
    ended: Callable[[Completion], None],
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
