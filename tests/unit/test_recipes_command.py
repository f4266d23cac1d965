"""``dft-factory recipes list | show | copy``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from dft_factory.cli.app import app
from dft_factory.errors import ConfigError
from dft_factory.experiments.catalog import recipe_names

CONFIGS = Path(__file__).parents[2] / "configs"
PAIRED = {
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for path in CONFIGS.glob("*/*.yaml")
    if re.search(r"_(sft|dft)$", path.stem)
}


def recipes(*words: str) -> Result:
    return CliRunner().invoke(app, ["recipes", *words], catch_exceptions=False)


def copied(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_list_show_and_unknown_names() -> None:
    lines = recipes("list").stdout.splitlines()
    assert {line.split()[0] for line in lines} == PAIRED | {"demo/vl_base"}
    (line,) = [line for line in lines if line.startswith("nq/smollm2_dft ")]
    assert line.split(maxsplit=1)[1] == (  # over two lines in the file
        "SmolLM2-135M-Instruct, full fine-tuning with DFT on 1,600 questions of Natural Questions "
        "and their first answers, closed book, on two CPU cores"
    )
    text = (CONFIGS / "demo/smollm2_dft.yaml").read_text()
    assert recipes("show", "demo/smollm2_dft").stdout == text
    with pytest.raises(ConfigError, match="Did you mean 'demo/smollm2_dft'"):
        recipes("show", "demo/smollm_dft")


@pytest.mark.parametrize("name", ["wethink/qwen2_5_vl_3b_dft", "wethink/qwen2_5_vl_3b_sft.yaml"])
def test_copy_writes_the_pair_and_what_it_needs_as_in_a_checkout(name: str, tmp_path: Path) -> None:
    done = recipes("copy", name, "--out", str(tmp_path))
    expected = {
        "configs/wethink/qwen2_5_vl_3b_dft.yaml",
        "configs/wethink/qwen2_5_vl_3b_sft.yaml",
        "configs/deepspeed/zero3.json",
    }
    files = copied(tmp_path)
    assert set(files) == expected
    assert {str(tmp_path / file) for file in expected} == set(done.stdout.split())
    for file, text in files.items():
        assert text == (CONFIGS.parent / file).read_text()


@pytest.mark.parametrize("name", recipe_names())
def test_no_copy_names_a_file_that_is_not_copied(name: str, tmp_path: Path) -> None:
    recipes("copy", name, "--out", str(tmp_path))
    files = copied(tmp_path)
    named = {
        path.rstrip(".,:")
        for file, text in files.items()
        if file.endswith(".yaml")
        for path in re.findall(r"configs/[^\s`'\"]+", text)
    }
    assert {path for path in named if Path(path).suffix} <= set(files)


def test_copy_keeps_changed_files_and_accepts_equal_ones(tmp_path: Path) -> None:
    recipes("copy", "ultrafeedback/qwen2_5_coder_7b_dft", "--out", str(tmp_path))
    recipes("copy", "wethink/qwen2_5_vl_3b_dft", "--out", str(tmp_path))  # the same zero3.json
    changed = tmp_path / "configs/ultrafeedback/qwen2_5_coder_7b_sft.yaml"
    values = yaml.safe_load(changed.read_text())
    changed.write_text(yaml.safe_dump(values | {"seed": 1}))
    before = copied(tmp_path)
    with pytest.raises(ConfigError, match=r"qwen2_5_coder_7b_sft\.yaml: exists and differs"):
        recipes("copy", "ultrafeedback/qwen2_5_coder_7b_dft", "--out", str(tmp_path))
    assert copied(tmp_path) == before
