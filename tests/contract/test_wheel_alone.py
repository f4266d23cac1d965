"""A user without a checkout: the wheel, an empty directory, the commands of the page "No GPU"."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.contract.test_activation import build_wheel, make_wheel_environment
from tests.support.cli import clean_environment, run_command

PAGE = Path(__file__).parents[2] / "docs/quickstart/no-gpu.md"


@pytest.mark.cli
def test_the_wheel_prepares_and_trains_the_demo_in_an_empty_directory(tmp_path: Path) -> None:
    python = make_wheel_environment(tmp_path / "venv", build_wheel(tmp_path)).python
    programs = {
        "dft-factory": [str(python.with_name("dft-factory"))],
        "llamafactory-cli": [str(python), "-m", "llamafactory.cli"],
        "python": [str(python)],
    }
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(line: str) -> str:
        program, *args = shlex.split(line)
        environment = clean_environment(PYTHONPATH="")
        return run_command([*programs[program], *args], cwd=empty, env=environment).stdout

    where = run("python -c 'import dft_factory; print(dft_factory.__file__)'")
    assert where.startswith(str(tmp_path / "venv"))
    text = PAGE.read_text("utf-8").partition("## Try a recipe")[2]
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)
    assert block is not None
    outputs = {line.split()[1]: run(line) for line in block[1].replace("\\\n", "").splitlines()}
    assert list(outputs) == ["recipes", "data", "tiny", "validate", "train", "probe"]
    assert outputs["recipes"].splitlines()[0] == "configs/demo/smollm2_dft.yaml"
    assert "smollm2_dft.yaml: no error" in outputs["validate"]
    assert "advice:" in outputs["probe"]
    log = json.loads((empty / "runs/demo/dft/model/trainer_state.json").read_text())["log_history"]
    steps = [row for row in log if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2]
    assert all(row["nll"] > 10 * row["loss"] > 0 for row in steps)

    jobs = run("dft-factory run demo --dry-run")
    for variant in ("sft", "dft"):
        assert f"runs/demo/{variant}" in jobs, jobs
