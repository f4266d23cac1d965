"""Training problems that are also in an evaluation set, by n-gram."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dft_factory.data.records import Converter, Dropped, Kept
from dft_factory.data.sources import read_files, source_files
from dft_factory.errors import ConfigError

Convert = Callable[[object], Mapping[str, object] | Kept | Dropped]

NGRAM = 13
"""Words in a row, as in GPT-3 (arXiv 2005.14165, appendix C) and lm-evaluation-harness."""
COVERED = 0.5
"""Least share of an evaluation problem's words that shared n-grams must cover.

One shared n-gram is not enough in mathematics: "where m and n are relatively prime positive
integers. Find m+n." has 13 words with the four before it, and ends unrelated problems.
"""

_SPACING = re.compile(r"\\(?:left|right|displaystyle|quad|qquad|[,;:! ])")
_FRACTION = re.compile(r"\\[dt]frac")
_WORD = re.compile(r"[^\W_]+")
_MARKUP = re.compile(r"[\s${}\\]+")


def _plain(text: str) -> str:
    """Case, compatibility forms and LaTeX spacing do not count."""
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
                for place in range(len(words) - NGRAM + 1):
                    gram = " ".join(words[place : place + NGRAM])
                    self._grams[gram].append((len(self._set), place))
                self._set.append(name)
                self._length.append(len(words))

    def find(self, problem: str) -> str | None:
        """The first set that holds this problem.

        Two problems are the same if their whole texts are equal but for case and markup, or if
        n-grams of :data:`NGRAM` words that they share cover at least :data:`COVERED` of the
        evaluation problem's words. Shorter problems can only be equal as a whole.
        """
        plain = _plain(problem)
        whole = self._whole.get(_whole(plain))
        if whole is not None:
            return whole
        words = _WORD.findall(plain)
        covered: defaultdict[int, set[int]] = defaultdict(set)
        for start in range(len(words) - NGRAM + 1):
            for number, place in self._grams.get(" ".join(words[start : start + NGRAM]), ()):
                covered[number].update(range(place, place + NGRAM))
        for number in sorted(covered):
            if len(covered[number]) >= COVERED * self._length[number]:
                return self._set[number]
        return None


def decontaminated(convert: Convert, problems: EvaluationProblems | None) -> Convert:
    """``convert``, which then drops records whose ``instruction`` is in an evaluation set."""
    if problems is None:
        return convert

    def checked(record: object) -> Mapping[str, object] | Kept | Dropped:
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
        ConfigError: a file is not there or has a record without a problem (a hole in the guard),
            or the set ``name`` has no problems.
    """
    option = "--decontaminate"
    if not sources:
        return None
    if not converter.decontaminate:
        raise ConfigError(f"{option}: {sources[0]!r}: {name!r} does not take it. Leave it out.")
    sets: dict[str, list[str]] = {}
    for source in sources:
        files = source_files(source, option=option)
        if files is None:
            raise ConfigError(f"{option}: {source!r} does not exist. Give a local file or folder.")
        for file in files:
            if file.name in sets:
                raise ConfigError(f"{option}: two files are named {file.name!r}. Rename one.")
            sets[file.name] = _problems(file, option)
    return EvaluationProblems(sets)


def _problems(file: Path, option: str) -> list[str]:
    problems = []
    for number, record in enumerate(read_files([file], option=option), start=1):
        values = record if isinstance(record, Mapping) else {}
        problem = values.get("problem", values.get("question"))
        if not isinstance(problem, str) or not problem.strip():
            raise ConfigError(
                f"{option}: {str(file)!r}: record {number} has no problem. Give records with "
                "'problem' or 'question', such as the set you evaluate on."
            )
        problems.append(problem)
    if not problems:
        raise ConfigError(f"{option}: {str(file)!r} has no record.")
    return problems
