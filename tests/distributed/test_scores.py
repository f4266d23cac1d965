"""``score_task`` under DeepSpeed on two CPU processes: ZeRO-2 is scored, ZeRO-3 refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dft_factory.patch.scores import FILE_NAME
from tests.conftest import Bench
from tests.distributed.test_zero_resume import assert_equal, metrics, recipe
from tests.support import tasks
from tests.support.cli import train

# The extension is compiled in the first one's time.
pytestmark = [pytest.mark.cli, pytest.mark.timeout(3600)]


def write_task(folder: Path) -> str:
    row = {"question": "Question number 1: what is it?", "answer": "yes"}
    return str(tasks.write_task(folder, [row], metric="contains", max_new_tokens=8))


def test_zero2_trains_the_same_with_scores(
    deepspeed_on_cpu: dict[str, str], text_bench: Bench, tmp_path: Path
) -> None:
    config = recipe(text_bench, "full", 2, tmp_path)
    plain = train(config, tmp_path / "plain", ranks=2, environment=deepspeed_on_cpu).ok()
    config |= {"score_task": write_task(tmp_path), "score_steps": 2}
    scored = train(config, tmp_path / "scored", ranks=2, environment=deepspeed_on_cpu).ok()
    lines = [json.loads(line) for line in (scored.folder / FILE_NAME).read_text().splitlines()]
    assert [(line["step"], line["problem"]) for line in lines] == [(0, None), (2, None), (4, None)]
    assert [row["step"] for row in scored.log if "score_answers" in row] == [0, 2, 4]
    assert metrics(scored) == metrics(plain)
    assert_equal(scored.folder, plain.folder)


def test_zero3_is_refused_before_the_model_is_loaded(
    deepspeed_on_cpu: dict[str, str], text_bench: Bench, tmp_path: Path
) -> None:
    config = recipe(text_bench, "full", 3, tmp_path)
    config |= {"score_task": write_task(tmp_path), "score_steps": 2}
    run = train(config, tmp_path / "run", ranks=2, environment=deepspeed_on_cpu)
    assert run.status
    assert "does not work with ZeRO-3 and FSDP" in run.output
    assert "Loading weights" not in run.output
    assert not (tmp_path / "run" / FILE_NAME).exists()
