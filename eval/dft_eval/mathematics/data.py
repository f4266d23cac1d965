r"""Problems with a short right answer: from a file, or as released with the DFT paper."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from dft_eval.data_files import parse_records, read_jsonl
from dft_eval.errors import PrerequisiteError

SOURCE = "yongliang-wu/DFT@e153181f71522428ed030f4519702890c699ed6b"
URL = (
    "https://raw.githubusercontent.com/{repository}/{commit}/math_evaluation/data/{name}/test.jsonl"
)

EXPECTED = "a problem ('problem' and 'answer', both texts)"


class Problem(BaseModel):
    """One problem; other fields of a file are ignored."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    problem: str
    answer: str

    @field_validator("problem", "answer")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("it is empty")
        return text

    @property
    def id(self) -> str:
        """Of the problem's text, so that runs on parts of one set pair up whatever its order."""
        text = self.problem.strip().encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).hexdigest()[:12]


@dataclass(frozen=True)
class ProblemSet:
    """All problems of one place; ``source`` says which data it is, for ``results.json``."""

    problems: list[Problem]
    source: str


@dataclass(frozen=True)
class Published:
    """A published test set.

    Attributes:
        folder: its name in the paper's repository.
        sha256: of the file there.
        read: a row of that file as ``problem`` and ``answer``.
    """

    folder: str
    sha256: str
    read: Callable[[Mapping[str, Any]], dict[str, Any]]


def _as_is(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"problem": row["problem"], "answer": row["answer"]}


def _minerva(row: Mapping[str, Any]) -> dict[str, Any]:
    """The answer is what the solution's last box holds."""
    rest = row["solution"].rpartition("\\boxed")[2]
    depth = 0
    for place, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return {"problem": row["problem"], "answer": rest[1:place]}
    raise ValueError("the solution has no box")


def _gsm8k(row: Mapping[str, Any]) -> dict[str, Any]:
    answer = row["answer"].rpartition("####")[2].strip().replace(",", "")
    return {"problem": row["question"], "answer": answer}


PUBLISHED: dict[str, Published] = {
    "math500": Published(
        "math_oai", "a239272930e5202bf1d5275f7fa475a56687c775a61f1354a6d3371bf9dd7a94", _as_is
    ),
    "minerva": Published(
        "minerva_math", "0e656b430d3a0a1dab6aa853f453ba3805e28e2cabe4fc72486a897cc09d8ba2", _minerva
    ),
    "olympiadbench": Published(
        "olympiadbench",
        "bb8c1e38a16ea9eacb77530315a674d883f267fbff79183effc53681b4fcc416",
        lambda row: {"problem": row["question"], "answer": row["final_answer"][0].strip("$")},
    ),
    "aime24": Published(
        "aime24", "af2b8bd2aa911b6333ad0df32f3ca05c7ae8ed10f1731f4372c8ae26990bf7ac", _as_is
    ),
    "amc23": Published(
        "amc23",
        "43707e1ca784602d8479de24ee8ce36609dbebc46dd152b0b12a46611aa898a4",
        lambda row: {"problem": row["problem"], "answer": f"{row['answer']:g}"},
    ),
    "gsm8k": Published(
        "gsm8k", "9f098df7ff4522078d6ccec27a5c38a454790fdb51131bedfaa0e490070d5394", _gsm8k
    ),
}


def read_data(path: Path) -> ProblemSet:
    """Problems of a ``.jsonl`` or ``.jsonl.gz`` file with ``problem`` and ``answer`` a line.

    Raises:
        UsageError: no such file, a line that is no problem, by number, or a problem twice.
    """
    problems, content = read_jsonl(path, _parser(dict), EXPECTED)
    return ProblemSet(problems, f"data: {path.name}, sha256 {hashlib.sha256(content).hexdigest()}")


def from_repository(name: str, url: str = URL) -> ProblemSet:
    """A published set, at a fixed commit of the paper's repository.

    Raises:
        PrerequisiteError: out of reach, or not the file that it was.
    """
    import httpx

    published = PUBLISHED[name]
    repository, _, commit = SOURCE.partition("@")
    address = url.format(repository=repository, commit=commit, name=published.folder)
    advice = "Give the file by --data FILE (.jsonl with 'problem' and 'answer' a line)."
    try:
        reply = httpx.get(address, follow_redirects=True, timeout=60).raise_for_status()
    except httpx.HTTPError as error:
        raise PrerequisiteError(
            f"{address} cannot be loaded: {type(error).__name__}: {error}\n{advice}"
        ) from error
    sha256 = hashlib.sha256(reply.content).hexdigest()
    if sha256 != published.sha256:
        raise PrerequisiteError(
            f"{address} has sha256 {sha256}, not {published.sha256}: another file.\n{advice}"
        )
    lines = enumerate(filter(None, reply.content.split(b"\n")), start=1)
    rows = ((f"{address}, line {number}", json.loads(line)) for number, line in lines)
    problems = parse_records(rows, _parser(published.read), EXPECTED)
    return ProblemSet(problems, f"data: {SOURCE}, {published.folder}, sha256 {sha256}")


def _parser(
    read: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Callable[[Any], Problem]:
    """Validates rows as problems; ValueError for one that came before."""
    ids: set[str] = set()

    def parse(row: Any) -> Problem:
        try:
            problem = Problem.model_validate(read(row))
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from error
        if problem.id in ids:
            raise ValueError(f"the problem {problem.problem[:80]!r} is there twice")
        ids.add(problem.id)
        return problem

    return parse
