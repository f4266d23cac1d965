"""Tokens that DFT would ignore: those with p < 0.1 in their context, and the lowest bin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dft_factory.losses.histogram import LOW, N_BINS
from dft_factory.probe.measure import Measured

SHOWN = 20
A_TOKEN, AN_EXAMPLE = 1, 3
"""Most rows that one token, and one example, get among the ignored ones."""
BEFORE, AFTER = 24, 8
"""Tokens of context."""
RUN = 4
"""From so many repeats of one token on, a picture's placeholders, it is shown once."""


@dataclass(frozen=True)
class Ignored:
    """One improbable token with the text around it; ``example`` counts from 0 in the sample."""

    token: str
    p: float
    segment: str
    example: int
    before: str
    after: str


@dataclass(frozen=True)
class Word:
    """One token of the lowest bin: how often it lies there, and of how many labelled times."""

    token: str
    count: int
    of: int


def _collapsed(ids: list[int]) -> Iterator[int]:
    """``ids`` with long runs of one token reduced to a single one."""
    start = 0
    for i in range(1, len(ids) + 1):
        if i == len(ids) or ids[i] != ids[start]:
            run = ids[start:i]
            yield from run[:1] if len(run) >= RUN else run
            start = i


def ignored(measured: Measured) -> list[Ignored]:
    """The least probable tokens below :data:`LOW`, not all of one kind or one example."""
    tokens, examples = measured.tokens.tolist(), measured.example.tolist()
    of_token: Counter[int] = Counter()
    of_example: Counter[int] = Counter()
    rows: list[Ignored] = []
    for index in measured.logps.argsort(stable=True).tolist():
        p = measured.logps[index].exp().item()
        if p >= LOW or len(rows) == SHOWN:
            break
        number, example = tokens[index], examples[index]
        if of_token[number] >= A_TOKEN or of_example[example] >= AN_EXAMPLE:
            continue
        of_token[number] += 1
        of_example[example] += 1
        ids, place = list(measured.rows[example]), int(measured.position[index])
        # Further back than is shown, so that a picture does not push the question out.
        before = list(_collapsed(ids[:place]))[-BEFORE:]
        after = list(_collapsed(ids[place + 1 : place + 1 + AFTER]))
        rows.append(
            Ignored(
                token=measured.decode([number]),
                p=p,
                segment=measured.segments[index],
                example=example,
                before=measured.decode(before),
                after=measured.decode(after),
            )
        )
    return rows


def lowest_bin(measured: Measured) -> list[Word]:
    """The most frequent tokens with p < 1 / N_BINS; the paper names "the", "let", ","."""
    low = measured.logps.double().exp() < 1 / N_BINS
    inside = Counter(measured.tokens[low].tolist())
    overall = Counter(measured.tokens.tolist())
    return [
        Word(measured.decode([number]), count, overall[number])
        for number, count in sorted(inside.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    ]
