"""All items of all runs, as the data of the report's item browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dft_eval.errors import UsageError
from dft_eval.report.collect import Evaluation, Run
from dft_eval.report.formats import cut, visible
from dft_eval.report.tables import benchmarks, key_name

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


def _answer(evaluation: Evaluation | None, id: str) -> dict[str, Any] | None:
    """One run's answer; None where the run does not have the item."""
    item = evaluation.items.get(id) if evaluation else None
    if evaluation is None or item is None:
        return None
    answer: dict[str, Any] = {"score": item.score, "reason": visible(item.reason)}
    if completion := (evaluation.completions or {}).get(id):
        answer |= _shown(completion.completion)
        answer |= {"finish": visible(completion.finish_reason or ""), "tokens": completion.n_tokens}
    return answer


def browser_data(runs: Sequence[Run]) -> dict[str, Any]:
    """``runs`` (labels), ``benchmarks`` (name and items, each with an answer a run), ``pictures``.

    Raises:
        UsageError: a picture outside its run folder, or one that cannot be read.
    """
    pictures = _Pictures()
    sets = []
    for key in benchmarks(runs):
        evaluations = [run.evaluations.get(key) for run in runs]
        ids = dict.fromkeys(id for one in evaluations if one for id in one.items)
        rows: list[dict[str, Any]] = []
        for id in ids:
            row: dict[str, Any] = {"id": visible(id)}
            prompts = []
            for run, one in zip(runs, evaluations, strict=True):
                if one is None or id not in one.items:
                    continue
                item = one.items[id]
                row.setdefault("category", visible(item.category or ""))
                row.setdefault("pictures", list(item.pictures))
                for name in item.pictures:
                    pictures.add(run.folder, name)
                if completion := (one.completions or {}).get(id):
                    prompts.append(completion.prompt)
            if prompts:
                row["prompt"] = _shown(prompts[0])
                if len(set(prompts)) > 1:
                    row["prompt"]["note"] = "the runs got different prompts; this is the first"
            row["answers"] = [_answer(one, id) for one in evaluations]
            rows.append(row)
        sets.append({"name": visible(key_name(key)), "items": rows})
    labels = [visible(run.label) for run in runs]
    return {"runs": labels, "benchmarks": sets, "pictures": pictures.embedded}
