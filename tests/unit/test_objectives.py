"""What ``finetuning_type`` and ``dft_weight`` select together."""

from __future__ import annotations

import pytest

from dft_factory.errors import ConfigError
from dft_factory.objectives import (
    METHODS,
    OBJECTIVES,
    Objective,
    finetuning_types,
    select,
    split_finetuning_type,
)


@pytest.mark.parametrize(
    ("value", "objective", "method"),
    [
        ("dft", "dft", "full"),
        ("dft_full", "dft", "full"),
        ("dft_lora", "dft", "lora"),
        ("dft_freeze", "dft", "freeze"),
        ("dft_oft", "dft", "oft"),
        ("sft", "sft", "full"),
        ("sft_lora", "sft", "lora"),
    ],
)
def test_names(value: str, objective: str, method: str) -> None:
    selection = select(value)
    assert selection is not None
    assert (selection.objective.name, selection.method) == (objective, method)
    assert select(selection.name) == selection or selection.weight.spec == "token"


@pytest.mark.parametrize("method", METHODS)
def test_llamafactorys_own_values_are_left_alone(method: str) -> None:
    assert select(method) is None


def test_the_longest_objective_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """``iw_sft_lora`` must not be read as an objective ``iw`` with a method ``sft_lora``."""
    for name in ("iw", "iw_sft"):
        monkeypatch.setitem(OBJECTIVES, name, Objective(name, "", "", weighted=False))
    split = split_finetuning_type("iw_sft_lora")
    assert split is not None
    assert (split[0].name, split[1]) == ("iw_sft", "lora")


@pytest.mark.parametrize("value", ["dtf", "dft_qlora", "dft-lora", "DFT", "", None, 3, "lora_dft"])
def test_unknown_values_are_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigError) as error:
        select(value)
    assert repr(value) in str(error.value)
    assert "dft_lora" in str(error.value)
    assert "freeze" in str(error.value)


def test_types_and_near_matches() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'dft_lora'"):
        select("dft_lroa")
    names = finetuning_types()
    assert len(set(names)) == len(names)
    assert not set(names) & set(METHODS)


@pytest.mark.parametrize("value", ["full", "lora", "sft", "sft_lora"])
def test_a_weight_without_effect_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=f"'token' has no effect with finetuning_type: '{value}'"):
        select(value, "token")
