"""All items of all runs, as the data of the report's item browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dft_eval.errors import UsageError
from dft_eval.report.formats import cut, visible
from dft_eval.report.runs import Evaluation, Pooled, Seed, Variant, benchmarks, key_name

COMPLETION_LIMIT = 20_000
"""Characters of a completion, or prompt, that the browser shows."""
PICTURE_SIDE = 448
"""Pixels of the longer side of an embedded picture."""
PICTURE_BYTES = 24 << 20
"""Of all embedded pictures; beyond that their file names are shown."""


class _Pictures:
    """Pictures of the runs by name, shrunk, each once."""

    def __init__(self) -> None:
        self.embedded: dict[str, str] = {}
        self._left = PICTURE_BYTES

    def add(self, folder: Path, name: str) -> None:
        """Embed a picture of a run folder, if it is there and there is room."""
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise UsageError(f"{folder}: the picture {name!r} of an item lies outside the folder.")
        if name in self.embedded or self._left <= 0 or not path.is_file():
            return
        from PIL import Image

        buffer = io.BytesIO()
        try:
            with Image.open(path) as picture:
                picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
                picture.convert("RGB").save(buffer, "WEBP", quality=70)
        except (OSError, Image.DecompressionBombError) as error:
            raise UsageError(f"{path} is not a readable picture: {error}") from error
        text = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
        self._left -= len(text)
        self.embedded[name] = text


def _shown(text: str) -> dict[str, str]:
    text, note = cut(visible(text), COMPLETION_LIMIT)
    return {"text": text, **({"note": note} if note else {})}


def _answer(evaluation: Evaluation, id: str, seed: Seed) -> dict[str, Any]:
    """One run's answer to an item that it has."""
    item = evaluation.items[id]
    answer: dict[str, Any] = {"score": item.score, "reason": visible(item.reason)}
    if seed is not None:
        answer["seed"] = seed
    if completion := (evaluation.completions or {}).get(id):
        answer |= _shown(completion.completion)
        answer |= {"finish": visible(completion.finish_reason or ""), "tokens": completion.n_tokens}
        if evaluation.samples > 1:
            answer["sample"] = f"first of {evaluation.samples} samples"
    return answer


def _answers(pooled: Pooled | None, id: str) -> list[dict[str, Any]]:
    """A variant's answers to an item, one a seed that has it; of each score one is in full.

    Completions are most of the file: of seeds that score the same, the first stands for all.
    """
    answers: list[dict[str, Any]] = []
    for seed, evaluation in pooled.by_seed.items() if pooled else ():
        if id in evaluation.items:
            answer = _answer(evaluation, id, seed)
            if answer["score"] in [other["score"] for other in answers]:
                answer = {name: answer[name] for name in ("score", "seed") if name in answer}
            answers.append(answer)
    return answers


def browser_data(variants: Sequence[Variant]) -> dict[str, Any]:
    """``runs`` (labels), ``benchmarks`` (name and items), ``pictures``.

    An item has a list of answers for each variant, one a training seed.

    Raises:
        UsageError: a picture outside its run folder, or one that cannot be read.
    """
    pictures = _Pictures()
    sets = []
    for key in benchmarks(variants):
        evaluations = [
            run.evaluations[key]
            for variant in variants
            for run in variant.runs
            if key in run.evaluations
        ]
        rows: list[dict[str, Any]] = []
        for id in dict.fromkeys(id for one in evaluations for id in one.items):
            row: dict[str, Any] = {"id": visible(id)}
            prompts = []
            for one in evaluations:
                if id not in one.items:
                    continue
                item = one.items[id]
                row.setdefault("category", visible(item.category or ""))
                row.setdefault("pictures", list(item.pictures))
                for name in item.pictures:
                    pictures.add(one.folder, name)
                if completion := (one.completions or {}).get(id):
                    prompts.append(completion.prompt)
            if prompts:
                row["prompt"] = _shown(prompts[0])
                if len(set(prompts)) > 1:
                    row["prompt"]["note"] = "the runs got different prompts; this is the first"
            row["answers"] = [_answers(variant.evaluations.get(key), id) for variant in variants]
            rows.append(row)
        sets.append({"name": visible(key_name(key)), "items": rows})
    labels = [visible(variant.label) for variant in variants]
    return {"runs": labels, "benchmarks": sets, "pictures": pictures.embedded}
