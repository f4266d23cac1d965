"""Greedy answers to a few held-out prompts: what a collapsing model writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dft_eval.generation.hf_decode import decode
from dft_eval.generation.run import Decoding
from dft_factory.losses.token import IGNORE_INDEX
from dft_factory.watch import Answers

N_PROMPTS = 8
NEW_TOKENS = 32


@dataclass(frozen=True)
class HeldOut:
    """Token ids of one prompt and of the first :data:`NEW_TOKENS` of its reference answer."""

    prompt: tuple[int, ...]
    reference: tuple[int, ...]


def held_out(dataset: Iterable[Mapping[str, Any]]) -> list[HeldOut]:
    """Prompts and first answers of the first examples that have a prompt.

    Args:
        dataset: tokenized by LLaMA-Factory.
    """
    chosen: list[HeldOut] = []
    for row in dataset:
        labelled = [label != IGNORE_INDEX for label in row["labels"]]
        start = labelled.index(True) if True in labelled else 0
        if not start:
            continue
        end = [*labelled, False].index(False, start)
        ids = tuple(row["input_ids"])
        chosen.append(HeldOut(ids[:start], ids[start : min(end, start + NEW_TOKENS)]))
        if len(chosen) == N_PROMPTS:
            break
    return chosen


def greedy(model: Any, prompts: Sequence[Sequence[int]], ends: Sequence[int]) -> list[list[int]]:
    """New token ids of each prompt, up to and without its end; generation_config.json has no say.

    Args:
        ends: token ids that end an answer.
    """
    decoding = Decoding(max_new_tokens=NEW_TOKENS, batch_size=N_PROMPTS)
    answers = decode(model, prompts, decoding, [0] * len(prompts), lambda row, ids: ids[-1] in ends)
    return [without_end(ids, ends) for ids in answers]


def without_end(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """``ids`` before the first of ``ends``."""
    return list(ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))])


def summarise(answers: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> Answers:
    """Lengths and repeats of answers and references, in tokens."""

    def repeated(texts: Sequence[Sequence[int]]) -> float:
        counts = Counter(map(tuple, texts))
        return sum(count for count in counts.values() if count > 1) / len(texts)

    return Answers(
        n=len(answers),
        length=sum(map(len, answers)) / len(answers),
        repeated=repeated(answers),
        reference_length=sum(map(len, references)) / len(references),
        reference_repeated=repeated(references),
    )
