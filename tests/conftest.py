"""Fixtures shared by all tests: tiny checkpoints and data sets, made once a session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import base_config
from tests.support.datasets import write_picture_set, write_text_set


@dataclass(frozen=True)
class Bench:
    """A tiny model with its data set: the recipe that trains it by one step."""

    modality: str
    model: Path
    data: Path

    def config(self, **changes: Any) -> dict[str, Any]:
        names = {"text": ("tiny_text", "qwen"), "vl": ("tiny_vl", "qwen2_vl")}
        config = base_config(self.model, self.data, *names[self.modality])
        if self.modality == "vl":
            config.update(freeze_vision_tower=False, freeze_multi_modal_projector=False)
        return {key: value for key, value in {**config, **changes}.items() if value is not None}


@pytest.fixture(scope="session")
def text_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    from dft_factory.tiny import make_tiny

    folder = tmp_path_factory.mktemp("text")
    return Bench(
        "text",
        make_tiny("qwen2.5-coder", folder / "model"),
        write_text_set(folder / "data"),
    )


@pytest.fixture(scope="session")
def vl_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    from dft_factory.tiny import make_tiny

    folder = tmp_path_factory.mktemp("vl")
    return Bench(
        "vl", make_tiny("qwen2.5-vl", folder / "model"), write_picture_set(folder / "data")
    )
