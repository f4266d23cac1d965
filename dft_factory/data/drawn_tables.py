"""Held-out drawn pictures as tables in the shape of VLMEvalKit's MathVerse, MathVision and WeMath.

Tab-separated, pictures in base64, the columns of ms-vlmeval 0.0.20, questions as in the training
records. A blank table has the same rows with white pictures: its score needs no pictures.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from dft_factory.data.drawn import LETTERS, Drawing, drawings, picture_cell

Row = dict[str, object]

VERSIONS = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")
"""MathVerse's five; here each version of a problem has its own picture."""

STEPS = {
    2: ("2steps_1", "2steps_2", "2steps_multi"),
    3: ("3steps_1", "3steps_2", "3steps_3", "3steps_multi"),
}


def _mathverse(source: Iterator[Drawing], items: int, blank: bool) -> Iterator[Row]:
    for index, drawing in enumerate(islice(source, items)):
        yield {
            "index": index,
            "image": picture_cell(drawing, blank),
            "problem_index": index // len(VERSIONS),
            "problem_version": VERSIONS[index % len(VERSIONS)],
            "question": drawing.kind.lettered,
            "answer": drawing.letter,
            "question_type": "multi-choice",
            "metadata": str({"subject": drawing.kind.name}),
            "query_wo": drawing.kind.lettered,
            "query_cot": drawing.kind.lettered,
            "question_for_eval": drawing.kind.lettered,
        }


def _mathvision(source: Iterator[Drawing], items: int, blank: bool) -> Iterator[Row]:
    for index, drawing in enumerate(islice(source, items)):
        yield {
            "index": index,
            "image": picture_cell(drawing, blank),
            "question": drawing.kind.lettered,
            "choices": str(list(drawing.kind.options)),
            "answer": drawing.letter,
            "category": drawing.kind.name,
            "level": 1,
        }


def _wemath(source: Iterator[Drawing], items: int, blank: bool) -> Iterator[Row]:
    """Alternating problems of two and three steps, as many as fit."""
    index = 0
    problem = 0
    while index + len(STEPS[2 + problem % 2]) <= items:
        for key in STEPS[2 + problem % 2]:
            drawing = next(source)
            yield {
                "index": index,
                "ID": problem,
                "split": "testmini",
                "key": key,
                "question": drawing.kind.question,
                **dict(zip(LETTERS, drawing.kind.options, strict=True)),
                **dict.fromkeys("EFG", ""),
                "answer": drawing.letter,
                "knowledge concept": drawing.kind.name,
                "hint": "",
                "requirement": "",
                "image": picture_cell(drawing, blank),
            }
            index += 1
        problem += 1


TABLES: dict[str, Callable[[Iterator[Drawing], int, bool], Iterator[Row]]] = {
    "MathVerse_MINI": _mathverse,
    "MathVision_MINI": _mathvision,
    "WeMath": _wemath,
}


def write_tables(folder: Path, items: int, seed: int, *, blank: bool = False) -> list[Path]:
    """Write all :data:`TABLES` with at most ``items`` rows each; returns their paths.

    Tables of one seed share no picture with each other or with a training set. ``blank`` changes
    only the pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = drawings("held-out", seed)
    paths = []
    for name, rows in TABLES.items():
        path = folder / f"{name}.tsv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer: csv.DictWriter[str] | None = None
            for row in rows(source, items, blank):
                if writer is None:
                    writer = csv.DictWriter(file, list(row), delimiter="\t", lineterminator="\n")
                    writer.writeheader()
                writer.writerow(row)
        paths.append(path)
    return paths
