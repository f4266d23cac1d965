"""Evaluation of a server without LLaMA-Factory, torch, transformers and VLMEvalKit.

``scripts/test_install.sh pip|uv eval`` does the same in an environment that has none of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import clean_environment, executable, run_command
from tests.support.eval_alone import SCORES, evaluate


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """In which the training packages cannot be imported."""
    for name in ("llamafactory", "torch", "transformers", "vlmeval"):
        text = f"raise ModuleNotFoundError('no {name}', name='{name}')\n"
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text(text)
    return {**clean_environment(), "PYTHONPATH": str(tmp_path / "blocked")}


def test_a_server_is_evaluated_and_reported(tmp_path: Path, environment: dict[str, str]) -> None:
    assert evaluate(tmp_path, environment) == SCORES


def test_a_missing_package_is_one_message(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [executable("dft-factory"), "tiny", "qwen2.5-coder", "--out", tmp_path / "model"]
    stderr = run_command(command, status=3, env=environment).stderr
    assert stderr.count("\n") == 1
    assert "torch is not installed" in stderr
    assert "dft-factory[hf]" in stderr
