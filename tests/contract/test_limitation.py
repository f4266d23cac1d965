"""The reproduction of DFT's limitation, whole, through the stock command line, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dft_factory.limitation import run as limitation
from dft_factory.limitation.questions import questions
from dft_factory.limitation.run import METHODS, Plan, run_facts, run_noise
from tests.conftest import Bench
from tests.support.cli import clean_environment

TWINS = {label: METHODS[label] for label in ("sft", "dft, floor:0.1")}


@pytest.fixture
def plan(text_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(limitation, "METHODS", TWINS)
    monkeypatch.setattr(limitation, "CONFIGS", limitation.CONFIGS.absolute())
    for name, value in clean_environment().items():
        monkeypatch.setenv(name, value)
    return Plan(
        root=tmp_path / "runs",
        seeds=(0,),
        facts=8,
        max_new_tokens=2,
        at_once=2,
        noise_methods=("dft, floor:0.1",),
        # The tiny tokenizer takes a token a letter.
        overrides=("max_steps=1", "template=qwen", "cutoff_len=512"),
    )


@pytest.mark.cli
def test_facts_are_trained_asked_and_reused(
    text_bench: Bench, plan: Plan, capfd: pytest.CaptureFixture[str]
) -> None:
    found = run_facts(text_bench.model, plan)
    assert [row[0] for row in found.rows()[1:]] == ["base", *TWINS]
    assert all(len(found.scores(label)) == 8 for label in ("base", *TWINS))
    folder = plan.root / "facts" / "seed0"
    assert not list(folder.rglob("*.safetensors"))
    data = [json.loads(line) for line in (folder / "facts" / "nq.jsonl").read_text().splitlines()]
    facts = [json.loads(line) for line in (folder / "facts.jsonl").read_text().splitlines()]
    assert [row["output"] for row in data] == [row["answer"][0] for row in facts]
    assert {p.parents[1].name for p in folder.rglob("train.log")} == {"sft", "dft-floor0.1"}
    steps = (folder / "dft-floor0.1" / "training" / "model" / "trainer_state.json").read_text()
    assert "token_weight_mean" in steps
    completions = {p.parent.name for p in folder.rglob("nq.chat.completions.jsonl")}
    assert completions == {"base", "sft", "dft-floor0.1"}
    capfd.readouterr()
    again = run_facts(text_bench.model, plan)
    assert again.rows() == found.rows()
    assert "llamafactory-cli" not in capfd.readouterr().err


@pytest.mark.cli
def test_noise_is_learned_from_known_questions_and_asked_of_others(
    text_bench: Bench, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model knows nothing: its answers are put in its place."""
    every = questions()
    known = {each.question for each in every if each.kind in ("month", "sum")}
    answers = {
        each.question: {"exact match": 0.0, "contains": float(each.question in known)}
        for each in every
    }
    monkeypatch.setattr(limitation, "asked_of_base", lambda *_: answers)
    found = run_noise(text_bench.model, plan)
    folder = plan.root / "noise" / "seed0"
    rows = {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "held_out")
    }
    asked = {row["question"] for row in rows["held_out"]}
    learned = {row["question"] for row in rows["train"]}
    assert asked | learned == known
    assert not asked & learned
    right = {each.question: [each.answer] for each in every}
    wrong = [row for row in rows["train"] if row["answer"] != right[row["question"]]]
    assert len(wrong) == round(0.3 * len(learned))
    assert all(row["answer"] == right[row["question"]] for row in rows["held_out"])
    assert found.notes[1:] == [
        f"seed 0: trained on {len(learned)}, {len(wrong)} wrong; asked {len(asked)}"
    ]
    assert {name.removeprefix("0 ") for name in found.scores("dft, floor:0.1")} == asked
    assert found.rows()[1][1].startswith("100.0 %")
