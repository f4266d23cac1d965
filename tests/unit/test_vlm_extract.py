"""The final answer of a completion, and the option that it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft_eval.vlm.extract import boxed, final_answer, stated_answer
from dft_eval.vlm.option_letters import option_letters

OPTIONS = {"A": "40°", "B": "65", "C": "x+1", "D": "No correct answer"}
LONG = "Let us see. " * 3400


NAMES = {
    "B": (
        *("B", "(B)", "B.", "**B**", "$B$", "Option B", "(B) 65", "B: 65", "B 65", "65", "$65$"),
        *("<answer>B</answer>", "<answer>B", "<answer>A</answer> wait <answer>B</answer>"),
        "<think>It is A? No.</think><answer> (B) 65 </answer>",
        "<Thought process>: <<A is too small>> <Answer>: <<B>>",
        *("\\boxed{B}", "\\boxed{\\text{B}}", "<answer>\\boxed{B}</answer>"),
        "\\boxed{A} is wrong, so $\\boxed{\\mathrm{(B)}\\ 65}$.",
        *(
            "**Answer:** B",
            "### Answer\nB",
            "The answer is:\n\n**B**",
            "The correct option is (B).",
        ),
        *("Answer: B, because C is smaller", "Thus it must be B", "The answer is A.</think>\nB"),
        *("A square has four sides, so B", "B. 65\n\nThe angle is found by adding."),
        *(f"{LONG}\n<answer>B</answer>", f"{LONG}\n\\boxed{{B}}"),
    ),
    "A": ("\\boxed{40^\\circ}",),
    "D": ("the answer is no correct answer",),
    "AB": ("Answer: A, B", "Answer: A or B", "It is A and B"),
    "": (
        *("", " \n\t", "nan", "E", "\\boxed{E}", "=1+1", LONG, "The answer is not B"),
        *("Based on the picture", "Answer: Based on the picture"),
        *("A square has four sides", "The answer is A square"),
    ),
}


@pytest.mark.parametrize(
    ("text", "letters"), [(text, letters) for letters, texts in NAMES.items() for text in texts]
)
def test_the_options_that_a_completion_names(text: str, letters: str) -> None:
    assert "".join(sorted(option_letters(text, OPTIONS))) == letters


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>12</answer>", "12"),
        ("so \\boxed{\\frac{1}{2}} is it", "\\frac{1}{2}"),
        ("\\boxed{\\text{12 cm}}", "12 cm"),
        ("\\boxed{1", "1"),
        ("**Answer:** $3\\pi$", "3\\pi"),
        ("x = 4\nThe final answer is \\(4\\)", "4"),
        ("=1+1", "1+1"),
        ("first\nlast line", "last line"),
        (f"{LONG}\nAnswer: 7", "7"),
        ("", ""),
        ("<answer></answer>", ""),
    ],
)
def test_the_final_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


def test_unstated_answers() -> None:
    assert stated_answer("It might be 12") is None
    assert stated_answer("<answer>12</answer>") == "12"


@given(st.text(alphabet="ab{}\\ ", max_size=20))
def test_boxed_takes_balanced_braces(inside: str) -> None:
    """What stands in the box comes out of it wherever its own braces are balanced."""
    depth, lowest = 0, 0
    for character in inside:
        depth += {"{": 1, "}": -1}.get(character, 0)
        lowest = min(lowest, depth)
    if depth == 0 and lowest == 0:
        assert boxed(f"x \\boxed{{{inside}}} y") == inside


@given(st.text(alphabet="ABCD()*.<>answer:\\boxed{} \n", max_size=60))
def test_no_text_breaks_it_and_only_options_come_out(text: str) -> None:
    assert option_letters(text, OPTIONS) <= set(OPTIONS)
    final_answer(text)
