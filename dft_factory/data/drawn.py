"""Drawn pictures with questions about shapes, counts, angles and bars, for the demo and tests.

A small model can learn them in minutes on a CPU. All answers of a kind are equally frequent, so
blank pictures score chance, 1/4. The same seed gives the same pictures. Training and held-out
pictures never overlap, whatever the seeds: a picture's pixels determine its split.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

SIDE = 112
"""Pixels: 4 x 4 picture tokens of Qwen2.5-VL."""

Split = Literal["train", "held-out"]
HELD_OUT_OF_256 = 64
LETTERS = "ABCD"


@dataclass(frozen=True)
class Kind:
    """One kind of question.

    Attributes:
        options: four, in fixed order.
        reasoning: with ``{}`` for the answer.
        draw: draws the picture for the index of an option.
    """

    name: str
    question: str
    options: tuple[str, ...]
    reasoning: str
    draw: Callable[[ImageDraw.ImageDraw, random.Random, int], None]

    @property
    def lettered(self) -> str:
        """The question with its lettered options."""
        options = "".join(f"{a}. {b}\n" for a, b in zip(LETTERS, self.options, strict=True))
        return f"Question: {self.question}\nOptions:\n{options}"


@dataclass(frozen=True)
class Drawing:
    """A picture with its question; ``answer`` is an index of ``kind.options``."""

    kind: Kind
    answer: int
    picture: Image.Image

    @property
    def letter(self) -> str:
        return LETTERS[self.answer]

    @property
    def word(self) -> str:
        return self.kind.options[self.answer]

    @property
    def reasoning(self) -> str:
        return self.kind.reasoning.format(self.word)

    def png(self, blank: bool = False) -> bytes:
        """The picture as PNG, or a white one of its size."""
        from PIL import Image

        picture = Image.new("RGB", self.picture.size, "white") if blank else self.picture
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        return stream.getvalue()


def _ink(rng: random.Random) -> tuple[int, int, int]:
    """A random dark colour, independent of the answer."""
    return (rng.randrange(140), rng.randrange(140), rng.randrange(140))


def _shape(draw: ImageDraw.ImageDraw, rng: random.Random, answer: int) -> None:
    radius = rng.randint(28, 40)
    x, y = (SIDE // 2 + rng.randint(-8, 8) for _ in range(2))
    ink = _ink(rng)
    if answer == 0:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
        return
    corners, inner = ((4, 1.0), (3, 1.0), (10, 0.4))[answer - 1]
    turn = math.pi / 4 if answer == 1 else -math.pi / 2
    points = []
    for corner in range(corners):
        length = radius * (inner if corner % 2 and inner < 1 else 1.0)
        angle = turn + 2 * math.pi * corner / corners
        points.append((x + length * math.cos(angle), y + length * math.sin(angle)))
    draw.polygon(points, fill=ink)


def _count(draw: ImageDraw.ImageDraw, rng: random.Random, answer: int) -> None:
    """Dots in different cells of a 3 x 3 grid, of varying size."""
    cell = SIDE // 3
    for position in rng.sample(range(9), answer + 1):
        radius = rng.randint(8, 14)
        x = (position % 3) * cell + cell // 2 + rng.randint(-3, 3)
        y = (position // 3) * cell + cell // 2 + rng.randint(-3, 3)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_ink(rng))


def _angle(draw: ImageDraw.ImageDraw, rng: random.Random, answer: int) -> None:
    """One leg to the right, the other up or over; the lengths vary."""
    degrees = (rng.uniform(25, 60), 90.0, rng.uniform(115, 150), 180.0)[answer]
    ink = _ink(rng)
    x, y = SIDE / 2 + rng.randint(-6, 6), SIDE * 0.7 + rng.randint(-6, 6)
    for direction in (0.0, -degrees):
        length = rng.randint(36, 46)
        end = (
            x + length * math.cos(math.radians(direction)),
            y + length * math.sin(math.radians(direction)),
        )
        draw.line((x, y, *end), fill=ink, width=5)


def _bars(draw: ImageDraw.ImageDraw, rng: random.Random, answer: int) -> None:
    heights = [rng.randint(12, 58) for _ in range(4)]
    heights[answer] = max(heights) + rng.randint(14, 34)
    for number, height in enumerate(heights):
        left = 8 + 26 * number
        draw.rectangle((left, SIDE - 6 - height, left + 17, SIDE - 6), fill=_ink(rng))


KINDS = (
    Kind(
        "shapes",
        "Which shape is it?",
        ("circle", "square", "triangle", "star"),
        "The shape is a {}.",
        _shape,
    ),
    Kind(
        "counts",
        "How many dots are there?",
        ("one", "two", "three", "four"),
        "The number of dots is {}.",
        _count,
    ),
    Kind(
        "angles",
        "Which angle is it?",
        ("acute", "right", "obtuse", "straight"),
        "The angle is {}.",
        _angle,
    ),
    Kind(
        "bars",
        "Which bar is the tallest?",
        ("first", "second", "third", "fourth"),
        "The tallest bar is the {}.",
        _bars,
    ),
)


def split_of(picture: Image.Image) -> Split:
    """The split of a picture, from its pixels: one in four is held out."""
    first = hashlib.sha256(picture.tobytes()).digest()[0]
    return "held-out" if first < HELD_OUT_OF_256 else "train"


def draw(kind: Kind, answer: int, rng: random.Random) -> Drawing:
    """One picture of this kind with this answer."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (SIDE, SIDE), "white")
    kind.draw(ImageDraw.Draw(picture), rng, answer)
    return Drawing(kind, answer, picture)


def drawings(
    split: Split, seed: int, kinds: Sequence[Kind] = KINDS, answers: Sequence[int] = range(4)
) -> Iterator[Drawing]:
    """Endless drawings of one split without duplicates.

    Each group of ``len(kinds) * len(answers)`` drawings has every kind with every answer once,
    shuffled.
    """
    rng = random.Random(f"{split} {seed}")
    digests: set[bytes] = set()
    while True:
        turn = [(kind, answer) for kind in kinds for answer in answers]
        rng.shuffle(turn)
        for kind, answer in turn:
            while True:
                drawing = draw(kind, answer, rng)
                digest = hashlib.sha256(drawing.picture.tobytes()).digest()
                if split_of(drawing.picture) == split and digest not in digests:
                    break
            digests.add(digest)
            yield drawing


def texts() -> list[str]:
    """All questions and answers, to train a small tokenizer on."""
    answers = [
        f"<think> {kind.reasoning.format(option)} </think>\n<answer> {letter} </answer>"
        for kind in KINDS
        for letter, option in zip(LETTERS, kind.options, strict=True)
    ]
    return [*(kind.lettered for kind in KINDS), *answers]


def write_records(folder: Path, count: int, seed: int, split: Split = "train") -> Path:
    """Write ``folder/records.jsonl`` for ``dft-factory data prepare wethink``, and its pictures.

    Questions have lettered options, answers are letters.
    """
    (folder / "drawn").mkdir(parents=True, exist_ok=True)
    path = folder / "records.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number, drawing in zip(range(count), drawings(split, seed), strict=False):
            name = f"drawn/{number:06}.png"
            (folder / name).write_bytes(drawing.png())
            record = {
                "problem": f"<image>\n{drawing.kind.lettered}",
                "answer": drawing.letter,
                "category": drawing.kind.name,
                "abilities": "perception",
                "refined_cot": drawing.reasoning,
                "image_path": name,
                "reward": "rule",
            }
            file.write(json.dumps(record) + "\n")
    return path


def picture_cell(drawing: Drawing, blank: bool) -> str:
    """The picture in base64, as in VLMEvalKit's tables."""
    return base64.b64encode(drawing.png(blank)).decode()
