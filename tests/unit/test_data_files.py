"""JSON Lines of benchmarks: what every reader takes and refuses."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dft_eval.code_problems import read_problems
from dft_eval.errors import UsageError
from dft_eval.humaneval_plus.data import read_data as read_evalplus
from dft_eval.mathematics.data import read_data as read_mathematics
from dft_eval.natural_questions.data import read_data as read_questions
from tests.support.jsonl import write_lines

CODE = {"task_id": "T/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": ""}
BROKEN = gzip.compress(b"{}")
READERS: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "humaneval": (read_problems, {**CODE, "test": ""}),
    "humaneval+": (
        lambda path: read_evalplus(path).problems,
        {**CODE, "base_input": [[1]], "plus_input": [], "atol": 0},
    ),
    "nq": (lambda path: read_questions(path).questions, {"question": "q", "answer": ["a"]}),
    "gsm8k": (lambda path: read_mathematics(path).problems, {"problem": "p", "answer": "1"}),
}


@pytest.mark.parametrize("name", READERS)
def test_plain_and_packed_files_are_read_and_broken_ones_named(name: str, tmp_path: Path) -> None:
    read, row = READERS[name]
    path = tmp_path / "x.jsonl"
    path.write_text(f"{json.dumps(row)}\n\n")
    packed = write_lines(tmp_path / "x.jsonl.gz", [row])
    assert [record.model_dump() for record in read(path)] == [row]
    assert read(packed) == read(path)
    for text in (b"{}", b"{", b"[1]", b"\xff", b'{"question": "\xe9"}'):
        path.write_bytes(json.dumps(row).encode() + b"\n\n" + text + b"\n")
        with pytest.raises(UsageError, match=r"x\.jsonl, line 3 is not a "):
            read(path)
    path.write_text("\n")
    with pytest.raises(UsageError, match=r"is empty\. Expected lines of a "):
        read(path)
    with pytest.raises(UsageError, match=r"no such file\. Give a \.jsonl"):
        read(tmp_path / "none.jsonl")
    for content in (b"not gzip", BROKEN[:10] + b"\xff" * 4 + BROKEN[14:]):
        packed.write_bytes(content)
        with pytest.raises(UsageError, match="cannot be read"):
            read(packed)
