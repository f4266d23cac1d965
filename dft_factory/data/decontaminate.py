"""Find training problems that are also in an evaluation set, by n-grams."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence

from dft_factory.data.records import Convert, Converter, Dropped, Kept
from dft_factory.data.sources import read_keys
from dft_factory.errors import ConfigError

NGRAM = 13
"""Consecutive words, as in GPT-3 (arXiv 2005.14165, appendix C) and lm-evaluation-harness."""
COVERED = 0.5
"""Least share of an evaluation problem's words that shared n-grams must cover.

One shared n-gram is not enough: unrelated problems end with "where m and n are relatively prime
positive integers. Find m+n.", which makes 13 words with the four before it.
"""

_SPACING = re.compile(r"\\(?:left|right|displaystyle|quad|qquad|[,;:! ])")
_FRACTION = re.compile(r"\\[dt]frac")
_WORD = re.compile(r"[^\W_]+")
_MARKUP = re.compile(r"[\s${}\\]+")


def _plain(text: str) -> str:
    """The text without differences in case, compatibility forms and LaTeX spacing."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return _SPACING.sub(" ", _FRACTION.sub(r"\\frac", text))


def _whole(plain: str) -> str:
    """The text without white space, braces, backslashes, dollar signs and a last full stop."""
    return _MARKUP.sub("", plain).rstrip(".?!:")


class EvaluationProblems:
    """Problems of evaluation sets, by their n-grams and their whole texts."""

    def __init__(self, sets: Mapping[str, Sequence[str]]) -> None:
        """Index the problems of each set by name."""
        self._whole: dict[str, str] = {}
        self._set: list[str] = []
        self._length: list[int] = []
        self._grams: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for name, problems in sets.items():
            for problem in problems:
                plain = _plain(problem)
                self._whole.setdefault(_whole(plain), name)
                words = _WORD.findall(plain)
                for position in range(len(words) - NGRAM + 1):
                    gram = " ".join(words[position : position + NGRAM])
                    self._grams[gram].append((len(self._set), position))
                self._set.append(name)
                self._length.append(len(words))

    def find(self, problem: str) -> str | None:
        """Name of the first set that contains this problem.

        Two problems are the same if their texts are equal up to case and markup, or if shared
        n-grams of :data:`NGRAM` words cover at least :data:`COVERED` of the evaluation problem's
        words. Shorter problems must be equal.
        """
        plain = _plain(problem)
        whole = self._whole.get(_whole(plain))
        if whole is not None:
            return whole
        words = _WORD.findall(plain)
        covered: defaultdict[int, set[int]] = defaultdict(set)
        for start in range(len(words) - NGRAM + 1):
            for number, position in self._grams.get(" ".join(words[start : start + NGRAM]), ()):
                covered[number].update(range(position, position + NGRAM))
        for number in sorted(covered):
            if len(covered[number]) >= COVERED * self._length[number]:
                return self._set[number]
        return None


def decontaminated(convert: Convert, problems: EvaluationProblems | None) -> Convert:
    """``convert``, which then drops records whose ``instruction`` is in an evaluation set."""
    if problems is None:
        return convert

    def checked(record: Mapping[str, object]) -> Mapping[str, object] | Kept | Dropped:
        converted = convert(record)
        if isinstance(converted, Dropped):
            return converted
        values = converted.record if isinstance(converted, Kept) else converted
        name = problems.find(str(values["instruction"]))
        return converted if name is None else Dropped(f"in evaluation set {name}")

    return checked


def read_evaluation_problems(
    converter: Converter, name: str, sources: Sequence[str]
) -> EvaluationProblems | None:
    """The problems of local files (``problem`` or ``question`` in each record), by file name.

    Raises:
        ConfigError: see :func:`dft_factory.data.sources.read_keys`; or the set ``name`` has no
            problems.
    """
    option = "--decontaminate"
    if not sources:
        return None
    if not converter.decontaminate:
        raise ConfigError(f"{option}: {sources[0]!r}: {name!r} does not take it. Leave it out.")
    fix = "Give records with 'problem' or 'question', such as the set you evaluate on."
    sets: dict[str, list[str]] = {}
    for source in sources:
        for file, problems in read_keys(source, option, _problem_of, "problem", fix).items():
            if file in sets:
                raise ConfigError(f"{option}: two files are named {file!r}. Rename one.")
            sets[file] = problems
    return EvaluationProblems(sets)


def _problem_of(record: object) -> str | None:
    values = record if isinstance(record, Mapping) else {}
    problem = values.get("problem", values.get("question"))
    return problem if isinstance(problem, str) and problem.strip() else None
