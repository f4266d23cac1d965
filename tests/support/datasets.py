"""Small data sets of our own in LLaMA-Factory's formats, with very unequal answer lengths."""

from __future__ import annotations

import json
from pathlib import Path

_ANSWERS = (
    "def add(a, b): return a + b",
    "3",
    "There are four circles in the picture, two of which are red. " * 3,
    "yes",
    "for item in items: print(item)",
    "<think> half of eight </think> <answer> 4 </answer>",
    "no",
    "A long answer. " * 8,
)


def write_text_set(folder: Path, name: str = "tiny_text") -> Path:
    """Eight alpaca records."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"instruction": f"Question number {i}: what is it?", "input": "", "output": answer}
        for i, answer in enumerate(_ANSWERS)
    ]
    (folder / f"{name}.json").write_text(json.dumps(rows))
    _register(folder, name, {"file_name": f"{name}.json"})
    return folder


def write_picture_set(folder: Path, name: str = "tiny_vl") -> Path:
    """Eight sharegpt records with one drawn picture each, of different sizes."""
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, answer in enumerate(_ANSWERS):
        picture = folder / f"{name}_{i}.png"
        image = Image.new("RGB", (56 + 28 * (i % 3), 56), "white")
        ImageDraw.Draw(image).ellipse((8, 8, 40 + i, 48), fill=("red", "blue")[i % 2])
        image.save(picture)
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": f"<image>What is picture {i}?"},
                    {"role": "assistant", "content": answer},
                ],
                "images": [str(picture)],
            }
        )
    (folder / f"{name}.json").write_text(json.dumps(rows))
    entry = {
        "file_name": f"{name}.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
        },
    }
    _register(folder, name, entry)
    return folder


def _register(folder: Path, name: str, entry: dict[str, object]) -> None:
    path = folder / "dataset_info.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, name: entry}, indent=2))
