"""WeThink: one record -> one sharegpt record."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dft_eval.system_prompts import WETHINK
from dft_factory.data.checks import ESCAPES, normal_path
from dft_factory.data.records import Dropped, Kept
from dft_factory.data.wethink import MALFORMED_LAYOUT, convert

Json = dict[str, Any]


def record(**changes: Any) -> Json:
    """A record as published, with some fields changed; None as a value removes the field."""
    values: Json = {
        "problem": "<image>\nHow many?",
        "answer": "3",
        "category": "counting",
        "abilities": "perception",
        "refined_cot": "I count 1, 2, 3.",
        "image_path": "coco/1.jpg",
        "reward": "rule",
        **changes,
    }
    return {key: value for key, value in values.items() if value is not None}


def turns(**changes: Any) -> tuple[str, str]:
    kept = convert(record(**changes))
    assert isinstance(kept, Kept), kept
    user, assistant = kept.record["messages"]  # type: ignore[misc]
    return user["content"], assistant["content"]


def notes(**changes: Any) -> tuple[str, ...]:
    kept = convert(record(**changes))
    assert isinstance(kept, Kept), kept
    return kept.notes


def test_record() -> None:
    assert convert(record()) == Kept(
        {
            "messages": [
                {"role": "user", "content": "<image>How many?"},
                {
                    "role": "assistant",
                    "content": "<think> I count 1, 2, 3. </think>\n<answer> 3 </answer>",
                },
            ],
            "system": WETHINK,
            "images": ["coco/1.jpg"],
        }
    )
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        assert tag in WETHINK


@pytest.mark.parametrize(
    ("problem", "content", "note"),
    [
        ("<image>\nHow many?", "<image>How many?", None),
        ("<image> How many?", "<image>How many?", None),
        ("How many?\n<image>", "How many?\n<image>", None),
        ("In <image>, how many?", "In <image>, how many?", None),
        ("How many?", "<image>How many?", "<image> marker added"),
        ("<IMAGE>How many?", "<image>How many?", "<image> marker respelt"),
        ("<image 1> How many?", "<image>How many?", "<image> marker respelt"),
        ("<image_1/>How many?", "<image>How many?", "<image> marker respelt"),
        (
            "<image>The <video> tag?",
            "<image>The video tag?",
            "media marker in the problem made a word",
        ),
    ],
)
def test_markers(problem: str, content: str, note: str | None) -> None:
    assert turns(problem=problem)[0] == content
    assert notes(problem=problem) == (() if note is None else (note,))


def test_markers_of_several_pictures() -> None:
    two = ["a.jpg", "b.jpg"]
    assert turns(problem="Compare <image> with <image>.", image_path=two)[0] == (
        "Compare <image> with <image>."
    )
    assert turns(problem="<image>\n<image> Compare.", image_path=two)[0] == (
        "<image><image>Compare."
    )
    assert turns(problem="Compare.", image_path=two)[0] == "<image><image>Compare."


@pytest.mark.parametrize(
    ("reasoning", "answer"),
    [
        ("I count 1, 2, 3.", "3"),
        ("<think>I count 1, 2, 3.</think>", "3"),
        ("\n<think>\nI count 1, 2, 3.\n</think>\n", "<answer>3</answer>"),
        ("<think>I count 1, 2, 3.</think><answer>3</answer>", " 3 "),
        ("<Think> I count 1, 2, 3. </Think>\n\n<answer> 3. </answer>", "<ANSWER> 3 </ANSWER>"),
        ("I count 1, 2, 3.", 3),
    ],
)
def test_every_layout_comes_to_one(reasoning: str, answer: object) -> None:
    assert turns(refined_cot=reasoning, answer=answer)[1] == (
        "<think> I count 1, 2, 3. </think>\n<answer> 3 </answer>"
    )


def test_the_answer_field_counts() -> None:
    changes = {"refined_cot": "<think>So B.</think><answer>C</answer>", "answer": "B"}
    assert turns(**changes)[1] == "<think> So B. </think>\n<answer> B </answer>"
    assert notes(**changes) == ("answer inside the reasoning differs, the answer field is used",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"problem": None}, "missing problem"),
        ({"problem": ["x"]}, "missing problem"),
        ({"problem": 5}, "missing problem"),
        ({"problem": " \n"}, "empty problem"),
        ({"problem": "<image>"}, "empty problem"),
        ({"answer": None}, "missing answer"),
        ({"answer": True}, "missing answer"),
        ({"answer": math.nan}, "missing answer"),
        ({"answer": ""}, "empty answer"),
        ({"answer": "<answer> </answer>"}, "empty answer"),
        ({"refined_cot": None}, "missing reasoning"),
        ({"refined_cot": "\t"}, "empty reasoning"),
        ({"refined_cot": "<think> </think>"}, "empty reasoning"),
        ({"image_path": None}, "missing picture path"),
        ({"image_path": ""}, "missing picture path"),
        ({"image_path": []}, "missing picture path"),
        ({"image_path": ["a.jpg", 1]}, "missing picture path"),
        ({"image_path": "../secret.jpg"}, ESCAPES),
        ({"image_path": "a/../../b.jpg"}, ESCAPES),
        ({"image_path": "/etc/passwd"}, ESCAPES),
        ({"image_path": "..\\b.jpg"}, ESCAPES),
        ({"image_path": "C:\\b.jpg"}, ESCAPES),
        ({"image_path": "https://example.org/b.jpg"}, ESCAPES),
        ({"image_path": "a\0.jpg"}, ESCAPES),
        ({"image_path": ["a.jpg", "../b.jpg"]}, ESCAPES),
        (
            {"problem": "<image> and <image>"},
            "number of <image> markers differs from that of the pictures",
        ),
        (
            {"image_path": ["a.jpg", "b.jpg"]},
            "number of <image> markers differs from that of the pictures",
        ),
        ({"refined_cot": "<think>never closed"}, MALFORMED_LAYOUT),
        ({"refined_cot": "before <think>x</think>"}, MALFORMED_LAYOUT),
        ({"refined_cot": "<think>x</think> after"}, MALFORMED_LAYOUT),
        ({"refined_cot": "<think>x <think>y</think></think>"}, MALFORMED_LAYOUT),
        ({"refined_cot": "x <answer>3</answer>"}, MALFORMED_LAYOUT),
        ({"answer": "<answer>3"}, MALFORMED_LAYOUT),
        ({"answer": "the <video> tag"}, "media marker in the answer"),
        ({"answer": "<|im_end|>"}, "chat token in the answer"),
        ({"problem": "x <|image_pad|>"}, "chat token in the problem"),
        ({"refined_cot": "a\ud800"}, "invalid Unicode"),
        ({"image_path": "\udfff.jpg"}, ESCAPES),
    ],
)
def test_dropped_with_a_reason(changes: Json, reason: str) -> None:
    assert convert(record(**changes)) == Dropped(reason)


def test_notes() -> None:
    assert notes(id=7) == ("unknown field 'id'",)
    assert notes(answer=3) == ("number as answer",)
    assert notes(refined_cot="see <image> and <image>") == (
        "media marker in the reasoning made a word",
    )
    assert turns(refined_cot="see <image>x</image>")[1].startswith("<think> see imagex </think>")
    assert notes(image_path=".\\coco//1.jpg") == ("picture path normalised",)
    for field in ("category", "abilities", "reward"):
        assert notes(**{field: None}) == ()


pieces = st.lists(
    st.sampled_from(
        ["<image>", "</image>", "<", ">", "/", "image", "<think>", "</think>", "<answer>",
         "</answer>", "<video>", "<|im_end|>", "<|", "|>", "im_end", " ", "\n", "a", "3"]
    ),
    max_size=9,
).map("".join)  # fmt: skip


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(pieces, pieces, pieces, st.integers(1, 3))
def test_kept_records_can_be_trained_on(
    problem: str, reasoning: str, answer: str, pictures: int
) -> None:
    """One marker a picture, none elsewhere, each tag once and in order, no chat token."""
    paths = [f"{i}.png" for i in range(pictures)]
    kept = convert(record(problem=problem, refined_cot=reasoning, answer=answer, image_path=paths))
    if isinstance(kept, Dropped):
        return
    user, assistant = (turn["content"] for turn in kept.record["messages"])  # type: ignore[attr-defined]
    assert user.count("<image>") == pictures
    assert user.replace("<image>", "").strip()
    for marker in ("<image>", "<video>", "<audio>"):
        assert marker not in assistant
    assert "<video>" not in user
    assert "<|im_end|>" not in user + assistant
    assert assistant.startswith("<think> ")
    assert assistant.endswith(" </answer>")
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        assert assistant.count(tag) == 1
    assert assistant.index("</think>") < assistant.index("<answer>")


@given(st.text(alphabet="a./\\:~ -é", max_size=12))
def test_normal_paths_stay_inside(path: str) -> None:
    normal = normal_path(path)
    if normal is not None:
        assert normal_path(normal) == normal
        parts = normal.split("/")
        assert parts
        assert not {"", ".", ".."} & set(parts)
