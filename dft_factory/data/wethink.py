"""WeThink -> sharegpt with pictures: ``<think>`` reasoning, then ``<answer>``.

A record of yangjie-cv/WeThink_Multimodal_Reasoning_120K (arXiv 2506.07905) has ``problem``,
``answer``, ``category``, ``abilities``, ``refined_cot``, ``image_path`` and ``reward``. The
pictures are those of Xkev/LLaVA-CoT-100k, published as ``image.zip`` in parts.

The published description does not specify the fields' format, so variants are normalised: markers,
tags around reasoning and answer, path separators. Each change is a note that the report counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from dft_eval import system_prompts
from dft_factory.data.checks import ESCAPES, check_text, normal_path
from dft_factory.data.records import SHAREGPT_ENTRY, Converter, Dropped, Kept, SharegptRecord

FIELDS = ("problem", "answer", "category", "abilities", "refined_cot", "image_path", "reward")

IMAGE = "<image>"
"""LLaMA-Factory's placeholder of a picture."""

_MARKER = re.compile(r"<\s*image[\s_]*\d*\s*/?\s*>", re.IGNORECASE)
_MEDIA = re.compile(r"<\s*(/?)\s*(image|video|audio)[\s_]*\d*\s*/?\s*>", re.IGNORECASE)
_SPECIAL = re.compile(r"<\|[A-Za-z0-9_]+\|>")
_THINK = re.compile(r"\s*<\s*think\s*>(.*?)<\s*/\s*think\s*>\s*", re.IGNORECASE | re.DOTALL)
_ANSWER = re.compile(r"\s*<\s*answer\s*>(.*?)<\s*/\s*answer\s*>\s*", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<\s*/?\s*(think|answer)\s*>", re.IGNORECASE)

MALFORMED_LAYOUT = "malformed <think>/<answer> layout"


def convert(record: Mapping[str, object]) -> Kept | Dropped:
    """The question with its pictures, reasoning and answer in the system prompt's layout.

    - With one ``<image>`` marker per picture in the problem, markers stay in place; without one,
      they go first; any other number is ambiguous and the record is dropped. LLaMA-Factory would
      take any other ``<image>``, ``<video>`` or ``<audio>`` for a picture: in problem and reasoning
      they lose their brackets, an answer with one is dropped.
    - The reasoning may be bare, in ``<think>``, or followed by its own ``<answer>``; if that
      differs from ``answer``, ``answer`` is used. Any other use of the tags drops the record.
    - Text with a chat token such as ``<|im_end|>`` is dropped: the tokenizer would interpret it.

    ``images`` of the result are normalised relative paths.
    """
    notes = [f"unknown field {str(name)[:40]!r}" for name in record if name not in FIELDS]
    texts: dict[str, str] = {}
    for name, noun in (("problem", "problem"), ("answer", "answer"), ("refined_cot", "reasoning")):
        value = record.get(name)
        text = check_text(_number_text(value) if name == "answer" else value, noun)
        if isinstance(text, Dropped):
            return text
        if _SPECIAL.search(text):
            return Dropped(f"chat token in the {noun}")
        texts[name] = text.strip()
    if not isinstance(record["answer"], str):
        notes.append("number as answer")

    paths = _paths(record.get("image_path"), notes)
    if isinstance(paths, Dropped):
        return paths
    problem = _place_markers(texts["problem"], len(paths), notes)
    if isinstance(problem, Dropped):
        return problem
    layout = _layout(texts["refined_cot"], texts["answer"], notes)
    if isinstance(layout, Dropped):
        return layout
    return Kept(
        SharegptRecord(
            messages=[
                {"role": "user", "content": problem},
                {"role": "assistant", "content": layout},
            ],
            system=system_prompts.WETHINK,
            images=paths,
        ),
        tuple(dict.fromkeys(notes)),
    )


def _paths(value: object, notes: list[str]) -> list[str] | Dropped:
    published = value if isinstance(value, list) else [value]
    paths: list[str] = []
    for path in published:
        if not isinstance(path, str) or not path.strip():
            return Dropped("missing picture path")
        normal = normal_path(path.strip())
        if normal is None:
            return Dropped(ESCAPES)
        paths.append(normal)
    if not paths:
        return Dropped("missing picture path")
    if paths != published:
        notes.append("picture path normalised")
    return paths


def _place_markers(problem: str, pictures: int, notes: list[str]) -> str | Dropped:
    markers = _MARKER.findall(problem)
    if len(markers) not in (0, pictures):
        return Dropped("number of <image> markers differs from that of the pictures")
    if any(marker != IMAGE for marker in markers):
        notes.append("<image> marker respelt")
    parts = [_without_media(part, "problem", notes) for part in _MARKER.split(problem)]
    if not any(part.strip() for part in parts):
        return Dropped("empty problem")
    if not markers:
        notes.append("<image> marker added")
        return IMAGE * pictures + parts[0].strip()
    # "<image>What?" stands for "<image>\nWhat?" and "<image> What?" alike.
    first = next(index for index, part in enumerate(parts) if part.strip())
    return IMAGE * first + IMAGE.join([parts[first].lstrip(), *parts[first + 1 :]]).rstrip()


def _layout(reasoning: str, answer: str, notes: list[str]) -> str | Dropped:
    wrapped = _ANSWER.fullmatch(answer)
    if wrapped is not None:
        answer = wrapped[1].strip()
    thought = _THINK.match(reasoning)
    if thought is not None:
        rest = reasoning[thought.end() :]
        reasoning = thought[1].strip()
        inner = _ANSWER.fullmatch(rest)
        if inner is not None:
            if _simplify(inner[1]) != _simplify(answer):
                notes.append("answer inside the reasoning differs, the answer field is used")
        elif rest:
            return Dropped(MALFORMED_LAYOUT)
    if _TAG.search(reasoning) or _TAG.search(answer):
        return Dropped(MALFORMED_LAYOUT)
    if _MEDIA.search(answer):
        return Dropped("media marker in the answer")
    reasoning = _without_media(reasoning, "reasoning", notes).strip()
    if not reasoning:
        return Dropped("empty reasoning")
    if not answer:
        return Dropped("empty answer")
    return f"<think> {reasoning} </think>\n<answer> {answer} </answer>"


def _without_media(text: str, noun: str, notes: list[str]) -> str:
    if not _MEDIA.search(text):
        return text
    notes.append(f"media marker in the {noun} made a word")
    # A closing one becomes a space, so that the text around it cannot form a new marker.
    return _MEDIA.sub(lambda match: " " if match[1] else match[2], text)


def _simplify(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()


def _number_text(value: object) -> object:
    """A finite number as text; anything else unchanged."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return value
    return str(value)


WETHINK = Converter(
    convert,
    SHAREGPT_ENTRY,
    hub_id="yangjie-cv/WeThink_Multimodal_Reasoning_120K",
    pictures_from="Xkev/LLaVA-CoT-100k (image.zip.part-*)",
)
