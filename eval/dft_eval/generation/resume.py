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
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dft_eval.errors import EvaluationError, UsageError
from dft_eval.generation.run import Backend, Completion, Decoding, Failure, Prompt
from dft_eval.results import atomic_write


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
