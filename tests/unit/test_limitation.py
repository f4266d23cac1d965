"""The reproduction of DFT's limitation: its sets, its noise, its table, its resumption."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from dft_factory.limitation.facts import KINDS as FACT_KINDS
from dft_factory.limitation.facts import facts
from dft_factory.limitation.questions import questions, split, with_wrong_answers
from dft_factory.limitation.records import Record, write_records
from dft_factory.limitation.run import METHODS, Answers, once, read_answers
from dft_factory.limitation.table import Experiment, render


def test_facts_are_of_all_kinds_about_towns_of_their_own() -> None:
    found = facts(64, seed=0)
    assert found == facts(64, seed=0)
    assert set(Counter(each.kind for each in found).values()) == {64 // len(FACT_KINDS)}
    assert len({each.question for each in found}) == 64
    assert not {each.question for each in found} & {each.question for each in facts(64, seed=1)}


def test_questions_are_asked_once_and_have_answers() -> None:
    every = questions()
    assert len({each.question for each in every}) == len(every) > 800
    assert all(each.answer and each.answer == each.answer.strip() for each in every)
    right = {each.question: each.answer for each in every}
    for question, answer in {
        "What is the capital of Argentina?": "Buenos Aires",
        "On which continent is Yemen?": "Asia",
        "On which continent is Venezuela?": "South America",
        "In which country is the city of Lyon?": "France",
        'What is the past tense of the verb "catch"?': "caught",
        'What is the plural of the noun "man"?': "men",
        "Which month comes before January?": "December",
        "Which day of the week comes after Sunday?": "Monday",
        "What is 7 + 12?": "19",
        "Which number comes after 99?": "100",
    }.items():
        assert right[question] == answer


def test_a_split_holds_out_the_same_share_of_every_kind() -> None:
    every = questions()
    learned, held = split(every, 0.4, seed=3)
    assert {*learned, *held} == set(every)
    assert len(learned) + len(held) == len(every)
    kinds, kept = Counter(e.kind for e in every), Counter(e.kind for e in held)
    assert all(kept[kind] == round(0.4 * count) for kind, count in kinds.items())
    assert (learned, held) == split(every, 0.4, seed=3)
    assert learned != split(every, 0.4, seed=4)[0]


def test_wrong_answers_are_other_questions_right_ones() -> None:
    every = questions()
    noisy, wrong = with_wrong_answers(every, 0.3, seed=0)
    changed = {e.question for e, n in zip(every, noisy, strict=True) if e.answer != n.answer}
    assert changed == wrong
    assert len(wrong) == round(0.3 * len(every))
    of_kind: dict[str, set[str]] = {}
    for each in every:
        of_kind.setdefault(each.kind, set()).add(each.answer)
    for before, after in zip(every, noisy, strict=True):
        assert (before.kind, before.question) == (after.kind, after.question)
        assert after.answer in of_kind[after.kind]


def test_a_kind_with_one_answer_is_never_made_wrong() -> None:
    same = [Record("one", f"question {i}", "yes") for i in range(7)]
    other = [Record("two", f"other {i}", str(i)) for i in range(3)]
    noisy, wrong = with_wrong_answers([*same, *other], 0.3, seed=0)
    assert noisy[:7] == same
    assert wrong == {each.question for each in other}


def _row(score: float, contains: float = 1.0) -> dict[str, float | None]:
    return {"exact match": score, "contains": contains}


def test_the_table_compares_by_question_and_seed() -> None:
    found = Experiment("facts", "exact match", ("base", "sft", "dft"))
    for seed in (0, 1):
        found.add("base", seed, {"a": _row(0, 0), "b": _row(0, 0)})
        found.add("sft", seed, {"a": _row(1), "b": _row(1)})
    found.add("dft", 0, {"a": _row(1), "b": _row(0)})
    found.add("dft", 1, {"a": _row(0), "b": _row(0)})
    found.note("a remark")
    head, base, sft, dft = found.rows()
    assert head[3] == "against sft (points)"
    # Two questions, asked under two seeds: 0 of 2 by Wilson, z² / (n + z²) = 3.84 / 5.84.
    assert base[1:3] == ("0.0 % (0.0 % to 65.8 %)", "0.0 % / 0.0 %")
    # No two pairs can be told apart by the signs of their differences: p = 2 / 2².
    assert base[3:5] == ("−100.0 (−100.0 to +100.0)", "p = 0.50")
    assert base[5] == "0.0 %"
    assert sft[1:5] == ("100.0 % (34.2 % to 100.0 %)", "100.0 % / 100.0 %", "", "")
    # 1 of 2 for a, 0 of 2 for b: standard error sqrt(2 (.5² + .5²)) / 4 = .25, so .25 · .75 /
    # (.25² · 3 / 4) = 4 effective items. Lost by question: 1 and 2, p = 2 / 2².
    assert dft[1:3] == ("25.0 % (4.6 % to 69.9 %)", "50.0 % / 0.0 %")
    assert dft[3:5] == ("−75.0 (−100.0 to +100.0)", "p = 0.50")
    text = render([found])
    assert text.count("\n| ") == 4
    assert "- a remark" in text


def test_answers_are_judged_from_the_completions(tmp_path: Path) -> None:
    records = [Record("k", "Who?", "Ann"), Record("k", "Where?", "the Hague")]
    data = write_records(tmp_path / "data.jsonl", records)
    from dft_eval.natural_questions.data import read_data

    said = ("It was Ann.", "Hague")
    completions = tmp_path / "completions.jsonl"
    completions.write_text(
        "".join(
            json.dumps({"id": question.id, "completion": text}) + "\n"
            for question, text in zip(read_data(data).questions, said, strict=True)
        )
    )
    assert read_answers(completions, data) == {"Who?": _row(0, 1), "Where?": _row(1, 1)}


def test_a_finished_run_is_reused_under_its_own_settings_alone(tmp_path: Path) -> None:
    made: list[str] = []
    folder = tmp_path / "run"

    def make() -> Answers:
        made.append("again")
        return {"a": _row(1)}

    for settings, times in (("one", 1), ("one", 1), ("two", 2)):
        (tmp_path / "run").mkdir(exist_ok=True)
        (folder / "half").write_text("left by a killed run")
        assert once(folder, settings, make) == {"a": _row(1)}
        assert len(made) == times
    assert not (folder / "half").exists()


def test_a_killed_run_keeps_what_it_has(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def killed() -> Answers:
        (folder / "completions").write_text("some")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(folder, "one", killed)
    assert once(folder, "one", lambda: {"a": _row(1)}) == {"a": _row(1)}
    assert (folder / "completions").read_text() == "some"


def test_methods_differ_in_the_twin_and_the_weight_alone() -> None:
    assert METHODS["sft"] == ("sft",)
    assert METHODS["dft"] == ("dft",)
    assert {words for name, words in METHODS.items() if name not in ("sft", "dft")} == {
        ("dft", "dft_weight=floor:0.1"),
        ("dft", "dft_weight=power:0.5"),
    }
