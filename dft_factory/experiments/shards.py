"""``shards: N`` of an evaluation: N jobs that each generate a part, on a machine of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dft_eval.generation.shard import FOLDER, Shard
from dft_factory.experiments.plan import Job


def divide(whole: Job, score: Job, out: str, root: str, total: int) -> list[Job]:
    """A job for each shard of the generation ``whole`` into ``out``.

    One that starts with other settings removes what was made of all shards, and the marks of
    ``whole`` and of ``score``, the job after it: they stand for other shards, or for none.
    """
    marks = (whole.stamp, whole.lock, score.stamp, score.lock)
    jobs = []
    for shard in (Shard(number, total) for number in range(1, total + 1)):
        generation = str(shard.folder(Path(out)) / "generation.json")
        jobs.append(
            replace(
                whole,
                what=f"{whole.what}/{FOLDER}/{shard.number}-of-{total}",
                commands=tuple((*words, "--shard", str(shard)) for words in whole.commands),
                makes=(generation,),
                outdated=(generation, *whole.outdated, *(f"{root}/{mark}" for mark in marks)),
            )
        )
    return jobs


def other_shards(out: str, total: int) -> tuple[str, ...]:
    """Folders of shards of another number, which cannot be scored with those of ``total``."""
    paths = sorted((Path(out) / FOLDER).glob("*-of-*"))
    return tuple(str(path) for path in paths if not path.name.endswith(f"-of-{total}"))
