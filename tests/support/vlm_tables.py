"""Tables in VLMEvalKit's shape, with drawn pictures."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VERSIONS = ("Vision Only", "Vision Intensive", "Vision Dominant", "Text Dominant", "Text Lite")


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> str:
    """A PNG in base64."""
    from PIL import Image

    image = Image.new("RGB", size, (40 * seed % 256, 90, 200 - 7 * seed % 200))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Rows as tab-separated values; every column of any row, absent cells empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, dialect="excel-tab")
        writer.writeheader()
        writer.writerows(rows)
    return path


def mathvision_row(index: int, answer: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """One row; ``options`` empty for a free answer."""
    return {
        "index": index,
        "image": picture(index),
        "question": f"How many dots are in picture {index}?\n<image1>",
        "choices": str(list(options)),
        "answer": answer,
        "category": ("algebra", "counting")[index % 2],
        "level": 1,
    }


def mathverse_row(index: int, version: str, answer: str, choices: str = "") -> dict[str, Any]:
    """One row; ``choices`` such as 'A:40\\nB:60' for a multiple choice."""
    listed = f"\nChoices:\n{choices}" if choices else ""
    shown = "" if version == "Vision Only" else f"What is angle {index}?{listed}"
    return {
        "index": index,
        "image": picture(index),
        "problem_index": index // 5,
        "problem_version": version,
        "question": shown or "Answer the question in the picture.",
        "answer": answer,
        "question_type": "multi-choice" if choices else "free-form",
        "metadata": str({"split": "testmini", "subject": "Plane Geometry", "subfield": "Angle"}),
        "query_wo": shown,
        "query_cot": shown,
        "question_for_eval": f"What is angle {index}?{listed}",
    }


def wemath_problem(start: int, id: int, answers: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of one problem: its steps, then the whole; ``answers`` are the right letters."""
    steps = len(answers) - 1
    keys = [f"{steps}steps_{i}" for i in range(1, steps + 1)] + [f"{steps}steps_multi"]
    return [
        {
            "index": start + place,
            "ID": id,
            "split": "testmini",
            "key": key,
            "question": f"Which one is it in part {place} of problem {id}?",
            "A": 40 + place,
            "B": 65,
            "C": f"{place} cm",
            "D": "No correct answer",
            "E": 7 if id % 2 else "",
            "answer": answer,
            "knowledge concept": "Area of Circles",
            "hint": "Look at the picture." if place else "",
            "requirement": "Answer with <Answer>: <<your option>>",
            "image": picture(start + place),
        }
        for place, (key, answer) in enumerate(zip(keys, answers, strict=True))
    ]


def write_real_mathvision(source: Path, folder: Path) -> list[dict[str, Any]]:
    """The real MATH-Vision items as VLMEvalKit's ``MathVision.tsv``; returns them as published."""
    lines = (source / "testmini_sample.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    rows = [
        {
            "index": item["id"],
            "image": base64.b64encode((source / item["image"]).read_bytes()).decode(),
            "question": item["question"],
            "choices": str(item["options"]),
            "answer": item["answer"],
            "category": item["subject"],
            "level": item["level"],
        }
        for item in items
    ]
    write_table(folder / "MathVision.tsv", rows)
    return items
