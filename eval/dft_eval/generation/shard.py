"""``generate --shard K/N``: one of N equal parts of a benchmark."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dft_eval.errors import UsageError
from dft_eval.generation.run import Prompt

FOLDER = "shards"


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``total``."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def folder(self, out: Path) -> Path:
        """Where it is generated, with a cache of its own."""
        return out / FOLDER / f"{self.number}-of-{self.total}"

    def select(self, prompts: Sequence[Prompt], samples: int) -> list[Prompt]:
        """Its prompts, in their order: every N-th item in the order of the ids' hashes.

        The samples of an item stay together.
        """
        ids = list(dict.fromkeys(_item_id(prompt, samples) for prompt in prompts))
        ids.sort(key=lambda id: hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest())
        own = set(ids[self.number - 1 :: self.total])
        return [prompt for prompt in prompts if _item_id(prompt, samples) in own]


def _item_id(prompt: Prompt, samples: int) -> str:
    return prompt.id if samples == 1 else prompt.id.rpartition("#")[0]


def parse_shard(text: str | None) -> Shard | None:
    """The shard that ``--shard`` names.

    Raises:
        UsageError: it is not K/N with K from 1 to N.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard {text!r}: give K/N with K from 1 to N, such as 1/4.")
    return Shard(int(match[1]), int(match[2]))
