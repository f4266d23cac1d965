"""Statistics, segments, words and advice of a probe, against values derived by hand."""

from __future__ import annotations

import bisect
import dataclasses
import html
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dft_factory.errors import ConfigError
from dft_factory.losses.histogram import N_BINS, bin_edges, histogram, polarisation
from dft_factory.probe.advice import (
    DFT,
    DFT_FROM,
    EVIDENCE,
    FLOOR,
    FLOOR_FROM,
    SETTINGS,
    SFT,
    Estimate,
    advise,
    estimate,
)
from dft_factory.probe.collapse import TRAININGS, Plan, at_risk, risk_of
from dft_factory.probe.measure import Measured
from dft_factory.probe.render import picture, render
from dft_factory.probe.result import Probe
from dft_factory.probe.run import examine, parse_models
from dft_factory.probe.segments import ANSWER, END_OF_TURN, FORMAT, REASONING, segments_of, turns_of
from dft_factory.probe.settings import check_config, read_config, settings_for
from dft_factory.probe.statistics import numbers_of, summarise
from dft_factory.probe.words import lowest_bin


def test_by_hand() -> None:
    """p = .02, .5, .96, 1: bins 0, 10, 19, 19 of 20; mean .62; one below .1, two above .9."""
    p = torch.tensor([0.02, 0.5, 0.96, 1.0], dtype=torch.float64)
    summary = summarise(p.log(), model="m", label="l", dataset="d", n_examples=2)
    counts = [0] * N_BINS
    counts[0], counts[10], counts[19] = 1, 1, 2
    assert list(summary.counts) == counts
    numbers = summary.numbers
    assert numbers.mean == pytest.approx(0.62)
    assert (numbers.share_below, numbers.share_above) == (0.25, 0.5)
    assert numbers.weight_below == pytest.approx(0.02 / 2.48)
    assert numbers.nll == pytest.approx(-sum(map(math.log, (0.02, 0.5, 0.96))) / 4)
    assert numbers.n_tokens == sum(counts)
    assert summary.polarisation == 0.75
    assert summary.to_json()["share_below_0.1"] == 0.25


def test_polarisation_and_data_without_labels() -> None:
    with pytest.raises(ConfigError, match="'d' has no labelled token"):
        summarise(torch.empty(0), model="m", label="l", dataset="d", n_examples=3)
    assert numbers_of(torch.empty(0)) is None
    assert polarisation([1] * N_BINS) == pytest.approx(0.2)
    assert polarisation([3, 2, *[0] * 16, 1, 4]) == 1.0
    assert polarisation([0, 0, *[1] * 16, 0, 0]) == 0.0
    assert math.isnan(polarisation([0] * N_BINS))
    assert (bin_edges()[2], bin_edges()[18]) == (0.1, 0.9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_token_lies_between_the_edges_of_its_bin(dtype: torch.dtype) -> None:
    """The oracle bisects the edges for each probability."""
    logps = -torch.rand(5000, generator=torch.Generator().manual_seed(0)).to(dtype) * 4
    expected = [0] * N_BINS
    for logp in logps.tolist():
        expected[bisect.bisect_right(bin_edges(), math.exp(logp)) - 1] += 1
    assert histogram(logps).tolist() == expected
    summary = summarise(logps, model="m", label="l", dataset="d", n_examples=1)
    assert list(summary.counts) == expected
    ends = torch.tensor([0.0, -math.inf, math.log(0.975), math.log(0.025)])
    assert histogram(ends).tolist() == [2, *[0] * 18, 2]


# --- segments ---------------------------------

SPECIAL = {"<|im_end|>": 900, "<|pad|>": 901}


def cut(text: str) -> tuple[list[int], dict[int, str]]:
    """Special tokens and pieces of at most three characters, each with its own id."""
    pieces = [
        piece
        for part in re.split(r"(<\|im_end\|>|<\|pad\|>)", text)
        for piece in ([part] if part in SPECIAL else re.findall(r"(?s).{1,3}", part))
    ]
    ids = [SPECIAL.get(piece, i) for i, piece in enumerate(pieces)]
    return ids, dict(zip(ids, pieces, strict=True))


def parts(text: str) -> dict[str, str]:
    """The text of each segment; a token that overlaps a tag counts as part of it."""
    ids, spelling = cut(text)
    names = segments_of(ids, spelling.__getitem__, end_of_turn={900}, special={900, 901})
    texts: dict[str, str] = {}
    for number, name in zip(ids, names, strict=True):
        texts[name] = texts.get(name, "") + spelling[number]
    return texts


def test_reasoning_answer_tags_and_the_end() -> None:
    texts = parts("<think>abcdefghijklmno</think><answer>xyzxyz</answer><|im_end|>\n")
    assert texts[END_OF_TURN] == "<|im_end|>"
    assert "<think>" in texts[FORMAT]
    assert "</answer>" in texts[FORMAT]
    assert "efghijkl" in texts[REASONING]
    assert "x" not in texts[REASONING]
    assert set(texts[ANSWER]) <= set("xyz")
    assert texts[ANSWER]


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("abc def", "", "abc def"),
        ("abcabc<think>defdef", "fdef", "abcabc"),  # never closed
        ("abcabc</think>defdef", "abcab", "efde"),  # opened in the prompt
        ("<div>abc</div>", "", "<div>abc</div>"),  # HTML is content
    ],
)
def test_unclosed_and_unknown_tags(text: str, reasoning: str, answer: str) -> None:
    texts = parts(text)
    assert reasoning in texts.get(REASONING, "")
    assert bool(reasoning) == (REASONING in texts)
    assert answer in texts.get(ANSWER, "")


def test_white_space_after_turns_is_format() -> None:
    """Only the stop token ends a turn; chatml's newline after it is neither end nor content."""
    texts = {ANSWER: "ab \n\nc", END_OF_TURN: "<|im_end|>", FORMAT: "\n"}
    assert parts("ab \n\nc<|im_end|>\n") == texts
    assert parts("abc<|pad|>") == {ANSWER: "abc", FORMAT: "<|pad|>"}
    assert turns_of([3, 4, 5, 9, 10, 12]) == [range(3), range(3, 5), range(5, 6)]
    assert turns_of([]) == []


# --- advice -----------------------------------


def certain(value: float) -> Estimate:
    return Estimate(value, value - 0.01, value + 0.01, 100)


@pytest.mark.parametrize(
    ("data", "choice"),
    [
        ("HumanEval solutions", DFT),
        ("GSM8K", DFT),
        ("mathematics, lower", DFT),
        ("NQ answers", SFT),
        ("figfont", SFT),
        ("random letters", SFT),
    ],
)
def test_the_advice_agrees_with_its_evidence(data: str, choice: str) -> None:
    mean = next(case.mean for case in EVIDENCE if case.data == data)
    advice = advise(certain(mean), certain(0.9))
    assert advice.choice == choice
    assert advice.certain
    assert data in advice.reason
    assert str(SETTINGS[choice]) == advice.to_json()["settings"]


def test_between_the_thresholds_a_floor_is_advised() -> None:
    """Also for improbable end-of-turn tokens."""
    advice = advise(certain(0.43), certain(0.9))
    assert (advice.choice, advice.certain) == (FLOOR, True)
    assert "0.43" in advice.reason
    advice = advise(certain(0.7), certain(0.03))
    assert advice.choice == FLOOR
    assert "end-of-turn" in advice.reason
    assert advise(certain(0.7), None).choice == DFT
    assert advise(certain(0.1), certain(0.03)).choice == SFT


@pytest.mark.parametrize("threshold", [DFT_FROM.value, FLOOR_FROM.value])
@pytest.mark.parametrize("side", [-0.02, 0.02])
def test_an_interval_that_crosses_a_threshold_is_uncertain(threshold: float, side: float) -> None:
    """So are few examples, with any interval."""
    value = threshold + side
    advice = advise(Estimate(value, value - 0.05, value + 0.05, 100), None)
    assert not advice.certain
    assert f"crosses {threshold:g}" in advice.uncertainty
    assert advise(certain(value), None).certain
    advice = advise(Estimate(0.9, 0.9, 0.9, 1), None)
    assert not advice.certain
    assert "too narrow" in advice.uncertainty


def test_the_bootstrap_resamples_examples_not_tokens() -> None:
    """100 examples of 50 equal tokens: as uncertain as 100 tokens, 7 times a token bootstrap.

    The standard error of the mean of 100 draws uniform on [0, 1] is 1 / sqrt(12 * 100) = 0.029, so
    that the interval is 4 * 0.029 = 0.113 wide.
    """
    values = torch.rand(100, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mean = estimate(values.repeat_interleave(50), torch.arange(100).repeat_interleave(50))
    assert mean is not None
    assert mean.value == pytest.approx(values.mean().item())
    assert mean.n_examples == 100
    assert mean.high - mean.low == pytest.approx(0.113, abs=0.02)
    assert mean.low < mean.value < mean.high
    # Three tokens of example 7, one of example 3: (3 * .2 + .6) / 4 = .3.
    mean = estimate(torch.tensor([0.2, 0.2, 0.2, 0.6]), torch.tensor([7, 7, 7, 3]))
    assert mean is not None
    assert mean.value == pytest.approx(0.3)
    assert (mean.low, mean.high, mean.n_examples) == pytest.approx((0.2, 0.6, 2))
    assert estimate(torch.empty(0), torch.empty(0, dtype=torch.int64)) is None


# --- probes -----------------------------------

ATTACK = "<script>alert(1)</script>"
PLAN = Plan(learning_rate=1e-5, batch=8, n_examples=144, steps=18, full=True)


def measured(p: Tensor, pieces: list[str], label: str = "base") -> Measured:
    """Examples of ten tokens each; the last of each ends the turn."""
    n = p.numel()
    names = {"model": "m", "label": label, "dataset": f"d{ATTACK}"}
    return Measured(
        logps=p.log(),
        tokens=torch.arange(n),
        example=torch.arange(n) // 10,
        position=torch.arange(n) % 10 + 1,
        segments=tuple(END_OF_TURN if i % 10 == 9 else ANSWER for i in range(n)),
        rows=tuple((0, *range(i * 10, i * 10 + 10)) for i in range(n // 10)),
        decode=lambda ids: "".join(pieces[i % len(pieces)] for i in ids),
        probabilities=summarise(p.log(), **names, n_examples=n // 10),
        plan=PLAN,
    )


def uniform(low: float, high: float, n: int = 400) -> Tensor:
    noise = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return low + (high - low) * noise


def test_examine_separates_the_end_of_turn() -> None:
    """Content .6 to .8 and an end of .02: advice by content, with a floor for the end."""
    p = uniform(0.6, 0.8)
    p[9::10] = 0.02
    model = examine(measured(p, ["a"]))
    assert model.advice.choice == FLOOR
    ends, answer = model.segments[END_OF_TURN], model.segments[ANSWER]
    assert ends is not None
    assert answer is not None
    assert (ends.n_tokens, answer.n_tokens) == (40, 360)
    assert ends.mean == pytest.approx(0.02)
    assert model.segments[REASONING] is None
    assert {row.segment for row in model.ignored} == {END_OF_TURN}
    assert model.ignored[0].p == pytest.approx(0.02)
    assert len({row.example for row in model.ignored}) == 20
    assert model.advice.choice != examine(measured(uniform(0.6, 0.8), ["a"])).advice.choice
    assert examine(measured(uniform(0, 0.1), ["a"])).advice.choice == SFT


def test_only_improbable_tokens_are_ignored_with_their_context() -> None:
    p = torch.full((20,), 0.9, dtype=torch.float64)
    p[13] = 0.001
    row = examine(measured(p, list("abcdefghijklmnopqrst"))).ignored[0]
    assert (row.before, row.token, row.after) == ("aklm", "n", "opqrst")
    assert row.example == 1
    # Three tokens below 0.1 among forty: three rows, not twenty; none where all are probable.
    p = uniform(0.88, 0.95, 40)
    probable = examine(measured(p, ["a"]))
    assert probable.ignored == ()
    for as_html in (True, False):
        assert "Nothing: every labelled token has p ≥ 0.1." in render(
            Probe("c", 0, (probable,), risk_of(PLAN), ()), b"", html=as_html
        )
    p[[3, 17, 31]] = torch.tensor([0.09, 0.02, 0.05], dtype=torch.float64)
    p[25] = 0.11
    ignored = examine(measured(p, ["a"])).ignored
    assert [row.p for row in ignored] == pytest.approx([0.02, 0.05, 0.09])


def test_lowest_bin_counts_tokens_below_a_twentieth() -> None:
    probe = measured(torch.tensor([0.01, 0.04, 0.06, 0.9, *[0.5] * 6]).double(), list("abcd"))
    probe = dataclasses.replace(probe, tokens=torch.tensor([1, 1, 1, 2, *[3] * 6]))
    assert [(word.token, word.count, word.of) for word in lowest_bin(probe)] == [("b", 2, 3)]


def hostile_probe(pieces: list[str]) -> Probe:
    p = uniform(0.0, 1.0)
    models = (examine(measured(p, pieces)), examine(measured(p.sqrt(), pieces, f"dft{ATTACK}")))
    return Probe(f"c{ATTACK}.yaml", 0, models, risk_of(PLAN), notes=(f"note {ATTACK}",))


def test_scripts_in_the_data_are_never_run() -> None:
    """A script in tokens, context, label, data set, path and note."""
    probe = hostile_probe([ATTACK, "</code>", "& |`*", "\u202e"])
    png = picture(probe)
    page = render(probe, png, html=True)
    assert "<script" not in page
    assert page.count(html.escape(ATTACK)) > 20
    assert "\u202e" not in page
    assert "http" not in re.sub(r"http-equiv", "", page)  # self-contained
    assert page.count("data:image/png;base64,") == 1
    text = render(probe, png, html=False)
    assert "<script" not in text
    for line in text.splitlines():
        if line.startswith("| 0."):
            assert len(re.findall(r"(?<!\\)\|", line)) == 6, line


def test_the_picture_is_deterministic_and_shows_all_models() -> None:
    probe = hostile_probe(["a"])
    assert picture(probe).startswith(b"\x89PNG")
    assert picture(probe) == picture(probe)
    assert picture(probe) != picture(Probe(probe.config, 0, probe.models[:1], risk_of(PLAN), ()))


# --- options ----------------------------------


def test_models_are_named_by_path_or_label() -> None:
    assert parse_models([]) == {"base": None}
    assert parse_models(["runs/a", "dft=runs/b"]) == {"a": "runs/a", "dft": "runs/b"}
    assert parse_models(["./x=y"]) == {"x=y": "./x=y"}
    for wrong in ("=x", "x="):
        with pytest.raises(ConfigError, match="LABEL=PATH"):
            parse_models([wrong])
    with pytest.raises(ConfigError, match="labelled 'a'"):
        parse_models(["x/a", "y/a"])


GOOD = {"stage": "sft", "dataset": "d", "template": "qwen", "model_name_or_path": "m"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "dpo"}, "stage: 'dpo'.*stage=sft"),
        ({"streaming": True}, "streaming: true"),
        ({"dataset": None}, "dataset is not set"),
        ({"template": None}, "template is not set"),
        ({"finetuning_type": "dtf"}, "'dtf' is unknown.*dft"),
        ({"dft_weight": "floor:2", "finetuning_type": "dft"}, "floor:2"),
    ],
)
def test_unsupported_configs_are_refused(changes: dict[str, object], message: str) -> None:
    check_config(GOOD)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        check_config({**GOOD, **changes})


def test_settings_start_no_training(tmp_path: object) -> None:
    config = {**GOOD, "finetuning_type": "dft_lora", "dft_weight": "token", "deepspeed": "x.json"}
    settings = settings_for(config, None, "scratch")
    assert settings["finetuning_type"] == "lora"
    assert not {"deepspeed", "dft_weight"} & settings.keys()
    assert (settings["model_name_or_path"], settings["output_dir"]) == ("m", "scratch")
    assert settings_for(config, "other", "s")["model_name_or_path"] == "other"


def test_settings_are_read_as_llamafactory_reads_them(tmp_path: Path) -> None:
    """Numbers of YAML 1.2: 1e-5 is a number. A key set twice is an error."""
    config = tmp_path / "train.yaml"
    config.write_text("stage: sft\nlearning_rate: 1e-5\nmax_steps: 3\n")
    changed = {"stage": "sft", "learning_rate": 1e-5, "max_steps": 2, "bf16": True}
    assert read_config(config, ["max_steps=2", "bf16=true"]) == changed
    with pytest.raises(ConfigError, match="'bf16': write KEY=VALUE"):
        read_config(config, ["bf16"])
    config.write_text("stage: sft\nstage: dpo\n")
    with pytest.raises(ConfigError, match="stage: is set twice"):
        read_config(config)
    with pytest.raises(ConfigError, match="no such file"):
        read_config(tmp_path / "none.yaml")


# --- collapse ---------------------------------


@pytest.mark.parametrize(
    ("changes", "risk"),
    [
        ({"learning_rate": 1e-5}, False),
        ({"learning_rate": 5e-5}, True),
        ({"learning_rate": 5e-5, "batch": 32}, True),
        ({"learning_rate": 5e-5, "batch": 256}, None),
        ({"learning_rate": 5e-5, "full": False}, None),
    ],
)
def test_learning_rate_and_known_trainings(changes: dict[str, Any], risk: bool | None) -> None:
    collapse = risk_of(dataclasses.replace(PLAN, **changes))
    assert collapse.at_risk is risk
    assert ("learning_rate: 1e-5" in collapse.reason) == (risk is True)
    assert "Nearest known training" in collapse.reason
    assert collapse.to_json()["at_risk"] is risk


def test_the_rule_never_misses_a_known_collapse() -> None:
    """False alarms are possible, as for the demo in float32; the reason counts them."""
    pairs = [(at_risk(training.plan), training.collapsed) for training in TRAININGS]
    assert all(risk for risk, collapsed in pairs if collapsed)
    for learning_rate, at in ((1e-5, False), (5e-5, True)):
        alike = [collapsed for risk, collapsed in pairs if risk is at]
        share = f"which {sum(alike)} of the" if at else f"where {sum(alike)} of the"
        reason = risk_of(dataclasses.replace(PLAN, learning_rate=learning_rate)).reason
        assert f"{share} {len(alike)} known trainings collapsed" in reason


def test_advice_is_not_one_for_all() -> None:
    """Random means give every choice; more probable data never gets less DFT."""
    noise = random.Random(0)
    ranks = {SFT: 0, FLOOR: 1, DFT: 2}
    means = sorted(noise.random() for _ in range(50))
    choices = [ranks[advise(certain(mean), None).choice] for mean in means]
    assert choices == sorted(choices)
    assert set(choices) == {0, 1, 2}
