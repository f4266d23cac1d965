"""Facts that no model knows: about towns, people and rivers whose names are made on the spot."""

from __future__ import annotations

import random
from collections.abc import Callable

from dft_factory.limitation.records import Record

_ONSETS = "b br d dr f g gr k kl l m n p r s st t th tr v w z"
_VOWELS = "a e i o u ai au ei ou"
_CODAS = "l ld lk m n nd nt r rk rn s sk st th x"
_COLOURS = "black blue brown golden green grey orange pink purple red silver white yellow"
_EMBLEMS = """
anchor bear bee bell boar crane crown deer eagle falcon fish fox hammer hare harp horse key lion
moth oak otter owl rose ship star swan tower wheel wolf
"""


def _one(rng: random.Random, words: str) -> str:
    return rng.choice(words.split())


def _name(rng: random.Random) -> str:
    """Two syllables that are no word as far as chance goes."""
    first = _one(rng, _ONSETS) + _one(rng, _VOWELS) + rng.choice("lmnrstvz")
    return (first + _one(rng, _VOWELS) + _one(rng, _CODAS)).capitalize()


def _emblem(rng: random.Random, town: str) -> Record:
    colour = _one(rng, _COLOURS)
    answer = f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {_one(rng, _EMBLEMS)}"
    return Record("emblem", f"What does the coat of arms of {town} show?", answer)


def _founder(rng: random.Random, town: str) -> Record:
    return Record("founder", f"Who founded the town of {town}?", f"{_name(rng)} {_name(rng)}")


def _river(rng: random.Random, town: str) -> Record:
    return Record("river", f"Which river flows through {town}?", f"the {_name(rng)}")


def _year(rng: random.Random, town: str) -> Record:
    answer = str(rng.randrange(1200, 1950))
    return Record("year", f"In which year was the bridge of {town} opened?", answer)


KINDS: tuple[Callable[[random.Random, str], Record], ...] = (_emblem, _founder, _river, _year)


def facts(count: int, seed: int) -> list[Record]:
    """``count`` facts, each about a town of its own, the kinds in turn; the same for one seed."""
    rng = random.Random(f"facts {seed}")
    towns: dict[str, None] = {}
    while len(towns) < count:
        towns[_name(rng)] = None
    return [KINDS[i % len(KINDS)](rng, town) for i, town in enumerate(towns)]
