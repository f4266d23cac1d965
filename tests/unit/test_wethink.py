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


def kept(**changes: Any) -> Kept:
    converted = convert(record(**changes))
    assert isinstance(converted, Kept), converted
    return converted


def turns(**changes: Any) -> tuple[str, str]:
    user, assistant = kept(**changes).record["messages"]  # type: ignore[misc]
    return user["content"], assistant["content"]


def notes(**changes: Any) -> tuple[str, ...]:
    return kept(**changes).notes


ONE_LAYOUT = "<think> I count 1, 2, 3. </think>\n<answer> 3 </answer>"


def test_record() -> None:
    user = {"role": "user", "content": "<image>How many?"}
    messages = [user, {"role": "assistant", "content": ONE_LAYOUT}]
    assert kept() == Kept({"messages": messages, "system": WETHINK, "images": ["coco/1.jpg"]})
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        assert tag in WETHINK


WORD = "media marker in the {} made a word"


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
        ("<image>The <video> tag?", "<image>The video tag?", WORD.format("problem")),
    ],
)
def test_markers(problem: str, content: str, note: str | None) -> None:
    assert turns(problem=problem)[0] == content
    assert notes(problem=problem) == (() if note is None else (note,))


def test_markers_of_several_pictures() -> None:
    for problem, content in (
        ("Compare <image> with <image>.", "Compare <image> with <image>."),
        ("<image>\n<image> Compare.", "<image><image>Compare."),
        ("Compare.", "<image><image>Compare."),
    ):
        assert turns(problem=problem, image_path=["a.jpg", "b.jpg"])[0] == content


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
def test_all_layouts_give_one(reasoning: str, answer: object) -> None:
    assert turns(refined_cot=reasoning, answer=answer)[1] == ONE_LAYOUT


def test_the_answer_field_is_used() -> None:
    changes = {"refined_cot": "<think>So B.</think><answer>C</answer>", "answer": "B"}
    assert turns(**changes)[1] == "<think> So B. </think>\n<answer> B </answer>"
    assert notes(**changes) == ("answer inside the reasoning differs, the answer field is used",)


UNEQUAL = "number of <image> markers differs from that of the pictures"


@pytest.mark.parametrize(
    ("field", "values", "reason"),
    [
        ("problem", (None, ["x"], 5), "missing problem"),
        ("problem", (" \n", "<image>"), "empty problem"),
        ("answer", (None, True, math.nan), "missing answer"),
        ("answer", ("", "<answer> </answer>"), "empty answer"),
        ("refined_cot", (None,), "missing reasoning"),
        ("refined_cot", ("\t", "<think> </think>"), "empty reasoning"),
        ("image_path", (None, "", [], ["a.jpg", 1]), "missing picture path"),
        ("image_path", ("../secret.jpg", "a/../../b.jpg", "/etc/passwd", "..\\b.jpg"), ESCAPES),
        ("image_path", ("C:\\b.jpg", "https://example.org/b.jpg", "a\0.jpg"), ESCAPES),
        ("image_path", (["a.jpg", "../b.jpg"], "\udfff.jpg"), ESCAPES),
        ("problem", ("<image> and <image>",), UNEQUAL),
        ("image_path", (["a.jpg", "b.jpg"],), UNEQUAL),
        ("refined_cot", ("<think>never closed", "before <think>x</think>"), MALFORMED_LAYOUT),
        ("refined_cot", ("<think>x <think>y</think></think>",), MALFORMED_LAYOUT),
        ("refined_cot", ("<think>x</think> after", "x <answer>3</answer>"), MALFORMED_LAYOUT),
        ("answer", ("<answer>3",), MALFORMED_LAYOUT),
        ("answer", ("the <video> tag",), "media marker in the answer"),
        ("answer", ("<|im_end|>",), "chat token in the answer"),
        ("problem", ("x <|image_pad|>",), "chat token in the problem"),
        ("refined_cot", ("a\ud800",), "invalid Unicode"),
    ],
)
def test_dropped_with_a_reason(field: str, values: tuple[object, ...], reason: str) -> None:
    for value in values:
        assert convert(record(**{field: value})) == Dropped(reason), value


def test_notes() -> None:
    assert notes(id=7) == ("unknown field 'id'",)
    assert notes(answer=3) == ("number as answer",)
    assert notes(refined_cot="see <image> and <image>") == (WORD.format("reasoning"),)
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
def test_records_are_trainable(problem: str, reasoning: str, answer: str, pictures: int) -> None:
    """One marker a picture, none elsewhere, each tag once and in order, no chat token."""
    paths = [f"{i}.png" for i in range(pictures)]
    changes = {"problem": problem, "refined_cot": reasoning, "answer": answer}
    if isinstance(convert(record(**changes, image_path=paths)), Dropped):
        return
    user, assistant = turns(**changes, image_path=paths)
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
