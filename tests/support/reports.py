"""Run folders as evaluations and trainings leave them, and readers of the report on them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from dft_eval.report import build_report
from dft_eval.results import ItemScore, summarise, write_items

Scores = Mapping[str, float | None]


def write_run(
    folder: Path,
    label: str,
    benchmarks: Mapping[str, Scores],
    *,
    sha: str | None = "ab" * 32,
    model: str | None = None,
    base_model: str | None = "toy/base",
    training: Mapping[str, Any] | None = None,
    reason: str = "",
    clusters: Mapping[str, str] | None = None,
    categories: Mapping[str, str] | None = None,
    **fields: Any,
) -> Path:
    """A run folder with the scores of each benchmark by item id; ``fields`` go to each result."""
    folder.mkdir(parents=True)
    rows = []
    for number, (benchmark, scores) in enumerate(benchmarks.items()):
        items = [
            ItemScore(
                id=name,
                score=score,
                reason=reason,
                cluster=(clusters or {}).get(name),
                category=(categories or {}).get(name),
            )
            for name, score in scores.items()
        ]
        name = f"b{number}.items.jsonl"
        write_items(folder / name, items)
        row = {"benchmark": benchmark, "metric": "accuracy", "items": name, "harness": "toy 1.0"}
        rows.append({**row, "prompt_style": "chat", **summarise(items), **fields})
    header = {"schema_version": 1, "model": model or f"models/{label}", "model_sha256": sha}
    document = {**header, "label": label, "base_model": base_model, "training": training}
    text = json.dumps({**document, "results": rows})
    (folder / "results.json").write_text(text, encoding="utf-8")
    return folder


def report(runs: Sequence[Path], out: Path, **options: Any) -> str:
    """The Markdown of :func:`build_report`."""
    return build_report(runs, out, **options).markdown.read_text(encoding="utf-8")


def write_completions(path: Path, completions: Mapping[str, str], prompt: str = "2+2?") -> None:
    rows = [
        {"id": name, "prompt": prompt, "completion": text, "finish_reason": "stop"}
        for name, text in completions.items()
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def write_trainer_state(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"log_history": history, "global_step": 2}), encoding="utf-8")


def write_probabilities(folder: Path, **changes: Any) -> None:
    document = {
        "schema_version": 1,
        "model": "toy",
        "label": "x",
        "dataset": "toys",
        "n_tokens": 4,
        "bin_edges": [0.0, 0.5, 1.0],
        "counts": [1, 3],
        "mean": 0.7,
        "median": 0.75,
        "share_below_0.1": 0.25,
        "share_above_0.9": 0.5,
        "nll": 0.9,
        **changes,
    }
    (folder / "token_probabilities.json").write_text(json.dumps(document), encoding="utf-8")


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = (
    "</pre></td><script>alert(1)</script>`````\n```\n<img src=http://x.test/y onerror=z>|*a*![i](u)"
)


def parse_markdown(text: str) -> tuple[list[Token], list[Token], set[str]]:
    """Block tokens, inline tokens and the types of both; no pipe inside a cell makes another."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    for token in tokens:
        if token.type == "table_open" and token.map:
            rows = text.splitlines()[slice(*token.map)]
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, rows
    return tokens, inline, {token.type for token in (*tokens, *inline)}
